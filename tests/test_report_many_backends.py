"""A dozen backends and half a dozen batch sizes can be told apart, in the plots and in their legend."""

from __future__ import annotations

import re
from pathlib import Path

import report_tree

from rnnbench import report
from rnnbench.report import plots

BACKENDS = [f"backend-{letter}" for letter in "abcdefghijkl"]
BATCH_SIZES = [1, 2, 4, 8, 16, 32, 64]


def results_of(root: Path, **about: list) -> report.Results:
    report_tree.write(root, cells=["lstm"], hidden_sizes=[32, 64], seq_lens=[16], **about)
    return report.read(root)


def test_each_of_a_dozen_backends_has_its_own_colour_and_marker(tmp_path: Path) -> None:
    results = results_of(tmp_path, backends=BACKENDS, batch_sizes=[4])
    looks = plots.series(results.frame)
    assert list(looks) == BACKENDS and len(set(looks.values())) == len(BACKENDS)
    page = report.html(results, tmp_path / "page.html").read_text(encoding="utf-8")
    section = page.split('<h3 id="throughput-0"')[1].split("<h3")[0]
    lines = re.findall(r"<li><svg(.*?)</svg>(.*?)</li>", section, re.DOTALL)
    assert [name for _, name in lines if name in BACKENDS] == BACKENDS
    assert len({drawn for drawn, name in lines if name in BACKENDS}) == len(BACKENDS)


def test_each_batch_size_has_its_own_dashes(tmp_path: Path) -> None:
    results = results_of(tmp_path, backends=["numpy"], batch_sizes=BATCH_SIZES)
    dashes = plots.batches(results.frame)
    assert sorted(dashes) == BATCH_SIZES and len(set(dashes.values())) == len(BATCH_SIZES)
    (plot, *_) = plots.throughput(results.frame)
    drawn = set(re.findall(r"stroke-dasharray: ([^;\"]*)", plot.svg))
    assert len(drawn) == len(BATCH_SIZES) - 1  # one is solid
    page = report.html(results, tmp_path / "page.html").read_text(encoding="utf-8")
    section = page.split('<h3 id="throughput-0"')[1].split("<h3")[0]
    assert len(set(re.findall(r'stroke-dasharray="([^"]*)"/></svg>batch size', section))) == len(BATCH_SIZES)
