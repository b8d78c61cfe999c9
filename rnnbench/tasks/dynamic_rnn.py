"""TensorFlow 1's `dynamic_rnn` over its cells: the same numbers from the same variables, without TensorFlow.

    cell = from_tf1("BasicLSTMCell", variables, batch_first=True)      # or new_cell("BasicLSTMCell", 3, 4)
    outputs, state = dynamic_rnn(cell, inputs, sequence_length=[5, 3])

Source: https://github.com/tensorflow/tensorflow/blob/v1.15.5/tensorflow/python/ops/rnn.py and rnn_cell_impl.py beside it
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..interop.tf1 import from_tf1, join_state, split_state, to_tf1
from ..rnn import RNN
from ..spelling import unknown

CELLS = ("BasicRNNCell", "BasicLSTMCell", "GRUCell")


class LSTMStateTuple(NamedTuple):
    """An LSTM's state in TensorFlow's order: c (B, H), then h (B, H)."""

    c: np.ndarray
    h: np.ndarray


State = np.ndarray | LSTMStateTuple


def new_cell(
    cell_name: str,
    input_size: int,
    num_units: int,
    forget_bias: float | None = None,
    seed: int = 0,
    backend: str = "numba-cpu",
    dtype: str = "float32",
) -> RNN:
    """A cell with TensorFlow's initial values: kernels Glorot uniform, biases 0, but 1 for a GRU's gates.

    cell_name: one of `CELLS`. num_units: H. forget_bias: of an LSTM, added when it runs; None for its default, 1. seed: of the
    kernels. backend: of the RNN. Raises ValueError for another cell or sizes below 1, and InteropError for a forget bias that the
    cell lacks.
    """
    if cell_name not in CELLS:
        raise ValueError(unknown("cell", cell_name, CELLS))
    for name, size in (("input_size", input_size), ("num_units", num_units)):
        if size < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, not {size!r}")
    rng = np.random.default_rng(seed)

    def kernel(blocks: int) -> np.ndarray:
        rows, columns = input_size + num_units, blocks * num_units
        bound = np.sqrt(6 / (rows + columns))
        return rng.uniform(-bound, bound, (rows, columns)).astype(dtype)

    if cell_name == "GRUCell":
        variables = {
            "gates/kernel": kernel(2),
            "gates/bias": np.ones(2 * num_units, dtype),
            "candidate/kernel": kernel(1),
            "candidate/bias": np.zeros(num_units, dtype),
        }
    else:
        blocks = 4 if cell_name == "BasicLSTMCell" else 1
        variables = {"kernel": kernel(blocks), "bias": np.zeros(blocks * num_units, dtype)}
    return from_tf1(cell_name, variables, forget_bias, backend=backend)


def zero_state(cell: RNN, batch_size: int, state_is_tuple: bool = True) -> State:
    """The state before the first step: zeros (B, H); for an LSTM a tuple of two, or the two concatenated, (B, 2H).

    cell: the network that the state is for. state_is_tuple: as in `dynamic_rnn`.
    """
    zeros = tuple(np.zeros((1, batch_size, width), cell.spec.dtype) for width in cell.spec.state_sizes)
    return _to_tensorflow(zeros, state_is_tuple)


def dynamic_rnn(
    cell: RNN,
    inputs: Any,
    sequence_length: Any = None,
    initial_state: State | None = None,
    time_major: bool = False,
    state_is_tuple: bool = True,
) -> tuple[np.ndarray, State]:
    """Outputs and final state of a cell over a batch of sequences.

    cell: an RNN of one layer, from `from_tf1` or `new_cell`. inputs: (B, T, I), or (T, B, I) with time_major. sequence_length:
    (B,), None for T. initial_state: in the form that `zero_state` returns, or None for zeros. state_is_tuple: False if an LSTM's
    state is the concatenation [c, h], on input and output.

    Past a row's length the outputs are zeros, and its final state is the one at its last step. Raises ValueError for a network that
    is not a single cell and for a state of the wrong form, and whatever `RNN` raises.
    """
    if cell.spec.state_rows > 1:
        raise ValueError(f"a cell must be an RNN of one layer in one direction, not {cell}")
    arrays = np.asarray(inputs)
    swap = bool(time_major) == cell.batch_first and arrays.ndim == 3  # the RNN rejects any other shape
    state = None if initial_state is None else _from_tensorflow(cell, initial_state, state_is_tuple)
    outputs, final = cell(arrays.swapaxes(0, 1) if swap else arrays, state, sequence_length)
    return (outputs.swapaxes(0, 1) if swap else outputs), _to_tensorflow(final, state_is_tuple)


def _to_tensorflow(state: tuple[np.ndarray, ...], state_is_tuple: bool) -> State:
    """TensorFlow's form of our (h,) or (h, c), each (1, B, H)."""
    if len(state) == 1:
        return state[0][0]
    h, c = state
    return LSTMStateTuple(c[0], h[0]) if state_is_tuple else join_state((h, c))[0]


def _from_tensorflow(cell: RNN, state: State, state_is_tuple: bool) -> tuple[np.ndarray, ...]:
    widths = cell.spec.state_sizes
    if len(widths) == 2 and state_is_tuple:
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise ValueError(
                f"the state of an LSTM must be a tuple (c, h) unless state_is_tuple is False, not {_form(state)}"
            )
        c, h = (np.asarray(part) for part in state)
        return h[None], c[None]
    if isinstance(state, (tuple, list)):
        joined = f"joined to one array (B, {sum(widths)})" if len(widths) == 2 else f"one array (B, {widths[0]})"
        raise ValueError(f"the state must be {joined}, not {_form(state)}")
    whole = np.asarray(state)[None]
    if len(widths) == 1:
        return (whole,)
    if whole.ndim != 3 or whole.shape[2] != sum(widths):
        raise ValueError(f"the joined state [c, h] must be (B, {sum(widths)}), not {whole.shape[1:]}")
    return split_state(whole, cell.spec.hidden_size)


def _form(state: Any) -> str:
    return f"a {type(state).__name__} of {len(state)}" if isinstance(state, (tuple, list)) else type(state).__name__


def lines(backend: str) -> Iterator[str]:
    """Runs each cell over two rows of lengths 5 and 3 and shows its variables, the shapes, and numbers for each convention."""
    lengths, (B, T, I), H = np.array([5, 3]), (2, 5, 3), 4
    inputs = np.random.default_rng(0).standard_normal((B, T, I))
    for name in CELLS:
        cell = new_cell(name, I, H, backend=backend, dtype="float64")
        variables = ", ".join(f"{key} {value.shape}" for key, value in to_tf1(cell).variables.items())
        yield f"{name}: {variables}" + "".join(f", {key} {value}" for key, value in cell.spec.numbers.items())
        outputs, state = dynamic_rnn(cell, inputs, lengths)
        final = state.h if isinstance(state, LSTMStateTuple) else state
        yield f"  outputs {outputs.shape}, state {_shapes(state)}"
        yield f"  row 2, which ends after step 3: {np.abs(outputs[1]).sum(axis=1).round(4)} in sum at each step"
        yield f"  its final state less its output at step 3: {np.abs(final[1] - outputs[1, 2]).max():.1e}"
        other, other_state = dynamic_rnn(cell, inputs.swapaxes(0, 1), lengths, time_major=True, state_is_tuple=False)
        yield (
            f"  time-major: outputs {other.shape}, state {_shapes(other_state)}, "
            f"largest difference {np.abs(other.swapaxes(0, 1) - outputs).max():.1e}"
        )


def _shapes(state: State) -> str:
    return f"c {state.c.shape} and h {state.h.shape}" if isinstance(state, LSTMStateTuple) else f"{state.shape}"
