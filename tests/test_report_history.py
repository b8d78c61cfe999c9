"""Many machines and commits at once: steps, trends, machines, best of all; scaling, roofline; and that it stays quick."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import report_tree
from report_tree import Case

from rnnbench import report
from rnnbench.report import across, base, history, page, plots, roofline, scaling

SMALL: dict[str, Any] = {"cells": ["lstm"], "hidden_sizes": [32, 64], "seq_lens": [16], "batch_sizes": [4]}
DAY_MS = 86_400_000
SLOW = {"backend": "numba-cpu", "direction": "train"}


def commit(number: int) -> str:
    return f"{number:08x}" * 5


def history_of(root: Path, factors: list[float], machine: str = "desk", **about: Any) -> Path:
    """A commit a day, on which SLOW takes so many times as long as usual."""
    for number, factor in enumerate(factors):

        def seconds(case: Case, factor: float = factor) -> float:
            return (report_tree.seconds(case) or 0) * (factor if SLOW.items() <= case.items() else 1)

        date_ms = 1_790_000_000_000 + number * DAY_MS
        report_tree.write(
            root, commit=commit(number), date_ms=date_ms, machine=machine, seconds=seconds, **SMALL | about
        )
    return root


def test_steps_are_those_that_were_put_in(tmp_path: Path) -> None:
    found = history.steps(report.load(history_of(tmp_path, [1, 1, 1, 1, 2, 2, 2, 2]), commit="all"))
    assert len(found) == 3 and set(found["direction"]) == {"train"} and set(found["backend"]) == {"numba-cpu"}
    assert set(found["commit"]) == {commit(4)} and found["ratio"].to_list() == pytest.approx([2, 2, 2])
    assert (found["after"] / found["before"]).to_list() == pytest.approx([2, 2, 2])


@pytest.mark.parametrize(
    ("factors", "ratios"),
    [
        ([1, 1, 1, 1.03, 1.03, 1.03], []),
        ([1, 2], []),
        ([1, 1, 1, 1.1, 1.1, 1.1], [1.1] * 3),
        ([2, 2, 2, 1, 1, 1], [0.5] * 3),
    ],
)
def test_small_and_short_steps_are_none_and_a_tenth_and_a_speed_up_are_some(
    factors: list[float], ratios: list[float], tmp_path: Path
) -> None:
    assert history.steps(report.load(history_of(tmp_path, factors), commit="all"))["ratio"].to_list() == pytest.approx(
        ratios
    )


def test_a_trend_is_relative_to_what_is_usual(tmp_path: Path) -> None:
    trend = history.trend(report.load(history_of(tmp_path, [1, 2, 2]), commit="all"))
    slow = trend[(trend["backend"] == "numba-cpu") & (trend["direction"] == "train")].sort_values("date")
    assert slow["relative"].to_list() == pytest.approx([0.5, 1, 1]) and set(slow["cases"]) == {3}
    rest = trend.drop(slow.index)
    assert rest["relative"].to_list() == pytest.approx([1] * len(rest))


def test_machines_are_compared_at_their_newest_commit_on_common_cases(tmp_path: Path) -> None:
    history_of(tmp_path, [5, 1], machine="one")
    history_of(tmp_path, [1, 3], machine="two", hidden_sizes=[32, 128])
    found = history.machines(report.load(tmp_path, commit="all")).set_index(["direction", "backend"])
    assert (found["machine"] == "one").all() and (found["other"] == "two").all()
    assert found.loc[("train", "numba-cpu"), "ratio"] == pytest.approx(3)
    assert found.loc[("forward", "numpy"), "ratio"] == pytest.approx(1)
    assert set(found["cases"]) == {2}  # H=32, and the one over the sequence length; H=64 and H=128 have no partner


def test_the_best_of_all_runs_is_named(tmp_path: Path) -> None:
    history_of(tmp_path, [0.5, 1], machine="one")
    history_of(tmp_path, [2], machine="two")
    best = history.best(report.load(tmp_path, commit="all"))
    train = best[best["direction"] == "train"].iloc[0]
    assert (train["backend"], train["machine"], train["commit"]) == ("numba-cpu", "one", commit(0))
    case = {"backend": "numpy", "cell": "lstm", "dtype": "float32", "direction": "train"}
    case |= {name: int(train[name]) for name in base.SIZES}
    assert train["ahead"] == pytest.approx((report_tree.seconds(case) or 0) / train["seconds"], rel=0.03)


def test_one_run_has_no_history(tmp_path: Path) -> None:
    results = report.read(history_of(tmp_path, [1]))
    assert list(across.over_runs(results)) == [] and across.trends(results, {}) == []


def test_numbers_that_are_wrong_are_in_no_history(tmp_path: Path) -> None:
    def wrong(case: Case) -> dict[str, Any]:
        return report_tree.verified(case) | ({"status": "wrong"} if SLOW.items() <= case.items() else {})

    frame = report.load(history_of(tmp_path, [1, 1, 1, 2, 2, 2], verified=wrong), commit="all")
    assert history.steps(frame).empty and "numba-cpu" not in set(
        history.trend(frame).query("direction == 'train'")["backend"]
    )


# --- scaling ----------------------------------------------------------------------------------------------------------


def power(case: Case) -> float:
    return float(1e-6 * case["seq_len"] * case["batch_size"] ** 0.5 * case["hidden_size"] ** 2)


def test_exponents_are_those_of_the_law_that_made_the_times(tmp_path: Path) -> None:
    sizes = {"hidden_sizes": [32, 64, 128], "seq_lens": [16, 64, 256], "batch_sizes": [1, 4, 16]}
    report_tree.write(tmp_path, **SMALL | sizes, seconds=power)
    found = scaling.exponents(report.load(tmp_path))
    means = found.groupby("over")["exponent"].agg(["min", "max"])
    for letter, exponent in {"T": 1.0, "B": 0.5, "H": 2.0}.items():
        assert means.loc[letter].to_list() == pytest.approx([exponent, exponent], abs=0.01)
    assert ((found["lower"] < found["exponent"]) & (found["exponent"] < found["upper"])).all()
    assert set(found["values"]) == {3} and set(found[found["over"] == "H"]["fixed"]) == {
        "T=64 B=1",
        "T=64 B=4",
        "T=64 B=16",
    }


def test_two_sizes_have_no_exponent_and_one_sample_no_interval(tmp_path: Path) -> None:
    report_tree.write(tmp_path / "two", **SMALL, seconds=power)
    assert scaling.exponents(report.load(tmp_path / "two")).empty
    report_tree.write(tmp_path / "one", **SMALL | {"hidden_sizes": [32, 64, 128]}, seconds=power, samples=1)
    found = scaling.exponents(report.load(tmp_path / "one"))
    assert len(found) and found["lower"].isna().all()


# --- roofline ---------------------------------------------------------------------------------------------------------


def test_the_intensity_is_operations_over_the_bytes_of_a_step(tmp_path: Path) -> None:
    report_tree.write(tmp_path, **SMALL)
    points = roofline.points(report.load(tmp_path))
    row = points[(points["hidden_size"] == 64) & (points["direction"] == "forward")].iloc[0]
    weights = 4 * 64 * (64 + 64)
    assert row["intensity"] == pytest.approx(2 * weights * 4 / (4 * (weights + 4 * 3 * 64)))
    train = points[(points["hidden_size"] == 64) & (points["direction"] == "train")].iloc[0]
    assert train["intensity"] == pytest.approx(row["intensity"])


def test_a_roofline_has_the_ceilings_that_were_measured(tmp_path: Path) -> None:
    report_tree.write(tmp_path, **SMALL)
    results = report.read(tmp_path)
    (flat,) = roofline.plots(results.frame, results.machines[0], plots.series(results.frame))
    assert "peak of 120 GFLOP/s. The best" in flat.alt
    ceilings = results.machines[0] | {"copy_gbytes_per_s": 10.0}
    (sloped,) = roofline.plots(results.frame, ceilings, plots.series(results.frame))
    assert "the slope of 10 GB/s" in sloped.alt and sloped.svg != flat.svg
    assert roofline.plots(results.frame, {}, {}) == []


@pytest.mark.parametrize(("above", "told"), [(0, ""), (1, " 1 lies above the peak."), (3, " 3 lie above the peak.")])
def test_a_roofline_tells_and_shows_what_lies_above_its_peak(tmp_path: Path, above: int, told: str) -> None:
    report_tree.write(tmp_path, **SMALL)
    results = report.read(tmp_path)
    rates = roofline.points(results.frame)["gflops"].sort_values(ascending=False).to_list()
    peak = (rates[above - 1] + rates[above]) / 2 if above else 2 * rates[0]
    (plot,) = roofline.plots(results.frame, {"peak_gflops": {"float32": peak}}, plots.series(results.frame))
    assert f"{len(rates)} cases beside the matrix-product peak of {peak:.4g} GFLOP/s.{told} The best" in plot.alt


def test_a_case_far_above_the_peak_is_inside_its_roofline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report_tree.write(tmp_path, **SMALL)
    results, limits = report.read(tmp_path), []
    keep = roofline.svg
    monkeypatch.setattr(
        roofline, "svg", lambda picture, *a: limits.append(picture.axes[0].get_ylim()) or keep(picture, *a)
    )
    best = roofline.points(results.frame)["gflops"].max()
    roofline.plots(results.frame, {"peak_gflops": {"float32": best / 4}}, plots.series(results.frame))
    assert limits[0][1] > best


# --- pages and texts --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("many")
    history_of(root, [1, 1, 1, 2, 2], machine="one")
    history_of(root, [1, 1, 1], machine="two")
    return root


def test_a_page_of_many_runs_has_the_history_and_the_newest_in_detail(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    size = page._size
    monkeypatch.setattr(page, "_size", lambda sections: sizes.append(size(sections)) or sizes[-1])
    results = report.read(many, commit="all")
    text = report.html(results, many / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'<h2 id="([^"]*)"', text) == ["all", "run-0", "run-1"]
    assert re.findall(r'<h3 id="(all-[^"]*)"', text) == ["all-trend", "all-steps", "all-machines", "all-best"]
    assert "Below, in detail: 2 of them" in text and "one 00000004" in text and "two 00000002" in text
    links = re.findall(r'<a href="([^"#]*\.jsonl?)"', text)
    assert len(links) == 4 and all((many / link).is_file() for link in links)
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text
    assert 0.7 < sum(sizes) / len(text) < 1.3  # the estimate by which runs are left out


def test_texts_of_many_runs_have_the_tables_too(many: Path) -> None:
    for text in (
        report.terminal(report.read(many, commit="all"), width=120),
        report.markdown(report.read(many, commit="all")),
    ):
        for title in ("Steps over the commits", "Machine against machine", "Best of all runs"):
            assert title in text
        assert "8 runs; in detail the newest of each machine" in text
        assert text.count("Throughput over hidden size, forward") == 2


def test_what_is_best_of_some_runs_is_not_called_the_best_of_all(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("throughput", "times", "heat_maps"):  # what takes long to draw is not what this is about
        monkeypatch.setattr(page.plots, name, lambda *arguments: [])
    monkeypatch.setattr(page.roofline, "plots", lambda *arguments: [])

    def titles(results: report.Results) -> tuple[str, str]:
        text = report.html(results, tmp_path / "report.html").read_text(encoding="utf-8")
        return report.terminal(results, width=200), text

    for text in titles(report.read(many)):
        assert "Best of the newest run of each machine" in text and "in the newest run of each machine; ahead" in text
        assert (
            "This is about the newest run of each machine; rnnbench report --commit all reads the others too." in text
        )
        assert "all runs" not in text.lower()
    text, html = titles(report.read(many, commit="all"))
    assert "\nBest of all runs\n" in text and "All 8 runs</h2>" in html
    assert not re.search("newest run of each|--commit all", text + html)
    text = report.markdown(report.read(many, commit=commit(1)))
    assert "Best of the runs of commit 00000001\n" in text and "about the runs of commit 00000001;" in text
    assert report.read(many, machine="one", commit="all").which == "all runs of one"
    only = history_of(tmp_path / "only", [1], machine="one")
    assert report.read(only).which == "all runs"


def test_runs_that_find_no_room_are_left_out_and_told(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "ROOM_BYTES", 1000)
    for name in ("throughput", "times", "heat_maps"):  # what takes long to draw is not what this is about
        monkeypatch.setattr(page.plots, name, lambda *arguments: [])
    text = report.html(report.read(many, commit="all"), tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Below, in detail: 1 of them" in text and 'id="run-1"' not in text and "one 00000004" in text


def test_memory_over_the_sequence_length_has_a_plot_where_it_was_measured(tmp_path: Path) -> None:
    report_tree.write(tmp_path, **SMALL)
    frame = report.load(tmp_path)
    assert plots.memory(frame, {}) == []
    longer = frame[frame["metric"] == "tape_bytes"].assign(seq_len=pd.array([128] * 4, dtype="Int64"))
    (plot,) = plots.memory(
        pd.concat([frame, longer.assign(value=longer["value"] * 2)], ignore_index=True), plots.series(frame)
    )
    assert "of tape over" in plot.alt and "(bytes)" not in plot.svg and "128" in plot.svg


def test_programs_have_a_table_with_the_best_of_each(tmp_path: Path) -> None:
    path = report_tree.write(tmp_path, **SMALL)
    result = json.loads(path.read_text())
    axes = [["'lstm'"], ["'numpy'", "'numba-cpu'"]]
    result["results"]["tasks.Words.track_words_per_second"] = [[1000.0, 4000.0], axes, "1"]
    result["results"]["tasks.Digits.track_seconds_to_accuracy"] = [[8.0, 2.0], axes, "1"]
    path.write_text(json.dumps(result))
    results = report.read(tmp_path)
    assert not [problem for problem in results.problems if "tasks" in problem]
    (table,) = [table for table in report.tables(results) if table.section == "programs"]
    shown = table.frame.to_numpy().tolist()
    assert shown == [
        ["Digits", "seconds to accuracy (seconds)", "lstm", "2.00 s", "8.00 s"],
        ["Words", "words per second (words/s)", "lstm", "4.00 k", "1.00 k"],
    ]
    assert table.best == {(0, 3), (1, 3)}


def test_a_hundred_thousand_rows_load_in_three_seconds(tmp_path: Path) -> None:
    sizes = {"hidden_sizes": (16, 32, 64, 128, 256, 512), "seq_lens": (8, 32, 128, 512), "batch_sizes": (1, 16)}
    cells = ("lstm", "gru", "rnn_tanh", "lstm_peephole")
    path = report_tree.write(
        tmp_path, commit=commit(0), cells=cells, backends=("numpy", "numba-cpu", "torch"), samples=5, **sizes
    )  # type: ignore[arg-type]
    result, record = path.read_text(), (path.parent / "00000000-rnnbench.jsonl").read_text()
    for number in range(1, 31):
        about = json.loads(result) | {"commit_hash": commit(number), "date": 1_790_000_000_000 + number * DAY_MS}
        (path.parent / path.name.replace("00000000", commit(number)[:8])).write_text(json.dumps(about))
        (path.parent / f"{commit(number)[:8]}-rnnbench.jsonl").write_text(record)
    took = math.inf
    for _ in range(3):  # other work on the machine only ever adds time
        start = time.process_time()
        rows = len(report.load(tmp_path, commit="all"))
        took = min(took, time.process_time() - start)
        if took < 3:
            break
    assert rows > 100_000 and took < 3


def test_columns_are_documented_with_their_units() -> None:
    assert list(report.MEANINGS) == report.COLUMNS
    assert all(len(meaning) > 5 for meaning in report.MEANINGS.values())
    assert all(unit in report.MEANINGS["unit"] for unit in report.UNITS.values())
    assert np.all(["bytes" in report.MEANINGS["value"] or "unit" in report.MEANINGS["value"]])


def test_a_result_that_does_not_say_its_commit_is_named_and_left_out(tmp_path: Path) -> None:
    report_tree.write(tmp_path)
    good = next(tmp_path.glob("desk/c0ffee00-*.json"))
    bad = good.with_name("deadbeef-py3.12.json")
    bad.write_text(json.dumps(json.loads(good.read_text()) | {"commit_hash": ""}))
    results = report.read(tmp_path, commit="all")
    assert len(results.problems) == 1 and str(bad) in results.problems[0] and "commit_hash" in results.problems[0]
    assert set(results.frame["commit"]) == {"c0ffee00" * 5}
