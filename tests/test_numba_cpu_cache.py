"""Kernels on disk: found again by the next process, never stale, safe from processes that save at once and from damage.

Each test has a cache folder of its own, and what it compiles is as small as it can be.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kernels
import numpy as np
import pytest
from numba.core import caching

from rnnbench.backends import kernel_files
from rnnbench.backends.numba_cpu import cache

PACKAGE = Path(kernel_files.__file__).parents[1]

PROBE = """
import json, sys, time
import numpy as np
from numba.core import event
import rnnbench
from rnnbench.backends.numba_cpu import cache

found = {"folder": str(cache.folder()), "package": rnnbench.__file__, "outputs": [], "seconds": []}
x = np.linspace(-1, 1, 12).reshape(3, 2, 2)
with event.install_recorder("numba:compile") as recorder:
    for path in sys.argv[1:]:
        rnn = rnnbench.RNN(path, 2, 3, dtype="float64")
        start = time.perf_counter()
        output, _ = rnn(x)
        found["seconds"].append(time.perf_counter() - start)
        found["outputs"].append(output.tolist())
found["compiled"] = len(recorder.buffer)
print(json.dumps(found))
"""
CELL = """
from rnnbench import cell, {function}

@cell
def mine(x, R, h):
    return {function}(x.g) + 0.5 * h
"""


class Processes:
    """Fresh interpreters on a copy of the package with a cache of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(PACKAGE, folder / "rnnbench", ignore=shutil.ignore_patterns("__pycache__"))

    def cell(self, function: str) -> str:
        """A file with the cell `mine`, which applies `function`."""
        (self.folder / function).mkdir(exist_ok=True)
        path = self.folder / function / "mine.py"
        path.write_text(CELL.format(function=function))
        return str(path)

    def run(self, *cells: str) -> dict[str, Any]:
        """What the probe prints for these cells."""
        environment = {"PYTHONPATH": str(self.folder), "RNNBENCH_CACHE_DIR": str(self.folder / "cache")}
        found = json.loads(kernels.finish(kernels.start_python("-c", PROBE, *cells, **environment)))
        assert Path(found["package"]).parents[1] == self.folder
        return found


def expected(function: Any) -> np.ndarray:
    """What the cell `mine` gives for the probe's x."""
    from rnnbench import cell

    @cell
    def mine(x, R, h):
        return function(x.g) + 0.5 * h

    return kernels.RNN(mine, 2, 3, backend="numpy", dtype="float64")(np.linspace(-1, 1, 12).reshape(3, 2, 2))[0]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Processes one after the other: an equation; another one of the same name; both again; changed kernels."""
    processes = Processes(tmp_path_factory.mktemp("cached"))
    tanh, relu = processes.cell("tanh"), processes.cell("relu")
    found = {"first": processes.run(tanh), "edited": processes.run(relu), "again": processes.run(tanh, relu)}
    with open(processes.folder / "rnnbench" / "backends" / "numba_cpu" / "vector_math.py", "a") as source:
        source.write('\nNAMESPACE["tanh"] = relu\n')
    return found | {"changed kernels": processes.run(tanh)}


def test_the_next_process_compiles_nothing_and_is_quick(history: dict[str, dict[str, Any]]) -> None:
    assert history["first"]["compiled"] > 0
    assert history["again"]["compiled"] == 0
    # under half a second, and on a busy machine a small part of what compiling took there
    assert history["again"]["seconds"][0] < max(0.5, history["first"]["seconds"][0] / 8)
    np.testing.assert_array_equal(history["again"]["outputs"][0], history["first"]["outputs"][0])
    np.testing.assert_allclose(history["first"]["outputs"][0], expected(kernels.cells.tanh), rtol=1e-14)


def test_an_edited_equation_of_the_same_name_gives_its_own_numbers(history: dict[str, dict[str, Any]]) -> None:
    assert history["edited"]["compiled"] > 0 and history["edited"]["folder"] == history["first"]["folder"]
    np.testing.assert_allclose(history["edited"]["outputs"][0], expected(kernels.cells.relu), rtol=1e-14, atol=1e-15)
    np.testing.assert_array_equal(history["again"]["outputs"][1], history["edited"]["outputs"][0])


def test_lines_in_another_order_run_kernels_of_their_own() -> None:
    """The same mathematics and name, but the products' places are exchanged."""
    from rnnbench import cell

    def cells_in_both_orders() -> Iterator[Any]:
        @cell
        def mine(x, R, h, c):
            p = R.a @ h
            q = R.a @ c
            return kernels.cells.tanh(x.a + p) + q, c

        yield mine

        @cell
        def mine(x, R, h, c):
            q = R.a @ c
            p = R.a @ h
            return kernels.cells.tanh(x.a + p) + q, c

        yield mine

    x, state = np.linspace(-1, 1, 12).reshape(3, 2, 2), tuple(np.full((1, 2, 3), value) for value in (0.3, -0.7))
    for mine in cells_in_both_orders():
        own, numpy = (kernels.RNN(mine, 2, 3, backend=b, dtype="float64", seed=1) for b in ("numba-cpu", "numpy"))
        np.testing.assert_allclose(own(x, state)[0], numpy(x, state)[0], rtol=1e-14)


def test_changed_kernel_sources_give_new_kernels(history: dict[str, dict[str, Any]]) -> None:
    changed = history["changed kernels"]
    assert changed["compiled"] > 0 and changed["folder"] != history["first"]["folder"]
    np.testing.assert_allclose(changed["outputs"][0], expected(kernels.cells.relu), rtol=1e-14, atol=1e-15)


# --- what the folder's name hangs on --------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path) -> Path:
    copy = tmp_path / "rnnbench"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def digest(package: Path) -> str:
    return kernel_files.source_digest("numba_cpu", package)


def test_a_copy_has_the_same_digest(package: Path) -> None:
    assert digest(package) == digest(PACKAGE) == kernel_files.source_digest("numba_cpu")


@pytest.mark.parametrize(
    "name",
    [
        "backends/numba_cpu/tile.py",
        "backends/numba_cpu/simd.py",
        "cells/emit.py",
        "cells/graph.py",
        "backends/base.py",
        "tasks/kernels/team.py",
    ],
)
def test_every_source_of_kernels_counts(package: Path, name: str) -> None:
    before = digest(package)
    (package / name).write_text((package / name).read_text() + "\n# changed\n")
    assert digest(package) != before


def test_a_new_and_a_renamed_file_count_and_others_do_not(package: Path) -> None:
    before, folder = digest(package), package / "backends" / "numba_cpu"
    (package / "rnn.py").write_text("")
    assert digest(package) == before
    (folder / "new.py").write_text("")
    with_new = digest(package)
    (folder / "new.py").rename(folder / "newer.py")
    assert len({before, with_new, digest(package)}) == 3


# --- where the folder is --------------------------------------------------------------------------------------------------

WHERE = "from rnnbench.backends.numba_cpu import cache; print(cache.folder())"


def test_a_home_that_cannot_be_written_is_passed_over(tmp_path: Path) -> None:
    no_folder, temporary = tmp_path / "file", tmp_path / "temporary"
    no_folder.write_text("")
    temporary.mkdir()
    places = {"HOME": str(no_folder), "XDG_CACHE_HOME": str(no_folder), "TMPDIR": str(temporary)}
    printed = kernels.finish(kernels.start_python("-c", WHERE, RNNBENCH_CACHE_DIR="", **places))
    assert Path(printed.strip()).is_relative_to(temporary) and Path(printed.strip()).is_dir()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows has no modes of this kind")
@pytest.mark.parametrize("trap", ["writable by others", "a link", "a file"])
def test_a_temporary_folder_that_others_may_have_filled_is_not_used(tmp_path: Path, trap: str) -> None:
    no_folder, planted = tmp_path / "file", tmp_path / "rnnbench-me"
    no_folder.write_text("")
    if trap == "writable by others":
        planted.mkdir()
        planted.chmod(0o777)
    elif trap == "a link":
        (tmp_path / "elsewhere").mkdir()
        planted.symlink_to(tmp_path / "elsewhere")
    else:
        planted.write_text("")
    places = {"HOME": str(no_folder), "XDG_CACHE_HOME": str(no_folder), "TMPDIR": str(tmp_path), "USER": "me"}
    child = kernels.start_python("-c", WHERE, RNNBENCH_CACHE_DIR="", **places)
    assert "NoFolder: no folder for compiled kernels can be written: tried" in child.communicate(timeout=60)[1]


def test_a_chosen_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    child = kernels.start_python("-c", WHERE, RNNBENCH_CACHE_DIR=str(tmp_path / "file"))
    errors = child.communicate(timeout=60)[1]
    assert child.returncode == 1
    assert "NoFolder: no folder for compiled kernels can be written: tried" in errors.splitlines()[-1]


# --- processes that save at once, and damage ------------------------------------------------------------------------------

TWICE = """
import os, sys, time
from pathlib import Path
from numba.core import caching, event
from rnnbench.backends.numba_cpu.cache import cached_njit

@cached_njit()
def twice(x):
    return x + x

def meet(load):
    # between reading the index and writing it back, wait a little for the other process to do the same
    def slow(self):
        index = load(self)
        if saving and len(sys.argv) > 2:
            Path(sys.argv[2]).touch()
            end = time.monotonic() + 2
            while not Path(sys.argv[3]).exists() and time.monotonic() < end:
                time.sleep(0.01)
        return index
    return slow

def mark(save):
    def marked(self, key, data):
        saving.append(key)
        save(self, key, data)
        saving.clear()
    return marked

saving = []
files = caching.IndexDataCacheFile
files._load_index, files.save = meet(files._load_index), mark(files.save)
with event.install_recorder("numba:compile") as recorder:
    print([twice(eval(value)) for value in sys.argv[1].split()])
print(len(recorder.buffer))
"""


class Twice:
    """Processes that compute twice of numbers with a cached kernel."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.script = folder, folder / "twice.py"
        self.script.write_text(TWICE)

    def start(self, *arguments: str) -> Any:
        return kernels.start_python(str(self.script), *arguments, RNNBENCH_CACHE_DIR=str(self.folder / "cache"))

    def file(self, suffix: str) -> Path:
        """The one file of this kind in the cache."""
        (path,) = (self.folder / "cache").rglob(f"*.{suffix}")
        return path


def test_processes_that_save_at_once_keep_both_kernels(tmp_path: Path) -> None:
    twice, a, b = Twice(tmp_path), str(tmp_path / "a"), str(tmp_path / "b")
    children = [twice.start("7", a, b), twice.start("0.25", b, a)]
    assert [kernels.finish(child).split("\n")[0] for child in children] == ["[14]", "[0.5]"]
    assert kernels.finish(twice.start("7 0.25")) == "[14, 0.5]\n0\n"


def test_a_kernel_that_a_full_disk_does_not_take_runs_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, sig: Any, data: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def twice(x: int) -> int:
        return x + x

    monkeypatch.setattr(caching.FunctionCache, "save_overload", full)
    with pytest.warns(RuntimeWarning, match="a compiled kernel could not be kept in .*No space left on device"):
        assert cache.cached_njit()(twice)(7) == 14


def test_damaged_files_are_replaced(tmp_path: Path) -> None:
    twice = Twice(tmp_path)
    kernels.finish(twice.start("7"))
    for suffix, damage in (("nbi", b"no index"), ("nbc", twice.file("nbc").read_bytes()[:-100]), ("nbi", b"")):
        twice.file(suffix).write_bytes(damage)
        child = twice.start("7")
        output, errors = child.communicate(timeout=60)
        assert output.startswith("[14]\n") and not output.endswith("\n0\n")
        assert "damaged" in errors
    assert kernels.finish(twice.start("7")) == "[14]\n0\n"


# --- kernels that different processes compiled, side by side --------------------------------------------------------------

PRODUCTS = """
import sys
import numpy as np
from rnnbench.backends.numba_cpu import simd
from rnnbench.backends.numba_cpu.cache import cached_njit
from rnnbench.backends.numba_cpu.product import product_over_rows

narrow = product_over_rows(1) if "1" in sys.argv else None
wide = product_over_rows(3) if "3" in sys.argv else None

@cached_njit()
def run_narrow(out, a, panel, rows, depth, width):
    narrow(1, rows, out, 0, 0, width, out, 0, 0, width, a, 0, 0, depth, 1, panel, 0, depth, 0)

@cached_njit()
def run_wide(out, a, panel, rows, depth, width):
    wide(1, rows, out, 0, 0, width, out, 0, 0, width, a, 0, 0, depth, 1, panel, 0, depth, 0)

for columns, run in ((1, run_narrow), (3, run_wide)):
    if str(columns) in sys.argv:
        rows, depth, width = 3, 4, columns * simd.SIMD_BYTES // 4
        a, panel, out = (np.arange(r * c, dtype=np.float32) for r, c in ((rows, depth), (depth, width), (rows, width)))
        expected = out.reshape(rows, width) + a.reshape(rows, depth) @ panel.reshape(depth, width)
        run(out, a, panel, rows, depth, width)
        print(columns, np.array_equal(out.reshape(rows, width), expected), *run.stats.cache_hits.values())
"""


def test_kernels_of_different_processes_do_not_run_each_others_code(tmp_path: Path) -> None:
    """Each carries a function that closes over another width; in its process each was the first of its name."""
    script = tmp_path / "products.py"
    script.write_text(PRODUCTS)

    def start(*columns: str) -> Any:
        return kernels.start_python(str(script), *columns, RNNBENCH_CACHE_DIR=str(tmp_path / "cache"))

    for child, printed in [(start("1"), "1 True\n"), (start("3"), "3 True\n")]:
        assert kernels.finish(child) == printed
    assert kernels.finish(start("1", "3")) == "1 True 1\n3 True 1\n"
