"""The files of a run on a GPU are whole whatever cuts it off, and a place that takes none is told in a sentence."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rnnbench import backends, cli
from rnnbench.bench.cases import Case
from rnnbench.bench.gpu_report import Results
from rnnbench.bench.verify import Verification


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_a_run_that_is_killed_while_it_writes_leaves_what_was_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Results(tmp_path / "out", "a device", {"cpu": "some"}, {"copy": 3.5})
    results.verifications.append(Verification(Case("lstm", "numba-cuda"), "ok", 1e-7, 1e-6, "output"))
    results.sanitizers["memcheck"] = True, "no errors"
    results.rows.append({"backend": "numba-cuda", "seconds": None, "status": "skipped", "direction": "forward"} | SIZES)
    results.write()
    before = contents(results.folder)
    assert set(before) == {
        "machine.json", "ceilings.json", "conformance.csv", "compare.csv", "sanitizers.txt", "report.md"
    }  # fmt: skip
    assert "numba-cuda-tf32" in before["report.md"] and "elsewhere these are in float32" in before["report.md"]
    assert before["ceilings.json"] == '{\n  "copy": 3.5\n}\n' and before["conformance.csv"].count("\n") == 2

    def cut_off(number: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", cut_off)  # when a file is written and has not its name yet
    monkeypatch.setattr(results, "runs", "a device that is gone")
    for part in (results.machine, results.ceilings, results.rows, results.verifications, results.sanitizers):
        part.clear()  # type: ignore[attr-defined]
        with pytest.raises(KeyboardInterrupt):
            results.write()
        assert contents(results.folder) == before


SIZES = {"cell": "lstm", "lengths": "full", "seq_len": 2, "batch_size": 3, "hidden_size": 4}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as it takes to begin."""
    monkeypatch.setattr(backends, "why_unavailable", lambda name: None)
    monkeypatch.setattr(backends, "load", lambda name: SimpleNamespace(describe=lambda: "a device"))


def test_a_folder_that_takes_no_file_is_told(
    device: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("a file")
    assert cli.main(["gpu", str(file)]) == 2
    assert capsys.readouterr().err == f"rnnbench: results cannot be written into {file}: Not a directory\n"

    def refused(path: Path, text: str) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("rnnbench.bench.gpu_report.replace_text", refused)  # root may write anywhere
    assert cli.main(["gpu", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"rnnbench: results cannot be written into {tmp_path}: Permission denied\n"
