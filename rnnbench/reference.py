"""What every backend has to agree with: recurrent networks in float64, as textbook loops, with gradients by hand.

Nothing here is derived, generated or tuned. A cell is two short functions: one time step, as its equations, and the
same step backwards, as the chain rule applied to them by hand. Around them stand the loops over layers, directions and
time. The tests check every gradient by complex step, and outputs and gradients against TensorFlow's and PyTorch's.

Letters, for T time steps, a batch of B, input size I, hidden size H and a cell of G gates:

    x     (T, B, I)  a layer's input                 W  (G*H, I)  weight_ih    b    (G*H,)  bias_ih
    h, c  (B, H)     the state before a step         R  (G*H, H)  weight_hh    b_R  (G*H,)  bias_hh
    a     (B, G*H)   W x + b at a step               p_i, p_f, p_o  (H,)       peepholes
    q     (B, G*H)   R h + b_R at a step             d...  gradient of the loss with respect to ...

An example is a row, so W x reads x @ W.T. Gates lie along G*H in PyTorch's order: i, f, g, o and r, z, n. Numbers of
any precision are computed in float64; complex ones stay complex, for the complex step.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy import concatenate, tanh
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Arrays = tuple[Array, ...]
Params = Mapping[str, ArrayLike]
State = Sequence[ArrayLike | None] | None


class Weights(NamedTuple):
    """The parameters of one layer in one direction. A missing bias is zero; a cell without peepholes reads none."""

    W: Array
    R: Array
    b: Array
    b_R: Array
    p_i: Array = np.zeros(0)
    p_f: Array = np.zeros(0)
    p_o: Array = np.zeros(0)


NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "p_i", "p_f", "p_o")  # of Weights' fields, in their order
Step = tuple[Arrays, Arrays]  # the new state; the values saved for the step backwards
StepBack = tuple[Array, Arrays, dict[str, Array]]  # da, the old state's gradient, those of R, b_R and peepholes
WayBack = Callable[[Array, Arrays], tuple[Array, Arrays, Weights]]  # from doutput, dstate to dx, dstate_0, dweights


def sigmoid(s: Array) -> Array:
    """1 / (1 + exp(-s)), with no exp of a large number."""
    positive = s.real >= 0
    e = np.exp(np.where(positive, -s, s))
    return np.where(positive, 1, e) / (1 + e)


def product_back(dq: Array, w: Weights, h: Array) -> tuple[Array, dict[str, Array]]:
    """From the gradient of q = R h + b_R to those of h and of R and b_R."""
    return dq @ w.R, {"R": dq.T @ h, "b_R": dq.sum(axis=0)}


def rnn_tanh(a: Array, w: Weights, state: Arrays) -> Step:
    """Elman 1990."""
    (h,) = state
    h_new = tanh(a + h @ w.R.T + w.b_R)
    return (h_new,), (h_new,)


def rnn_tanh_back(dstate: Arrays, w: Weights, state: Arrays, saved: Arrays) -> StepBack:
    """tanh' = 1 - tanh^2."""
    (dh_new,), (h,), (h_new,) = dstate, state, saved
    da = dh_new * (1 - h_new**2)
    dh, dw = product_back(da, w, h)
    return da, (dh,), dw


def rnn_relu(a: Array, w: Weights, state: Arrays) -> Step:
    """The same with relu; written so that NaN stays NaN."""
    (h,) = state
    s = a + h @ w.R.T + w.b_R
    h_new = np.where(s.real <= 0, 0, s)
    return (h_new,), (h_new,)


def rnn_relu_back(dstate: Arrays, w: Weights, state: Arrays, saved: Arrays) -> StepBack:
    """relu' = 0 up to and at zero, 1 above."""
    (dh_new,), (h,), (h_new,) = dstate, state, saved
    da = np.where(h_new == 0, 0, dh_new)
    dh, dw = product_back(da, w, h)
    return da, (dh,), dw


def lstm(a: Array, w: Weights, state: Arrays, forget_bias: float = 0.0) -> Step:
    """Hochreiter and Schmidhuber 1997, with the forget gate of Gers, Schmidhuber and Cummins 2000."""
    h, c = state
    s_i, s_f, s_g, s_o = np.split(a + h @ w.R.T + w.b_R, 4, axis=1)
    i = sigmoid(s_i)
    f = sigmoid(s_f + forget_bias)
    g = tanh(s_g)
    o = sigmoid(s_o)
    c_new = f * c + i * g
    h_new = o * tanh(c_new)
    return (h_new, c_new), (i, f, g, o, c_new)


def lstm_back(dstate: Arrays, w: Weights, state: Arrays, saved: Arrays) -> StepBack:
    """c_new receives gradients from the next step and from h_new, and passes them on to i, f, g and, through f, to c."""
    (dh_new, dc_new), (h, c), (i, f, g, o, c_new) = dstate, state, saved
    da_o = dh_new * tanh(c_new) * o * (1 - o)
    dc_new = dc_new + dh_new * o * (1 - tanh(c_new) ** 2)
    da_i = dc_new * g * i * (1 - i)
    da_f = dc_new * c * f * (1 - f)
    da_g = dc_new * i * (1 - g**2)
    dc = dc_new * f
    da = concatenate([da_i, da_f, da_g, da_o], axis=1)
    dh, dw = product_back(da, w, h)
    return da, (dh, dc), dw


def lstm_peephole(a: Array, w: Weights, state: Arrays, forget_bias: float = 0.0) -> Step:
    """Gers and Schmidhuber 2000: the gates see the cell state; i and f see the old one, o the new one."""
    h, c = state
    s_i, s_f, s_g, s_o = np.split(a + h @ w.R.T + w.b_R, 4, axis=1)
    i = sigmoid(s_i + w.p_i * c)
    f = sigmoid(s_f + w.p_f * c + forget_bias)
    g = tanh(s_g)
    c_new = f * c + i * g
    o = sigmoid(s_o + w.p_o * c_new)
    h_new = o * tanh(c_new)
    return (h_new, c_new), (i, f, g, o, c_new)


def lstm_peephole_back(dstate: Arrays, w: Weights, state: Arrays, saved: Arrays) -> StepBack:
    """As lstm_back, but each gate's gradient also reaches the cell state that the gate saw."""
    (dh_new, dc_new), (h, c), (i, f, g, o, c_new) = dstate, state, saved
    da_o = dh_new * tanh(c_new) * o * (1 - o)
    dc_new = dc_new + dh_new * o * (1 - tanh(c_new) ** 2) + da_o * w.p_o
    da_i = dc_new * g * i * (1 - i)
    da_f = dc_new * c * f * (1 - f)
    da_g = dc_new * i * (1 - g**2)
    dc = dc_new * f + da_i * w.p_i + da_f * w.p_f
    da = concatenate([da_i, da_f, da_g, da_o], axis=1)
    dh, dw = product_back(da, w, h)
    dp = {"p_i": (da_i * c).sum(axis=0), "p_f": (da_f * c).sum(axis=0), "p_o": (da_o * c_new).sum(axis=0)}
    return da, (dh, dc), dw | dp


def gru(a: Array, w: Weights, state: Arrays) -> Step:
    """Cho et al. 2014, with the reset after the recurrent product, as in cuDNN, PyTorch and Keras."""
    (h,) = state
    a_r, a_z, a_n = np.split(a, 3, axis=1)
    q_r, q_z, q_n = np.split(h @ w.R.T + w.b_R, 3, axis=1)
    r = sigmoid(a_r + q_r)
    z = sigmoid(a_z + q_z)
    n = tanh(a_n + r * q_n)
    h_new = (1 - z) * n + z * h
    return (h_new,), (r, z, n, q_n)


def gru_back(dstate: Arrays, w: Weights, state: Arrays, saved: Arrays) -> StepBack:
    """In gate n, a and q have different gradients: q's has passed through the reset gate."""
    (dh_new,), (h,), (r, z, n, q_n) = dstate, state, saved
    da_n = dh_new * (1 - z) * (1 - n**2)
    da_z = dh_new * (h - n) * z * (1 - z)
    da_r = da_n * q_n * r * (1 - r)
    dq_n = da_n * r
    da = concatenate([da_r, da_z, da_n], axis=1)
    dh, dw = product_back(concatenate([da_r, da_z, dq_n], axis=1), w, h)
    return da, (dh + dh_new * z,), dw


def gru_reset_before(a: Array, w: Weights, state: Arrays) -> Step:
    """Cho et al. 2014, with the reset before the recurrent product, as in TensorFlow 1 and ONNX."""
    (h,) = state
    a_r, a_z, a_n = np.split(a + w.b_R, 3, axis=1)
    R_r, R_z, R_n = np.split(w.R, 3)
    r = sigmoid(a_r + h @ R_r.T)
    z = sigmoid(a_z + h @ R_z.T)
    n = tanh(a_n + (r * h) @ R_n.T)
    h_new = (1 - z) * n + z * h
    return (h_new,), (r, z, n)


def gru_reset_before_back(dstate: Arrays, w: Weights, state: Arrays, saved: Arrays) -> StepBack:
    """R_n multiplied m = r * h, so its gradient reaches r and h by way of m."""
    (dh_new,), (h,), (r, z, n) = dstate, state, saved
    R_r, R_z, R_n = np.split(w.R, 3)
    da_n = dh_new * (1 - z) * (1 - n**2)
    da_z = dh_new * (h - n) * z * (1 - z)
    dm = da_n @ R_n
    da_r = dm * h * r * (1 - r)
    dh = dh_new * z + da_r @ R_r + da_z @ R_z + dm * r
    da = concatenate([da_r, da_z, da_n], axis=1)
    dR = concatenate([da_r.T @ h, da_z.T @ h, da_n.T @ (r * h)])
    return da, (dh,), {"R": dR, "b_R": da.sum(axis=0)}


class Cell(NamedTuple):
    """A cell's two functions, its number of gates, its states and its number of peepholes."""

    step: Callable[..., Step]
    back: Callable[..., StepBack]
    gates: int
    states: tuple[str, ...] = ("h",)
    peepholes: int = 0


_CELLS = {
    "rnn_tanh": Cell(rnn_tanh, rnn_tanh_back, 1),
    "rnn_relu": Cell(rnn_relu, rnn_relu_back, 1),
    "lstm": Cell(lstm, lstm_back, 4, ("h", "c")),
    "lstm_peephole": Cell(lstm_peephole, lstm_peephole_back, 4, ("h", "c"), 3),
    "gru": Cell(gru, gru_back, 3),
    "gru_reset_before": Cell(gru_reset_before, gru_reset_before_back, 3),
}
CELLS = tuple(_CELLS)


def unroll(
    cell: Cell, w: Weights, x: Array, state: Arrays, valid: Array, times: range, numbers: dict[str, float], keep: bool
) -> tuple[Array, Arrays, WayBack]:
    """One layer in one direction: its output, its final state, and the way back if the steps are to be kept for it.

    valid (T, B, 1) is False past each sequence's end. There the output is zero and the state does not change: in the
    forward direction it is already the final one, in reverse it is still the initial one.
    """
    a = x @ w.W.T + w.b
    output = np.zeros((*x.shape[:2], w.R.shape[1]), x.dtype)
    steps = []
    for t in times:
        new, saved = cell.step(a[t], w, state, **numbers)
        if keep:
            steps.append((t, state, saved))
        state = tuple(np.where(valid[t], s_new, s) for s_new, s in zip(new, state, strict=True))
        output[t] = np.where(valid[t], new[0], 0)

    def way_back(doutput: Array, dstate: Arrays) -> tuple[Array, Arrays, Weights]:
        da = np.zeros_like(a)
        dw = {field: np.zeros_like(value) for field, value in w._asdict().items()}
        for t, before, saved in reversed(steps):
            through = tuple(np.where(valid[t], d, 0) for d in (dstate[0] + doutput[t], *dstate[1:]))
            da[t], dbefore, dw_t = cell.back(through, w, before, saved)
            dstate = tuple(np.where(valid[t], d, held) for d, held in zip(dbefore, dstate, strict=True))
            for field, d in dw_t.items():
                dw[field] += d
        dw |= {"W": np.tensordot(da, x, axes=([0, 1], [0, 1])), "b": da.sum(axis=(0, 1))}
        return da @ w.W, dstate, Weights(**dw)

    return output, state, way_back


@np.errstate(all="ignore")  # NaN and infinity propagate as in IEEE 754; comparisons will show them
def forward(
    cell: str,
    params: Params,
    x: ArrayLike,
    state: State = None,
    lengths: ArrayLike | None = None,
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    **numbers: float,
) -> tuple[Array, Arrays]:
    """Run a recurrent network over a batch of sequences.

    Args:
        cell: one of CELLS.
        params: arrays under PyTorch's names, as weight_ih_l0 (G*H, I), and p_i_l0 (H,) and so on for peepholes, with
            _reverse added for the second direction. Absent biases are zero; H is taken from weight_hh_l0.
        x: (T, B, I).
        state: (h_0,) or (h_0, c_0), each (num_layers * directions, B, H); None is zero.
        lengths: (B,) integers from 0 to T; None is T for all.
        num_layers: each layer after the first reads the output of the one before.
        bidirectional: each layer also reads every sequence from its own end to its start.
        numbers: forget_bias, which an LSTM adds in its forget gate; 0 unless given.

    Returns:
        output (T, B, directions * H), zero past each sequence's end, and the final state, laid out as `state`: the
        state after each sequence's last valid step. A sequence of length 0 keeps its initial state.

    Raises:
        ValueError: the cell or a parameter is unknown, a parameter is missing, a shape or a length is wrong.
        TypeError: the cell has no such number.
    """
    return _network(cell, params, x, state, lengths, num_layers, bidirectional, numbers, keep=False)[:2]


@np.errstate(all="ignore")
def backward(
    cell: str,
    params: Params,
    x: ArrayLike,
    state: State,
    lengths: ArrayLike | None,
    doutput: ArrayLike,
    dstate: State = None,
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    **numbers: float,
) -> tuple[Array, Arrays, dict[str, Array]]:
    """Run forward, then backpropagate through time. Arguments and errors are those of `forward`, and:

    Args:
        doutput: the loss's gradient with respect to the output; has no effect past a sequence's end.
        dstate: the loss's gradients with respect to the final state, shaped as it is; None is zero.

    Returns:
        output, final state, and the gradients in a dict: of every parameter given, "x", "h_0" and, if any, "c_0".
    """
    args = (cell, params, x, state, lengths, num_layers, bidirectional, numbers)
    output, final, ways_back = _network(*args, keep=True)
    dinput = _array("doutput", doutput, output.shape, output.dtype)
    dstates = _states("dstate", dstate, _CELLS[cell], final[0].shape, output.dtype)
    directions = 2 if bidirectional else 1
    grads: dict[str, Array] = {}
    for layer in reversed(range(num_layers)):
        dinputs = []
        for k, doutput_k in enumerate(np.split(dinput, directions, axis=2), start=layer * directions):
            suffix, way_back = ways_back[k]
            dx, dstates[k], dw = way_back(doutput_k, dstates[k])
            dinputs.append(dx)
            grads |= {name + suffix: d for name, d in zip(NAMES, dw, strict=True)}
        dinput = np.sum(dinputs, axis=0)
    grads = {name: grads[name] for name in params} | {"x": dinput}
    return output, final, grads | {f"{s}_0": np.stack(d) for s, *d in zip(_CELLS[cell].states, *dstates, strict=True)}


def _network(
    name: str, params: Params, x: ArrayLike, state: State, lengths: ArrayLike | None,
    num_layers: int, bidirectional: bool, numbers: dict[str, float], *, keep: bool,
) -> tuple[Array, Arrays, list[tuple[str, WayBack]]]:  # fmt: skip
    """Check the arguments, then run all layers. The ways back, each with its suffix, are in the order of a state's rows."""
    if name not in CELLS:
        raise ValueError(f"cell is {name!r}; it has to be one of {', '.join(CELLS)}")
    if np.ndim(x) != 3 or 0 in np.shape(x) or num_layers < 1:
        raise ValueError(f"x {np.shape(x)} has to be (T, B, I) and num_layers {num_layers} a count, all at least 1")
    cell, (T, B) = _CELLS[name], np.shape(x)[:2]
    times = {"": range(T), "_reverse": range(T)[::-1]} if bidirectional else {"": range(T)}
    suffixes = [f"_l{layer}{direction}" for layer in range(num_layers) for direction in times]
    known = [field + suffix for suffix in suffixes for field in NAMES[: 4 + cell.peepholes]]
    for parameter in params:
        if parameter not in known:
            raise ValueError(f"params has an unknown {parameter!r}; here {name} takes {', '.join(known)}")
    for parameter in known:
        if parameter not in params and not parameter.startswith("bias"):
            raise ValueError(f"params lacks {parameter!r}; it has {', '.join(params) or 'nothing'}")
    ends = np.full(B, T) if lengths is None else np.asarray(lengths)
    if ends.shape != (B,) or ends.dtype.kind not in "iu" or np.any((ends < 0) | (ends > T)):
        raise ValueError(f"lengths {ends.tolist()} has to be {B} integers from 0 to {T}")

    everything: list[Any] = [x, *params.values(), *(() if state is None else state)]
    dtype = np.complex128 if any(np.iscomplexobj(value) for value in everything) else np.float64
    H = (0, *np.shape(params["weight_hh_l0"]))[-1]
    rows = cell.gates * H
    if H == 0 or np.shape(params["weight_hh_l0"]) != (rows, H):
        raise ValueError(
            f"weight_hh_l0 has shape {np.shape(params['weight_hh_l0'])}; it has to be ({cell.gates} * H, H)"
        )
    states = _states("state", state, cell, (len(suffixes), B, H), dtype)
    valid = (np.arange(T)[:, None] < ends)[:, :, None]
    output = np.where(valid, np.asarray(x, dtype), 0)  # what x holds past an end has no effect, even if it is NaN
    ways_back: list[tuple[str, WayBack]] = []
    for _ in range(num_layers):
        shapes = [(rows, output.shape[2]), (rows, H), (rows,), (rows,), *[(H,)] * cell.peepholes]
        outputs = []
        for order in times.values():
            k, suffix = len(ways_back), suffixes[len(ways_back)]
            named = [(field + suffix, shape) for field, shape in zip(NAMES, shapes, strict=False)]
            w = Weights(*(_array(parameter, params.get(parameter), shape, dtype) for parameter, shape in named))
            output_k, states[k], way_back = unroll(cell, w, output, states[k], valid, order, numbers, keep)
            outputs.append(output_k)
            ways_back.append((suffix, way_back))
        output = concatenate(outputs, axis=2)
    return output, tuple(np.stack(s) for s in zip(*states, strict=True)), ways_back


def _states(name: str, values: State, cell: Cell, shape: tuple[int, ...], dtype: Any) -> list[Arrays]:
    """Check a state's arrays and split them into one state (B, H) per layer and direction; None is zeros."""
    values = [None] * len(cell.states) if values is None else values
    if len(values) != len(cell.states):
        raise ValueError(f"{name} of length {len(values)} has to be a tuple of {' and '.join(cell.states)}")
    arrays = [_array(f"{name}'s {s}", value, shape, dtype) for s, value in zip(cell.states, values, strict=True)]
    return list(zip(*arrays, strict=True))


def _array(name: str, value: ArrayLike | None, shape: tuple[int, ...], dtype: Any) -> Array:
    """`value` as an array of this dtype; None is zeros. Raises ValueError if its shape is another."""
    if value is None:
        return np.zeros(shape, dtype)
    if np.shape(value) != shape:
        raise ValueError(f"{name} has shape {np.shape(value)}; it has to be {shape}")
    return np.asarray(value, dtype)
