"""A device that is not there, for numba-cuda's own code on the host. Kernels are compiled and assembled, memory is the host's, and
a launch goes as far as the driver: there its arguments are held against the parameters of the kernel's PTX. run_ptx.py runs them.

It replaces numba-cuda's names for the whole process, so tests start a process for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import weakref
from types import SimpleNamespace
from typing import Any

import numba.cuda.codegen as codegen
import numba.cuda.dispatcher as dispatcher
import numpy as np
from cuda.bindings import driver as binding
from numba import cuda
from numba.cuda.cudadrv import devices, driver

from rnnbench.backends.numba_cuda import device

SIZES = {"8": 1, "16": 2, "32": 4, "64": 8}  # bytes of a parameter of so many bits
LAUNCHED: dict[str, int] = {}
MEMORY: dict[int, Any] = {}


class Context:
    """What numba-cuda asks of a context."""

    device = SimpleNamespace(compute_capability=(9, 0), id=0, name="pretended", MULTIPROCESSOR_COUNT=132)
    extras: dict[Any, Any] = {}
    room = 1 << 36
    taken = waited = 0  # how often there was memory taken, and the device waited for

    def memalloc(self, count: int) -> Any:
        """Bytes of the host, on a border of 256 as a driver's are, full of NaN."""
        if count > self.get_memory_info().free:
            raise driver.CudaAPIError(2, "CUDA_ERROR_OUT_OF_MEMORY")
        self.taken += 1
        buffer = np.full(count + 256, 0xFF, np.uint8)
        at = -(-buffer.ctypes.data // 256) * 256
        pointer = driver.AutoFreePointer(
            weakref.proxy(self), binding.CUdeviceptr(at), count, finalizer=lambda: MEMORY.pop(at, None)
        )
        MEMORY[at] = buffer, pointer
        return pointer.own()

    def synchronize(self) -> None:
        self.waited += 1

    def create_external_stream(self, address: int) -> Any:
        return driver.Stream(binding.CUstream(address), external=True)

    def get_memory_info(self) -> Any:
        return driver.MemoryInfo(self.room - sum(buffer.size - 256 for buffer, _ in list(MEMORY.values())), self.room)


def move(to: Any, where: Any, count: Any, *stream: Any) -> None:
    """A copy between host and device, or the device's memory itself."""
    ctypes.memmove(int(to), int(where), int(count))


def size(argument: Any) -> int:
    """Bytes that cuda.core hands over for an argument."""
    if isinstance(argument, bool):
        return 1
    return 8 if isinstance(argument, int) else ctypes.sizeof(argument)


def launch(stream: Any, config: Any, kernel: Any, *arguments: Any) -> None:
    """In place of cuda.core's: hold what the driver would get against what the kernel's PTX takes."""
    text = "\n".join(next(iter(kernel.library._ptx_cache.values())))
    found = re.search(r"\.entry [^(]*\(([^)]*)\)(.*?)\{", text, re.S)
    assert found is not None
    wanted = [SIZES[bits] for bits in re.findall(r"\.param \.[a-z]+(\d+)", found[1])]
    given = [size(argument) for argument in arguments]
    assert given == wanted, f"{kernel.name} takes parameters of {wanted} bytes and was given {given}"
    most = re.search(r"\.maxntid (\d+)", found[2])
    assert np.prod(config.block) <= (int(most[1]) if most else 1024), (kernel.name, config.block)
    assert config.cluster == (1, 1, 1) or 1 < config.cluster[0] <= 8 and config.cluster[1:] == (1, 1), config.cluster
    assert config.grid[0] < 2**31 and max(config.grid[1:], default=1) < 2**16, (kernel.name, config.grid)
    LAUNCHED[kernel.name] = LAUNCHED.get(kernel.name, 0) + 1


def configured(
    grid: Any, block: Any, shmem_size: int, cluster: tuple[int, int, int] = (1, 1, 1), **cooperative: bool
) -> Any:
    """In place of cuda.core's, which asks the driver. grid: of clusters. cooperative: under the name it has in the installed
    version.
    """
    return SimpleNamespace(grid=grid, cluster=cluster, block=block, cooperative=any(cooperative.values()))


def pretend(context: Context | None = None, launch: Any = launch, move: Any = move) -> Context:
    """From here on this process has the device, whose context is returned. launch, move: what happens then."""
    context = context or Context()
    devices.get_context = codegen.devices.get_context = dispatcher.get_context = lambda number=None: context
    devices._runtime.get_or_create_context = lambda number: context
    devices._runtime.ensure_context = contextlib.nullcontext
    cuda.current_context = cuda.api.current_context = devices.get_context
    cuda.get_current_device = dispatcher.get_current_device = lambda: context.device
    cuda.synchronize = context.synchronize
    for name in ("cuMemcpyHtoD", "cuMemcpyHtoDAsync", "cuMemcpyDtoH", "cuMemcpyDtoHAsync"):
        driver.driver.__dict__[name] = move
    driver._logger = driver.make_logger()
    device.why_unavailable = lambda name: None

    def assembled(library: Any) -> Any:
        library.get_cubin()
        return SimpleNamespace(kernel=SimpleNamespace(library=library, name=library.name.partition("[")[0]))

    codegen.CUDACodeLibrary.get_cufunc = assembled
    dispatcher._Kernel.bind = lambda self: assembled(self._codelibrary)
    dispatcher.launch, dispatcher.LaunchConfig = launch, configured
    return context
