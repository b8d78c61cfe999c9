"""What the reference is held to: its gradients to complex step, its numbers to other frameworks' known answers."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from rnnbench import reference

DATA = Path(__file__).parent / "data" / "frameworks"
GATES = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "lstm_peephole": 4, "gru": 3, "gru_reset_before": 3}


class Problem(NamedTuple):
    """The arguments of `backward`, and in `options` its keywords."""

    cell: str
    params: dict[str, np.ndarray]
    x: np.ndarray
    state: tuple[np.ndarray, ...]
    lengths: Any
    doutput: np.ndarray
    dstate: tuple[np.ndarray, ...]
    options: dict[str, Any]

    def forward(self, module: ModuleType = reference, **changed: Any) -> tuple:
        call = self._replace(**changed)
        return module.forward(call.cell, call.params, call.x, call.state, call.lengths, **call.options)

    def backward(self, module: ModuleType = reference, **changed: Any) -> tuple:
        call = self._replace(**changed)
        return module.backward(*call[:-1], **call.options)


def problem(cell, T, B, I, H, *, num_layers=1, bidirectional=False, lengths=None, without=()) -> Problem:
    """Random numbers for everything, large enough that every gate matters."""
    rng = np.random.default_rng([T, B, I, H, num_layers])
    directions = 2 if bidirectional else 1
    params = {}
    for layer in range(num_layers):
        for suffix in (f"_l{layer}", f"_l{layer}_reverse")[:directions]:
            width, rows = directions * H if layer else I, GATES[cell] * H
            shapes = {"weight_ih": (rows, width), "weight_hh": (rows, H), "bias_ih": (rows,), "bias_hh": (rows,)}
            shapes |= {f"p_{gate}": (H,) for gate in "ifo" if cell == "lstm_peephole"}
            params |= {name + suffix: 0.7 * rng.normal(size=s) for name, s in shapes.items() if name not in without}
    states = 2 if cell.startswith("lstm") else 1
    state, dstate = (tuple(rng.normal(size=(states, num_layers * directions, B, H))) for _ in range(2))
    x, doutput = rng.normal(size=(T, B, I)), rng.normal(size=(T, B, directions * H))
    options = {"num_layers": num_layers, "bidirectional": bidirectional}
    options |= {"forget_bias": 0.8} if states == 2 else {}
    return Problem(cell, params, x, state, lengths, doutput, dstate, options)


PROBLEMS = {
    "plain": {"T": 4, "B": 2, "I": 2, "H": 3},
    "one": {"T": 1, "B": 1, "I": 1, "H": 1},
    "long": {"T": 12, "B": 1, "I": 1, "H": 2},
    "no-bias": {"T": 3, "B": 2, "I": 2, "H": 2, "num_layers": 2, "without": ("bias_ih", "bias_hh")},
    "one-bias": {"T": 3, "B": 2, "I": 2, "H": 2, "without": ("bias_hh",)},
    "ragged": {"T": 5, "B": 4, "I": 2, "H": 3, "lengths": [3, 0, 5, 1]},
    "two-layers": {"T": 4, "B": 2, "I": 3, "H": 2, "num_layers": 2},
    "bidirectional": {"T": 4, "B": 2, "I": 3, "H": 2, "bidirectional": True},
    "all": {"T": 4, "B": 4, "I": 3, "H": 2, "num_layers": 2, "bidirectional": True, "lengths": [2, 4, 0, 1]},
}


# --- the checks -----------------------------------------------------------------------------------------------------


def complex_step(p: Problem, tensors: dict[str, np.ndarray], module: ModuleType) -> dict[str, np.ndarray]:
    """Every element's gradient of sum(output * doutput) + sum(state * dstate), from forward alone.

    Im f(v + ih) / h is f'(v) to the last bit or two, since nothing is subtracted (Squire and Trapp 1998).
    """
    step = 1e-30
    tensors = {name: value.astype(complex) for name, value in tensors.items()}
    params = {name: tensors[name] for name in p.params}
    state = tuple(tensors[name] for name in ("h_0", "c_0")[: len(p.state)])
    gradients = {name: np.empty(value.shape) for name, value in tensors.items()}
    for name, value in tensors.items():
        for index in np.ndindex(value.shape):
            value[index] += 1j * step
            output, final = p.forward(module, params=params, x=tensors["x"], state=state)
            loss = np.sum(output * p.doutput) + sum(np.sum(s * d) for s, d in zip(final, p.dstate, strict=True))
            gradients[name][index] = loss.imag / step
            value[index] = value[index].real
    return gradients


def check_gradients(p: Problem, module: ModuleType = reference) -> None:
    """Each tensor's gradient by hand is its gradient by complex step, within a few last bits of its largest element."""
    tensors = p.params | {"x": p.x} | dict(zip(("h_0", "c_0"), p.state, strict=False))
    gradients = p.backward(module)[2]
    assert set(gradients) == set(tensors)
    for name, expected in complex_step(p, tensors, module).items():
        bound = 1e-13 * max(1, np.abs(expected).max())
        np.testing.assert_allclose(gradients[name], expected, rtol=0, atol=bound, err_msg=name)


def check_known_answer(name: str, module: ModuleType = reference) -> None:
    """Output, final state and every gradient are the framework's, within 1e-12."""
    p, output, state, gradients = known_answer(name)
    got_output, got_state, got_gradients = p.backward(module)
    np.testing.assert_allclose(got_output, output, rtol=0, atol=1e-12, err_msg="output")
    for got, expected in zip(got_state, state, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12, err_msg="state")
    assert set(got_gradients) == set(gradients)
    for tensor, expected in gradients.items():
        np.testing.assert_allclose(got_gradients[tensor], expected, rtol=0, atol=1e-12, err_msg=tensor)


# --- known answers ------------------------------------------------------------------------------------------------

KNOWN = {entry["name"]: entry for entry in json.loads((DATA / "index.json").read_text())}
CELL_OF = {
    "torch_RNN_tanh": "rnn_tanh",
    "torch_LSTM": "lstm",
    "torch_LSTM_nobias_batch_first": "lstm",
    "torch_GRU": "gru",
    "torch_GRU_2layer_bidir_ragged": "gru",
    "tf1_BasicRNNCell_tanh": "rnn_tanh",
    "tf1_BasicRNNCell_relu": "rnn_relu",
    "tf1_BasicLSTMCell_fb1": "lstm",
    "tf1_BasicLSTMCell_fb0_batch_major_noseq": "lstm",
    "tf1_LSTMCell_peephole": "lstm_peephole",
    "tf1_GRUCell": "gru_reset_before",
}


def known_answer(name: str) -> tuple[Problem, np.ndarray, tuple[np.ndarray, ...], dict[str, np.ndarray]]:
    """One case in our names and layout: the problem, and the framework's output, state and gradients."""
    config = KNOWN[name]["config"]
    with np.load(DATA / f"{name}.npz") as stored:
        arrays = dict(stored)
    batch_first = config.get("batch_first", False) or not config.get("time_major", True)
    for key in ("in_x", "out_outputs", "dY", "grad_x"):
        arrays[key] = arrays[key].swapaxes(0, 1) if batch_first else arrays[key]

    def take(*keys: str) -> tuple[np.ndarray, ...]:  # TensorFlow's state has no axis for layers and directions
        return tuple(arrays[key].reshape(-1, *arrays[key].shape[-2:]) for key in keys if key in arrays)

    from_framework = torch_params if name.startswith("torch") else tf1_params
    params = from_framework(arrays, "w_")
    if name.startswith("tf1"):
        params["bias_hh_l0"] = np.zeros_like(params["bias_ih_l0"])  # TensorFlow has one bias: ours together
    options = {key: config[key] for key in ("num_layers", "bidirectional", "forget_bias") if key in config}
    lengths = arrays.get("in_sequence_length", arrays.get("in_lengths"))
    doutput, dstate = arrays["dY"], take("dh", "dc")
    p = Problem(CELL_OF[name], params, arrays["in_x"], take("in_h0", "in_c0"), lengths, doutput, dstate, options)
    gradients = from_framework(arrays, "gradw_") | {"x": arrays["grad_x"]}
    gradients |= dict(zip(("h_0", "c_0"), take("grad_h0", "grad_c0"), strict=False))
    return p, arrays["out_outputs"], take("out_h", "out_c"), gradients


def torch_params(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def tf1_params(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Kernels are [x; h] by gates: i, j (our g), f, o; or r, u (our z), and the candidate (our n) on its own."""
    found = {key.removeprefix(prefix).partition(".")[2]: v for key, v in arrays.items() if key.startswith(prefix)}
    if "candidate.kernel" in found:
        for kind in ("kernel", "bias"):
            found[kind] = np.concatenate([found[f"gates.{kind}"], found[f"candidate.{kind}"]], axis=-1)
    input_size, hidden_size = arrays["in_x"].shape[-1], arrays["in_h0"].shape[-1]
    gates = found["bias"].size // hidden_size
    order = [0, 2, 1, 3] if gates == 4 else list(range(gates))
    columns = np.concatenate([np.arange(hidden_size) + gate * hidden_size for gate in order])
    kernel, bias = found["kernel"][:, columns].T, found["bias"][columns]
    params = {"weight_ih_l0": kernel[:, :input_size], "weight_hh_l0": kernel[:, input_size:]}
    params |= {"bias_ih_l0": bias, "bias_hh_l0": bias}
    return params | {f"p_{gate}_l0": found[f"w_{gate}_diag"] for gate in "ifo" if f"w_{gate}_diag" in found}
