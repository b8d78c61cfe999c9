"""A report on every benchmark that `benchmarks/` has, found there, so that a new one is covered."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import report_tree
from house_rules import ROOT

from rnnbench import report

DISCOVER = """
import json
from asv_runner.discovery import disc_benchmarks
found = [{"name": b.name, "params": b.params, "param_names": b.param_names, "unit": b.unit, "version": b.version, "type": b.type}
         for b in disc_benchmarks("benchmarks")]
print(json.dumps(found))
"""


def discovered(suite: str) -> list[dict]:
    """What asv finds in `benchmarks/`, its parameters as the texts that asv keeps."""
    environment = os.environ | {"RNNBENCH_SUITE": suite}
    done = subprocess.run(
        [sys.executable, "-c", DISCOVER], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


SMOKE = discovered("smoke")
NAMES = [about["name"] for about in SMOKE]
PROGRAMS = [
    about["name"] for about in SMOKE if about["param_names"] == ["cell", "backend"] and "tartup" not in about["name"]
]


def shown(root: Path, form: str = "table", html: bool = False) -> str:
    stream = io.StringIO()
    assert report.main(root, format=form, html=html, width=160, stream=stream) == 0
    return stream.getvalue()


def fewer(about: dict) -> dict:
    """The benchmark with its first three backends, two of each size, one of all else: plots take their time."""
    counts = [{"backend": 3, "cell": 1, "dtype": 1}.get(name, 2) for name in about["param_names"]]
    return about | {"params": [axis[:count] for axis, count in zip(about["params"], counts, strict=True)]}


@pytest.mark.parametrize("suite", ["smoke", "full"])
def test_a_report_shows_all_of_them_together(tmp_path: Path, suite: str) -> None:
    found = [fewer(about) for about in (SMOKE if suite == "smoke" else discovered(suite))]
    report_tree.write_found(tmp_path, found)
    assert report.read(tmp_path).problems == []
    text = shown(tmp_path, html=True)
    assert "all verified" in text
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for name in PROGRAMS:
        assert name.split(".")[1] in text and name.split(".")[1] in page
    frame = pd.read_csv(io.StringIO(shown(tmp_path, "csv")))
    assert set(frame["benchmark"]) >= {about["name"] for about in found}


@pytest.mark.parametrize("name", NAMES)
def test_a_report_shows_each_of_them_alone(tmp_path: Path, name: str) -> None:
    report_tree.write_found(tmp_path, [fewer(about) for about in SMOKE if about["name"] == name])
    text = shown(tmp_path, html=name in PROGRAMS)  # the others' plots take their time, and are on the page above
    assert name not in PROGRAMS or "\nPrograms\n" in text
    assert name in shown(tmp_path, "csv")
