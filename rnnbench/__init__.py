"""rnnbench: recurrent cells written once as equations, run on interchangeable backends, verified, then timed.

    from rnnbench import RNN, cell, sigmoid, tanh

`RNN` runs a cell; `cell` makes one of an equation; the functions beside it are what an equation may use.
"""

from __future__ import annotations

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
