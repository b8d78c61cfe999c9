"""`compare`: rows with the promised keys, ratios measured in turn, and nothing timed that is not right."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import stand_in

from rnnbench import cli
from rnnbench.bench import compare, training
from rnnbench.bench.cases import Case
from rnnbench.bench.data import make
from rnnbench.cli import compare as command
from rnnbench.cli import main

CASE = Case("gru", "", "float32", "forward", 6, 3, 8, 16)
KEYS = [
    "cell", "backend", "dtype", "direction", "seq_len", "batch_size", "input_size", "hidden_size", "lengths", "threads", "runs",
    "seconds", "ratio", "ratio_lower", "ratio_upper", "gflops", "percent_of_peak", "error", "status", "reason",
]  # fmt: skip


def rows(monkeypatch: pytest.MonkeyPatch, backend: stand_in.StandIn, order: tuple[str, ...]) -> list[dict]:
    stand_in.install(monkeypatch, backend)
    return compare.compare(CASE, order, peak_gflops=50.0, turns=8)


def test_rows_have_the_promised_keys_and_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = rows(monkeypatch, stand_in.StandIn(), ("numpy", stand_in.NAME))
    assert list(first) == list(second) == KEYS
    assert json.loads(json.dumps([first, second], allow_nan=False)) == [first, second]
    assert (first["status"], first["reason"], first["hidden_size"], first["direction"]) == ("ok", "", 16, "forward")
    assert first["gflops"] == pytest.approx(CASE.on("numpy").flops / first["seconds"] / 1e9)
    assert first["percent_of_peak"] == pytest.approx(2 * first["gflops"])  # of 50


def test_padding_is_no_work_of_a_ragged_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "in_turn", lambda *_: np.array([[1e-9]]))
    ragged = dataclasses.replace(CASE, lengths="ragged")
    (row,) = compare.compare(ragged, ["numpy"])
    steps = int(make(ragged.on("numpy")).lengths.sum())
    assert 0 < steps < 6 * 3 and row["lengths"] == "ragged"
    assert row["gflops"] == pytest.approx(CASE.flops * steps / (6 * 3))


def test_the_ratio_is_the_time_divided_by_that_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    times = np.array(3 * [[1.0, 3.0], [2.0, 6.0], [1.5, 3.0]])
    monkeypatch.setattr(compare, "in_turn", lambda *_: times)
    first, second = rows(monkeypatch, stand_in.StandIn(), ("numpy", stand_in.NAME))
    assert (first["ratio"], first["ratio_lower"], first["ratio_upper"]) == (1, 1, 1)
    assert (first["seconds"], second["seconds"]) == (1.5, 3.0)
    assert second["ratio"] == 3.0  # the median of 3, 3 and 2, not of the times' medians
    assert second["ratio_lower"] == 2.0 and second["ratio_upper"] == 3.0


def test_turns_budget_and_pauses_are_those_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple] = []
    monkeypatch.setattr(compare, "in_turn", lambda _, *how: asked.append(how) or np.array([[1.0]]))
    compare.compare(CASE, ["numpy"], turns=9, budget_seconds=0.5, settles=False)
    words = training.WordCase(seq_len=2, batch_size=1, hidden_size=4, words=9)
    training.compare(words, ["numpy"], turns=10, budget_seconds=0.25)
    assert asked == [(9, 0.5, False), (10, 0.25, True)]


def test_a_slower_backend_has_a_ratio_above_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(output: np.ndarray, state: tuple) -> tuple:
        np.linalg.svd(np.random.default_rng(0).random((250, 250)))
        return output, state

    first, second = rows(monkeypatch, stand_in.StandIn(forward=slow), ("numpy", stand_in.NAME))
    assert second["ratio"] > 2 and second["seconds"] > 2 * first["seconds"]


@pytest.mark.parametrize("order", [("numpy", stand_in.NAME), (stand_in.NAME, "numpy")])
def test_what_is_wrong_is_not_timed_and_the_rest_is(monkeypatch: pytest.MonkeyPatch, order: tuple[str, ...]) -> None:
    found = rows(monkeypatch, stand_in.StandIn(params=stand_in.recurrent_transposed), order)
    by_name = {row["backend"]: row for row in found}
    wrong, right = by_name[stand_in.NAME], by_name["numpy"]
    assert wrong["status"] == "wrong" and wrong["seconds"] is None and wrong["ratio"] is None and wrong["error"] > 0
    assert right["status"] == "ok" and right["seconds"] > 0
    if order[0] == "numpy":
        assert right["ratio"] == 1
    else:
        assert right["ratio"] is None and stand_in.NAME in right["reason"]


def test_skipped_and_crashed_rows_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    skipped = rows(monkeypatch, stand_in.StandIn(why_unsupported="only even sizes"), ("numpy", stand_in.NAME))[1]
    assert (skipped["status"], skipped["reason"], skipped["error"]) == ("skipped", "only even sizes", None)

    def crash(*_: object) -> None:
        raise RuntimeError("boom")

    failed = rows(monkeypatch, stand_in.StandIn(forward=crash), ("numpy", stand_in.NAME))[1]
    assert (failed["status"], failed["reason"], failed["seconds"]) == ("failed", "RuntimeError: boom", None)


def table(capsys: pytest.CaptureFixture[str], *backends: str, hidden_sizes: str = "8") -> tuple[int, list[str], str]:
    """The command's exit status, the lines of its table, and what it says on standard error."""
    sizes = ["--seq-lens", "3", "--hidden-sizes", hidden_sizes, "--batch-sizes", "1", "--cells", "gru"]
    status = cli.main(["compare", "--backends", ",".join(backends), *sizes])
    told = capsys.readouterr()
    return status, told.out.splitlines(), told.err


def test_a_yardstick_without_a_time_says_why_there_are_no_ratios(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rnnbench.cli.compare.peak_gflops", lambda dtype, threads: 100.0)
    name = stand_in.install(monkeypatch, stand_in.StandIn(why_unsupported="only even sizes"))
    status, lines, errors = table(capsys, name, "numpy")
    assert lines[0].endswith(f"; no ratios, because {name} has no time; its row says why") and not errors
    assert lines[2].endswith("skipped: only even sizes")
    assert status == 0 and "ratio: time divided" not in lines[0] and lines[3].split()[1] == "numpy"
    # in some cases only
    picky = stand_in.StandIn()
    monkeypatch.setattr(picky, "why_unsupported", lambda spec, _: "only even sizes" if spec.hidden_size % 2 else None)
    name = stand_in.install(monkeypatch, picky)
    status, lines, _ = table(capsys, name, "numpy", hidden_sizes="8,9")
    assert status == 0 and lines[0].endswith(f"; ratio: time divided by that of {name}")
    assert [f"no ratio: {name} has no time here" in line for line in lines] == [False] * 6 + [True]


def test_a_comparison_that_times_nothing_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rnnbench.cli.compare.peak_gflops", lambda dtype, threads: 100.0)
    name = stand_in.install(monkeypatch, stand_in.StandIn(why_unsupported="only even sizes"))
    status, lines, errors = table(capsys, name)
    assert (status, errors) == (1, "rnnbench: nothing was timed: every backend was skipped\n")
    assert "skipped: only even sizes" in lines[2]


def test_cases_are_all_combinations_with_the_input_as_wide_as_the_state() -> None:
    cases = list(compare.cases(["gru"], ["float32"], [4, 8], [1], [16, 32], direction="train"))
    assert [(c.seq_len, c.hidden_size, c.input_size) for c in cases] == [
        (4, 16, 16), (8, 16, 16), (4, 32, 32), (8, 32, 32)
    ]  # fmt: skip
    assert {c.direction for c in cases} == {"train"}
    assert {c.input_size for c in compare.cases(["gru"], ["float32"], [4], [1], [16, 32], [5])} == {5}


def test_the_command_compares_the_network_that_was_asked_for_beside_its_own_peak(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple] = []
    monkeypatch.setattr(command, "get_threads", lambda: 3)
    monkeypatch.setattr(command, "peak_gflops", lambda dtype, threads: {("float64", 3): 7.0}[dtype, threads])
    monkeypatch.setattr(compare, "compare", lambda *given: asked.append(given) or [])
    sizes = ["--seq-lens", "6", "--batch-sizes", "3", "--input-sizes", "8", "--hidden-sizes", "16"]
    network = ["--cells", "gru", "--dtypes", "float64", "--layers", "2", "--bidirectional"]
    assert main(["compare", "--backends", "numpy", "--format", "json", *network, *sizes]) == 1  # nothing was timed
    wanted = dataclasses.replace(CASE, dtype="float64", num_layers=2, bidirectional=True)
    assert asked == [(wanted, ["numpy"], 7.0)]
