"""From what workers say to verdicts, exit statuses, Markdown and JSON; workers that pretend, no clock."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gate_projects import Pretender, case, project

from rnnbench.bench.gate import pairs, run
from rnnbench.bench.gate import workers as ends
from rnnbench.bench.gate.outcome import (
    INCONCLUSIVE,
    PASSED,
    REGRESSION,
    UNFINISHED,
    VERDICTS,
    Outcome,
    Result,
    slow_to_compile,
)
from rnnbench.bench.gate.output import about, markdown, memory, sentences
from rnnbench.bench.gate.pairs import Samples, Timings, take_batch
from rnnbench.bench.gate.project import Project
from rnnbench.bench.gate.verdict import Interval, Judgement, judge
from rnnbench.bench.gate.workers import WorkerDied, last_cores

CASE = case()


def outcome(verdict: str, **about: Any) -> Outcome:
    return Outcome(CASE, verdict, **{"reason": "", "restarts": pairs.RESTARTS, **about})


def result(*outcomes: Outcome) -> Result:
    return Result("main (1234)", "HEAD (5678)", 0.03, list(outcomes))


@pytest.mark.parametrize(
    ("statuses", "verdict", "missing_on", "sentence"),
    [
        (("ok", "wrong"), "wrong", "", "head is wrong: the head's"),
        (("wrong", "wrong"), "wrong", "", "head is wrong"),
        (("missing", "failed"), "wrong", "", "head failed"),
        (("ok", "missing"), "missing", "head", "the head's"),
        (("ok", "skipped"), "missing", "head", "the head's"),
        (("missing", "ok"), "missing", "base", "the base's"),
        (("wrong", "ok"), "missing", "base", "base is wrong: the base's"),
        (("missing", "missing"), "missing", "both", "base: the base's; head: the head's"),
        (("failed", "skipped"), "missing", "both", "base failed: the base's; head: the head's"),
    ],
)
def test_what_is_not_timed_says_why(statuses: tuple, verdict: str, missing_on: str, sentence: str) -> None:
    found = Outcome(CASE)
    assert found.not_timed(statuses, ("the base's", "the head's"))
    assert (found.verdict, found.missing_on) == (verdict, missing_on) and sentence in found.reason
    assert found.fails == (verdict == "wrong" or missing_on == "head")


def test_what_both_sides_can_is_timed() -> None:
    assert not Outcome(CASE).not_timed(("ok", "ok"), ("", ""))


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        (["same", "faster"], PASSED),
        (["same", "slower"], REGRESSION),
        (["same", "wrong"], REGRESSION),
        (["same", "inconclusive"], INCONCLUSIVE),
        (["slower", "inconclusive"], REGRESSION),
        (["same", "missing"], PASSED),
        (["missing"], INCONCLUSIVE),
        ([], INCONCLUSIVE),
    ],
)
def test_the_status_of_verdicts(verdicts: list[str], status: int) -> None:
    assert result(*map(outcome, verdicts)).status == status


def test_a_case_that_was_never_timed_whole_does_not_pass_as_noise() -> None:
    left_out, cut_short = (outcome("inconclusive", restarts=count) for count in (0, pairs.RESTARTS - 1))
    for unknown in (left_out, cut_short):
        found = result(outcome("same"), outcome("inconclusive"), unknown)
        assert found.status == UNFINISHED == 4 and found.sentence.startswith("unfinished: 2 inconclusive, 1 same")
        assert markdown(found).startswith("## ❌") and found.record()["verdict"] == "unfinished"
        assert result(unknown, outcome("slower")).status == REGRESSION


def test_a_case_that_head_has_lost_fails_and_one_that_base_lacks_does_not() -> None:
    assert result(outcome("same"), outcome("missing", missing_on="head")).status == REGRESSION
    assert result(outcome("same"), outcome("missing", missing_on="base")).status == PASSED


def test_a_case_that_neither_side_could_run_is_no_pass() -> None:
    """Nobody has tested it: its cell's file may be misspelt in the table."""
    found = result(outcome("same"), outcome("missing", missing_on="both", reason="there is no file 'mug.py'"))
    assert found.status == INCONCLUSIVE and found.sentence == "inconclusive: 1 missing, 1 same"
    shown, _, whole = markdown(found).partition("<details>")
    assert "missing on both" in shown and "there is no file 'mug.py'" in shown and "same" in whole
    assert result(*found.outcomes, outcome("slower")).status == REGRESSION


def test_more_memory_fails_whatever_the_time_says() -> None:
    grown = outcome("faster", memory={"workspace_bytes": (100_000, 108_192), "tape_bytes": (5, 5)})
    assert result(grown).status == REGRESSION and memory(grown) == "grew"
    assert grown.grown == ["workspace grew from 100,000 to 108,192 bytes"]
    assert "1 with more memory" in result(grown).sentence and grown.grown[0] in sentences(result(grown))[0]
    tape = outcome("same", memory={"tape_bytes": (100_000, 104_097)})
    assert tape.fails and "tape" in tape.grown[0]
    for calm in ((100_000, 104_096), (100_000, 90_000)):
        assert not outcome("same", memory={"workspace_bytes": calm}).fails


def test_slow_compilation_is_advice() -> None:
    slow = [outcome("same", compile=(4.0, 6.1)), outcome("same", compile=(0.1, 0.1))]
    assert slow_to_compile(slow) == ["the first calls of lstm numba-cpu float32 forward take 6.2 s instead of 4.1 s"]
    assert not slow_to_compile([outcome("same", compile=(4.0, 5.9))]) and not slow_to_compile([Outcome(CASE)])
    assert not slow_to_compile([outcome("same", compile=(0.01, 0.1))])  # nothing was compiled
    assert result(*slow).status == PASSED


def test_the_seconds_of_an_outcome_are_medians_over_all_batches() -> None:
    judged = outcome("inconclusive")
    batches = [
        Timings([[1.0]], [[1.0]], [(1.0, 30.0)]),
        Timings([[1.0], [1.0]], [[1.0], [1.0]], [(9.0, 20.0), (2.0, 10.0)]),
    ]
    judged.judged(Judgement("same", Interval(1.0, 0.9, 1.1), 1.0, True), batches)
    assert judged.seconds == (2.0, 20.0) and (judged.pairs, judged.restarts) == (3, 3)


def test_markdown_shows_what_is_loud_first_and_a_strangers_text_as_text() -> None:
    nasty = "head is wrong: <img src=x> @everyone [x](http://evil) | `code`\n# title"
    text = markdown(
        result(outcome("same"), outcome("wrong", reason=nasty), outcome("slower", ratio=1.1, lower=1.08, upper=1.12))
    )
    assert text.startswith("## ❌ rnnbench gate: regression: 1 wrong, 1 slower, 1 same")
    assert "🔴 slower | 1.100 | 1.080 to 1.120" in text and text.index("🔴 slower") < text.index("<details>")
    assert "<img" not in text and "@everyone" not in text and "[x](http" not in text and "\n# title" not in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in tables} == {9}
    assert markdown(result(outcome("same"))).startswith("## ✅ rnnbench gate: pass: 1 same")
    assert markdown(result(outcome("inconclusive", reason="noise"))).startswith("## ⚠️ rnnbench gate: inconclusive")


def test_markdown_shows_a_table_once_and_counts_in_the_right_number() -> None:
    one = markdown(result(outcome("slower", ratio=1.1, lower=1.08, upper=1.12, pairs=1)))
    assert one.count("🔴 slower") == 1 and "<details>" not in one and ": 1 case, 1 pair, 0 s;" in one
    some = markdown(result(outcome("slower"), outcome("same")))
    assert some.count("🔴 slower") == 2 and "All 2 cases" in some and ": 2 cases, 0 pairs, 0 s;" in some
    assert "All 1 case<" in markdown(result(outcome("same")))


def test_a_case_that_the_clock_left_out_of_a_batch_says_that_the_budget_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, batches = [0.0], [Timings([[1.4] * 4] * 4, [[1.0] * 4] * 4, [(1.0, 1.4)] * 16), Timings()]

    def take_batch(*arguments: Any) -> dict[Any, Timings]:
        timings = batches.pop(0)
        clock[0] = 0.0 if batches else 2.0
        return {CASE: timings}

    monkeypatch.setattr(pairs, "take_batch", take_batch)
    monkeypatch.setattr(run, "monotonic", lambda: clock[0])
    found = result(Outcome(CASE))
    run.time_cases(found, None, None, Project(Path()), 1.0)  # type: ignore[arg-type]
    (only,) = found.outcomes
    assert only.verdict == "inconclusive" and only.pairs == 16 and not batches
    assert only.reason == (
        "a change of +40.0% was seen once, and another whole batch has to show it again; "
        "the budget ended before another batch"
    )


def test_json_is_strict_and_whole() -> None:
    every = result(*(outcome(verdict) for verdict in VERDICTS))
    record = json.loads(json.dumps(every.record(), allow_nan=False))
    assert [part["verdict"] for part in record["cases"]] == list(VERDICTS)
    assert record["status"] == 1 and record["verdict"] == "regression" and record["cases"][0]["ratio"] is None
    assert record["cases"][0]["seconds"] == {"base": None, "head": None}


# --- pairs, with workers that pretend ---------------------------------------------------------------------------------


def batch(base: Pretender, head: Pretender, **options: Any) -> Timings:
    return take_batch(lambda restart: (base, head), [CASE], 3, **options)[CASE]  # type: ignore[arg-type, return-value]


def test_pairs_are_there_and_back_and_the_other_way_round() -> None:
    order: list[str] = []
    sides = {}
    for name, seconds in (("base", 0.002), ("head", 0.003)):
        sides[name] = Pretender(lambda name=name, seconds=seconds: order.append(name) or seconds)  # type: ignore[misc]
    timings = batch(sides["base"], sides["head"])
    timed = order[2:]  # after the two of "speed"
    assert timed[:8] == ["base", "head", "head", "base", "head", "base", "base", "head"]
    assert timings.ok and [len(row) for row in timings.ratios] == [pairs.PAIRS] * 3
    assert {ratio for row in timings.ratios for ratio in row} == {1.5}
    assert {ratio for row in timings.control for ratio in row} == {1.0}
    assert judge([timings.batch()] * 2).verdict == "slower"
    plans = {
        (d["samples"], d["calls"])
        for q, d in sides["base"].asked + sides["head"].asked
        if q == "time" and d["what"] == "case"
    }
    assert plans == {(2, 1)}  # the same on both sides, made for the slower one


def test_an_even_drift_within_a_pair_cancels() -> None:
    clock = itertools.count(100)
    tick = lambda: next(clock) * 1e-5  # noqa: E731
    timings = batch(Pretender(tick), Pretender(tick))
    assert [ratio for row in timings.ratios for ratio in row] == pytest.approx([1.0] * 30)


def test_samples_last_as_long_as_they_should() -> None:
    assert Samples.lasting(0.006, 0.001) == Samples(6, 1)
    assert Samples.lasting(0.006, 1.0) == Samples(1, 1)
    assert Samples.lasting(0.006, 1e-5) == Samples(120, 5)


def test_nothing_is_timed_that_is_not_right_on_both_sides() -> None:
    wrong = Pretender(lambda: 0.001, prepare={"status": "wrong", "reason": "off by one"})
    timings = batch(Pretender(lambda: 0.001), wrong)
    assert timings.status == ("ok", "wrong") and not timings.ratios
    assert not any(question == "time" for question, _ in wrong.asked)


@pytest.mark.parametrize(("side", "missing_on"), [(0, "base"), (1, "")])
def test_a_worker_that_dies_is_replaced_and_its_case_told(side: int, missing_on: str) -> None:
    """Base alone fails no gate: head may be what mends it."""
    started = []

    def fresh(restart: int) -> tuple[Pretender, Pretender]:
        def seconds() -> float:
            if len(started) == 1:
                raise WorkerDied("exit status -11")
            return 0.001

        started.append(restart)
        pair = Pretender(seconds), Pretender(lambda: 0.001)
        return pair if side == 0 else pair[::-1]

    other = case("gru H=64")
    found = take_batch(fresh, [CASE, other], 2)  # type: ignore[arg-type]
    status = ["ok", "ok"]
    status[side] = "failed"
    assert found[CASE].status == tuple(status)
    assert found[CASE].reasons[side] == "its process died while it was timed: exit status -11"
    assert found[other].ok and len(found[other].ratios) == 2 and started == [0, 0, 1]
    told = Outcome(CASE)
    told.not_timed(found[CASE].status, found[CASE].reasons)
    assert (told.missing_on, told.fails) == (missing_on, side == 1)


@pytest.mark.parametrize("question", ["speed", "time"])
def test_a_side_that_raises_while_it_is_timed_is_a_finding(question: str) -> None:
    class Raising(Pretender):
        def ask(self, do: str, **details: Any) -> Any:
            if do == question:
                return {"status": "failed", "reason": "ValueError: buffer is too small"}
            return super().ask(do, **details)

    timings = batch(Pretender(lambda: 0.001), Raising(lambda: 0.001))
    assert timings.status == ("ok", "failed")
    assert timings.reasons == ("", "while it was timed: ValueError: buffer is too small")


def test_when_time_is_up_nothing_more_is_timed() -> None:
    timings = batch(Pretender(lambda: 0.001), Pretender(lambda: 0.001), until=-math.inf)
    assert timings.ok and not timings.ratios


# --- the whole gate, with workers that pretend ------------------------------------------------------------------------


def timed(monkeypatch: pytest.MonkeyPatch, head: float, until: float = math.inf, **about: Any) -> tuple[Outcome, list]:
    """The outcome of a head that takes so many milliseconds where base takes one, and the threads and padding of each restart."""
    started = []

    @contextmanager
    def workers(base: Any, other: Any, project: Any, threads: int, padding: int, until: float) -> Iterator[Any]:
        started.append((threads, padding))
        yield Pretender(lambda: 0.001), Pretender(lambda: head / 1000)

    monkeypatch.setattr(run, "workers", workers)
    found = result(Outcome(CASE))
    run.time_cases(found, None, None, project(**about), until)  # type: ignore[arg-type]
    return found.outcomes[0], started


def test_a_change_below_the_projects_threshold_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found, started = timed(monkeypatch, 1.1, threshold=0.2)
    assert (found.verdict, found.restarts, len(started)) == ("same", 4, 4)
    assert timed(monkeypatch, 1.1, threshold=0.05)[0].verdict == "slower"


def test_a_batch_with_too_few_restarts_settles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    for module in (run, pairs):
        monkeypatch.setattr(module, "monotonic", lambda: next(clock))
    found, _ = timed(monkeypatch, 1.0, until=4.5)
    assert (found.verdict, found.restarts) == ("inconclusive", 2)
    assert found.reason == "only 2 of 4 restarts were timed; the budget ended before another batch"


def test_workers_have_one_thread_and_lie_elsewhere_after_each_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    started = timed(monkeypatch, 1.0)[1]
    assert {threads for threads, _ in started} == {1}
    assert len({padding for _, padding in started}) == 4 and all(0 <= padding < 4096 for _, padding in started)


def test_cases_with_two_threads_have_workers_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    @contextmanager
    def workers(base: Any, head: Any, project: Any, threads: int, padding: int, until: float) -> Iterator[Any]:
        yield Pretender(lambda: 0.001), Pretender(lambda: started.append(threads) or 0.001)  # type: ignore[func-returns-value]

    monkeypatch.setattr(run, "workers", workers)
    two = dataclasses.replace(CASE, threads=2)
    found = result(Outcome(two), Outcome(CASE))
    run.time_cases(found, None, None, project(), math.inf)  # type: ignore[arg-type]
    assert [outcome.verdict for outcome in found.outcomes] == ["same", "same"]
    assert started == sorted(started) and set(started) == {1, 2}  # those with one first
    assert "timed with 1 thread and 2 threads;" in about(found) and "timed with 1 thread;" in about(
        result(Outcome(CASE))
    )


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no process can be pinned here")
def test_workers_share_the_last_cores_one_for_each_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5, 7})
    assert last_cores(1) == [7] and last_cores(2) == [5, 7]
    asked = []
    monkeypatch.setattr(ends, "Worker", lambda *given: asked.append(given) or SimpleNamespace(close=lambda: None))
    with ends.workers("base", "head", "project", 2, 17, 9.0):  # type: ignore[arg-type]
        assert asked == [("base", "project", [5, 7], 2, 17, 9.0), ("head", "project", [5, 7], 2, 17, 9.0)]


def test_first_calls_tell_the_seconds_and_bytes_of_base_before_those_of_head(monkeypatch: pytest.MonkeyPatch) -> None:
    def worker(side: int, project: Any, until: float) -> Pretender:
        first = {"status": "ok", "seconds": float(side)}
        return Pretender(lambda: 0.001, first=first, bytes={"bytes": {"workspace_bytes": 100 * side}})

    monkeypatch.setattr(run, "Worker", worker)
    found = result(Outcome(CASE))
    run._first_calls(found, 1, 2, project(), math.inf)  # type: ignore[arg-type]
    assert found.outcomes[0].compile == (1.0, 2.0) and found.outcomes[0].memory == {"workspace_bytes": (100, 200)}
