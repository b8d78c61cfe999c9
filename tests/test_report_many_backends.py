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


def test_a_backend_has_one_colour_and_marker_on_the_whole_page(tmp_path: Path) -> None:
    for machine, backends in (("one", ["numba-cpu", "numpy"]), ("two", ["jax", "numba-cpu", "numpy"])):
        results = results_of(tmp_path, machine=machine, backends=backends, batch_sizes=[4])
    page = report.html(results, tmp_path / "page.html").read_text(encoding="utf-8")
    drawn = {name: set() for name in ("jax", "numba-cpu", "numpy")}
    for section in re.findall(r'<ul class="legend" aria-label="Lines of the plots">.*?</section>', page, re.DOTALL):
        entries = re.findall(r"<li><svg(.*?)</svg>(.*?)</li>", section, re.DOTALL)
        lines = {re.search(r"series-\d", look)[0]: name for look, name in entries if name in drawn}
        assert set(re.findall(r"series-\d", section.split("</ul>", 1)[1])) == set(
            lines
        )  # the plots are as the legend says
        for look, name in entries:
            drawn.get(name, set()).add(look)
    assert [len(looks) for looks in drawn.values()] == [1, 1, 1]


def test_each_batch_size_has_its_own_dashes(tmp_path: Path) -> None:
    results = results_of(tmp_path, backends=["numpy"], batch_sizes=BATCH_SIZES)
    dashes = plots.batches(results.frame)
    assert sorted(dashes) == BATCH_SIZES and len(set(dashes.values())) == len(BATCH_SIZES)
    (plot, *_) = plots.throughput(results.frame, plots.series(results.frame))
    drawn = set(re.findall(r"stroke-dasharray: ([^;\"]*)", plot.svg))
    assert len(drawn) == len(BATCH_SIZES) - 1  # one is solid
    page = report.html(results, tmp_path / "page.html").read_text(encoding="utf-8")
    section = page.split('<h3 id="throughput-0"')[1].split("<h3")[0]
    assert len(set(re.findall(r'stroke-dasharray="([^"]*)"/></svg>batch size', section))) == len(BATCH_SIZES)
