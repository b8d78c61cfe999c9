"""RNN, GRU and LSTM nodes: ONNX Runtime's own tests, cases run by it, the specification in float64, and ONNX's node tests.

Our conventions differ from ONNX Runtime's in one point, which `run` takes over on request: the final state of a sequence of length
0 is 0 there, whatever its initial state, and the initial state here. The specification does not say.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from rnnbench.cells import find
from rnnbench.interop.layouts import from_onnx

from .case import Arrays, Case, Net

# ONNX's names of functions, in lower case, under ours. In an attribute's order: gates, candidate, output.
ACTIVATIONS = {"leakyrelu": "leaky_relu"}
ROLES = {"RNN": ("activation",), "GRU": ("gate", "candidate"), "LSTM": ("gate", "candidate", "output")}
STATES = {"RNN": "h", "GRU": "h", "LSTM": "hc"}
ATTRIBUTES = {
    "activation_alpha", "activations", "clip", "direction", "hidden_size", "input_forget", "layout", "linear_before_reset"
}  # fmt: skip
# those of the onnx package, known here by name so that where it is missing they are skipped by name
NODE_TESTS = tuple(
    f"test_{op}_{what}"
    for op, tests in {
        "simple_rnn": ("defaults", "with_initial_bias", "batchwise", "reverse", "bidirectional"),
        "rnn": ("seq_length",),
        "lstm": ("defaults", "with_initial_bias", "with_peepholes", "batchwise", "reverse", "bidirectional"),
        "gru": ("defaults", "with_initial_bias", "seq_length", "batchwise", "reverse", "bidirectional"),
    }.items()
    for what in tests
)


def cells_of(op: str, attributes: dict[str, Any], inputs: Arrays) -> list[str]:
    """The name of our cell for each direction of a node."""
    options = []
    if "clip" in attributes:
        options.append(f"clip={attributes['clip']}")
    if attributes.get("input_forget"):
        options.append("input_forget")
    if op == "GRU" and not attributes.get("linear_before_reset"):
        options.append("reset=before")
    if "P" in inputs:
        options.append("peepholes")
    directions, roles = len(inputs["W"]), ROLES[op]
    names = [name.lower() for name in attributes.get("activations", [])]
    assert len(names) in (0, directions * len(roles)), names
    alphas = list(attributes.get("activation_alpha", []))
    functions = []
    for name in names:
        alpha = f":{alphas.pop(0)}" if name == "leakyrelu" else ""
        functions.append(ACTIVATIONS.get(name, name) + alpha)
    assert not alphas, "an activation_alpha of no activation"
    found = []
    for direction in range(directions):
        chosen = functions[direction * len(roles) : (direction + 1) * len(roles)]
        both = options + [f"{role}={function}" for role, function in zip(roles, chosen, strict=False)]
        found.append(find(f"{op.lower()}[{','.join(both)}]").name)
    return found


def case(op: str, attributes: dict[str, Any], inputs: Arrays, expected: Arrays, atol: Any, *, zero: bool) -> Case:
    """A node as a case. zero: whether the final state after length 0 is to be 0, as in ONNX Runtime."""
    assert set(attributes) <= ATTRIBUTES, set(attributes) - ATTRIBUTES
    direction, batch_first = attributes.get("direction", "forward"), bool(attributes.get("layout", 0))
    inputs = {k: np.asarray(v, float if k != "sequence_lens" else int) for k, v in inputs.items()}
    names, directions = cells_of(op, attributes, inputs), len(inputs["W"])
    assert directions == (2 if direction == "bidirectional" else 1)
    weights = {name: inputs[name] for name in "WRBP" if name in inputs}

    def net(cell: str, weights: Arrays, **options: Any) -> Net:
        return Net(cell, from_onnx(find(cell), weights), {"batch_first": batch_first, **options})

    if directions == 2 and names[0] != names[1]:  # one network for each direction, as our cells are one for both
        halves = [{name: array[d : d + 1] for name, array in weights.items()} for d in range(2)]
        nets: tuple[Net, ...] = (net(names[0], halves[0]), net(names[1], halves[1], reverse=True))
    else:
        nets = (net(names[0], weights, bidirectional=directions == 2, reverse=direction == "reverse"),)

    def run(*rnns: Any) -> Arrays:
        lengths, given = inputs.get("sequence_lens"), [inputs.get(f"initial_{s}") for s in STATES[op]]
        state = None
        if any(array is not None for array in given):
            like = next(array for array in given if array is not None)
            state = [np.zeros_like(like) if array is None else array for array in given]
            state = [array.swapaxes(0, 1) if batch_first else array for array in state]
        outputs, finals = [], []
        for index, rnn in enumerate(rnns):
            part = state if state is None or len(rnns) == 1 else [array[index : index + 1] for array in state]
            output, final = rnn(inputs["X"], None if part is None else tuple(part), lengths)
            outputs.append(output)
            finals.append(final)
        output = np.concatenate(outputs, axis=2)
        split = output.reshape(*output.shape[:2], directions, -1)  # (T, B, D, H), or (B, T, D, H), which is ONNX's
        got = {"Y": split if batch_first else split.transpose(0, 2, 1, 3)}
        for s, arrays in zip(STATES[op], zip(*finals, strict=True), strict=True):
            joined = np.concatenate(arrays)
            if zero and lengths is not None:
                joined = np.where((lengths == 0)[None, :, None], 0.0, joined)
            got[f"Y_{s}"] = joined.swapaxes(0, 1) if batch_first else joined
        return got

    return Case(nets, run, {name: np.asarray(array, float) for name, array in expected.items()}, atol)


def from_test(entry: dict[str, Any], atol: float) -> Case:
    """A case of ONNX Runtime's tests."""
    inputs = entry["inputs"] | entry["weights"]
    return case(entry["cell"], entry["configuration"], inputs, entry["expected"], atol, zero=True)


def from_run(entry: dict[str, Any], arrays: Arrays, runtime: bool) -> Case:
    """A node that ONNX Runtime ran: against its float32 outputs, or against the specification in float64.

    Its outputs are as far from float64 as the entry says, that of Y where Y_h and Y_c are rows of it or follow another
    convention (length 0).
    """
    prefix = "out_" if runtime else "ref64_"
    inputs = {name.removeprefix("in_"): array for name, array in arrays.items() if name.startswith("in_")}
    expected = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    recorded = entry["ref64_vs_ort_maxabs"]
    if 0 in inputs.get("sequence_lens", ()):
        recorded = recorded | {"Y_h": recorded["Y"]}
    atol = {name: recorded[name] + 1e-12 if runtime else 1e-12 for name in expected}
    return case(entry["op"], entry["attributes"], inputs, expected, atol, zero=runtime)


def node_tests() -> dict[str, Any]:
    """ONNX's node tests of the three operators by name.

    collect_testcases would make the thousands of all operators first, 16 s of them; what it returns is this list, to which
    each operator's module adds its own as it is imported.
    """
    node = importlib.import_module("onnx.backend.test.case.node")
    for module in ("rnn", "gru", "lstm"):
        importlib.import_module(f"onnx.backend.test.case.node.{module}")
    return {test.name: test for test in node._NodeTestCases if test.model.graph.node[0].op_type in ROLES}


def from_node_test(name: str) -> Case:
    """A node test of ONNX. Its numbers are float32, made by a few operations of float32: within a few of its roundings."""
    helper = importlib.import_module("onnx.helper")
    test = node_tests()[name]
    node = test.model.graph.node[0]
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    attributes = {name: value.decode() if isinstance(value, bytes) else value for name, value in attributes.items()}
    given, wanted = test.data_sets[0]
    inputs = dict(zip([n for n in node.input if n], given, strict=True))
    expected = dict(zip([n for n in node.output if n], wanted, strict=True))
    atol = {name: 4 * 2**-24 * max(1.0, float(np.abs(array).max())) for name, array in expected.items()}
    return case(node.op_type, attributes, inputs, expected, atol, zero=True)
