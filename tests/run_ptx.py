"""Verifies cases on a pretended device that runs its kernels, from the call in Python to the results: see ptx_machine.py.

A program: `python run_ptx.py CASES [FAULT]` prints a line of JSON for each case: its status, its reason, and which kernels were
launched how often. CASES is a JSON list of dictionaries with a "kernel" and the arguments of `Case` or, in place of these,
"network": one of simulator/test_networks.py, which is compared with NumPy's. "multiprocessors" is the number the device has. FAULT
is one of FAULTS, which the kernels are given.
"""

from __future__ import annotations

import json
import os
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pretend_device
from cuda.bindings import driver as binding
from numba.cuda.cudadrv import driver
from pretend_device import LAUNCHED, Context
from ptx_machine import launch
from ptx_memory import DeviceMemory, Wrong
from ptx_text import Kernel, read

from rnnbench.backends.numba_cuda import VARIABLE, barriers, compiled, device, held_product
from rnnbench.backends.numba_cuda.sequence import nothing
from rnnbench.bench.cases import Case
from rnnbench.bench.verify import verify

FEW = 4  # multiprocessors: so few that units and rows of tiny layers share blocks
MEMORY = DeviceMemory(1 << 26)
READ: dict[str, Kernel] = {}
POINTERS: dict[int, Any] = {}  # Numba keeps weak references to them, a context strong ones


class Device(Context):
    """A pretended device with the machine's memory."""

    def memalloc(self, count: int) -> Any:
        at = MEMORY.allocate(count)

        def free() -> None:
            del POINTERS[at]
            MEMORY.free(at)

        POINTERS[at] = driver.AutoFreePointer(weakref.proxy(self), binding.CUdeviceptr(at), count, finalizer=free)
        return POINTERS[at].own()


def move(to: Any, where: Any, count: Any, *stream: Any) -> None:
    """A copy between host and device."""
    pretend_device.move(to, where, count)
    if MEMORY.contains(int(to)):
        MEMORY.copied(int(to), int(count))


def bits(argument: Any) -> int:
    """An argument as the driver gets it."""
    if isinstance(argument, (bool, int)):
        return int(argument) % (1 << 64)
    return int.from_bytes(bytes(argument), "little")


def run(stream: Any, config: Any, kernel: Any, *arguments: Any) -> None:
    """In place of cuda.core's launch."""
    pretend_device.launch(stream, config, kernel, *arguments)
    text = "\n".join(next(iter(kernel.library._ptx_cache.values())))
    if config.cooperative != ("cudaCG" in text):
        raise Wrong(f"{kernel.name}: a kernel with a grid-wide barrier has to be launched as one, and no other")
    if text not in READ:
        READ[text] = read(text)
    try:
        grid = tuple(count * each for count, each in zip(config.grid, config.cluster, strict=True))
        given = [bits(argument) for argument in arguments]
        launch(READ[text], MEMORY, grid, tuple(config.block), given, config.cluster[0])
    except Wrong as error:
        raise Wrong(f"{kernel.name}: {error}") from error


def result(kernel: str, multiprocessors: int = FEW, network: str = "", **case: Any) -> dict[str, Any]:
    """Run a case."""
    os.environ[VARIABLE] = kernel
    Context.device = SimpleNamespace(**vars(Context.device) | {"MULTIPROCESSOR_COUNT": multiprocessors})
    device.current.cache_clear()
    LAUNCHED.clear()
    if not network:
        found = verify(Case(**case))
        return {"status": found.status, "reason": found.reason, "runs": found.runs, "launched": LAUNCHED}
    sys.path.insert(0, str(Path(__file__).with_name("simulator")))
    from test_networks import LENGTHS, disagreements, everything

    wrong = disagreements(*(everything(backend, network, LENGTHS) for backend in ("numba-cuda", "numpy")))
    return {"status": "wrong" if wrong else "ok", "reason": ", ".join(wrong), "launched": LAUNCHED}


def without(whose: str) -> Callable[[], None]:
    return lambda: barriers.BARRIERS.update({whose: nothing})


def without_the_last_stride() -> None:
    """Of every array that is handed over."""
    right = compiled._prepare

    def short(kind: Any, value: Any, stream: Any, retr: Any, prepared: list[Any]) -> None:
        right(kind, value, stream, retr, prepared)
        del prepared[-1:]

    compiled._prepare = short


FAULTS = {
    "no grid barrier": without("grid"),
    "no cluster barrier": without("cluster"),
    "no block barrier": lambda: setattr(held_product, "block_barrier", nothing),
    "no last stride": without_the_last_stride,
}


if __name__ == "__main__":
    here = Device()
    pretend_device.pretend(here, run, move)
    if sys.argv[2:]:
        FAULTS[sys.argv[2]]()
    for case in json.loads(sys.argv[1]):
        print(json.dumps(result(**case)), flush=True)
