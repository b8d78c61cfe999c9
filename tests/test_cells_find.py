"""Cells by name and in users' files."""

from __future__ import annotations

import copy
import importlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from rnnbench import RNN, CellError, cells
from rnnbench.cells import BUILT_IN, find, load_file

MINE = """
from rnnbench import cell, sigmoid, tanh

@cell
def mine(x, R, h):
    return tanh(x.g + R.g @ h)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def add(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_built_in_cells_by_name_and_cells_themselves():
    for name, cell in BUILT_IN.items():
        assert find(name) is cell and find(cell) is cell


@pytest.mark.parametrize(
    ("name", "near"),
    [("lsmt", "lstm"), ("LSTM", "lstm"), ("gru_reset", "gru_reset_before"), ("rnn", "rnn_"), ("xyz", None), ("", None)],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, near):
    with pytest.raises(ValueError) as error:
        find(name)
    message = str(error.value)
    assert message.startswith(f"unknown cell {name!r}; ") and message.endswith("or path/to/file.py:name")
    assert ("did you mean" in message) == (near is not None) and f"'{near or ''}" in message
    assert all(known in message for known in BUILT_IN)


@pytest.mark.parametrize("thing", [None, 3, ["lstm"], Path("mine.py"), len])
def test_what_is_no_name_is_refused(thing):
    with pytest.raises(ValueError, match="a cell is named by a string or made with @cell"):
        find(thing)


def test_a_cell_of_a_file_with_and_without_its_name(path):
    mine = load_file(f"{path}:mine")
    assert mine.name == "mine" and "tanh(x.g + R.g @ h)" in mine.equations
    for reference in (f"{path}:mine", f"{path}", f"{path}:", os.path.relpath(path)):
        assert find(reference) is mine
    output, _ = RNN(str(path), 2, 3, backend="numpy")([[[0.5, -0.5]]])
    assert output.shape == (1, 1, 3)


def test_folders_may_look_like_files(tmp_path):
    folder = tmp_path / ".pyenv" / "a.py:b" / "with space"
    folder.mkdir(parents=True)
    (folder / "my.python.py").write_text(MINE)
    assert find(f"{folder}/my.python.py:mine").name == "mine"


@pytest.mark.parametrize("edited", [False, True])
def test_a_cell_of_a_file_is_pickled_for_another_process(path, edited):
    add(
        path,
        "\n\ndef made():\n    @cell\n    def inner(x, R, h):\n        return x.g\n    return inner\n\nown = made()\n",
    )
    found = find(f"{path}:own")
    assert copy.deepcopy(found) is found and pickle.loads(pickle.dumps(found)) is found
    pickled = pickle.dumps(RNN(f"{path}:own", 2, 3, backend="numpy"))
    if edited:
        add(path, "\n# edited\n")
        assert pickle.loads(pickled).spec.cell is found  # this process has read the file as it was
    program = "import pickle, sys; print(pickle.load(sys.stdin.buffer))"
    done = subprocess.run([sys.executable, "-c", program], input=pickled, capture_output=True, check=False)
    if edited:
        assert done.stderr.decode().endswith(f"CellError: {path} has changed since its cell own was pickled\n")
    else:
        assert done.stdout.decode() == "<RNN inner 2->3, layers 1, directions 1, float32, numpy>\n", done.stderr


@pytest.mark.parametrize("changed", ["return x.g * 2", "return x.a", "c = x.g\n    return c"])
def test_an_rnn_whose_imported_cell_has_changed_is_not_unpickled(tmp_path, monkeypatch, changed):
    text = "from rnnbench import cell\n\n\n@cell\ndef own(x, R, h):\n    return x.g\n"
    (tmp_path / "imported_cells.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    pickled = pickle.dumps(RNN(importlib.import_module("imported_cells").own, 2, 3, backend="numpy"))
    del sys.modules["imported_cells"]
    (tmp_path / "imported_cells.py").write_text(text.replace("return x.g", changed) + "# of another size\n")
    if changed.startswith("c ="):  # the same mathematics
        assert pickle.loads(pickled).spec.cell.name == "own"
    else:
        words = "the equation of imported_cells.own has changed since this RNN was pickled"
        with pytest.raises(CellError, match=words):
            pickle.loads(pickled)
    del sys.modules["imported_cells"]


def test_the_name_is_the_variables(path):
    add(
        path,
        """
def scaled(k):
    @cell
    def inner(x, R, h):
        return tanh(k * x.g + R.g @ h)
    return inner

one, two = scaled(1.5), scaled(2.0)
again = two
""",
    )
    assert load_file(f"{path}:one").digest != load_file(f"{path}:two").digest
    assert load_file(f"{path}:again") is load_file(f"{path}:two")
    with pytest.raises(CellError, match="holds no cell 'inner'; .*its cells: mine, one, two, again"):
        load_file(f"{path}:inner")


def test_errors_name_the_file_its_cells_and_the_nearest(path):
    with pytest.raises(CellError, match=r"there is no file '.*other\.py' to take the cell mine from"):
        load_file(f"{path.parent}/other.py:mine")
    with pytest.raises(CellError, match="there is no file .* to take the cell \\(any\\) from"):
        load_file(f"{path.parent}/other.py")
    with pytest.raises(CellError, match="holds no cell 'mime'; did you mean 'mine'\\? its cells: mine$"):
        load_file(f"{path}:mime")
    with pytest.raises(CellError, match="is named path/to/file.py:name, not 'mine'"):
        load_file("mine")
    add(path, "\n@cell\ndef other(x, R, h):\n    return x.g\n")
    with pytest.raises(CellError, match="name one of: mine, other"):
        load_file(str(path))
    path.write_text("import math\n")
    for name in ("", ":mine"):
        with pytest.raises(CellError, match="mine.py holds no cell; write @cell above a function$"):
            load_file(f"{path}{name}")


def test_an_imported_built_in_cell_is_not_the_files_own(path):
    add(path, "\nfrom rnnbench.cells.library import lstm\n")
    assert find(str(path)).name == "mine"
    with pytest.raises(CellError, match="its cells: mine$"):
        find(f"{path}:lstm")


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(path):
    add(path, "\nimport sys\nsys.rnnbench_test_count = getattr(sys, 'rnnbench_test_count', 0) + 1\n")
    try:
        first = find(str(path))
        assert find(str(path)) is first and sys.rnnbench_test_count == 1
        before = path.stat()
        path.write_text(path.read_text().replace("tanh(x.g", "tanh(x.k"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # the same size and time
        assert path.stat().st_size == before.st_size
        second = find(str(path))
        assert sys.rnnbench_test_count == 2
        assert first.input_gates == ("g",) and second.input_gates == ("k",)
    finally:
        del sys.rnnbench_test_count
    assert not list(path.parent.glob("__pycache__"))


def test_a_file_may_do_what_modules_do(path):
    path.write_text(
        '"""Mine."""\nfrom __future__ import annotations\nfrom dataclasses import dataclass\n'
        + MINE
        + "\n@dataclass\nclass Sizes:\n    width: int = 3\n\nassert __file__ and Sizes.__module__ == __name__ != '__main__'\n"
    )
    assert find(str(path)).name == "mine"


def test_what_a_file_raises_passes_through_and_is_tried_again(path):
    good = path.read_text()
    modules = set(sys.modules)
    path.write_text(good + "\n1 / 0\n")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            find(str(path))
    path.write_text("def broken(:\n")
    with pytest.raises(SyntaxError) as error:
        find(str(path))
    assert error.value.filename == str(path)
    assert set(sys.modules) == modules
    path.write_text(good)
    assert find(str(path)).name == "mine"


def test_a_file_that_ends_the_program_is_an_error(path):
    path.write_text("import sys\n\nsys.exit()\n")
    with pytest.raises(CellError, match=r"ends the program while it is read for its cells \(sys.exit\(None\)\)"):
        cells.find(f"{path}:mine")


def test_an_equation_that_is_wrong_is_named_with_its_file(path):
    path.write_text(MINE.replace("tanh(x.g", "tanh(x.g**2"))
    with pytest.raises(CellError, match=rf"{path}, line 6: mine: `return tanh\(x.g\*\*2"):
        find(str(path))


def test_the_names_that_an_equation_needs_are_public():
    import rnnbench

    for name in ("cell", "sigmoid", "tanh", "relu", "exp", "log", "sqrt", "minimum", "maximum", "where"):
        assert getattr(rnnbench, name) is getattr(cells, name) and name in rnnbench.__all__ and name in dir(rnnbench)
    with pytest.raises(AttributeError, match="no attribute 'sin'"):
        rnnbench.sin  # noqa: B018
