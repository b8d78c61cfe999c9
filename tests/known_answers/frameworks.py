"""What PyTorch's and TensorFlow 1's layers gave in float64: output, final state and all gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from rnnbench.cells import find
from rnnbench.interop.layouts import from_tf1

from .case import Arrays, Case, Net

DATA = Path(__file__).parent.parent / "data"
# The eleven that the reference is held to as well, and two with a projection, which it has not.
FOLDERS = (DATA / "frameworks", DATA / "known_answers" / "frameworks")
ENTRIES = {e["name"]: (folder, e) for folder in FOLDERS for e in json.loads((folder / "index.json").read_text())}
TORCH = {"RNN": "rnn_tanh", "LSTM": "lstm", "GRU": "gru"}


def cell_of(name: str, config: dict[str, Any]) -> str:
    if "cls" in config:
        return TORCH[config["cls"]]
    if "RNN" in name:
        return f"rnn_{config['activation']}"
    if "GRU" in name:
        return "gru_reset_before"
    return "lstm_peephole" if config.get("use_peepholes") else "lstm"


def case(name: str) -> Case:
    """One layer. The loss is sum(output * dY) + sum(h * dh) + sum(c * dc) over output and final state."""
    folder, entry = ENTRIES[name]
    config = entry["config"]
    with np.load(folder / f"{name}.npz") as stored:
        arrays = dict(stored)
    cell, tensorflow = cell_of(name, config), name.startswith("tf1")
    keys = ("num_layers", "bidirectional", "proj_size", "batch_first", "bias", "forget_bias")
    options = {key: config[key] for key in keys if key in config}
    if tensorflow:
        options |= {"batch_first": not config.get("time_major", True), "proj_size": config.get("num_proj", 0)}
    states = [s for s in "hc" if f"in_{s}0" in arrays]

    def named(prefix: str) -> Arrays:
        """Parameters, or their gradients, under our names."""
        found = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
        if not tensorflow:
            return found
        found = {key.partition(".")[2].replace(".", "/"): array for key, array in found.items()}
        ours = from_tf1(find(cell), found)
        if prefix == "gradw_":
            ours["bias_hh_l0"] = ours["bias_ih_l0"]  # its one bias stands for our two, each with the same gradient
        return ours

    def take(pattern: str) -> tuple[np.ndarray, ...]:
        # TensorFlow's state has no axis for layers and directions
        return tuple(arrays[pattern.format(s)].reshape(-1, *arrays[pattern.format(s)].shape[-2:]) for s in states)

    lengths = arrays.get("in_sequence_length", arrays.get("in_lengths"))

    def run(rnn: Any) -> Arrays:
        output, final, tape = rnn.forward(arrays["in_x"], take("in_{}0"), lengths)
        gradients = rnn.backward(tape, arrays["dY"], take("d{}"))
        got = {"output": output} | dict(zip(states, final, strict=True))
        return got | {f"d{key}": array for key, array in gradients.items()}

    expected = {"output": arrays["out_outputs"]} | dict(zip(states, take("out_{}"), strict=True))
    gradients = named("gradw_") | {"x": arrays["grad_x"]}
    gradients |= {f"{s}_0": array for s, array in zip(states, take("grad_{}0"), strict=True)}
    expected |= {f"d{key}": array for key, array in gradients.items()}
    return Case((Net(cell, named("w_"), options),), run, expected, 1e-12)
