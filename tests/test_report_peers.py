"""The report's head to head: every backend and peer on the same case."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import report_tree

from rnnbench import backends, report
from rnnbench.report import base, plots, tables, views

SECONDS = {"numpy": 8e-3, "numba-cpu": 2e-3, "torch": 3e-3, "onnxruntime": 1e-3}


def seconds(case):
    """ONNX Runtime infers faster than we do, has no way back, and PyTorch has no peephole LSTM."""
    backend, train = case["backend"], case["direction"] == "train"
    if (backend == "onnxruntime" and train) or (backend == "torch" and case["cell"] == "lstm_peephole"):
        return math.nan
    return SECONDS[backend] * (3 if train else 1)


@pytest.fixture
def results(tmp_path: Path):
    report_tree.write(
        tmp_path, cells=["lstm", "lstm_peephole"], backends=list(SECONDS), hidden_sizes=[32], seq_lens=[64],
        batch_sizes=[16], seconds=seconds,
    )  # fmt: skip
    return report.read(tmp_path)


def test_the_names_of_the_peers_are_those_of_the_backends():
    assert set(backends.PEERS) <= set(base.PEERS) and not set(backends.OWN) & set(base.PEERS)


def test_each_backend_has_a_column_and_the_last_says_how_far_ahead_we_are(results):
    wide = views.side_by_side(results.frame)
    assert list(wide.columns) == ["numba-cpu", "numpy", "torch", "onnxruntime", "ours"]
    lead = wide["ours"].unstack("cell")
    assert lead.loc["forward"].iloc[0].to_dict() == pytest.approx({"lstm": 0.5, "lstm_peephole": 0.5}, rel=0.03)
    trained = lead.loc["train"].iloc[0]
    assert trained["lstm"] == pytest.approx(1.5, rel=0.03) and math.isnan(trained["lstm_peephole"])


def test_the_table_marks_the_best_also_where_it_is_not_ours(results):
    found = {table.title: table for table in tables(results) if table.section == "head to head"}
    forward = found["Side by side with the peers, forward"]
    assert "ahead in 0 of 4 cases" in forward.caption
    columns = list(forward.frame.columns)
    assert {columns[column] for _, column in forward.best} == {"onnxruntime"}
    train = found["Side by side with the peers, train"]
    assert "onnxruntime" not in train.frame and "ahead in 2 of 2 cases" in train.caption
    assert {list(train.frame.columns)[column] for _, column in train.best} == {"numba-cpu"}


def test_the_page_has_the_table_and_a_picture(results, tmp_path):
    page = report.html(results, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Side by side with the peers" in page and "our fastest over the fastest peer, forward, float32" in page
    assert [plot.title for plot in plots.lead_over_peers(results.frame)] == [
        "our fastest over the fastest peer, forward, float32", "our fastest over the fastest peer, train, float32",
    ]  # fmt: skip


def test_both_sections_of_heat_maps_have_their_legend_and_no_legend_is_empty(results, tmp_path):
    page = report.html(results, tmp_path / "page.html").read_text(encoding="utf-8")
    sections = {part.split('"')[0]: part for part in page.split('<h3 id="')[1:]}
    for name, meaning in {"head-to-head-0": "the fastest peer", "speed-up-0": "the baseline"}.items():
        (legend,) = re.findall(r'<ul class="legend heat" aria-label="(.*?)">(.*?)</ul>', sections[name], re.DOTALL)
        assert legend[0] == f"Colours of the maps: times as fast as {meaning}"
        assert legend[1].count("<li") == len(plots.BOUNDS) + 1
        assert sections[name].count("<ul") == 1
    assert not re.search(r"<ul[^>]*>\s*</ul>", page)


def test_without_peers_there_is_nothing_to_set_beside(tmp_path):
    report_tree.write(tmp_path, hidden_sizes=[32], seq_lens=[64])
    results = report.read(tmp_path)
    assert views.side_by_side(results.frame).empty and plots.lead_over_peers(results.frame) == []
    assert not [table for table in tables(results) if table.section == "head to head"]
