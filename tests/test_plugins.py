"""Cells and backends of other packages: as entry points of an installed one, and registered in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from gate_projects import CELL, backend

from rnnbench import backends, cells, cli, plugins
from rnnbench.bench.cases import Case
from rnnbench.bench.verify import verify

METADATA = "Metadata-Version: 2.1\nName: kernels\nVersion: 1\n"
POINTS = """[rnnbench.cells]
mgu = kernels_of_others.cells:mgu
broken = kernels_of_others.gone:mgu
number = kernels_of_others.cells:NUMBER

[rnnbench.backends]
coat = kernels_of_others.coat
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package as pip leaves it: its modules, and its metadata with entry points."""
    package, about = tmp_path / "kernels_of_others", tmp_path / "kernels-1.dist-info"
    package.mkdir()
    about.mkdir()
    (package / "__init__.py").write_text("")
    (package / "cells.py").write_text(CELL + "\n\nNUMBER = 3\n")
    (package / "coat.py").write_text(backend())
    (about / "METADATA").write_text(METADATA)
    (about / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(tmp_path)


def test_an_installed_packages_cell_and_backend_are_there_by_name(
    installed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cells.find("mgu").name == "mgu"
    assert backends.why_unavailable("coat") is None and backends.load("coat").describe() == "NumPy in a coat"
    assert backends.names()[-1] == "coat" and "coat" not in backends.NAMES
    found = verify(Case("mgu", "coat", seq_len=3, batch_size=2, input_size=4, hidden_size=5))
    assert (found.status, found.runs) == ("ok", "NumPy in a coat")
    assert (
        cli.main(["check", "--cells", "mgu", "--backends", "coat", "--direction", "forward", "--dtypes", "float32"])
        == 0
    )
    assert "mgu" in capsys.readouterr().out


def test_unknown_names_are_told_with_those_of_packages(installed: None) -> None:
    with pytest.raises(ValueError, match="unknown cell 'mguu'; did you mean 'mgu'"):
        cells.find("mguu")
    with pytest.raises(ValueError, match="unknown backend 'coats'; did you mean 'coat'.*choose from .*coat"):
        backends.load("coats")


def test_what_cannot_be_loaded_or_is_no_cell_is_told(installed: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        ValueError, match="'broken' is registered as 'kernels_of_others.gone:mgu', which cannot be loaded: Module"
    ):
        cells.find("broken")
    with pytest.raises(
        ValueError, match="'number' is registered as a cell but is of type int; make it a cell with @cell"
    ):
        cells.find("number")
    assert cli.main(["show", "broken"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_names_may_be_registered_in_a_process_and_mean_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_registered", {plugins.CELLS: {}, plugins.BACKENDS: {}})
    (tmp_path / "mine.py").write_text(CELL)
    plugins.register(plugins.CELLS, "mine", f"{tmp_path / 'mine.py'}:mgu")
    assert cells.find("mine").name == "mgu" and "mine" in plugins.names(plugins.CELLS)


def test_built_in_names_cannot_be_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        plugins, "_registered", {plugins.CELLS: {"lstm": "os:path"}, plugins.BACKENDS: {"numpy": "os:path"}}
    )
    assert cells.find("lstm") is cells.BUILT_IN["lstm"]
    assert backends.load("numpy").__name__ == "rnnbench.backends.numpy_backend"  # type: ignore[attr-defined]
