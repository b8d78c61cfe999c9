"""Backends by name: our own, and the peers that they are compared with. `base` says what a backend promises.

Each is imported at the first use of its name, so a peer's library is only loaded when asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import NamedTuple, cast

from .. import plugins
from ..params import Spec
from ..spelling import unknown
from .base import Backend
from .kernel_files import NoFolder


class _Entry(NamedTuple):
    """Where a backend is: a module below this package, or the object `variant` in it; the packages that it needs; and what to
    install with pip if one is missing ("" for the package itself).
    """

    module: str
    packages: tuple[str, ...]
    install: str = ""
    variant: str = ""


_CUDA = ("numba_cuda", ("numba",), '"rnnbench[cuda]"')
_TORCH = ("peers.torch", ("torch",), '"rnnbench[peers-torch]"')
_MODULES = {
    "numpy": _Entry("numpy_backend", ("numpy",)),
    "numba-cpu": _Entry("numba_cpu", ("numba",)),
    "numba-cuda": _Entry(*_CUDA, "PRECISE"),
    "numba-cuda-fast": _Entry(*_CUDA, "FAST"),
    "numba-cuda-tf32": _Entry(*_CUDA, "TF32"),
    "numba-cuda-fp16": _Entry(*_CUDA, "FP16"),
    "numba-cuda-bf16": _Entry(*_CUDA, "BF16"),
    "torch": _Entry(*_TORCH, "CPU"),
    "torch-cuda": _Entry(*_TORCH, "CUDA"),
    "torch-cuda-tf32": _Entry(*_TORCH, "CUDA_TF32"),
    "torch-cuda-fp16": _Entry(*_TORCH, "CUDA_FP16"),
    "torch-cuda-bf16": _Entry(*_TORCH, "CUDA_BF16"),
    "onnxruntime": _Entry("peers.onnxruntime", ("onnxruntime", "onnx"), '"rnnbench[peers-onnxruntime]"'),
    "jax": _Entry("peers.jax", ("jax",), '"rnnbench[peers-jax]"'),
    "keras": _Entry("peers.keras", ("keras",), '"rnnbench[peers-keras]"'),
}
OWN = ("numpy", "numba-cpu")
# our own too, for machines with a GPU
GPU = ("numba-cuda", "numba-cuda-fast", "numba-cuda-tf32", "numba-cuda-fp16", "numba-cuda-bf16")
PEERS = tuple(name for name in _MODULES if name not in OWN + GPU)
NAMES = OWN + GPU + PEERS


class BackendUnavailable(RuntimeError):
    """The backend exists, but its library or device cannot be used here; the message says why."""


def load(name: str) -> Backend:
    """The backend called `name`, imported at the first call.

    Raises ValueError, with the nearest name, if the name is unknown, BackendUnavailable if its library or device is missing.
    """
    reason = why_unavailable(name)
    if reason is not None:
        raise BackendUnavailable(reason)
    return _import(_MODULES[name]) if name in _MODULES else cast(Backend, plugins.load(plugins.BACKENDS, name))


def names() -> tuple[str, ...]:
    """NAMES, and the names that other projects have registered (see `rnnbench.plugins`)."""
    return (*NAMES, *plugins.names(plugins.BACKENDS))


def why_unavailable(name: str) -> str | None:
    """Why the backend cannot be used in this environment, in a sentence, or None if it can. Raises ValueError as `load` does."""
    if not isinstance(name, str) or name not in _MODULES:
        registered = plugins.load(plugins.BACKENDS, name) if isinstance(name, str) else None
        if registered is not None:
            return _ask(cast(Backend, registered))
        raise ValueError(unknown("backend", name, names()))
    entry = _MODULES[name]
    for package in entry.packages:
        if importlib.util.find_spec(package) is None:
            install = entry.install or package
            return f"the backend {name} needs the package {package}, which is not installed: pip install {install}"
    try:
        return _ask(_import(entry))
    except Exception as error:  # Numba, for one, refuses a NumPy that is too new for it, and NUMBA_NUM_THREADS=0
        if isinstance(error, NoFolder):  # not the library's fault
            return f"the backend {name} cannot start: {error}"
        packages = " and ".join(entry.packages)
        return f"the backend {name} needs the package {packages}, which does not load: {type(error).__name__}: {error}"


def explain(name: str, spec: Spec, batch_size: int) -> str | None:
    """How the backend would run a layer of `spec`, as text for people; None if it does not choose among kernels. Needs no device.

    name: one of NAMES. Raises ValueError if a kernel is forced that cannot run the layer.
    """
    backend = _import(_MODULES[name])
    ask = getattr(backend, "explain", None)
    return ask(spec, batch_size) if ask else None


def _ask(backend: Backend) -> str | None:
    ask = getattr(backend, "why_unavailable", None)  # only backends that need more than their library have it
    return ask() if ask else None


def _import(entry: _Entry) -> Backend:
    module = importlib.import_module(f".{entry.module}", __name__)
    return cast(Backend, getattr(module, entry.variant) if entry.variant else module)
