"""rnnbench: recurrent cells written once as equations, run on interchangeable backends, verified, then timed.

    from rnnbench import RNN, cell, sigmoid, tanh

`RNN` runs a cell; `cell` makes one from an equation; the functions beside it are what an equation may use. Names are loaded on
first use: `import rnnbench` alone loads nothing, not even NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backends import BackendUnavailable
    from .cells import Cell, CellError, cell, exp, log, maximum, minimum, relu, sigmoid, sqrt, tanh, where
    from .rnn import RNN, Tape

__version__ = "0.1.0"

__all__ = [
    "RNN",
    "BackendUnavailable",
    "Cell",
    "CellError",
    "Tape",
    "cell",
    "exp",
    "log",
    "maximum",
    "minimum",
    "relu",
    "sigmoid",
    "sqrt",
    "tanh",
    "where",
]

_ROOMS = {"RNN": "rnn", "Tape": "rnn", "BackendUnavailable": "backends"}
_PACKAGES = ("interop", "report")  # as rnnbench.report.load, without an import of its own


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f".{_ROOMS.get(name, 'cells')}", __name__), name)
    if name in _PACKAGES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})
