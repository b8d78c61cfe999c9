"""ONNX models: the RNN, GRU and LSTM nodes of a model as networks, and a network as a model.

ONNX's `clip`, `input_forget`, peepholes and activations are variants of our cells. A number in a node is a float32; it is read as
the shortest decimal that gives the same float32, so that 0.01 is 0.01.

Source: https://onnx.ai/onnx/operators/onnx__LSTM.html and its neighbours RNN and GRU, version 14 to 22.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..cells import Cell, find
from ..cells.activations import ACTIVATIONS, parse
from ..cells.variants import FAMILIES, options_of
from ..files import replace_file
from ..rnn import RNN
from ..spelling import unknown
from . import layouts
from .common import InteropError, network, refuse, spec_of, with_forget_bias

if TYPE_CHECKING:
    import onnx

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
# operator -> our option and ONNX's default for each of its activations, in their order
ROLES = {
    "RNN": {"activation": "Tanh"},
    "GRU": {"gate": "Sigmoid", "candidate": "Tanh"},
    "LSTM": {"gate": "Sigmoid", "candidate": "Tanh", "output": "Tanh"},
}
TO_ONNX = {name: name.title().replace("_", "") for name in ACTIVATIONS}
FROM_ONNX = {theirs.lower(): name for name, theirs in TO_ONNX.items()}  # ONNX Runtime ignores case
# how many of its parameters a node must give: ONNX Runtime 1.31 takes 0 for those left out, rnnbench and ONNX's operators do not
EXPLICIT = {"affine": 1, "scaled_tanh": 2, "thresholded_relu": 1}
DIRECTIONS = ("forward", "reverse", "bidirectional")
# the oldest versions in which the three operators have today's meaning, so that most runtimes load the models
OPSET, IR_VERSION = 14, 7


class _Node(NamedTuple):
    """A recurrent node.

    name: its own, or that of its first output. given: the roles of all inputs that it has, of INPUTS. constants: role -> array, for
    the inputs that are constants of the model.
    """

    name: str
    operator: str
    attributes: dict[str, Any]
    given: set[str]
    constants: dict[str, np.ndarray]


def load_onnx(path: str | os.PathLike[str], backend: str = "numba-cpu") -> dict[str, RNN]:
    """Node's name -> RNN of one layer, for every RNN, GRU and LSTM node in the main graph of the model at `path`.

    A node without a name is named after its first output. Weights must be constants of the model; lengths and initial states are
    arguments of an RNN's call, and `load_onnx_states` returns the states that are constants. Our state is (directions, B, H) also
    for a node with layout=1, and our output is (T, B, directions * H) where ONNX has (T, directions, B, H). backend: of the RNNs.

    Raises InteropError for anything but an ONNX model with such a node, and for nodes that do not convert; OSError if there is no
    file.
    """
    found = {}
    for node in _nodes(path):
        try:
            found[node.name] = _network(node, backend)
        except (TypeError, UnicodeDecodeError, KeyError) as error:  # attributes of a damaged file
            raise InteropError(f"{os.fspath(path)}: the node {node.name} does not convert: {error}") from error
    return found


def load_onnx_states(path: str | os.PathLike[str]) -> dict[str, tuple[np.ndarray, ...]]:
    """Node's name -> its initial state, as a call of the RNN takes it, for nodes whose initial states are constants of the model.
    If an LSTM node gives only one of its two states, the other is zero. Raises the same errors as `load_onnx`.
    """
    states = {}
    for node in _nodes(path):
        names = ("initial_h", "initial_c")[: 2 if node.operator == "LSTM" else 1]
        given = [name for name in names if name in node.given]
        if given and node.constants.keys() >= set(given):
            for name in given:
                if node.constants[name].ndim != 3:
                    raise InteropError(
                        f"{name} of the node {node.name} has shape {node.constants[name].shape}, expected "
                        "(directions, batch_size, hidden_size), or (batch_size, directions, hidden_size) with layout=1"
                    )
            major = (1, 0, 2) if node.attributes.get("layout") else (0, 1, 2)
            arrays = {name: np.ascontiguousarray(node.constants[name].transpose(major)) for name in given}
            zero = np.zeros_like(arrays[given[0]])
            states[node.name] = tuple(arrays.get(name, zero) for name in names)
    return states


def save_onnx(rnn: RNN, path: str | os.PathLike[str], initial_state: bool = False) -> None:
    """Write the network to `path` as an ONNX model, whole or not at all, with a node for each layer.

    rnn: its input is the model's input "x" and its results are the outputs "output", "h_n" and perhaps "c_n", all in the RNN's own
    shapes, with any seq_len and batch_size. initial_state: whether the model also has the inputs "h_0" and perhaps "c_0"; without
    them they are zero. A forget_bias is added to the biases. ONNX Runtime runs float32 only; the reference evaluator runs both.

    Raises InteropError for what ONNX cannot express: projections, cell_clip, coupled gates, user-defined cells.
    """
    import onnx

    model = _model(rnn, initial_state)
    onnx.checker.check_model(model)
    replace_file(path, lambda file: onnx.save(model, file))


# ---- reading


def _nodes(path: str | os.PathLike[str]) -> Iterator[_Node]:
    """The recurrent nodes of the model."""
    import onnx

    try:
        model = onnx.load(os.fspath(path))
    except OSError:
        raise
    except Exception as error:  # protobuf's DecodeError, ONNX's ValidationError and others, without a common base
        raise InteropError(f"{os.fspath(path)} is not an ONNX model, or is damaged: {error}") from error
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = 0
    names = [node.name for node in model.graph.node]
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
        elif node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
        elif node.op_type in ROLES and node.domain in ("", "ai.onnx"):
            found += 1
            inputs = {role: name for role, name in zip(INPUTS, node.input, strict=False) if name}
            called = node.name if node.name and names.count(node.name) == 1 else next(filter(None, node.output), "")
            try:
                attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
                arrays = {r: onnx.numpy_helper.to_array(constants[n]) for r, n in inputs.items() if n in constants}
            except (ValueError, KeyError, TypeError) as error:  # of a damaged file
                raise InteropError(f"{os.fspath(path)}: the node {called} cannot be read: {error}") from error
            yield _Node(called, node.op_type, attributes, set(inputs), arrays)
    if not found:
        raise InteropError(f"{os.fspath(path)} holds no {', '.join(ROLES)} node in its main graph")


def _network(node: _Node, backend: str) -> RNN:
    computed = sorted(({"W", "R"} | node.given & {"B", "P"}) - node.constants.keys())
    if computed:
        raise InteropError(
            f"the node {node.name} gets its {' and '.join(computed)} from other nodes or from the model's inputs; "
            "only weights that are constants of the model can be converted"
        )
    direction = _text(node.attributes.get("direction", "forward"))
    if direction not in DIRECTIONS:
        raise InteropError(f"the node {node.name} has direction={direction!r}, expected one of {', '.join(DIRECTIONS)}")
    directions = 2 if direction == "bidirectional" else 1
    try:
        # an array without axes is rejected below, where the shapes are compared
        found = tuple(node.constants[name].shape[0] for name in ("W", "R") if node.constants[name].ndim)
        if any(number != directions for number in found):
            raise ValueError(f"W and R have {found} directions, but direction is {direction!r}")
        cell = _cell(node, directions)
        rnn = network(
            cell,
            layouts.from_onnx(cell, node.constants),
            backend,
            bidirectional=directions == 2,
            reverse=direction == "reverse",
            batch_first=bool(node.attributes.get("layout")),
        )
    except ValueError as error:
        raise InteropError(f"the node {node.name} does not convert: {error}") from error
    hidden_size = node.attributes.get("hidden_size", rnn.spec.hidden_size)
    if hidden_size != rnn.spec.hidden_size:
        raise InteropError(f"the node {node.name} says hidden_size={hidden_size}, but its W has {rnn.spec.hidden_size}")
    return rnn


def _cell(node: _Node, directions: int) -> Cell:
    """The cell that the node's attributes and inputs describe."""
    attributes = node.attributes
    options = [f"{role}={act}" for role, act in zip(ROLES[node.operator], _activations(node, directions), strict=True)]
    if "clip" in attributes:
        options.append(f"clip={_shortest(attributes['clip'])}")
    if node.operator == "GRU":
        options.append(f"reset={'after' if attributes.get('linear_before_reset') else 'before'}")
    if attributes.get("input_forget"):
        options.append("input_forget")
    if "P" in node.constants:
        options.append("peepholes")
    return find(f"{node.operator.lower()}[{','.join(options)}]")


def _activations(node: _Node, directions: int) -> list[str]:
    """Our names of the activations of one direction, with parameters.

    Raises ValueError if the directions differ, and for a parameter left to a default on which runtimes disagree.
    """
    defaults = [*ROLES[node.operator].values()] * directions
    names = [_text(name) for name in node.attributes.get("activations", defaults)]
    if len(names) != len(defaults):
        raise ValueError(
            f"it has {len(names)} activations; an {node.operator} in {directions} direction(s) has {len(defaults)}"
        )
    alphas, betas = (list(node.attributes.get(f"activation_{name}", ())) for name in ("alpha", "beta"))
    found = []
    for theirs in names:
        if theirs.lower() not in FROM_ONNX:
            raise ValueError(unknown("activation", theirs, TO_ONNX.values()))
        name = FROM_ONNX[theirs.lower()]
        parameters = list(ACTIVATIONS[name][1])
        # as in ONNX Runtime, an activation takes the next of the values only if it has that parameter
        for position, (letter, values) in zip(
            range(len(parameters)), (("alpha", alphas), ("beta", betas)), strict=False
        ):
            if values:
                parameters[position] = _shortest(values.pop(0))
            elif position < EXPLICIT.get(name, 0):
                raise ValueError(
                    f"{theirs} has no activation_{letter}, for which ONNX Runtime uses 0 and rnnbench "
                    f"{parameters[position]}; write the number into the node's activation_{letter}"
                )
        found.append(":".join([name, *map(repr, parameters)]))
    if alphas or betas:
        raise ValueError(f"activation_alpha and activation_beta have more values than {', '.join(names)} take")
    one = len(ROLES[node.operator])
    if found[:one] != found[-one:]:
        raise ValueError(
            f"the directions have different activations ({', '.join(names)}), and an RNN has one cell for both"
        )
    return found[:one]


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _shortest(value: float) -> float:
    """The number with the fewest digits that is the same float32."""
    return float(str(np.float32(value)))


# ---- writing


def _model(rnn: RNN, initial_state: bool) -> onnx.ModelProto:
    from onnx import TensorProto, helper, numpy_helper

    spec = spec_of(rnn)
    states = spec.cell.states
    operator, attributes = _node_of(rnn)
    params, D, H, L = with_forget_bias(rnn), spec.num_directions, spec.hidden_size, spec.num_layers
    constants = {"joined": np.array([0, 0, D * H], np.int64), "per_layer": np.full(L, D, np.int64)}
    nodes = []

    def add(operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        nodes.append(helper.make_node(operator, inputs, outputs, name=f"{operator}_{outputs[0]}", **attributes))

    if initial_state:
        for state in states:
            add("Split", [f"{state}_0", "per_layer"], [f"{state}_0_l{k}" for k in range(L)], axis=0)
    x = "x"
    if rnn.batch_first:
        add("Transpose", ["x"], ["x_time_major"], perm=[1, 0, 2])
        x = "x_time_major"
    for k in range(L):
        arrays = layouts.to_onnx(spec, params, k)
        constants |= {f"{name}_l{k}": array for name, array in arrays.items()}
        before = [f"{state}_0_l{k}" if initial_state else "" for state in states]
        inputs = [x, *(f"{name}_l{k}" if name in arrays else "" for name in "WRB"), "", *before]
        inputs += [f"P_l{k}"] * ("P" in arrays)
        while not inputs[-1]:
            inputs.pop()
        outputs = [f"y_l{k}", *(f"{state}_n_l{k}" for state in states)]
        nodes.append(helper.make_node(operator, inputs, outputs, name=f"{operator}_l{k}", hidden_size=H, **attributes))
        # (T, D, B, H) to (B, T, D, H) or (T, B, D, H)
        major = [2, 0, 1, 3] if rnn.batch_first and k == L - 1 else [0, 2, 1, 3]
        add("Transpose", [f"y_l{k}"], [f"y_l{k}_major"], perm=major)
        x = "output" if k == L - 1 else f"x_l{k + 1}"
        add("Reshape", [f"y_l{k}_major", "joined"], [x])
    for state in states:
        add("Concat", [f"{state}_n_l{k}" for k in range(L)], [f"{state}_n"], axis=0)
    number = TensorProto.FLOAT if spec.dtype == "float32" else TensorProto.DOUBLE
    sizes = ["batch_size", "seq_len"] if rnn.batch_first else ["seq_len", "batch_size"]

    def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, number, shape)

    of_state = [f"{state}_0" for state in states] if initial_state else []
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "rnnbench",
        [value("x", *sizes, spec.input_size), *(value(name, L * D, "batch_size", H) for name in of_state)],
        [value("output", *sizes, D * H), *(value(f"{state}_n", L * D, "batch_size", H) for state in states)],
        [numpy_helper.from_array(array, name) for name, array in constants.items() if name in used],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="rnnbench")


def _node_of(rnn: RNN) -> tuple[str, dict[str, Any]]:
    """The operator and its attributes, except hidden_size."""
    spec = rnn.spec
    try:
        family, options = options_of(spec.cell)
    except ValueError as error:
        raise InteropError(f"ONNX has no such operator: {error}") from error
    if spec.proj_size:
        raise InteropError(f"ONNX's {family.upper()} has no projection; this RNN has proj_size={spec.proj_size}")
    roles = ROLES[family.upper()]
    refuse(options, FAMILIES[family][1], "ONNX", (*roles, "clip", "input_forget", "peepholes", "reset"))
    attributes: dict[str, Any] = {"direction": "bidirectional" if spec.bidirectional else "forward"}
    if spec.reverse:
        attributes["direction"] = "reverse"
    if options["clip"] is not None:
        attributes["clip"] = _float32("clip", options["clip"], spec.dtype)
    if options.get("input_forget"):
        attributes["input_forget"] = 1
    if options.get("reset") == "after":
        attributes["linear_before_reset"] = 1
    parsed = [parse(options[role]) for role in roles] * spec.num_directions
    attributes["activations"] = [TO_ONNX[name] for name, _ in parsed]
    for position, name in enumerate(("activation_alpha", "activation_beta")):
        values = [_float32(name, p[position], spec.dtype) for _, p in parsed if len(p) > position]
        attributes |= {name: values} if values else {}
    return family.upper(), attributes


def _float32(name: str, value: float, dtype: str) -> float:
    """`value`, if storing it as a float32 changes nothing for a network of this dtype. Raises InteropError otherwise."""
    if dtype != "float32" and _shortest(value) != value:
        raise InteropError(
            f"ONNX keeps {name} as a float32, which cannot hold {value!r}; make the RNN with dtype='float32'"
        )
    return value
