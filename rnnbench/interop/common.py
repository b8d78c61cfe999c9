"""What every converter needs: an RNN from named arrays, and a forget bias for formats that have none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..cells import Cell
from ..params import DTYPES, Spec
from ..rnn import RNN
from .layouts import NamedArrays, forget_bias_in_biases


class InteropError(ValueError):
    """The other format cannot express something, or a file does not hold what it should; the message says what would work."""


def network(cell: Cell, arrays: Mapping[str, np.ndarray], backend: str, /, **options: Any) -> RNN:
    """An RNN of `cell` with these parameters, whose shapes and dtype determine its sizes and dtype.

    arrays: under PyTorch's names. backend: of the RNN. options: `num_layers`, `bidirectional`, `batch_first`, `reverse` and the
    cell's numbers, which may be called as the arguments before them.
    Raises InteropError for an unsupported dtype, for shapes that do not fit each other, and for options that RNN rejects.
    """
    weight = arrays["weight_ih_l0"]
    if weight.dtype.name not in DTYPES:
        raise InteropError(f"the weights are {weight.dtype.name}; convert them to {' or '.join(DTYPES)} first")
    gates = len(cell.input_gates)
    if weight.ndim != 2 or len(weight) % gates:
        raise InteropError(f"weight_ih_l0 is {weight.shape}; {cell.name} needs rows in {gates} equal blocks")
    projection = arrays.get("weight_hr_l0")
    try:
        rnn = RNN(
            cell,
            weight.shape[1],
            len(weight) // gates,
            bias="bias_ih_l0" in arrays,
            dtype=weight.dtype.name,
            proj_size=0 if projection is None else len(projection),
            backend=backend,
            **options,
        )
    except ValueError as error:  # its message names the option and what would work
        raise InteropError(str(error)) from error
    try:
        rnn.load(arrays)
    except ValueError as error:
        raise InteropError(f"the weights do not fit each other: {error}") from error
    return rnn


def spec_of(rnn: RNN) -> Spec:
    """The spec of a network that is to be converted. Raises TypeError for anything but an RNN."""
    if not isinstance(rnn, RNN):
        raise TypeError(f"the first argument must be the rnnbench.RNN to write or convert; got {type(rnn).__name__}")
    return rnn.spec


def with_forget_bias(rnn: RNN) -> NamedArrays:
    """The parameters, with the run-time forget_bias added to the forget gate's bias, for formats without such a number.

    Raises InteropError if there is a forget_bias but no bias to add it to.
    """
    spec = rnn.spec
    if spec.numbers.get("forget_bias") and not spec.bias:
        value = spec.numbers["forget_bias"]
        raise InteropError(f"forget_bias {value} has to be stored in the biases; make the RNN with bias=True")
    return forget_bias_in_biases(spec, rnn.params)[1]


def refuse(options: Mapping[str, Any], defaults: Mapping[str, Any], there: str, known: Sequence[str] = ()) -> None:
    """Raise InteropError for the first of a cell's options that is not among `known` and differs from its default.

    options, defaults: name -> value, where `defaults` has every name. there: the format that lacks the option, for the message.
    """
    for name, value in options.items():
        if name not in known and value != defaults[name]:
            written = name if value is True else f"{name}={value}"
            raise InteropError(f"{there} has no equivalent of the cell's {written}; remove that option to convert it")
