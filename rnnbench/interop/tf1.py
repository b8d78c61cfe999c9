"""TensorFlow 1's cells: their variables as arrays in and out. TensorFlow itself is not needed.

What the variables mean depends on the cell's class and its constructor's arguments: `BasicLSTMCell` adds its
forget_bias of 1 when it runs, so the number is not in the checkpoint. It stays a run-time number here, and no bit changes.

Source: https://github.com/tensorflow/tensorflow/blob/v1.15.5/tensorflow/python/ops/rnn_cell_impl.py, and for the coupled gates
tensorflow/contrib/rnn/python/ops/rnn_cell.py there
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..cells import Cell, find
from ..cells.variants import options_of
from ..params import as_array
from ..rnn import RNN
from . import layouts
from .common import InteropError, network, refuse, spec_of

COUPLED = "CoupledInputForgetGateLSTMCell"
VARIABLES = {
    "BasicRNNCell": ("kernel", "bias"),
    "BasicLSTMCell": ("kernel", "bias"),
    "LSTMCell": ("kernel", "bias"),
    "GRUCell": ("gates/kernel", "gates/bias", "candidate/kernel", "candidate/bias"),
    "CudnnCompatibleGRUCell": (
        "gates/kernel",
        "gates/bias",
        "candidate/input_projection/kernel",
        "candidate/input_projection/bias",
        "candidate/hidden_projection/kernel",
        "candidate/hidden_projection/bias",
    ),
    COUPLED: ("W_0", "B"),  # the variables of one shard, which is the default
}
# variables that exist only with use_peepholes (all ending in _diag) or with num_proj
OPTIONAL = {
    "LSTMCell": ("projection/kernel", "w_i_diag", "w_f_diag", "w_o_diag"),
    COUPLED: ("W_P_0", "W_F_diag", "W_O_diag"),
}
OF_COUPLED = {
    "W_0": "kernel", "B": "bias", "W_F_diag": "w_f_diag", "W_O_diag": "w_o_diag", "W_P_0": "projection/kernel"
}  # fmt: skip
FORGET_BIAS = 1.0  # the default of the LSTM cells' constructors


class TF1Cell(NamedTuple):
    """A cell of TensorFlow 1: its class, its variables below its scope, and its constructor's other arguments.

    `from_tf1(cell.name, cell.variables, **cell.options)` gives the RNN back, except for its backend and batch_first, which are no
    arguments of a cell; pass these as well.
    """

    name: str
    variables: dict[str, np.ndarray]
    options: dict[str, Any]


def from_tf1(
    cell_name: str,
    arrays: Mapping[str, np.ndarray],
    forget_bias: float | None = None,
    activation: str = "tanh",
    cell_clip: float | None = None,
    batch_first: bool = False,
    backend: str = "numba-cpu",
) -> RNN:
    """An RNN of one layer with the variables of a TensorFlow 1 cell.

    cell_name: the class, one of `VARIABLES`. arrays: name -> array; names may have a common scope and end in ":0", as in
    "rnn/lstm_cell/kernel:0". Peepholes and a projection are recognised by their variables. forget_bias, activation, cell_clip: the
    cell's constructor arguments; None for a forget bias of 1 and no clip. batch_first: True for a model whose input is not
    time_major. backend: of the RNN.

    Raises InteropError for an unknown cell, for variables that are missing, unknown or misshapen, and for options that the cell
    lacks.
    """
    if cell_name not in VARIABLES:
        raise InteropError(f"there is no conversion for the cell {cell_name!r}, only for {', '.join(VARIABLES)}")
    is_lstm = "LSTM" in cell_name
    if not is_lstm and forget_bias is not None:
        raise InteropError(f"forget_bias {forget_bias} is a number of LSTM cells; a {cell_name} has none")
    if cell_name != "LSTMCell" and cell_clip is not None:
        raise InteropError(f"cell_clip {cell_clip} is an option of LSTMCell; a {cell_name} has none")
    variables = _variables(cell_name, arrays)
    try:
        cell = _cell(cell_name, any(name.endswith("_diag") for name in variables), activation, cell_clip)
        ours = OF_COUPLED if cell_name == COUPLED else {name: name for name in variables}
        called = {here: there for there, here in ours.items()}
        params = layouts.from_tf1(cell, {ours[name]: array for name, array in variables.items()}, called=called)
    except ValueError as error:  # shapes that do not fit each other, or an unknown activation
        raise InteropError(f"the variables do not fit {cell_name} with these options: {error}") from error
    numbers = {"forget_bias": FORGET_BIAS if forget_bias is None else forget_bias} if is_lstm else {}
    return network(cell, params, backend, batch_first=batch_first, **numbers)


def to_tf1(rnn: RNN) -> TF1Cell:
    """The TensorFlow 1 cell that computes what `rnn`, a network of one layer in one direction, does.

    The two biases are added up, because TensorFlow has one; an RNN that came from there goes back bit for bit. An RNN without
    biases gets zeros. Raises InteropError for what no TensorFlow 1 cell computes.
    """
    spec = spec_of(rnn)
    if spec.num_layers > 1 or spec.bidirectional or spec.reverse:
        raise InteropError(
            f"a TensorFlow 1 cell is one layer that reads forwards; this RNN has num_layers={spec.num_layers}, "
            f"bidirectional={spec.bidirectional}, reverse={spec.reverse}"
        )
    family, options = _options_of(spec.cell)
    is_lstm = family == "lstm"
    activations = {options[name] for name in ("activation", "candidate", "output") if name in options}
    if len(activations) > 1:
        raise InteropError(f"a TensorFlow 1 cell has one activation, not {' and '.join(sorted(activations))}")
    known = ("activation", "candidate", "output", *(("cell_clip", "coupled", "peepholes") if is_lstm else ("reset",)))
    plain = options_of(find("gru" if family == "gru" else "lstm" if is_lstm else "rnn_tanh"))[1]
    refuse(options, plain, "TensorFlow 1", known)
    after = options.get("reset") == "after"
    if spec.proj_size and not is_lstm:
        raise InteropError(f"TensorFlow 1 projects the output of an LSTMCell only, not that of {spec.cell.name}")
    name = {"rnn": "BasicRNNCell", "gru": "CudnnCompatibleGRUCell" if after else "GRUCell", "lstm": "LSTMCell"}[family]
    given: dict[str, Any] = {"activation": activations.pop()}
    if is_lstm:
        given |= {"forget_bias": spec.numbers["forget_bias"], "cell_clip": options["cell_clip"]}
    variables = layouts.to_tf1(spec, rnn.params)
    if options.get("coupled"):
        if options["cell_clip"] is not None:
            raise InteropError(
                "TensorFlow 1's LSTM cell with coupled gates has no cell_clip; its LSTMCell has, but without coupled gates"
            )
        name, variables = COUPLED, {there: variables[here] for there, here in OF_COUPLED.items() if here in variables}
    return TF1Cell(name, variables, given)


def join_state(state: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """An LSTM's (h, c) as TensorFlow joins it with state_is_tuple=False: [c, h] on the last axis."""
    h, c = state
    return np.concatenate([c, h], axis=-1)


def split_state(joined: np.ndarray, hidden_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The reverse of `join_state`: (h, c) from [c, h], of which c is hidden_size wide and h is the rest.

    joined: (..., 2H), or (..., H + P) with a projection. Raises InteropError if nothing is left for h.
    """
    if joined.shape[-1] <= hidden_size:
        raise InteropError(f"the joined state is {joined.shape}; c alone is {hidden_size} wide, and h comes after it")
    return joined[..., hidden_size:], joined[..., :hidden_size]


def _options_of(cell: Cell) -> tuple[str, dict[str, Any]]:
    try:
        return options_of(cell)
    except ValueError as error:
        raise InteropError(f"TensorFlow 1 has no such cell: {error}") from error


def _cell(cell_name: str, peepholes: bool, activation: str, cell_clip: float | None) -> Cell:
    """The cell that the class and its options stand for."""
    if cell_name == "BasicRNNCell":
        return find(f"rnn[activation={activation}]")
    if cell_name.endswith("LSTMCell"):
        options = [f"candidate={activation}", f"output={activation}"]
        options += ["peepholes"] * peepholes + ["coupled"] * (cell_name == COUPLED)
        options += [f"cell_clip={cell_clip}"] * (cell_clip is not None)
        return find(f"lstm[{','.join(options)}]")
    return find(f"gru[candidate={activation},reset={'before' if cell_name == 'GRUCell' else 'after'}]")


def _variables(cell_name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The cell's variables under their names below the scope. Raises InteropError if the scopes differ or a variable is missing."""
    known = (*VARIABLES[cell_name], *OPTIONAL.get(cell_name, ()))
    found: dict[str, np.ndarray] = {}
    scopes = set()
    for full, array in arrays.items():
        path = full.removesuffix(":0")
        name = max((n for n in known if path == n or path.endswith(f"/{n}")), key=len, default=None)
        if name is None:
            raise InteropError(f"{cell_name} has no variable {full!r}; it has {', '.join(known)}")
        scopes.add(path.removesuffix(name))
        try:
            found[name] = as_array(f"the variable {full!r}", array)
        except ValueError as error:
            raise InteropError(str(error)) from error
    if len(scopes) > 1:
        raise InteropError(f"the variables are of several cells, {', '.join(sorted(scopes))}; give those of one")
    if len(found) < len(arrays):  # as "kernel" and "kernel:0", one of which would be ignored
        raise InteropError(f"several arrays are the same variable of {cell_name}; given are {', '.join(arrays)}")
    with_peepholes = any(name.endswith("_diag") for name in found)
    needed = [n for n in known if n in VARIABLES[cell_name] or (n.endswith("_diag") and with_peepholes)]
    if missing := [name for name in needed if name not in found]:
        raise InteropError(f"the variable {missing[0]!r} of {cell_name} is missing; given are {', '.join(arrays)}")
    return found
