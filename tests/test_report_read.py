"""What `report.read` makes of results directories: whole ones, and all the ways in which they can be broken."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import report_tree

from rnnbench import report

SMALL = {"cells": ["lstm"], "hidden_sizes": [32], "seq_lens": [16], "batch_sizes": [4]}
OLD, NEW = "aaaaaaaa" * 5, "bbbbbbbb" * 5


@pytest.fixture
def root(tmp_path: Path) -> Path:
    report_tree.write(tmp_path / "results", **SMALL)
    return tmp_path / "results"


def record_of(root: Path) -> Path:
    return next(root.glob("*/*-rnnbench.jsonl"))


def one(frame: pd.DataFrame, **values: object) -> pd.Series:
    for name, value in values.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1, frame
    return frame.iloc[0]


def times(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["metric"] == "time"]


def test_a_good_directory_has_one_row_a_measurement_and_no_problems(root: Path) -> None:
    results = report.read(root)
    assert results.problems == []
    assert list(results.frame.columns) == report.COLUMNS
    row = one(times(results.frame), backend="numba-cpu", direction="train", hidden_size=32)
    case = {name: row[name] for name in ("cell", "backend", "dtype", "direction", "seq_len", "batch_size")}
    case |= {"hidden_size": 32, "input_size": 32}
    assert row["value"] == pytest.approx(report_tree.seconds(case), rel=0.01)
    assert row["lower"] <= row["value"] <= row["upper"]
    assert (row["n"], row["threads"], row["status"], row["unit"]) == (20, 2, "ok", "seconds")
    assert row["flops"] == report_tree.flops(case)
    assert row["date"] == pd.Timestamp(1_790_000_000, unit="s", tz="UTC")
    measured = results.frame[results.frame["metric"] != "verification"]
    assert not measured.duplicated(["benchmark", "metric", *report_tree.CASE_PARAMETERS]).any()


def test_rates_follow_from_the_time(root: Path) -> None:
    frame = report.load(root)
    same = {"backend": "numpy", "benchmark": "speed.ForwardOverHiddenSize.time_forward"}
    time, steps, gflops, percent = (
        one(frame, metric=metric, **same) for metric in ("time", "steps_per_second", "gflops", "percent_of_peak")
    )
    assert steps["value"] == pytest.approx(64 * 4 / time["value"])
    assert (steps["lower"], steps["upper"]) == pytest.approx((64 * 4 / time["upper"], 64 * 4 / time["lower"]))
    assert gflops["value"] == pytest.approx(time["flops"] / time["value"] / 1e9)
    assert percent["value"] == pytest.approx(100 * gflops["value"] / report_tree.PEAK_GFLOPS["float32"])


def test_a_peak_measured_on_other_threads_gives_no_percentage(root: Path) -> None:
    record_of(root).write_text(record_of(root).read_text().replace('"threads": 2, "peak', '"threads": 1, "peak'))
    frame = report.load(root)
    derived = frame[frame["benchmark"].str.contains("time_")]
    assert set(derived["metric"]) == {"time", "steps_per_second", "gflops"}


def test_each_commit_is_held_against_its_own_peak(tmp_path: Path) -> None:
    peaks = {OLD: report_tree.PEAK_GFLOPS["float32"], NEW: 2 * report_tree.PEAK_GFLOPS["float32"]}
    for commit, peak in peaks.items():
        record = report_tree.write(tmp_path, **SMALL, commit=commit).with_name(f"{commit[:8]}-rnnbench.jsonl")
        record.write_text(record.read_text().replace(f'"float32": {peaks[OLD]}', f'"float32": {peak}'))
    frame = report.load(tmp_path, commit="all")
    for commit, peak in peaks.items():
        same = {"commit": commit, "backend": "numpy", "benchmark": "speed.ForwardOverHiddenSize.time_forward"}
        gflops, percent = (one(frame, metric=metric, **same)["value"] for metric in ("gflops", "percent_of_peak"))
        assert percent == pytest.approx(100 * gflops / peak)


def test_a_later_run_of_other_cases_leaves_the_percentages_of_those_that_it_did_not_measure(root: Path) -> None:
    record, before = record_of(root), report.load(root)
    machine, *cases = [json.loads(line) for line in record.read_text().splitlines()]
    again = next(case for case in cases if case["direction"] == "train" and case["backend"] == "numpy")
    later = machine | {"peak_gflops": {"float32": 240.0, "float64": 120.0}}
    record.write_text("\n".join(map(json.dumps, [machine, *cases, later, again])))
    results = report.read(root)

    def percent(frame: pd.DataFrame) -> pd.Series:
        shown = frame[frame["metric"].eq("percent_of_peak") & frame["benchmark"].str.contains("time_")]
        return shown.set_index([*report_tree.CASE_PARAMETERS, "direction"])["value"]

    ratios = percent(results.frame) / percent(before)
    measured = [
        {**dict(zip(ratios.index.names, key, strict=True))} == {name: again[name] for name in ratios.index.names}
        for key in ratios.index
    ]
    assert sum(measured) == 1 and ratios[measured].to_list() == pytest.approx([0.5])
    assert set(ratios[[not new for new in measured]]) == {1.0}
    (caption,) = {table.caption for table in report.tables(results) if table.title == "Percent of peak, train"}
    assert "each case's peak is its own run's; the last: float32 240 GFLOP/s" in caption


def test_a_case_before_any_machine_record_has_the_peak_of_the_one_there_is(root: Path) -> None:
    lines, before = record_of(root).read_text().splitlines(), report.load(root)
    record_of(root).write_text("\n".join([*lines[1:], lines[0]]))
    pd.testing.assert_frame_equal(report.load(root), before)


def test_a_single_sample_has_no_interval_instead_of_an_infinite_one(tmp_path: Path) -> None:
    report_tree.write(tmp_path, **SMALL, samples=1)
    frame = times(report.load(tmp_path))
    assert frame["lower"].isna().all() and frame["upper"].isna().all() and (frame["n"] == 1).all()


def test_skipped_failed_wrong_and_unverified_are_told_apart(tmp_path: Path) -> None:
    outcomes = {
        "skipped": {"status": "skipped", "error": None, "tolerance": None, "reason": "no library here"},
        "failed": {"status": "failed", "error": None, "tolerance": None, "reason": "IndexError: out of range"},
        "wrong": {"status": "wrong", "error": 0.5, "tolerance": 1e-5, "worst": "output", "reason": ""},
        "unverified": None,
    }
    values = {"skipped": math.nan, "failed": None}
    report_tree.write(
        tmp_path,
        **SMALL | {"cells": ["ok", *outcomes]},
        seconds=lambda case: values.get(case["cell"], 0.001),
        verified=lambda case: outcomes.get(case["cell"], report_tree.verified(case)),
    )
    frame = report.load(tmp_path)
    for cell in ("ok", *outcomes):
        assert set(frame[(frame["cell"] == cell) & frame["seq_len"].notna()]["status"]) == {cell}
    reasons = times(frame).drop_duplicates("cell").set_index("cell")["reason"].to_dict()
    assert reasons == {
        "ok": "",
        "skipped": "no library here",
        "failed": "IndexError: out of range",
        "wrong": "output is off by 0.5, the tolerance is 1e-05",
        "unverified": "no verification record beside the results",
    }


def test_asvs_word_counts_where_the_record_is_kinder(tmp_path: Path) -> None:
    report_tree.write(tmp_path, **SMALL, seconds=lambda case: None if case["direction"] == "train" else math.nan)
    frame = times(report.load(tmp_path))
    assert set(frame[frame["direction"] == "train"]["status"]) == {"failed"}
    assert set(frame[frame["direction"] == "forward"]["status"]) == {"skipped"}


def test_a_number_whose_check_was_skipped_is_not_verified(tmp_path: Path) -> None:
    skipped = {"status": "skipped", "error": None, "tolerance": None, "reason": "too large"}
    report_tree.write(tmp_path, **SMALL, verified=lambda case: skipped)
    frame = times(report.load(tmp_path))
    assert set(frame["status"]) == {"unverified"} and frame["reason"].str.endswith("skipped: too large").all()


@pytest.mark.parametrize("error", [None, math.nan, 2e-5, "much"])
def test_a_record_that_says_ok_without_a_number_to_show_for_it_is_wrong(tmp_path: Path, error: object) -> None:
    report_tree.write(tmp_path, **SMALL, verified=lambda case: {"status": "ok", "error": error, "tolerance": 1e-5})
    assert set(times(report.load(tmp_path))["status"]) == {"wrong"}


def test_a_wrong_record_is_not_forgotten_within_a_run_but_replaced_by_the_next(root: Path) -> None:
    lines = [json.loads(line) for line in record_of(root).read_text().splitlines()]
    machine, cases = lines[0], lines[1:]
    bad = {**cases[0], "status": "wrong", "error": 1.0}
    for order in ([machine, bad, *cases], [machine, *cases, bad]):
        record_of(root).write_text("\n".join(map(json.dumps, order)))
        frame = report.load(root)
        assert (frame["status"] == "wrong").any()
    record_of(root).write_text("\n".join(map(json.dumps, [machine, bad, machine, *cases])))
    assert not (report.load(root)["status"] == "wrong").any()


def test_a_verified_case_that_a_benchmark_did_not_measure_has_that_benchmarks_reason(tmp_path: Path) -> None:
    def seconds(case: report_tree.Case) -> float | None:
        return math.nan if case["backend"] == "numpy" else report_tree.seconds(case)

    report_tree.write(tmp_path, **SMALL, seconds=seconds)
    timed, interrupted = "speed.ForwardOverHiddenSize.time_forward", "not measured: the run was interrupted"
    case = {"cell": "lstm", "backend": "numpy", "dtype": "float32", "seq_len": 64, "batch_size": 4, "hidden_size": 32}
    lines = [{"benchmark": timed, "params": case, "reason": "an earlier run's"}]
    lines += [{"benchmark": timed, "params": case, "reason": interrupted}]
    lines += [{"benchmark": timed, "params": case | {"backend": "numba-cpu"}, "reason": "measured since"}]
    first = {"cell": "lstm", "backend": "numpy"}
    lines += [{"benchmark": "startup.Startup.track_compile_seconds", "params": first, "reason": interrupted}]
    with record_of(tmp_path).open("a") as file:
        file.writelines(json.dumps({"record": "unmeasured", **line}) + "\n" for line in lines)
    results = report.read(tmp_path)
    skipped = results.frame[results.frame["status"] == "skipped"]
    assert results.problems == [] and set(skipped["backend"]) == {"numpy"}
    told = skipped[skipped["reason"] == interrupted]
    assert set(told["benchmark"]) == {timed, "startup.Startup.track_compile_seconds"} and len(told) == 2
    assert set(skipped.drop(told.index)["reason"]) == {"not selected by any run, or skipped without a recorded reason"}


def test_a_wrong_record_without_any_measurement_is_still_shown(root: Path) -> None:
    extra = json.loads(record_of(root).read_text().splitlines()[-1])
    extra |= {"cell": "elsewhere", "status": "wrong", "error": 1.0}
    with record_of(root).open("a") as file:
        file.write(json.dumps(extra) + "\n")
    assert one(report.load(root), cell="elsewhere")["metric"] == "verification"


def test_the_newest_commit_of_each_machine_is_the_default_and_all_can_be_reached(tmp_path: Path) -> None:
    report_tree.write(tmp_path, **SMALL, commit=NEW, date_ms=2_000_000_000_000)
    report_tree.write(tmp_path, **SMALL, commit=OLD, date_ms=1_000_000_000_000)  # measured after the newer one
    report_tree.write(tmp_path, **SMALL, commit=OLD, date_ms=1_000_000_000_000, machine="laptop")

    def found(**options: str) -> set[tuple[str, str]]:
        return set(report.load(tmp_path, **options)[["machine", "commit"]].itertuples(index=False, name=None))

    assert found() == {("desk", NEW), ("laptop", OLD)}
    assert found(commit="all") == {("desk", OLD), ("desk", NEW), ("laptop", OLD)}
    assert found(commit="aaaa") == {("desk", OLD), ("laptop", OLD)}
    assert found(machine="desk", commit=OLD) == {("desk", OLD)}
    with pytest.raises(report.ReportError, match=r"machine 'desktop'.* there are results for desk, laptop\.$"):
        report.read(tmp_path, machine="desktop")
    with pytest.raises(report.ReportError, match=r"commit 'cc'.* there are results for aaaaaaaa, bbbbbbbb\.$"):
        report.read(tmp_path, commit="cc")


def test_two_environments_of_one_commit_stay_apart(tmp_path: Path) -> None:
    report_tree.write(tmp_path, **SMALL, environment="py3.11-numpy2.3")
    report_tree.write(tmp_path, **SMALL, environment="py3.12-numpy2.4")
    results = report.read(tmp_path)
    assert [about["label"] for about in results.machines] == [
        "desk c0ffee00 py3.11-numpy2.3",
        "desk c0ffee00 py3.12-numpy2.4",
    ]
    assert times(results.frame).groupby("environment").size().nunique() == 1


def test_nothing_at_all_is_one_sentence_that_says_what_to_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("missing", "empty"):
        with pytest.raises(report.ReportError, match="run `make bench`") as caught:
            report.read(tmp_path / name)
        assert "\n" not in str(caught.value) and name in str(caught.value)


def test_the_folder_of_a_run_on_a_gpu_is_named_as_such(tmp_path: Path) -> None:
    for name in ("machine.json", "ceilings.json", "report.md"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(report.ReportError, match="is a folder of `rnnbench gpu`: read .*report.md, or give .*asv"):
        report.read(tmp_path)


def test_the_folder_of_one_machine_is_named_as_such(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        report.ReportError, match="is the folder of one machine: give .*, the folder above it"
    ) as caught:
        report.read(root / "desk")
    assert f" give {root}, the" in str(caught.value) and "make bench" not in str(caught.value)
    monkeypatch.chdir(root / "desk")
    with pytest.raises(report.ReportError, match=r"give \.\., the folder above it\.$"):
        report.read(".")


DAMAGES = {
    "cut off": b'{"commit_hash": "abc", "results": {"speed.For',
    "empty": b"",
    "not text": b"\xff\xfe\x00\x01",
    "another format": b'{"version": 1, "results": {}}',
    "newer format": b'{"version": 99}',
    "no version": b"{}",
    "a list": b"[1, 2, 3]",
    "a number": b"7",
    "deep": b"[" * 100_000,
    "wrong types": b'{"version": 2, "params": [], "requirements": 0, "commit_hash": 3, "date": "x", "python": 1,'
    b' "env_name": null, "results": 5, "result_columns": []}',
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_result_file_is_named_and_the_good_ones_still_show(root: Path, damage: str) -> None:
    bad = root / "desk" / "deadbeef-py3.12.json"
    bad.write_bytes(DAMAGES[damage])
    results = report.read(root)
    assert len(results.problems) == 1 and str(bad) in results.problems[0], results.problems
    assert "\n" not in results.problems[0] and len(results.problems[0]) < 500
    assert len(times(results.frame)) > 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_only_damaged_files_are_one_sentence(tmp_path: Path, damage: str) -> None:
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / "deadbeef-py3.12.json").write_bytes(DAMAGES[damage])
    with pytest.raises(report.ReportError, match="make bench"):
        report.read(tmp_path)


@pytest.mark.parametrize("damage", DAMAGES)
def test_without_the_description_of_the_benchmarks_the_known_names_are_assumed(root: Path, damage: str) -> None:
    whole = report.load(root)
    (root / "benchmarks.json").write_bytes(DAMAGES[damage])
    results = report.read(root)
    assert len(results.problems) == 1 and "benchmarks.json" in results.problems[0]
    pd.testing.assert_frame_equal(results.frame, whole)


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "empty"])
def test_bad_lines_among_the_records_are_named_and_the_good_ones_count(root: Path, damage: str) -> None:
    good = record_of(root).read_bytes()
    record_of(root).write_bytes(DAMAGES[damage].replace(b"\n", b" ") + b"\n\n" + good)
    results = report.read(root)
    assert len(results.problems) == 1 and "line 1 is not a record" in results.problems[0]
    assert set(times(results.frame)["status"]) == {"ok"}


def test_records_with_parts_of_the_wrong_kind_are_named(root: Path) -> None:
    case = json.loads(record_of(root).read_text().splitlines()[-1])
    wrong = [case | {"seq_len": "64"}, case | {"status": "fine"}, case | {"cell": None}, {"record": "weather"}]
    wrong += [{"record": "unmeasured", "benchmark": "speed", "params": {"cell": []}, "reason": ""}]
    wrong += [{"record": "machine", "peak_gflops": {"float32": "fast"}}, {"record": "machine", "peak_gflops": [1]}]
    with record_of(root).open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in wrong)
    results = report.read(root)
    assert len(results.problems) == 1 and "and 2 more are not records" in results.problems[0]
    assert set(times(results.frame)["status"]) == {"ok"}


def test_a_directory_in_the_place_of_a_file_is_named(root: Path) -> None:
    record_of(root).unlink()
    (root / "desk" / "c0ffee00-rnnbench.jsonl").mkdir()
    (root / "desk" / "deadbeef-py3.12.json").mkdir()
    results = report.read(root)
    assert len(results.problems) == 2
    assert set(times(results.frame)["status"]) == {"unverified"}


def test_another_projects_results_are_named_and_left_out(root: Path) -> None:
    ours = next(root.glob("desk/c0ffee00-*.json"))
    data = json.loads(ours.read_text())
    columns = data["result_columns"]
    foreign = [[0.5], [], "1"] + [None] * (len(columns) - 3)
    data["results"] = {"pkg.time_sort": foreign, "pkg.track_size": foreign}
    data |= {"commit_hash": "f" * 40, "date": 1_999_000_000_000}
    (root / "desk" / "ffffffff-py3.12.json").write_text(json.dumps(data))
    results = report.read(root)
    assert results.problems == [f"{root / 'desk' / 'ffffffff-py3.12.json'}: holds no benchmark of rnnbench, left out."]
    assert set(results.frame["commit"]) == {"c0ffee00" * 5}
    data = json.loads(ours.read_text())
    data["results"]["pkg.time_sort"] = foreign
    ours.write_text(json.dumps(data))
    assert "desk c0ffee00: not benchmarks of rnnbench, left out: pkg.time_sort." in report.read(root).problems


def test_one_damaged_benchmark_is_named_and_the_others_show(root: Path) -> None:
    ours = next(root.glob("desk/c0ffee00-*.json"))
    data = json.loads(ours.read_text())
    data["results"]["speed.ForwardOverHiddenSize.time_forward"][1] = 5
    ours.write_text(json.dumps(data))
    results = report.read(root)
    assert len(results.problems) == 1 and "time_forward is damaged" in results.problems[0]
    assert set(times(results.frame)["benchmark"]) == {
        "speed.ForwardOverSeqLen.time_forward",
        "speed.TrainOverHiddenSize.time_train",
        "speed.TrainOverSeqLen.time_train",
    }


def test_results_of_an_older_version_of_a_benchmark_are_left_out_by_name(root: Path) -> None:
    known = json.loads((root / "benchmarks.json").read_text())
    known["memory.Memory.track_tape_bytes"]["version"] = "2"
    (root / "benchmarks.json").write_text(json.dumps(known))
    results = report.read(root)
    assert len(results.problems) == 1 and "track_tape_bytes was measured by an older version" in results.problems[0]
    assert "tape_bytes" not in set(results.frame["metric"])


def test_a_file_in_another_machines_directory_is_named(root: Path) -> None:
    (root / "laptop").mkdir()
    shutil.copy(next(root.glob("desk/c0ffee00-*.json")), root / "laptop" / "c0ffee00-x.json")
    results = report.read(root)
    assert len(results.problems) == 1 and "laptop" in results.problems[0]


def test_reading_loads_no_backend_and_no_plotting_library() -> None:
    code = "import sys, rnnbench.report; print(*sorted({'matplotlib', 'numba', 'jinja2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_report_needs_no_import_of_its_own() -> None:
    program = (
        "import rnnbench; print(callable(rnnbench.report.load), 'report' in dir(rnnbench), rnnbench.interop.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["True", "True", "rnnbench.interop"]
