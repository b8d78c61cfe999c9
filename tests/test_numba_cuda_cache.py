"""Compiled CUDA kernels on disk, without a GPU: what one dispatcher assembled, another one loads, and a changed one does not.

A stand-in answers where Numba asks for the device; kernels are assembled by nvJitLink and never launched.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="the package numba-cuda is not installed")
pytest.importorskip("cuda.bindings.nvjitlink", reason="the package cuda-bindings is not installed")

import numba.cuda.dispatcher  # noqa: E402
from numba import cuda, types  # noqa: E402
from test_numba_cuda_ptx import INT, array, buffers, stand_in  # noqa: E402

from rnnbench import cells  # noqa: E402
from rnnbench.backends import kernel_files  # noqa: E402
from rnnbench.backends.numba_cuda import compiled, plan  # noqa: E402
from rnnbench.cells import program  # noqa: E402

VECTOR = types.Array(types.float32, 1, "C")
CAPABILITY = (9, 0)


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """A device of compute capability 9.0 as far as it is asked, a folder of one's own; the names of kernels that were compiled."""
    stand_in(monkeypatch, CAPABILITY)
    monkeypatch.setattr(cuda, "get_current_device", numba.cuda.dispatcher.get_current_device)
    compiled_names: list[str] = []
    kernel_type = numba.cuda.dispatcher._Kernel
    original = kernel_type.__init__

    def noted(self: Any, py_func: Any, *arguments: Any, **options: Any) -> None:
        compiled_names.append(py_func.__name__)
        original(self, py_func, *arguments, **options)

    monkeypatch.setattr(kernel_type, "__init__", noted)
    monkeypatch.setattr(kernel_type, "bind", lambda self: self._codelibrary.get_cubin())
    monkeypatch.setenv("RNNBENCH_CACHE_DIR", str(tmp_path))
    compiled.folder.cache_clear()
    yield compiled_names
    compiled.folder.cache_clear()


def scale(factor: float, *made_from: object, threads: int = 0) -> Any:
    """A kernel that multiplies by a number that is part of it."""

    @compiled.kernel(factor, *made_from, threads=threads)
    def scaled(values):
        i = cuda.grid(1)
        if i < values.shape[0]:
            values[i] *= factor

    return scaled


def cubin(kernel: Any, signature: tuple[Any, ...] = (VECTOR,)) -> bytes:
    return bytes(kernel.compile(signature)._codelibrary.get_cubin().code)


def test_the_next_dispatcher_loads_what_one_compiled(made: list[str], tmp_path: Path) -> None:
    first = cubin(scale(2.0))
    assert made == ["scaled"] and len(list(tmp_path.glob("*/*.kernel"))) == 1
    again = scale(2.0)
    assert cubin(again) == first
    assert made == ["scaled"], "it was compiled again"
    loaded = again.overloads[(VECTOR,)]
    assert loaded.entry_name and not loaded.cooperative and loaded.argument_types == (VECTOR,)


def test_what_makes_another_kernel_is_compiled(made: list[str]) -> None:
    codes = [cubin(kernel) for kernel in (scale(2.0), scale(3.0), scale(2.0, "x"), scale(2.0, threads=64))]
    assert len(made) == 4 and codes[0] != codes[1]
    cubin(scale(2.0), (types.Array(types.float64, 1, "C"),))
    assert len(made) == 5


def test_another_source_or_capability_has_another_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = compiled.folder(CAPABILITY)
    assert here.parent == tmp_path
    assert compiled.folder((8, 0)) != here
    compiled.folder.cache_clear()
    monkeypatch.setattr(kernel_files, "source_digest", lambda backend: f"{backend}, changed")
    assert compiled.folder(CAPABILITY) != here


@pytest.mark.parametrize("damage", [b"", b"not a kernel", "half"])
def test_a_damaged_file_is_compiled_again(made: list[str], tmp_path: Path, damage: bytes | str) -> None:
    cubin(scale(2.0))
    (path,) = tmp_path.glob("*/*.kernel")
    path.write_bytes(damage if isinstance(damage, bytes) else path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(RuntimeWarning, match=f"{path.name} is damaged .* and is compiled again"):
        again = cubin(scale(2.0))
    assert len(made) == 2
    assert cubin(scale(2.0)) == again and len(made) == 2, "the damaged file was not replaced"


def test_a_folder_that_cannot_be_written_costs_no_kernel(
    made: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compiled.tempfile, "mkstemp", full)
    with pytest.warns(RuntimeWarning, match="could not be kept in .*: .*No space left on device"):
        assert cubin(scale(2.0))
    assert not list(tmp_path.glob("*/*.kernel"))


def test_a_launch_asks_for_types_once_for_each_dtype(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    launches: list[tuple[Any, ...]] = []
    monkeypatch.setattr(numba.cuda.dispatcher._Kernel, "launch", lambda self, *what: launches.append((self, *what)))
    monkeypatch.setattr(numba.cuda.dispatcher.driver, "_to_core_stream", lambda stream: stream)
    kernel, asked = scale(2.0), []
    typeof = type(kernel).typeof_pyval
    monkeypatch.setattr(type(kernel), "typeof_pyval", lambda self, value: asked.append(value) or typeof(self, value))
    single, double = np.ones(3, np.float32), np.ones(3)
    for values in (single, double, single, double):
        compiled.launch(kernel, (200,), (32,), 0, values.dtype.name, (values,))
    assert len(asked) == 2 and len(made) == 2
    assert [(what[1][0] is single, what[0].argument_types[0].dtype) for what in launches] == [
        (True, types.float32), (False, types.float64), (True, types.float32), (False, types.float64),
    ]  # fmt: skip
    assert launches[0][2:] == ((200, 1, 1), (32, 1, 1), 0, 0)


def test_a_persistent_kernel_comes_back_whole(made: list[str]) -> None:
    """The largest kind: several megabytes of text, a barrier of the grid, registers bounded by the block's threads."""
    from rnnbench.backends.numba_cuda.persistent import persistent
    from rnnbench.params import Spec

    spec = Spec(cells.find("gru"), 256, 256)
    tile = plan.plan(spec, 4, plan.H200, "float32", "grid").tile
    assert tile is not None
    signature = buffers(False, types.float32), array(2, types.float32), INT, types.boolean, INT
    arguments = program(spec.step, False), False, tile, 256, "float32", False, "float32"
    codes = []
    for _ in range(2):
        persistent.cache_clear()
        kernel = persistent(*arguments)
        codes.append(cubin(kernel, signature))
    assert codes[0] == codes[1] and made == ["all_steps"]
    assert kernel.overloads[signature].cooperative
