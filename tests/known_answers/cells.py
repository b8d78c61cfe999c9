"""TensorFlow 1's and PyTorch's own tests of cells: TensorFlow's have constant weights and one or two steps, PyTorch's a ramp.

TensorFlow's wrappers around a cell (projection of the input or the output, an embedding, dropout of a state) are done here, around
the network. Its joined states are [c, h] of one cell after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnbench.cells import find
from rnnbench.interop.layouts import from_tf1

from .case import Arrays, Case, Net

Entry = dict[str, Any]
WEIGHT = 0.5  # of every matrix of TensorFlow's cases


def from_test(entry: Entry, atol: float) -> Case:
    """A case of TensorFlow's or PyTorch's tests, by its name."""
    make = next(make for prefix, make in MAKERS.items() if entry["id"].startswith(prefix))
    nets, run = make({name: np.array(value) for name, value in entry["inputs"].items() if "recipe" not in name})
    return Case((nets,), run, {name: np.array(value) for name, value in entry["expected"].items()}, atol)


def _gru(inputs: Arrays) -> Any:
    """GRUCell, alone or in OutputProjectionWrapper, InputProjectionWrapper or EmbeddingWrapper."""
    return _wrapped(inputs["x"], inputs["h"], lambda h: {"h": h})


def _output_projection(inputs: Arrays) -> Any:
    return _wrapped(inputs["x"], inputs["h"], lambda h: {"output": h @ np.full((h.shape[1], 2), WEIGHT)})


def _input_projection(inputs: Arrays) -> Any:
    return _wrapped(inputs["x"] @ np.full((2, 3), WEIGHT), inputs["h"], lambda h: {"output": h})


def _embedding(inputs: Arrays) -> Any:
    return _wrapped(np.full((3, 2), WEIGHT)[inputs["x_index"][:, 0]], inputs["h"], lambda h: {"output": h})


def _wrapped(x: np.ndarray, h: np.ndarray, finish: Any) -> Any:
    """One step of a GRUCell from h (B, H), and what is made of the new h."""
    return _tf1("gru_reset_before", x.shape[1], h.shape[1], 1), lambda rnn: finish(rnn(x[None], (h[None],))[1][0][0])


def _multi_gru(inputs: Arrays) -> Any:
    def run(rnn: Any) -> Arrays:
        h = rnn(inputs["x"][None], (np.stack(np.split(inputs["state"], 2, axis=1)),))[1][0]
        return {"state": np.concatenate(h, axis=1)}

    return _tf1("gru_reset_before", 2, 2, 2), run


def _multi_lstm(inputs: Arrays) -> Any:
    """Two LSTM cells of two units, one step; states in each of three forms."""
    if "state" in inputs:
        joined = inputs["state"].reshape(1, -1)
        c0, h0, c1, h1 = np.split(joined, 4, axis=1)
    else:
        c0, h0, c1, h1 = (inputs[name] for name in ("c0", "h0", "c1", "h1"))

    def run(rnn: Any) -> Arrays:
        output, (h, c) = rnn(inputs["x"][None], (np.stack([h0, h1]), np.stack([c0, c1])))
        got = {"output": output[0], "c0": c[0], "h0": h[0], "c1": c[1], "h1": h[1]}
        mem0, mem1 = (np.concatenate([c[k], h[k]], axis=1) for k in (0, 1))
        return got | {"mem0": mem0, "mem1": mem1, "state": np.concatenate([mem0, mem1], axis=1)}

    return _tf1("lstm", 2, 2, 2, forget_bias=1.0), run


def _dynamic(inputs: Arrays) -> Any:
    def run(rnn: Any) -> Arrays:
        output, (h, c) = rnn(inputs["x"], (inputs["h0"][None], inputs["c0"][None]))
        return {"outputs": output, "final_h": h[0], "final_c": c[0]}

    return _tf1("lstm", 3, 3, 1, forget_bias=1.0), run


def _state_dropout(inputs: Arrays) -> Any:
    """Between two steps h is dropped to 0, c never."""

    def run(rnn: Any) -> Arrays:
        h, c = inputs["h0"][None], inputs["c0"][None]
        for x in inputs["x"]:
            h, c = rnn(x[None], (h, c))[1]
            h = np.zeros_like(h)
        return {"final_c": c[0]}

    return _tf1("lstm", 3, 3, 1, forget_bias=1.0), run


def _coupled(inputs: Arrays) -> Any:
    def run(rnn: Any) -> Arrays:
        c, h = np.split(inputs["state"], 2, axis=1)
        _, (h, c) = rnn(inputs["x"][None], (h[None], c[None]))
        return {"output": h[0], "state": np.concatenate([c[0], h[0]], axis=1)}

    return _tf1("lstm[coupled]", 4, 2, 1, forget_bias=1.0), run


def _tf1(cell: str, I: int, H: int, layers: int, **numbers: float) -> Net:
    """Layers of a TensorFlow 1 cell: matrices of 0.5, biases of 0, of 1 for the gates of a GRU."""
    params: Arrays = {}
    for layer in range(layers):
        rows = (H if layer else I) + H
        if cell.startswith("gru"):
            arrays = {"gates/kernel": np.full((rows, 2 * H), WEIGHT), "gates/bias": np.ones(2 * H)}
            arrays |= {"candidate/kernel": np.full((rows, H), WEIGHT), "candidate/bias": np.zeros(H)}
        else:  # coupled gates have three blocks
            columns = len(find(cell).input_gates) * H
            arrays = {"kernel": np.full((rows, columns), WEIGHT), "bias": np.zeros(columns)}
        params |= from_tf1(find(cell), arrays, f"_l{layer}")
    return Net(cell, params, {"num_layers": layers, **numbers})


def _pytorch(inputs: Arrays) -> Any:
    """nn.LSTM(2, 2), whose parameters are ramps k / size."""
    shapes = {"weight_ih_l0": (8, 2), "weight_hh_l0": (8, 2), "bias_ih_l0": (8,), "bias_hh_l0": (8,)}
    params = {name: (np.arange(np.prod(s)) / np.prod(s)).reshape(s) for name, s in shapes.items()}
    x = ((24 - np.arange(24)) / 24).reshape(3, 4, 2)

    def run(rnn: Any) -> Arrays:
        output, (h, c) = rnn(x)
        return {"output": output, "h_n": h[0], "c_n": c[0]}

    return Net("lstm", params), run


MAKERS = {
    "tf1_GRUCell": _gru,
    "tf1_OutputProjectionWrapper": _output_projection,
    "tf1_InputProjectionWrapper": _input_projection,
    "tf1_EmbeddingWrapper": _embedding,
    "tf1_MultiRNNCell_GRU2": _multi_gru,
    "tf1_MultiRNNCell_BasicLSTM2": _multi_lstm,
    "tf1_LSTMBlockCell2": _multi_lstm,
    "tf1_dynamic_rnn_LSTMCell": _dynamic,
    "tf1_state_dropout_keeps_c": _state_dropout,
    "tf1_CoupledInputForgetGateLSTMCell": _coupled,
    "pytorch_cpp_LSTM": _pytorch,
}
