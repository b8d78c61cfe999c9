"""The numbers in a report: do they say what was measured, and do they change when it does?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import report_tree
from report_tree import Case

from rnnbench import report
from rnnbench.report import units, views
from rnnbench.report.base import per_case

SMALL: dict[str, Any] = {"cells": ["lstm", "gru"], "hidden_sizes": [32, 64], "seq_lens": [16, 64], "batch_sizes": [4]}


def frame_of(folder: Path, **options: Any) -> pd.DataFrame:
    report_tree.write(folder, **SMALL | options)
    return report.load(folder)


def constant(numpy: float, numba: float, **only: object) -> Any:
    """A time of 1 ms for both backends, but the given ones for the cases that match `only`."""

    def seconds(case: Case) -> float:
        matches = all(case[name] == value for name, value in only.items())
        return 1e-3 * ((numpy if case["backend"] == "numpy" else numba) if matches else 1.0)

    return seconds


def test_throughput_is_steps_times_batch_over_the_measured_time(tmp_path: Path) -> None:
    frame = frame_of(tmp_path)
    wide = views.pivot(frame, "steps_per_second", "hidden_size")
    assert list(wide.columns) == [32, 64, 128]
    times = per_case(frame, "time").set_index(["direction", "cell", "backend", "seq_len", "hidden_size"])["value"]
    got = wide.loc[("train", "float32", "gru", 64, 4, "numpy"), 32]
    assert got == pytest.approx(64 * 4 / times["train", "gru", "numpy", 64, 32])
    # only sweeps over H: the sequence length that was swept at one H is another view's
    assert set(wide.index.get_level_values("seq_len")) == {64}
    assert set(views.pivot(frame, "time", "seq_len").columns) == {16, 64}


def test_a_single_size_is_shown_although_it_is_no_sweep(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, hidden_sizes=[128], seq_lens=[64])
    assert list(views.pivot(frame, "steps_per_second", "hidden_size").columns) == [128]


def test_the_speed_up_is_the_ratio_of_the_times_and_changes_with_them(tmp_path: Path) -> None:
    before = views.speedups(frame_of(tmp_path / "a", seconds=constant(1, 1)), "numpy")
    assert before["speedup"].to_numpy() == pytest.approx(1.0, rel=0.03)
    faster = {"cell": "gru", "direction": "forward", "hidden_size": 32}
    after = views.speedups(frame_of(tmp_path / "b", seconds=constant(3, 0.5, **faster)), "numpy")
    changed = (after[list(faster)] == list(faster.values())).all(axis=1)
    assert changed.sum() == 1
    assert after.loc[changed, "speedup"].item() == pytest.approx(6.0, rel=0.03)
    assert after.loc[~changed, "speedup"].to_numpy() == pytest.approx(1.0, rel=0.03)


def test_the_speed_ups_interval_holds_it_and_is_as_wide_as_both_times_allow(tmp_path: Path) -> None:
    frame = frame_of(tmp_path)
    pairs = views.speedups(frame, "numpy")
    assert (pairs["lower"] < pairs["speedup"]).all() and (pairs["speedup"] < pairs["upper"]).all()
    row = pairs.iloc[0]
    same = [name for name in report_tree.CASE_PARAMETERS if name != "backend"] + ["direction"]
    times = per_case(frame, "time")
    times = times[(times[same] == row[same].to_list()).all(axis=1)].set_index("backend")
    assert row["lower"] == pytest.approx(times.loc["numpy", "lower"] / times.loc["numba-cpu", "upper"])
    assert row["upper"] == pytest.approx(times.loc["numpy", "upper"] / times.loc["numba-cpu", "lower"])


def test_the_geometric_mean_is_over_the_cases_both_have_and_says_how_many(tmp_path: Path) -> None:
    def seconds(case: Case) -> float | None:
        if case["backend"] == "numpy" and case["cell"] == "gru" and case["hidden_size"] == 64:
            return None
        speedup = {32: 2.0, 64: 8.0, 128: 4.0}[case["hidden_size"]]
        return 1e-3 / (speedup if case["backend"] == "numba-cpu" else 1)

    frame = frame_of(tmp_path, seconds=seconds, seq_lens=[64])
    summary = views.speedup_summary(frame, "numpy").set_index(["direction", "cell"])
    lstm, gru, both = (summary.loc[("forward", cell)] for cell in ("lstm", "gru", views.ALL_CELLS))
    assert lstm["speedup"] == pytest.approx((2 * 8 * 4) ** (1 / 3), rel=0.02)
    assert gru["speedup"] == pytest.approx((2 * 4) ** (1 / 2), rel=0.02)
    assert (lstm["cases"], lstm["asked"], gru["cases"], gru["asked"]) == (3, 3, 2, 3)
    assert both["speedup"] == pytest.approx((2 * 8 * 4 * 2 * 4) ** (1 / 5), rel=0.02)
    assert (both["least"], both["greatest"]) == pytest.approx((2, 8), rel=0.03)
    assert lstm["lower"] < lstm["speedup"] < lstm["upper"]


def test_another_baseline_turns_the_speed_up_over(tmp_path: Path) -> None:
    frame = frame_of(tmp_path)
    over_numpy, over_numba = (views.speedup_summary(frame, name) for name in ("numpy", "numba-cpu"))
    assert over_numba["speedup"].to_numpy() == pytest.approx(1 / over_numpy["speedup"].to_numpy())
    with pytest.raises(report.ReportError, match=r"baseline 'torch'; there are results for numba-cpu, numpy\.$"):
        report.tables(report.read(tmp_path), baseline="torch")


def test_a_baseline_that_only_another_run_has_does_not_hide_this_run(tmp_path: Path) -> None:
    report_tree.write(tmp_path, **SMALL, machine="one", backends=["numpy", "numba-cpu"])
    report_tree.write(tmp_path, **SMALL, machine="two", backends=["torch", "numba-cpu"])
    titles = {(table.run, table.title) for table in report.tables(report.read(tmp_path), baseline="numpy")}
    assert ("one c0ffee00", "Speed-up over numpy") in titles
    assert ("two c0ffee00", "Speed-up over numba-cpu") in titles


@pytest.mark.parametrize("status", ["wrong", "failed"])
def test_a_number_known_to_be_wrong_is_in_no_comparison(tmp_path: Path, status: str) -> None:
    def verified(case: Case) -> dict[str, Any]:
        bad = {"status": status, "error": 1.0, "reason": "a gate is swapped"}
        wrong = case["cell"] == "gru" and case["backend"] == "numba-cpu"
        return report_tree.verified(case) | (bad if wrong else {})

    frame = frame_of(tmp_path, verified=verified)
    assert (frame[(frame["metric"] == "time") & (frame["cell"] == "gru")]["value"].notna()).all()
    assert set(views.speedups(frame, "numpy")["cell"]) == {"lstm"}
    for metric, over in (("steps_per_second", "hidden_size"), ("time", "seq_len"), ("percent_of_peak", "hidden_size")):
        wide = views.pivot(frame, metric, over)
        assert ("gru", "numba-cpu") not in set(zip(*map(wide.index.get_level_values, ("cell", "backend")), strict=True))
    left = views.left_out(frame)
    assert set(left["status"]) >= {status} and "a gate is swapped" in set(left["reason"])
    assert f"{status.upper()}" in views.verdict(frame).sentence and not views.verdict(frame).good


def test_the_verdict_counts_cases_by_their_worst_status(tmp_path: Path) -> None:
    frame = frame_of(tmp_path / "good")
    cases = 2 * 2 * 2 * 4  # cells, backends, directions, sizes: H 32 and 64 at T 64; T 16 and 64 at H 128
    assert views.verdict(frame).sentence == f"{cases} cases, all verified against the reference before timing."
    assert views.verdict(frame).good

    def verified(case: Case) -> dict[str, Any] | None:
        if case["hidden_size"] == 32 and case["cell"] == "lstm" and case["direction"] == "forward":
            return report_tree.verified(case) | {"status": "wrong", "error": 1.0}
        return None if case["seq_len"] == 16 else report_tree.verified(case)

    frame = frame_of(tmp_path / "bad", verified=verified)
    assert views.verdict(frame).sentence == (
        "32 cases: 2 WRONG, 8 UNVERIFIED, 22 verified against the reference before timing."
    )


def test_skipped_cases_are_counted_and_leave_the_verdict_good(tmp_path: Path) -> None:
    skipped = {"status": "skipped", "error": None, "tolerance": None, "reason": "not installed"}
    frame = frame_of(
        tmp_path,
        backends=["numpy", "torch"],
        seconds=lambda case: math.nan if case["backend"] == "torch" else 1e-3,
        verified=lambda case: skipped if case["backend"] == "torch" else report_tree.verified(case),
    )
    verdict = views.verdict(frame)
    assert verdict.good and verdict.sentence.startswith("32 cases: 16 skipped, 16 verified")
    assert "not installed" in set(views.left_out(frame)["reason"])


def test_memory_stands_beside_an_empty_process(tmp_path: Path) -> None:
    wide = views.memory(frame_of(tmp_path))
    row = wide.xs("numpy", level="backend").loc[("float32", "gru", 64, 4, 32, 32)]
    assert row["workspace_bytes"] == 4 * 32 * 4 * 9 and row["tape_bytes"] == 4 * 32 * 4 * 5 * 64
    assert row["training_workspace_bytes"] == 4 * 32 * 4 * 11
    assert row["over_empty_bytes"] == row["peak_bytes"] - 180_000_000


def test_break_even_is_the_number_of_calls_that_repay_the_compilation(tmp_path: Path) -> None:
    seconds = {32: (1e-3, 0.5e-3), 64: (10e-3, 5e-3), 128: (1e-3, 2e-3)}
    frame = frame_of(
        tmp_path, seconds=lambda case: seconds[case["hidden_size"]][case["backend"] == "numba-cpu"], seq_lens=[64]
    )
    row = views.start_up(frame, "numpy").loc[("lstm", "numba-cpu")]
    assert row["compile_seconds"] == 2.5 and row["cases"] == 3
    assert row["fewest_calls"] == pytest.approx(2.5 / 5e-3, rel=0.05)
    assert row["median_calls"] == pytest.approx(2.5 / 0.5e-3, rel=0.05)
    assert math.isinf(row["most_calls"])
    assert math.isnan(views.start_up(frame, "numpy").loc[("lstm", "numpy"), "fewest_calls"])


def test_left_out_names_every_case_but_one_cause_is_one_line(tmp_path: Path) -> None:
    def seconds(case: Case) -> float | None:
        return None if case["backend"] == "numba-cpu" and case["direction"] == "train" else 1e-3

    left = views.left_out(frame_of(tmp_path, seconds=seconds))
    failed = left[left["status"] == "failed"]
    assert len(failed) == 1
    row = failed.iloc[0]
    assert row["what"] == "track_tape_bytes, track_training_workspace_bytes, time_train"
    assert row["cell"] == "gru, lstm" and row["backend"] == "numba-cpu" and row["direction"] == "train"
    assert row["sizes"] == "T=16 B=4 H=128; T=64 B=4 H=32; T=64 B=4 H=64; T=64 B=4 H=128"


@pytest.mark.parametrize("title", ["Throughput over hidden size, forward", "Time over sequence length, forward"])
def test_the_best_of_each_comparison_is_marked(tmp_path: Path, title: str) -> None:
    report_tree.write(tmp_path, **SMALL, seconds=constant(1, 2, seq_len=64))
    (table,) = [t for t in report.tables(report.read(tmp_path)) if t.title == title]
    column = table.keys + (1 if "Time" in title else 0)  # T=64, or any H
    marked = [row for row, place in table.best if place == column]
    assert {table.frame["backend"].iloc[row] for row in marked} == {"numpy"} and len(marked) == 2


def test_without_a_case_in_common_there_is_no_speed_up(tmp_path: Path) -> None:
    frame = frame_of(tmp_path, seconds=lambda case: None if case["backend"] == "numpy" else 1e-3)
    summary = views.speedup_summary(frame, "numpy")
    assert (summary["cases"] == 0).all() and (summary["asked"] > 0).all() and summary["speedup"].isna().all()


def test_what_all_rows_share_goes_into_the_caption(tmp_path: Path) -> None:
    report_tree.write(tmp_path, **SMALL)
    (table,) = [t for t in report.tables(report.read(tmp_path)) if t.title == "Throughput over hidden size, train"]
    assert table.caption == "steps/s; dtype float32, T 64, B 4"
    assert list(table.frame.columns) == ["cell", "backend", "H=32", "H=64", "H=128"] and table.keys == 2


@pytest.mark.parametrize(
    "show, value, text",
    [
        (units.si, 1_234_567.0, "1.23 M"),
        (units.si, 999.9, "1.00 k"),
        (units.si, 999.4, "999"),
        (units.si, 0.0, "0"),
        (units.seconds, 1.23e-5, "12.3 µs"),
        (units.seconds, 2.0, "2.00 s"),
        (units.seconds, 3e-11, "0.0300 ns"),
        (units.seconds, math.nan, "–"),
        (units.size, 1023.0, "1023 B"),
        (units.size, 1024.0, "1.00 KiB"),
        (units.size, 3 * 2**40, "3.00 TiB"),
        (units.ratio, 0.04567, "0.0457×"),
        (units.ratio, math.nan, "–"),
        (units.count, 1234.0, "1,234"),
        (units.count, math.inf, "never"),
        (units.significant, 9.999, "10.0"),
        (units.significant, 12345.6, "12346"),
    ],
)
def test_numbers_as_text(show: Any, value: float, text: str) -> None:
    assert show(value) == text
