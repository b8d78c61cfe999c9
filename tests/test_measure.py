"""How time and memory are measured: in turn, after verification, and only the work."""

from __future__ import annotations

import gc
import itertools
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from rnnbench.backends import threads
from rnnbench.bench import footprint, measure, record, startup
from rnnbench.bench.cases import Case
from rnnbench.bench.session import Session
from rnnbench.bench.stats import median_interval
from rnnbench.bench.verify import verified_session

SMALL = Case("lstm", "numpy", "float32", "train", 6, 3, 8, 16)


def ready(case: Case = SMALL) -> Session:
    session = verified_session(case)[1]
    assert session is not None
    return session


class Scripted:
    """A session whose calls are written down and take no time; the clock is moved instead."""

    def __init__(self, name: str, seconds: float, log: list[str], clock: list[float]) -> None:
        self.case, self.verified = name, True
        self.seconds, self.log, self.clock = seconds, log, clock

    def run(self) -> None:
        assert not gc.isenabled()
        self.log.append(self.case)
        self.clock[0] += self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(measure, "sleep", lambda seconds: None)
    monkeypatch.setattr(measure, "perf_counter", lambda: now[0])
    return now


def spin(seconds: float) -> threading.Thread:
    """A thread that computes without a pause for so long."""
    end = perf_counter() + seconds

    def work() -> None:
        while perf_counter() < end:
            sum(range(1000))

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_turn_begins_when_nothing_in_the_process_computes_any_more() -> None:
    for seconds, longest in ((0.1, measure.LONGEST_WAIT_SECONDS), (3 * measure.LONGEST_WAIT_SECONDS, 10)):
        start, thread = perf_counter(), spin(seconds)
        measure.settle()
        waited = perf_counter() - start
        assert waited >= min(seconds, measure.LONGEST_WAIT_SECONDS) and waited < seconds + longest
        assert thread.is_alive() == (seconds > measure.LONGEST_WAIT_SECONDS)
        thread.join()


def test_nothing_is_timed_that_was_not_verified() -> None:
    with pytest.raises(RuntimeError, match="has not been verified"):
        measure.in_turn([ready(), Session(SMALL)])


@pytest.mark.parametrize(
    ("names", "settles", "turn"),
    [("ABC", True, ".AA.BB.CC.CC.BB.AA"), ("AB", True, ".AA.BB.BB.AA"), ("AB", False, "AABBBBAA"), ("A", True, "AA")],
)
def test_backends_are_timed_there_and_back(
    names: str, settles: bool, turn: str, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    monkeypatch.setattr(measure, "settle", lambda: log.append("."))
    sessions: Any = [Scripted(name, 1.0, log, clock) for name in names]
    times = measure.in_turn(sessions, turns=3, budget_seconds=1000, settles=settles)
    # a pause, and then each sample follows an untimed call of the same session, which wakes its threads
    assert "".join(log).endswith(turn * 3) and log.count(".") == 3 * turn.count(".")
    assert times.shape == (3, len(names)) and np.allclose(times, 1.0)


@pytest.mark.parametrize("interrupted", [1, 2, 3, 12])
def test_an_interruption_does_not_make_a_short_call_a_sample(interrupted: int, clock: list[float]) -> None:
    session = Scripted("kernel", 1e-5, [], clock)
    run, count = session.run, itertools.count()

    def now_and_then() -> None:
        if next(count) == interrupted:
            clock[0] += 0.01  # another program's turn
        run()

    session.run = now_and_then  # type: ignore[method-assign]
    with measure.quiet():
        calls = measure._calls_in_a_sample(session)
    assert calls * 1e-5 >= measure.SAMPLE_SECONDS / 2


def test_a_sample_of_short_calls_holds_many(clock: list[float]) -> None:
    log: list[str] = []
    sessions: Any = [Scripted("A", 1e-5, log, clock), Scripted("B", 1.0, log, clock)]
    times = measure.in_turn(sessions, turns=2, budget_seconds=1000)
    assert np.allclose(times, [[1e-5, 1.0]] * 2)
    runs = [len(list(same)) for name, same in itertools.groupby(log) if name == "A"]
    assert runs[-1] * 1e-5 >= measure.SAMPLE_SECONDS / 2


def test_the_budget_ends_the_turns_but_never_below_the_fewest(clock: list[float]) -> None:
    sessions: Any = [Scripted("A", 1.0, [], clock)]
    assert len(measure.in_turn(sessions, turns=50, budget_seconds=3)) == measure.FEWEST_TURNS
    assert len(measure.in_turn(sessions, turns=50, budget_seconds=30)) < 50
    assert len(measure.in_turn(sessions, turns=2, budget_seconds=0)) == 2


def test_the_garbage_collector_is_given_back_as_it_was() -> None:
    with measure.quiet():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with measure.quiet():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_real_sessions_have_real_times() -> None:
    times = measure.in_turn([ready()], turns=3)
    assert times.shape == (3, 1) and (times > 0).all() and (times < 1).all()


# --- statistics -------------------------------------------------------------------------------------------------------


def test_the_interval_holds_the_median_and_narrows_with_more_values() -> None:
    rng = np.random.default_rng(0)
    few, many = (median_interval(rng.normal(1, 0.1, n)) for n in (10, 1000))
    for interval in (few, many):
        assert interval.lower <= interval.median <= interval.upper
    assert many.upper - many.lower < (few.upper - few.lower) / 3
    assert many.lower < 1 < many.upper


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    for count in (8, 9, 20, 31):
        intervals = [median_interval(rng.exponential(1, count)) for _ in range(2000)]
        inside = sum(i.lower <= np.log(2) <= i.upper for i in intervals)
        assert inside >= 0.985 * 2000  # 99% and three standard deviations


@pytest.mark.parametrize(("count", "least"), [(8, 0), (11, 0), (12, 1), (20, 3), (100, 36)])
def test_the_bounds_are_those_of_the_binomial_tables(count: int, least: int) -> None:
    assert median_interval(np.arange(count)[::-1])[1:] == (least, count - 1 - least)


def test_few_values_have_no_bounds_and_none_has_no_median() -> None:
    for count in (1, 7):
        assert median_interval([2.0] * count) == (2.0, -np.inf, np.inf)
    with pytest.raises(ValueError, match="at least one number"):
        median_interval([])


def test_the_order_of_values_is_left_and_makes_no_difference() -> None:
    values = np.random.default_rng(2).random(30)
    before = values.copy()
    assert median_interval(values) == median_interval(sorted(values)) and (values == before).all()


# --- memory -----------------------------------------------------------------------------------------------------------


def test_workspace_is_what_a_run_allocates_beside_its_results(monkeypatch: pytest.MonkeyPatch) -> None:
    ready()
    extra = 3_000_000
    right = Session._train

    def larger(self: Session) -> Any:
        buffer = np.zeros(extra, np.uint8)
        return (*right(self), buffer)

    before = footprint.workspace_bytes(SMALL)
    monkeypatch.setattr(Session, "_train", larger)
    assert before >= 0
    assert footprint.workspace_bytes(SMALL) - before == pytest.approx(extra, rel=0.1)


def test_results_and_tape_are_no_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Session) -> Any:
        workspace = np.zeros(3_000_000, np.uint8)  # gone when the results leave
        output, h, c, tape = (np.zeros(size, np.uint8) for size in (2_000_000, 5, 5, 1_000_000))
        return output, (h, c), tape, {"x": workspace[:5].copy()}

    monkeypatch.setattr(Session, "_train", run)
    assert footprint.workspace_bytes(SMALL) == pytest.approx(3_000_000, rel=0.01)


def test_the_tape_grows_with_the_sequence_and_inference_has_none() -> None:
    short, long = (footprint.tape_bytes(Case("lstm", "numpy", "float32", "train", T, 3, 8, 16)) for T in (10, 20))
    assert short > 10 * 3 * 16 * 4 and 1.5 < long / short < 2.5
    with pytest.raises(ValueError, match="only training"):
        footprint.tape_bytes(Case("lstm", "numpy"))


# --- processes of their own -------------------------------------------------------------------------------------------


def test_a_first_call_is_timed_in_a_new_process_and_verified() -> None:
    seconds = startup.first_call(startup.case_for("rnn_tanh", "numpy"), {})
    assert 0 < seconds < 5


def test_kernels_are_compiled_into_an_empty_cache_and_found_by_a_second_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[Case, int]] = []

    def first_call(case: Case, variables: dict[str, str]) -> float:
        assert all(name == startup.CACHE and not os.listdir(folder) for name, folder in variables.items())
        calls.append((case, len(variables)))
        return float(len(calls))

    monkeypatch.setattr(startup, "first_call", first_call)
    case = startup.case_for("gru", "numba-cpu")
    assert startup.compile_seconds("gru", "numba-cpu") == 1.0 and calls == [(case, 1)]
    assert startup.first_call_seconds("gru", "numba-cpu") == 3.0 and calls[1:] == [(case, 0)] * 2


def test_a_first_call_with_a_wrong_result_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"status": "wrong", "reason": "off by one", "seconds": 1.0}
    monkeypatch.setattr(startup, "_ask", lambda *_: wrong)
    with pytest.raises(RuntimeError, match="gru numpy .*: wrong: off by one"):
        startup.first_call(startup.case_for("gru", "numpy"), {})


def test_what_a_new_process_says_is_a_verification_record() -> None:
    found = startup.verify_elsewhere(SMALL)
    assert found["status"] == "ok" and found["hidden_size"] == 16


def test_a_new_process_has_as_many_threads_as_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for count in {1, threads.available_threads()}:
        monkeypatch.setattr(threads, "_chosen", count)
        assert startup.verify_elsewhere(SMALL)["threads"] == count


def test_a_process_that_fails_says_so() -> None:
    with pytest.raises(RuntimeError, match="did you mean 'lstm'"):
        startup.first_call(startup.case_for("lstn", "numpy"), {})


# --- records ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "most"), [("numba-cpu", 192), ("numba-cuda", startup.MOST_ON_DEVICE)])
def test_few_processes_share_a_device(backend: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a context there, and the host may have more processors than the device has room for contexts."""
    pools: list[int] = []
    monkeypatch.setattr(startup, "ThreadPoolExecutor", lambda count: pools.append(count) or ThreadPoolExecutor(1))
    monkeypatch.setattr(startup, "available_threads", lambda: 192)
    monkeypatch.setattr(startup, "_ask", lambda *_: {})
    assert len(list(startup.compile_kernels([[Case("lstm", backend)]] * 3))) == 3 and pools == [most]


def test_records_are_appended_as_lines_of_strict_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "here.jsonl"
    record.append({"record": "case", "error": float("inf")}, path)
    monkeypatch.setenv(record.VARIABLE, str(path))
    record.append({"record": "case", "error": 0.5})
    assert [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()] == [
        {"record": "case", "error": None},
        {"record": "case", "error": 0.5},
    ]


def test_without_a_place_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(record.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    record.append({"record": "case"})
    assert list(tmp_path.iterdir()) == []


def test_damaged_lines_are_passed_over_and_a_missing_file_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "damaged.jsonl"
    path.write_bytes(b'{"record": "machine"}\n{"rec\n[1]\n\xff\xfe\n{"record": "case"}\n')
    assert [line["record"] for line in record.read(path)] == ["machine", "case"]
    assert record.read(tmp_path / "missing") == []
