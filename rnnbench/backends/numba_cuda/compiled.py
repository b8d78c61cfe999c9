"""Kernels for the device, compiled once and kept on disk.

Numba's own cache cannot keep them: a kernel is made by a function from a cell's program, a tile and a dtype, and refers to device
functions that are different objects in each process. So the code that makes a kernel says what it is made from, and an entry's name
is a hash of that and of the types of its arguments, in a folder that changes with the sources, the compilers and the compute
capability.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
import warnings
from collections.abc import Callable
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numba
from numba import cuda

from .. import kernel_files
from .maths import SIMULATED


def kernel(*made_from: object, fast: bool = False, threads: int = 0, blocks: int = 1) -> Callable[..., Any]:
    """A decorator that makes a kernel of a function.

    made_from: everything that the kernel is made from, besides the source text; `repr` must be different for different values, and
    the same in every process. fast: its mathematics, see `maths`. threads: in a block; 0 for any number. blocks: how many must fit
    on a multiprocessor at once; the compiler limits a thread's registers accordingly.
    """
    if SIMULATED:  # the simulator has no launch bounds, and compiles nothing
        return cuda.jit(fastmath=fast)
    # By default nvJitLink would optimise, in whatever version is installed. So NVVM does, as in the tests that count registers.
    options: dict[str, Any] = {"fastmath": fast, "lto": False}
    if threads:
        options["launch_bounds"] = threads, blocks

    def decorate(function: Any) -> Any:
        dispatcher = cuda.jit(function, **options)  # as a decorator numba-cuda 0.30 forgets `lto`
        name = function.__module__, function.__qualname__, made_from, fast, threads, blocks
        dispatcher._cache = _Cache(repr(name))  # what enable_caching does, with a cache of ours
        return dispatcher

    return decorate


_READY: dict[tuple[Any, str], Any] = {}


def launch(
    kernel: Any, blocks: tuple[int, ...], threads: tuple[int, ...], stream: Any, dtype: str, arguments: tuple[Any, ...],
    cluster: int = 1,
) -> None:  # fmt: skip
    """Enqueue a kernel of `kernel` on a stream, on a grid of `blocks` of `threads`.

    dtype: together, the kernel and dtype must determine the types of all arguments, so that these are determined only once. Numba
    would do so at each launch, and takes longer for a tuple of ten arrays than a device does for a step. cluster: how many blocks,
    neighbours in the grid's first dimension, are one cluster.
    """
    configured = kernel[blocks, threads, stream]
    if SIMULATED:
        configured(*arguments)
        return
    ready = _READY.get((kernel, dtype))
    if ready is None:
        types = tuple(kernel.typeof_pyval(argument) for argument in arguments)
        ready = _READY[kernel, dtype] = kernel.compile(types)
        ready._prepare_args = _prepare
    if cluster == 1:
        ready.launch(arguments, configured.griddim, configured.blockdim, configured.stream, configured.sharedmem)
    else:
        _launch_clusters(ready, arguments, configured, cluster)


def _launch_clusters(ready: Any, arguments: tuple[Any, ...], configured: Any, cluster: int) -> None:
    """What numba-cuda's launch does, with the cluster that it cannot be told of."""
    from numba.cuda import dispatcher

    core: Any = dispatcher  # cuda.core's launch in the version that numba-cuda takes
    prepared: list[Any] = []
    _prepare(None, arguments, None, None, prepared)
    across, *down = configured.griddim  # cuda.core counts clusters
    config = core.LaunchConfig(
        grid=(across // cluster, *down), cluster=(cluster, 1, 1), block=configured.blockdim, shmem_size=0
    )
    core.launch(configured.stream, config, ready._codelibrary.get_cufunc().kernel, *prepared)


def _prepare(kind: Any, value: Any, stream: Any, retr: Any, prepared: list[Any]) -> None:
    """Append to `prepared` what the driver gets for an argument: an integer, a boolean, an array on the device or a tuple of these.
    Replaces a method of numba-cuda, whose arguments kind, stream and retr are not needed for these types.

    An array becomes two pointers that are not used here, its size, itemsize, address, shape and strides. These are looked up once
    per array: a step passes a dozen arrays, and takes less time than looking them up does.
    """
    if isinstance(value, tuple):
        for part in value:
            _prepare(None, part, stream, retr, prepared)
    elif isinstance(value, (bool, int)):
        prepared.append(value)
    else:
        numbers = getattr(value, _NUMBERS, None)
        if numbers is None:
            address = value.device_ctypes_pointer.value
            numbers = (0, 0, value.size, value.dtype.itemsize, address, *value.shape, *value.strides)
            setattr(value, _NUMBERS, numbers)
        prepared.extend(numbers)


_NUMBERS = "_rnnbench_numbers"


@lru_cache(maxsize=4)
def folder(capability: tuple[int, int]) -> Path:
    """Where kernels for devices of a compute capability are kept."""
    import numba_cuda

    return kernel_files.folder(
        [
            kernel_files.source_digest("numba_cuda"),
            numba.__version__,
            numba_cuda.__version__,
            # NVVM and the linker, which assembles, come with the toolkit's packages, whose versions vary
            *(f"{name} {_version(name)}" for name in ("nvidia-nvvm", "nvidia-nvjitlink", "cuda-core")),
            f"CUDA {cuda.runtime.get_version()} for {capability}",
        ]
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # a toolkit that pip does not know
        return "of the system"


class _Cache:
    """The kernels of one dispatcher, in the interface that Numba expects. Each has its own file, which is replaced atomically."""

    cache_path = "see rnnbench.backends.numba_cuda.compiled.folder"

    def __init__(self, name: str) -> None:
        self._name = name

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The kernel for arguments of these types, or None if it was not saved or its file is damaged."""
        from numba.cuda import serialize  # type: ignore[attr-defined]
        from numba.cuda.dispatcher import _Kernel

        path = self._path(sig)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return _Kernel._rebuild(**serialize.loads(data))
        except kernel_files.DAMAGE as error:
            warnings.warn(
                f"the compiled kernel {path} is damaged ({error!r}) and is compiled again", RuntimeWarning, stacklevel=2
            )
            return None

    def save_overload(self, sig: Any, compiled: Any) -> None:
        """Save a kernel that has been bound to a device, and is therefore assembled."""
        from numba.cuda import serialize  # type: ignore[attr-defined]

        path = self._path(sig)
        try:
            handle, name = tempfile.mkstemp(dir=path.parent, suffix=".new")
            with os.fdopen(handle, "wb") as file:
                file.write(serialize.dumps(compiled._reduce_states()))
            os.replace(name, path)  # another process's is as good
        except (OSError, pickle.PicklingError) as error:  # the kernel in hand works all the same
            warnings.warn(
                f"a compiled kernel could not be kept in {path.parent}: {error}", RuntimeWarning, stacklevel=2
            )

    def flush(self) -> None:
        """Does nothing: Numba's `recompile` calls it to discard files, but here changed sources have another folder."""

    def _path(self, sig: Any) -> Path:
        entry = hashlib.sha256(f"{self._name}\n{sig}".encode()).hexdigest()[:24]
        return folder(tuple(cuda.get_current_device().compute_capability)) / f"{entry}.kernel"
