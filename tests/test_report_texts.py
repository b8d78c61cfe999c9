"""Details of the report's texts: what Markdown escapes, names that are no UTF-8, and how well a page can be read."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import report_tree

from rnnbench import report
from rnnbench.report import page

SMALL = {"cells": ["lstm"], "hidden_sizes": [32], "seq_lens": [16], "batch_sizes": [4]}


def test_markdown_escapes_the_name_of_a_machine_wherever_it_stands(tmp_path: Path) -> None:
    report_tree.write(tmp_path, **SMALL, machine="<b>de|sk")
    text = report.markdown(report.read(tmp_path))
    assert "&lt;b>de\\|sk, commit" in text and "<b>" not in text


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_file_whose_name_is_no_utf8_is_named_in_every_report(tmp_path: Path) -> None:
    report_tree.write(tmp_path, **SMALL)
    Path(os.fsdecode(bytes(tmp_path / "desk") + b"/caf\xe9-x.json")).touch()
    for format in ("html", "markdown", "table"):
        file = tmp_path / f"report.{format}"
        assert report.main(tmp_path, format=format, output=file) == 0
        assert "caf\\udce9-x.json" in file.read_text(encoding="utf-8").replace("\\\\", "\\")


def test_a_beginning_that_several_commits_have_is_no_commit(tmp_path: Path) -> None:
    for commit, machine in (("aa" * 20, "desk"), ("ab" * 20, "desk"), ("ab" * 20, "laptop")):
        report_tree.write(tmp_path, **SMALL, commit=commit, machine=machine)
    with pytest.raises(
        report.ReportError, match="^Commit 'a' may be any of aaaaaaaa, abababab in .*: give more of its"
    ):
        report.read(tmp_path, commit="a")
    assert [about["label"] for about in report.read(tmp_path, commit="ab").machines] == [
        "desk abababab",
        "laptop abababab",
    ]
    assert len(report.read(tmp_path, machine="laptop", commit="a").machines) == 1  # there it is the only one


def test_a_page_links_to_files_that_are_there(tmp_path: Path) -> None:
    path = report_tree.write(tmp_path, **SMALL)
    for links in (2, 1):
        text = report.html(report.read(tmp_path), tmp_path / "page.html").read_text(encoding="utf-8")
        assert len(re.findall(r'<a href="desk/[^"#]*\.jsonl?"', text)) == links and path.name in text
        path.with_name("c0ffee00-rnnbench.jsonl").unlink(missing_ok=True)


@pytest.mark.parametrize("format", report.FORMATS)
def test_an_output_below_a_file_is_told_as_such(tmp_path: Path, format: str) -> None:
    report_tree.write(tmp_path / "results", **SMALL)
    (tmp_path / "file").touch()
    with pytest.raises(report.ReportError, match=r"cannot be written: \[Errno 20\] Not a directory: '.*/file/y'"):
        report.main(tmp_path / "results", format=format, output=tmp_path / "file" / "y")


def luminance(colour: list[float]) -> float:
    """The relative luminance of WCAG 2."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in colour]
    return sum(weight * v for weight, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def mixed(front: list[float], part: float, back: list[float]) -> list[float]:
    return [part * a + (1 - part) * b for a, b in zip(front, back, strict=True)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_keys_that_repeat_the_row_above_can_be_read(scheme: str) -> None:
    css = (page.FOLDER / "page.css").read_text(encoding="utf-8")
    part, hover = (
        float(re.search(rf"^{rule} .*color-mix\(in srgb, var\(--\w+\) (\d+)%, transparent", css, re.M)[1]) / 100
        for rule in (r"\.again \{", r"tbody tr:hover \{")
    )
    muted, surface, accent = (
        [int(pair, 16) / 255 for pair in re.findall("..", re.findall(rf"--{name}: #(\w{{6}})", css)[scheme == "dark"])]
        for name in ("muted", "surface", "accent")
    )
    for back in (surface, mixed(accent, hover, surface)):
        low, high = sorted(luminance(colour) for colour in (mixed(muted, part, back), back))
        assert (high + 0.05) / (low + 0.05) >= 4.5
