"""ONNX Runtime: a model of one RNN, LSTM or GRU node for each layer, in a prepared session with bound inputs and outputs.

There is no backward pass, and no float64: the operators declare it, but the CPU's kernels report that it is not implemented.

ONNX does not define the result of a row of length 0. ONNX Runtime leaves zeros and ignores the initial state, so `forward` copies
the initial state into the final one of such rows.

By default its threads spin between the parts of a run, and for some 40 ms after it. That is fastest: on two cores, an LSTM of 128
units with one row took 0.8 ms, against 1.1 to 1.2 ms without spinning (`session.intra_op.allow_spinning=0`) and 1.8 ms if the
threads stop with the run (`session.force_spinning_stop=1`). Before anything else is timed, they have to fall asleep, for which
`bench.measure` waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from ...cells import BUILT_IN
from ...interop.layouts import forget_bias_in_biases, to_onnx
from ...params import Spec
from .. import threads
from ..base import States

# cell -> the operator and its attributes; activations are those of one direction
_OPERATORS: dict[Any, tuple[str, dict[str, Any]]] = {
    BUILT_IN["rnn_tanh"]: ("RNN", {"activations": ["Tanh"]}),
    BUILT_IN["rnn_relu"]: ("RNN", {"activations": ["Relu"]}),
    BUILT_IN["lstm"]: ("LSTM", {}),
    BUILT_IN["lstm_peephole"]: ("LSTM", {}),
    BUILT_IN["gru"]: ("GRU", {"linear_before_reset": 1}),
    BUILT_IN["gru_reset_before"]: ("GRU", {"linear_before_reset": 0}),
}
OPSET, IR_VERSION = 22, 10  # versions that ONNX Runtime reads since its release 1.21


def describe() -> str:
    """Library, version and threads."""
    return f"onnxruntime {onnxruntime.__version__}, {threads.in_words()}"


def why_unsupported(spec: Spec, direction: str) -> str | None:
    """None, or which of a network's features ONNX Runtime lacks; see `base.Backend.why_unsupported`."""
    if direction == "train":
        return "ONNX Runtime runs inference only; it has no backward direction for RNN, LSTM and GRU"
    if spec.dtype != "float32":
        return f"ONNX Runtime's kernels of RNN, LSTM and GRU are implemented for float32, not for {spec.dtype}"
    if spec.cell not in _OPERATORS:
        runs = ", ".join(cell.name for cell in _OPERATORS)
        return f"ONNX has no operator for the cell {spec.cell.name}; it has {runs}"
    if spec.proj_size:
        return "ONNX's LSTM has no projection"
    return None


def prepare(spec: Spec, params: Mapping[str, np.ndarray]) -> OnnxRuntimeNetwork:
    """A session with these parameters and the number of threads in force; see `base.Backend.prepare`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads.get_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # failures are raised and need not be printed as well
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    content = _model(spec, params).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return OnnxRuntimeNetwork(spec, session)


def _model(spec: Spec, params: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Inputs x (T, B, I), lengths (B,), and for each layer k its states "h_k" (D, B, H); outputs "y" (T, D, B, H) of the last
    layer and the final states "h_n_k".
    """
    operator, attributes = _OPERATORS[spec.cell]
    attributes = {k: v * spec.num_directions if k == "activations" else v for k, v in attributes.items()}
    direction = "bidirectional" if spec.bidirectional else "reverse" if spec.reverse else "forward"
    D, H, states = spec.num_directions, spec.hidden_size, spec.cell.states
    spec, params = forget_bias_in_biases(spec, params)
    nodes, weights, inputs, outputs = [], [], [_value("x", None, None, spec.input_size)], []
    inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, (None,)))
    weights.append(numpy_helper.from_array(np.array([0, 0, D * H], np.int64), "joined"))
    reads = "x"
    for layer in range(spec.num_layers):
        arrays = to_onnx(spec, params, layer)
        weights += [numpy_helper.from_array(array, f"{name}_{layer}") for name, array in arrays.items()]
        given = {name: f"{name}_{layer}" for name in arrays}
        before, after = [f"{s}_{layer}" for s in states], [f"{s}_n_{layer}" for s in states]
        reads_all = [reads, given["W"], given["R"], given.get("B", ""), "lengths", *before]
        reads_all += [given["P"]] if "P" in given else []
        y = "y" if layer == spec.num_layers - 1 else f"y_{layer}"
        nodes.append(
            helper.make_node(operator, reads_all, [y, *after], hidden_size=H, direction=direction, **attributes)
        )
        inputs += [_value(name, D, None, H) for name in before]
        outputs += [_value(name, D, None, H) for name in after]
        if y != "y":  # (T, D, B, H) to what the next layer reads, (T, B, D*H)
            reads = f"x_{layer + 1}"
            nodes.append(helper.make_node("Transpose", [y], [f"{y}_rows"], perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Reshape", [f"{y}_rows", "joined"], [reads]))
    outputs.append(_value("y", None, D, None, H))
    graph = helper.make_graph(nodes, spec.cell.name, inputs, outputs, weights)
    return helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])


def _value(name: str, *shape: int | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


class OnnxRuntimeNetwork:
    """See `base.Network`. Native arrays are NumPy's; results are in buffers that the next `forward` overwrites."""

    def __init__(self, spec: Spec, session: Any) -> None:
        self.spec, self._session = spec, session
        self._binding = session.io_binding()
        self._output = np.empty((0, 0, 0, 0), np.float32)
        self._final: States = ()
        self._bound: tuple[np.ndarray, ...] = ()  # x and the states that are bound now

    def put(self, array: np.ndarray) -> np.ndarray:
        """The array itself: its memory is bound."""
        return array

    def get(self, native: np.ndarray) -> np.ndarray:
        """A copy; of an output (T, D, B, H), time-major with joined directions (T, B, D*H)."""
        if native.ndim == 3:
            return native.copy()
        T, D, B, H = native.shape
        return native.transpose(0, 2, 1, 3).copy().reshape(T, B, D * H)

    def forward(
        self, x: np.ndarray, state: States | None, lengths: np.ndarray | None, training: bool
    ) -> tuple[np.ndarray, States, None]:
        """See `Network.forward`. Output and final states hold until the next call."""
        T, B, _ = x.shape
        if self._output.shape[::2] != (T, B):
            self._bind_outputs(T, B)
        state = self._zeros if state is None else state
        if len(self._bound) != 1 + len(state) or any(a is not b for a, b in zip(self._bound, (x, *state), strict=True)):
            # binding takes Python 5 us an array, so arrays that the previous call had stay bound
            self._bind(self._binding.bind_input, "x", x)
            self._bind_states(self._binding.bind_input, "", state)
            self._bound = (x, *state)
        self._steps[...] = T if lengths is None else lengths
        self._session.run_with_iobinding(self._binding)
        if lengths is not None and not lengths.all():
            self._keep_empty_rows(lengths == 0, state)
        return self._output, self._final, None

    def _keep_empty_rows(self, empty: np.ndarray, state: States) -> None:
        """Give rows without a step their initial state as the final one."""
        for final, initial in zip(self._final, state, strict=True):
            final[:, empty] = initial[:, empty]

    def _bind_outputs(self, T: int, B: int) -> None:
        spec = self.spec
        self._output = np.empty((T, spec.num_directions, B, spec.hidden_size), np.float32)
        shape = (spec.state_rows, B, spec.hidden_size)
        self._final = tuple(np.empty(shape, np.float32) for _ in spec.cell.states)
        self._zeros = tuple(np.zeros(shape, np.float32) for _ in spec.cell.states)
        self._steps = np.empty(B, np.int32)
        self._bind(self._binding.bind_output, "y", self._output)
        self._bind_states(self._binding.bind_output, "_n", self._final)
        self._bind(self._binding.bind_input, "lengths", self._steps)

    def _bind_states(self, bind: Any, mark: str, arrays: States) -> None:
        """Each layer's part of each state (layers * D, B, H)."""
        D = self.spec.num_directions
        for name, array in zip(self.spec.cell.states, arrays, strict=True):
            for layer in range(self.spec.num_layers):
                self._bind(bind, f"{name}{mark}_{layer}", array[layer * D : (layer + 1) * D])

    @staticmethod
    def _bind(bind: Any, name: str, array: np.ndarray) -> None:
        bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def backward(self, tape: Any, doutput: Any, dstate: States | None) -> dict[str, Any]:
        """Raises RuntimeError, as `why_unsupported` has announced."""
        raise RuntimeError("ONNX Runtime has no backward direction")
