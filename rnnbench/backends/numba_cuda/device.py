"""The GPU: whether there is a usable one, its name, and its errors as sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numba
import numpy as np
from numba import cuda

from .maths import SIMULATED
from .plan import MOST_IN_CLUSTER, Device

OLDEST = (7, 5)  # Turing, the oldest that CUDA 13 compiles for
SIMULATOR = Device("Numba's CUDA simulator", 2, (8, 12), most_rows=2, staged_bytes=32, cluster=2, simulated=True)
_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_OLDEST_COMPILER = (0, 30)  # of numba-cuda: we use the cache, launch bounds and linker of this version
_NEED_ROW_STACK = tuple(f"numba-cuda 0.30.{patch}" for patch in range(5))  # row_stack is gone from NumPy 2.5
# Words from the messages about blocks that cannot run together: the driver's, and that of cuda.core, which checks a grid before.
_TOO_LARGE = ("COOPERATIVE_LAUNCH_TOO_LARGE", "exceeds the limit", "INVALID_CLUSTER_SIZE")
_CLUSTERS_SINCE = (9, 0)


def version() -> str:
    """The library that runs kernels here, as in "numba-cuda 0.30.4"."""
    try:
        import numba_cuda
    except ImportError:
        return f"numba {numba.__version__}"
    return f"numba-cuda {numba_cuda.__version__}"


def why_unavailable(name: str) -> str | None:
    """Why the backend `name` cannot run kernels in this process, in a sentence, or None if it can."""
    if SIMULATED:
        return None
    try:
        available = cuda.is_available()  # this starts the driver, so that it can say what is wrong
    except RuntimeError as error:
        if type(error).__name__ != "DynamicLibNotFoundError":  # of cuda.pathfinder, where libnvvm is missing
            raise
        available = False
    if cuda.cuda_error():
        return f"the backend {name} needs an NVIDIA GPU with its driver: {_first_sentence(cuda.cuda_error())}"
    if not available:
        return f"the backend {name} finds a driver, but no NVVM to compile with: pip install 'rnnbench[cuda]'"
    if find_spec("numba_cuda") is None:
        # the CUDA target inside Numba itself cannot limit a kernel's registers by its number of threads
        return f"the backend {name} needs the package numba-cuda, which is not installed: pip install 'rnnbench[cuda]'"
    if "numba_cuda" not in str(cuda.__file__):
        return (
            f"the backend {name} needs numba-cuda in place of Numba's own CUDA target, and a .pth file does that in site-packages "
            "alone: install numba-cuda there, not in a folder of PYTHONPATH"
        )
    if tuple(map(int, re.findall(r"\d+", version())[:2])) < _OLDEST_COMPILER:
        return f"the backend {name} needs numba-cuda {_dotted(_OLDEST_COMPILER)} or later, and {version()} is installed"
    if not hasattr(np, "row_stack") and version() in _NEED_ROW_STACK:
        return f"the backend {name} needs NumPy below 2.5: with {np.__version__} {version()} compiles nothing"
    driver, toolkit = _driver_version(), cuda.runtime.get_version()
    if (
        driver[0] < toolkit[0]
    ):  # kernels are linked for the device here, and a driver loads what any minor version of its CUDA linked
        # another major version also needs other bindings and another linker, which come with an extra of numba-cuda
        return (
            f"the backend {name} compiles with CUDA {_dotted(toolkit)}, and the driver here runs no newer than {_dotted(driver)}: "
            f"pip install 'numba-cuda[cu{driver[0]}]' 'cuda-toolkit=={_dotted(driver)}.*', or a newer driver"
        )
    device = cuda.get_current_device()
    if device.compute_capability < OLDEST:
        found = f"{_name(device)} has {_dotted(device.compute_capability)}"
        return f"the backend {name} needs compute capability {_dotted(OLDEST)} or more, and {found}"
    return None


@lru_cache(maxsize=1)
def current() -> Device:
    """The device that kernels run on. Call `why_unavailable` first."""
    if SIMULATED:
        return SIMULATOR
    device = cuda.get_current_device()
    has_clusters = tuple(device.compute_capability) >= _CLUSTERS_SINCE
    return Device(_name(device), device.MULTIPROCESSOR_COUNT, cluster=MOST_IN_CLUSTER if has_clusters else 0)


def has_tf32() -> bool:
    """Whether the device's tensor cores compute in TensorFloat-32."""
    return SIMULATED or tuple(cuda.get_current_device().compute_capability) >= (8, 0)


def _name(device: Any) -> str:
    return device.name.decode() if isinstance(device.name, bytes) else str(device.name)


def _driver_version() -> tuple[int, int]:
    from numba.cuda.cudadrv import driver

    found = driver.get_version() if hasattr(driver, "get_version") else driver.driver.get_version()
    return tuple(found)  # type: ignore[return-value]


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def _first_sentence(message: Any) -> str:
    text = " ".join(str(message).split())
    return text.partition(". ")[0].rstrip(".")


def is_out_of_memory(error: Exception) -> bool:
    """Whether the error says that the device is out of memory."""
    # cuda.core, which loads and launches kernels, raises a CUDAError without a code
    said = "CUDA_ERROR_OUT_OF_MEMORY" in str(error)
    return isinstance(error, MemoryError) or said or getattr(error, "code", None) == _OUT_OF_MEMORY


def total_memory() -> int:
    """Bytes of the device's memory, free or in use."""
    return int(cuda.current_context().get_memory_info()[1])


@contextmanager
def memory_errors(what: str, needed: int) -> Iterator[None]:
    """Turn CUDA's "out of memory" into a MemoryError that says how much was needed and available. The process stays usable.

    what: the purpose of the memory. needed: bytes.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise _short_of(what, needed) from error


@contextmanager
def residency_errors(blocks: int) -> Iterator[None]:
    """Turn CUDA's refusal of `blocks` that have to meet and do not all fit on the device into a RuntimeError that says what would
    work.
    """
    try:
        yield
    except Exception as error:
        if not any(said in str(error) for said in _TOO_LARGE):
            raise
        raise RuntimeError(
            f"{blocks} blocks that meet at a barrier are not all resident on {current().name}, a part of which may be taken; "
            "RNNBENCH_CUDA_KERNEL=step runs without the barrier"
        ) from error


def _short_of(what: str, needed: int) -> MemoryError:
    free, total = cuda.current_context().get_memory_info()
    mib = 2**20
    return MemoryError(
        f"{what} need {needed / mib:,.1f} MiB on {current().name}, which has {free / mib:,.1f} MiB free of {total / mib:,.1f}; "
        "choose smaller sizes"
    )


def is_native(array: object) -> bool:
    """Whether `array` is a Numba array on the device (or on the simulated one)."""
    return bool(getattr(array, "__cuda_ndarray__", False))


def is_same_stream(one: Any, other: Any) -> bool:
    """Whether both are the same stream: Numba's, each, or 0. Two of its objects may stand for one stream."""
    return one is other or (not SIMULATED and int(one) == int(other))


def stream_of(stream: Any) -> tuple[int, Any]:
    """A key that identifies a stream, and the stream as Numba's.

    stream: Numba's, PyTorch's (`cuda_stream`), CuPy's (`ptr`), or an address. Raises TypeError for anything else.
    """
    if hasattr(stream, "auto_synchronize"):
        return id(stream), stream
    address = getattr(stream, "cuda_stream", getattr(stream, "ptr", stream))
    if isinstance(address, bool) or not isinstance(address, int):
        kinds = "a stream of Numba, PyTorch or CuPy, or its address as a whole number"
        raise TypeError(f"stream is {kinds}, not {type(stream).__name__}")
    return address, cuda.external_stream(address)
