"""What pyproject.toml may say to the gate, and how a case is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from gate_projects import commit, project

from rnnbench.bench.gate import project as settings
from rnnbench.bench.gate.case import GateCase
from rnnbench.bench.gate.project import HEADLINE, GateError, cases, no_longer_asked, parse, read


def written(root: Path, text: str) -> Path:
    (root / "pyproject.toml").write_text(text)
    return root


def test_without_a_table_it_is_twelve_headline_cases_that_are_all_different(tmp_path: Path) -> None:
    found = read(written(tmp_path, "[project]\nname = 'other'\n"))
    assert found.cases == HEADLINE and found.name == "other" and (found.threshold, found.budget) == (0.03, 6)
    headline = cases(found, found.cases)
    assert len(set(headline)) == 12
    assert {case.direction for case in headline} == {"forward", "train"} and {case.batch_size for case in headline} == {
        1,
        16,
    }


def test_the_table_names_cells_backends_cases_and_entry_points_count(tmp_path: Path) -> None:
    text = """[project]
name = "kernels"
[project.entry-points."rnnbench.cells"]
mgu = "kernels.cells:mgu"
[tool.rnnbench]
backends = { fast = "kernels.fast" }
cases = ["mgu fast train H=64"]
threshold = 0.1
budget = 2
"""
    found = read(written(tmp_path, text))
    assert found.cells == {"mgu": "kernels.cells:mgu"} and found.backends == {"fast": "kernels.fast"}
    assert (found.threshold, found.budget) == (0.1, 2.0)
    assert cases(found, found.cases) == [GateCase("mgu", "fast", direction="train", input_size=64, hidden_size=64)]


def test_what_the_documentation_shows_is_what_is_read(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parent.parent / "docs" / "ci.md").read_text(encoding="utf-8")
    table, points = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    found = read(written(tmp_path, table))
    assert [str(case).split()[:2] for case in cases(found, found.cases)] == [["mgu", "numba-cpu"]] * 2 + [
        ["lstm", "fast"]
    ]
    assert (found.threshold, found.budget) == (0.03, 6)
    assert read(written(tmp_path, points)).cells == {"mgu": "my_package.cells:mgu"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[tool.rnnbench]\ncell = {}", "has the unknown key 'cell'; did you mean 'cells'"),
        ("[tool]\nrnnbench = 3", "rnnbench must be a table; got 3"),
        ("project = 'kernels'", "project must be a table; got 'kernels'"),
        ("[tool.rnnbench]\ncells = ['a']", r"cells must be a table; got \['a'\]"),
        ("[project]\nentry-points = 3", "entry-points must be a table; got 3"),
        ("[project.entry-points]\n'rnnbench.cells' = 3", "rnnbench.cells must be a table; got 3"),
        ("[project.entry-points.'rnnbench.cells']\nmgu = 3", "cells must be named as in .*; got mgu = 3"),
        ("[tool.rnnbench]\ncases = 'lstm'", "cases in .* must be a list of strings such as 'lstm"),
        ("[tool.rnnbench]\ncases = []", "must be a list"),
        ("[tool.rnnbench]\nthreshold = 3", "threshold in .* must be a fraction such as 0.03; got 3"),
        ("[tool.rnnbench]\nbudget = 0", "budget in .* minutes above 0; got 0"),
        ("[tool.rnnbench]\nbudget = nan", "budget in .* minutes above 0; got nan"),
        ("[tool.rnnbench", "cannot be read"),
    ],
)
def test_a_bad_table_is_told_in_a_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(GateError, match=sentence):
        read(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[tool.rnnbench]\ncells = { lstm = 'kernels:lstm' }", "'lstm' in cells is one of rnnbench's own"),
        ("[project.entry-points.'rnnbench.backends']\nnumpy = 'kernels'", "'numpy' in backends is one of rnnbench's"),
        ("[tool.rnnbench]\ncells = { 'my cell' = 'kernels:mgu' }", "'my cell' in cells cannot be a word of a case"),
        ("[tool.rnnbench]\nbackends = { train = 'kernels' }", "'train' in backends cannot be a word of a case"),
    ],
)
def test_a_name_that_would_mean_something_else_in_a_case_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(GateError, match=sentence):
        read(written(tmp_path, text))


def test_no_pyproject_is_told(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="has no pyproject.toml"):
        read(tmp_path)
    without = commit(tmp_path, {"other": ""})
    with pytest.raises(GateError, match=f"^{without[:8]} has no pyproject.toml"):
        read(tmp_path, without)


def test_the_table_of_a_commit_is_read_whatever_is_in_the_folder(tmp_path: Path) -> None:
    before = commit(tmp_path, {"pyproject.toml": "[tool.rnnbench]\nthreshold = 0.1\n"})
    bad = commit(tmp_path, {"pyproject.toml": "[tool.rnnbench]\nthreshold = 3\n"})
    (tmp_path / "pyproject.toml").unlink()
    assert read(tmp_path, before).threshold == 0.1 and read(tmp_path, before).root == tmp_path
    with pytest.raises(GateError, match=f"^pyproject.toml of {bad[:8]}: threshold in .* must be a fraction"):
        read(tmp_path, bad)


def test_cases_that_are_no_longer_asked_for_are_those_that_are_not_among_the_others() -> None:
    before = project(cases=("lstm H=64", "gru", "cells/gone.py:mgu"))
    after = project(cases=("train lstm", "H=64 lstm numba-cpu"))
    assert no_longer_asked(before, after) == ["gru", "cells/gone.py:mgu"]


@pytest.mark.parametrize(
    "case",
    [
        GateCase("lstm", "numpy", "float64", "train", 3, 4, 5, 6),
        GateCase("gru", "numba-cpu", num_layers=2, bidirectional=True, lengths="ragged"),
        GateCase("lstm[clip=0.5,peepholes]", "torch"),
        GateCase("gru", "numba-cpu", bidirectional=True, threads=3),
    ],
)
def test_what_a_case_prints_is_how_it_is_written(case: GateCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "available_threads", lambda: 4)
    assert parse(project(), str(case)) == case


def test_words_may_stand_in_any_order_and_be_left_out() -> None:
    assert parse(project(), "H=64 lstm") == GateCase("lstm", "numba-cpu", input_size=64, hidden_size=64)
    assert parse(project(), "numpy train gru").backend == "numpy"
    assert parse(project(), "both ways train lstm train") == parse(project(), "lstm train both ways")
    assert cases(project(), ["lstm H=64", "H=64 lstm"]) == [parse(project(), "lstm H=64")]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("lstm H=x", "'H=x'; H must be a whole number"),
        ("lstm H=0", "'H=0'; H must be a whole number of at least 1"),
        ("H=3", "names no cell; write it like 'lstm numba-cpu forward"),
        ("lstm nmpy", "'nmpy', which is neither a cell, a backend nor a size; did you mean 'numpy'"),
        ("lstm gru", "names two cells, lstm and gru"),
        ("lstm lstm", "names two cells, lstm and lstm"),
        ("lstm numpy torch", "names two backends, numpy and torch"),
        ("lstm B=1 B=2", "has two sizes B"),
        ("lstm threads=0", "'threads=0'; threads must be a whole number of at least 1"),
        ("lstm threads=1000000", "needs 1000000 processors, and this process may use"),
        ("lstm train forward", "has two directions, train and forward"),
        ("lstm float32 float64", "has two dtypes, float32 and float64"),
        ("lstm both H=3", "has 'both' alone; a network that reads both ways has 'both ways'"),
        ("ways lstm", "has 'ways' alone"),
        ("lstm Q=3", "'Q=3', which is neither"),
    ],
)
def test_a_bad_case_is_told_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(GateError, match=sentence):
        parse(project(), text)
