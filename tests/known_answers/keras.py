"""Keras 3's own tests: layers with constant weights, masks, states that stay, both directions, stacks.

Where its conventions differ from ours, these adapters translate:
- A mask names the steps that count. Those of a row are moved together, and their number is its length. At a masked step the
  output is that of the step before, or 0 with zero_output_for_mask; the state is held.
- go_backwards is reverse; without return_sequences the output is the final h, which no flip in time concerns.
- A stateful layer starts its second call from the first one's final state.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from rnnbench.cells import find
from rnnbench.interop.layouts import from_keras

from .case import Arrays, Case, Net

Entry = dict[str, Any]
MERGES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "concat": lambda forward, backward: np.concatenate([forward, backward], axis=-1),
    "sum": np.add,
    "mul": np.multiply,
    "ave": lambda forward, backward: (forward + backward) / 2,
    "none": lambda forward, backward: np.stack([forward, backward]),
}


def from_test(entry: Entry, atol: float) -> Case:
    """A case of Keras' tests: of one layer, of Bidirectional, or of a stack of cells."""
    cell, config = entry["cell"], entry["configuration"]
    if cell.startswith("OneStateRNNCell"):
        return _linear(entry, atol)
    if cell.startswith("RNN([LSTMCell"):
        return _stacked_lstm(entry, atol)
    return _bidirectional(entry, atol) if cell.startswith("Bidirectional") else _layer(entry, config, atol)


def _layer(entry: Entry, config: Entry, atol: float) -> Case:
    recipe, x = entry["weights"]["recipe"], _input(entry)
    kernel, recurrent, bias = (_constant(recipe, name) for name in ("kernel", "recurrent_kernel", "bias"))
    constants = (kernel, recurrent, None if "no bias" in recipe else bias)
    cell = _cell(entry["cell"], config.get("reset_after", True))
    params = _params(cell, x.shape[2], config["units"], constants, "unit_forget_bias" in recipe)
    given = entry["inputs"]["initial_state"]
    state = None if given is None else tuple(np.array(s, float)[None] for s in given)
    backwards = config.get("go_backwards", False)
    assert not (backwards and config["return_sequences"])  # whose outputs Keras gives in the order of reading
    steps = _Steps(entry, x)

    def run(rnn: Any) -> Arrays:
        output, final = steps.run(rnn, state, config["calls_stateful"])
        if not config["return_sequences"]:
            return {"output": final[0][0]}
        return {"output": steps.spread(output, zero=config["zero_output_for_mask"])}

    net = Net(cell, params, {"batch_first": True, "reverse": backwards})
    return Case((net,), run, {"output": np.array(entry["expected"]["output"])}, atol)


def _bidirectional(entry: Entry, atol: float) -> Case:
    config, x = entry["configuration"], _input(entry)
    name = re.search(r"\((.*)\)", entry["cell"])
    assert name is not None
    cell, H = _cell(name[1], True), config["units"]
    constants = re.findall(r"Constant \(([^)]*)\)", entry["weights"]["recipe"])
    params: Arrays = {}
    for suffix, numbers in zip(("_l0", "_l0_reverse"), constants, strict=True):
        three = tuple(float(number) for number in numbers.split(","))
        params |= _params(cell, x.shape[2], H, three, forget_bias=True, suffix=suffix)
    states, given = find(cell).states, entry["inputs"]["initial_state"]
    state = None
    if given is not None:  # all of the forward layer's states, then the backward layer's
        state = tuple(np.array(given[k :: len(states)], float) for k in range(len(states)))
    steps, merge = _Steps(entry, x), MERGES[config["merge_mode"]]

    def run(rnn: Any) -> Arrays:
        output, final = steps.run(rnn, state, config["calls_stateful"])
        halves = (output[..., :H], output[..., H:]) if config["return_sequences"] else final[0]
        got = {f"{s}_{way}": final[k][d] for k, s in enumerate(states) for d, way in enumerate(("fwd", "bwd"))}
        return got | {"output": merge(*halves)}

    expected = {key: np.array(value) for key, value in entry["expected"].items() if key != "what"}
    return Case((Net(cell, params, {"batch_first": True, "bidirectional": True}),), run, expected, atol)


def _linear(entry: Entry, atol: float) -> Case:
    """Cells h' = W x + U h of ones, without bias, one above the other, each of its own width: a network for each."""
    config, x = entry["configuration"], _input(entry)
    cell, steps, nets, below = "rnn[activation=affine]", _Steps(entry, x), [], x.shape[2]
    for H in config["stack"]:
        params = _params(cell, below, H, (1.0, 1.0, None))
        nets.append(Net(cell, params, {"batch_first": True, "reverse": config["go_backwards"]}))
        below = H
    fill = entry["inputs"]["initial_state_fill"]

    def run(*rnns: Any) -> Arrays:
        states: list[Any] = [None if fill is None else (np.full((1, len(x), H), fill),) for H in config["stack"]]
        for _ in range(config["calls_stateful"]):
            value = steps.x
            for k, rnn in enumerate(rnns):
                value, states[k] = rnn(value, states[k], steps.lengths)
        return {"output": steps.spread(value, zero=False) if config["return_sequences"] else states[-1][0][0]}

    return Case(tuple(nets), run, {"output": np.array(entry["expected"]["output"])}, atol)


def _stacked_lstm(entry: Entry, atol: float) -> Case:
    """Two LSTM cells of one unit, all weights 1: two layers."""
    x, params = _input(entry), Arrays()
    for layer, width in enumerate((x.shape[2], 1)):
        params |= _params("lstm", width, 1, (1.0, 1.0, 0.0), forget_bias=True, suffix=f"_l{layer}")
    steps = _Steps(entry, x)

    def run(rnn: Any) -> Arrays:
        return {"output": steps.run(rnn, None, 1)[1][0][-1]}

    net = Net("lstm", params, {"batch_first": True, "num_layers": 2})
    return Case((net,), run, {"output": np.array(entry["expected"]["output"])}, atol)


class _Steps:
    """The steps that a mask lets through, before the others in each row, and how to put what comes out back in its place."""

    def __init__(self, entry: Entry, x: np.ndarray) -> None:
        given = entry["inputs"]["mask"]
        self.mask = np.ones(x.shape[:2], bool) if given is None else np.array(given)
        self.lengths = None if given is None else self.mask.sum(1)
        self.x = np.stack([np.concatenate([row[mask], row[~mask]]) for row, mask in zip(x, self.mask, strict=True)])

    def run(self, rnn: Any, state: Any, calls: int) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """The last of several calls, each from the final state of the one before."""
        for _ in range(calls):
            output, state = rnn(self.x, state, self.lengths)
        return output, state

    def spread(self, output: np.ndarray, zero: bool) -> np.ndarray:
        """(B, T, H) with each output at its step; at masked ones 0 or the one before."""
        result = np.zeros_like(output)
        for row, mask in enumerate(self.mask):
            for step, valid in enumerate(mask):
                if valid or (step and not zero):
                    result[row, step] = output[row, mask[:step].sum()] if valid else result[row, step - 1]
        return result


def _cell(layer: str, reset_after: bool) -> str:
    return {"SimpleRNN": "rnn_tanh", "LSTM": "lstm", "GRU": "gru" if reset_after else "gru_reset_before"}[layer]


def _params(
    cell: str, I: int, H: int, constants: tuple[float | None, ...], forget_bias: bool = False, suffix: str = "_l0"
) -> Arrays:
    """Weights of a Keras layer that are (kernel, recurrent_kernel, bias) throughout; forget_bias: 1 for an LSTM's gate f."""
    kernel, recurrent, bias = constants
    width = len(find(cell).input_gates) * H
    weights = [np.full((I, width), kernel), np.full((H, width), recurrent)]
    if bias is not None:
        weights.append(np.full((2, width) if cell == "gru" else width, bias))
        if cell == "lstm" and forget_bias:
            weights[2][H : 2 * H] = 1.0
    return from_keras(find(cell), weights, suffix)


def _constant(recipe: str, name: str) -> float:
    match = re.search(rf"\b{name}=Constant\(([\d.]+)\)", recipe)
    assert match is not None, recipe
    return float(match[1])


def _input(entry: Entry) -> np.ndarray:
    """What a recipe such as numpy.arange(24).reshape((2, 3, 4)) makes."""
    recipe = entry["inputs"]["x_recipe"]
    match = re.fullmatch(r"numpy\.(arange\(\d+\)\.reshape|ones)\(\(([\d, ]+)\)\)(\.astype\(float32\))?", recipe)
    assert match is not None, recipe
    shape = tuple(int(n) for n in match[2].split(","))
    return np.ones(shape) if match[1] == "ones" else np.arange(math.prod(shape), dtype=float).reshape(shape)
