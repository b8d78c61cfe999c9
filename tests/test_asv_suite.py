"""The asv suite: every benchmark runs, on every backend, and measures what its name says."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from asv.config import Config

from rnnbench.backends import threads
from rnnbench.backends.threads import get_threads
from rnnbench.bench import record
from rnnbench.bench.cases import Case

ROOT = Path(__file__).resolve().parent.parent
NAMES = [
    "examples.ByHand.track_steps_per_second",
    "examples.DynamicRnn.track_steps_per_second",
    "examples.TextClassifier.track_words_per_second",
    "examples.UnrolledLstm.track_seconds_to_perplexity",
    "examples.UnrolledLstm.track_steps_per_second",
    "memory.Baseline.peakmem_empty",
    "memory.Memory.peakmem_forward",
    "memory.Memory.track_tape_bytes",
    "memory.Memory.track_training_workspace_bytes",
    "memory.Memory.track_workspace_bytes",
    "speed.ForwardOverHiddenSize.time_forward",
    "speed.ForwardOverSeqLen.time_forward",
    "speed.Throughput.track_gflops",
    "speed.Throughput.track_percent_of_peak",
    "speed.Throughput.track_steps_per_second",
    "speed.TrainOverHiddenSize.time_train",
    "speed.TrainOverSeqLen.time_train",
    "startup.Import.timeraw_import_rnnbench",
    "startup.Startup.track_compile_seconds",
    "startup.Startup.track_first_call_seconds",
    "tasks.Digits.track_pictures_per_second",
    "tasks.Digits.track_seconds_to_accuracy",
    "tasks.Words.track_words_per_second",
    "tasks.WordsOneSentence.track_words_per_second",
    "tasks.WordsToPerplexity.track_seconds_to_perplexity",
    "tasks.WordsWide.track_words_per_second",
]
UNITS = {"time": "seconds", "timeraw": "seconds", "peakmem": "bytes"}
CASE = Case("lstm", "numpy", "float32", "forward", 6, 3, 8, 16)


# --- each benchmark, in this process ----------------------------------------------------------------------------------


@pytest.fixture
def discovered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict]:
    """asv_runner's own view of the smoke suite, by name."""
    from asv_runner.discovery import disc_benchmarks

    monkeypatch.setenv("RNNBENCH_SUITE", "smoke")
    monkeypatch.setenv("RNNBENCH_RECORD", str(tmp_path / "records.jsonl"))
    monkeypatch.syspath_prepend(ROOT)

    def forget() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
            del sys.modules[name]

    forget()
    monkeypatch.setattr("rnnbench.bench.machine.peak_gflops", lambda dtype, threads: 100.0)
    yield {benchmark.name: benchmark for benchmark in disc_benchmarks(str(ROOT / "benchmarks"))}
    forget()


def test_the_suite_is_what_reports_expect(discovered: dict) -> None:
    assert sorted(discovered) == NAMES
    for benchmark in discovered.values():
        # a tiny program has the parameters of a whole one, and must not be taken for it
        tiny = benchmark.name.partition(".")[0] in ("tasks", "examples")
        assert benchmark.version == ("1, tiny" if tiny else "1") and benchmark.pretty_name and benchmark.timeout
        kind, _, what = benchmark.name.rpartition(".")[2].partition("_")
        rates = {f"{things}_per_second": f"{things}/s" for things in ("steps", "words", "pictures")}
        unit = {**rates, "gflops": "GFLOP/s", "percent_of_peak": "percent"}.get(what)
        unit = unit or ("bytes" if what.endswith("bytes") else "seconds")
        assert benchmark.unit == UNITS.get(kind, unit)


def test_what_counts_as_a_regression_is_said_for_every_benchmark_and_rates_are_left_out() -> None:
    config = Config.load(str(ROOT / "asv.conf.json"))
    expected = {"speed": [0.25], "tasks": [0.25], "examples": [0.25], "startup": [0.5]}
    expected |= {"memory.Memory.track": [0.01], "memory.Memory.peakmem": [0.05], "memory.Baseline.peakmem": [0.05]}
    for name in NAMES:
        thresholds = [value for regex, value in config.regressions_thresholds.items() if re.match(regex, name)]
        kind = name.partition("_" if name.startswith("memory") else ".")[0]
        assert thresholds == expected[kind], name
        left_out = [since for regex, since in config.regressions_first_commits.items() if re.match(regex, name)]
        rate = name.endswith(("_per_second", "gflops", "percent_of_peak"))
        assert left_out == [None] * rate, name


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_runs_on_every_backend(name: str, discovered: dict, tmp_path: Path) -> None:
    benchmark = discovered[name]
    count = math.prod(len(axis) for axis in benchmark.params) if benchmark.params else 1
    for index in range(count):
        if benchmark.params:
            benchmark.set_param_idx(index)
        if hasattr(benchmark, "repeat"):
            benchmark._attr_sources.insert(0, type("Quick", (), {"repeat": 1, "number": 1, "warmup_time": 0}))
        if "compile" in name and index == 0:  # NumPy has nothing to compile
            with pytest.raises(NotImplementedError):
                benchmark.do_run()
            continue
        assert not benchmark.do_setup()
        value = benchmark.do_run()
        numbers = value["samples"] if isinstance(value, dict) else [value]
        assert all(number >= 0 and math.isfinite(number) for number in numbers)
    written = tmp_path / "records.jsonl"
    records = [json.loads(line) for line in written.read_text().splitlines()] if written.exists() else []
    direction = "train" if any(word in name for word in ("Train", "training", "tape")) else "forward"
    assert all((record["status"], record["direction"]) == ("ok", direction) for record in records)
    assert ("speed" in name or "Memory" in name) == bool(records)


def test_nothing_is_timed_that_is_wrong(discovered: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from rnnbench.bench.session import Session
    from rnnbench.bench.verify import NotVerified

    right = Session.result
    monkeypatch.setattr(Session, "result", lambda self, native: {n: 2 * a for n, a in right(self, native).items()})
    benchmark = discovered["speed.ForwardOverHiddenSize.time_forward"]
    benchmark.set_param_idx(0)
    with pytest.raises(NotVerified, match="wrong"):
        benchmark.do_setup()
    assert json.loads((tmp_path / "records.jsonl").read_text())["status"] == "wrong"


def test_a_case_is_prepared_once_though_setup_is_called_before_every_sample(discovered: dict, tmp_path: Path) -> None:
    benchmark = discovered["speed.ForwardOverHiddenSize.time_forward"]
    benchmark.set_param_idx(0)
    for _ in range(3):
        benchmark.do_setup()
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("rate", "value"), [("steps_per_second", 18_000), ("gflops", 0.055296), ("percent_of_peak", 0.110592)]
)
def test_rates_are_those_of_the_case_and_the_peak(
    rate: str, value: float, discovered: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.speed import Throughput

    monkeypatch.setattr(Throughput, "_seconds", lambda self: 1e-3)
    monkeypatch.setattr(Throughput, "_peak", lambda self: 50.0)
    throughput = Throughput()
    throughput.session = SimpleNamespace(case=CASE)
    assert getattr(throughput, f"track_{rate}")() == pytest.approx(value)


def test_a_rate_has_the_median_time(discovered: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import speed

    monkeypatch.setattr(speed, "in_turn", lambda *_, **__: np.arange(1.0, 22.0)[:, None])
    throughput = speed.Throughput()
    throughput.session = SimpleNamespace(case=CASE)
    assert throughput._seconds() == 11.0


def test_the_peak_is_the_runs_own_at_as_many_threads(discovered: dict) -> None:
    from benchmarks.speed import Throughput

    throughput = Throughput()
    throughput.session = SimpleNamespace(case=CASE)
    for more, peak in ((1, 100.0), (0, 7.0)):  # 100 is what would be measured here
        record.append({"record": "machine", "threads": get_threads() + more, "peak_gflops": {"float32": 7.0}})
        assert throughput._peak() == peak


@pytest.mark.parametrize("name", [name for name in NAMES if "Baseline" not in name and "Import" not in name])
def test_every_benchmark_has_the_threads_of_the_run(
    name: str, discovered: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_chosen", None)  # given back, whatever the benchmark chooses
    monkeypatch.setenv("RNNBENCH_THREADS", "1")
    discovered[name].set_param_idx(0)
    discovered[name].do_setup()
    if name.startswith("memory"):  # each method for itself
        discovered[name].do_run()
    assert threads._chosen == 1


def test_the_peak_memory_of_a_wrong_case_is_not_measured(discovered: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = discovered["memory.Memory.peakmem_forward"]
    wrong = {"record": "case", "status": "wrong", "reason": "off by one"}
    monkeypatch.setattr("benchmarks.memory.verify_elsewhere", lambda case: wrong)
    benchmark.set_param_idx(0)
    with pytest.raises(RuntimeError, match="wrong: off by one"):
        benchmark.do_run()


def test_a_case_is_verified_elsewhere_unless_this_run_has_done_so(
    discovered: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import memory

    asked: list[Case] = []
    monkeypatch.setattr(
        memory, "verify_elsewhere", lambda case: asked.append(case) or {"record": "case", **asdict(case)}
    )
    record.append({"record": "machine"})
    wider = replace(CASE, hidden_size=32)
    trained = replace(CASE, direction="train")
    for case in (CASE, wider, trained, CASE, wider, trained):
        found = memory.verify_elsewhere_once(case)
        assert (found["hidden_size"], found["direction"]) == (case.hidden_size, case.direction)
    assert asked == [CASE, wider, trained]
