"""Keras 3: its LSTM, GRU and SimpleRNN on the back end that KERAS_BACKEND names, else on JAX, else on PyTorch.

The layers are called without state of their own (`stateless_call`), so on JAX one `jax.jit` holds the whole network and
`jax.vjp` is its training; PyTorch runs them step by step, under `torch.inference_mode` or with its autograd. A bidirectional
layer is two layers whose outputs are joined and of which the second goes backwards, as in `keras.layers.Bidirectional`.

Keras is batch-major: `put` and `get` swap the first two axes of everything, outside the timing, and `get` also converts
gradients from Keras's arrangement of the weights. Lengths become a mask, under which Keras holds the states; past a row's end
Keras repeats the last output, and we set it to zero.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

_chosen = os.environ.get("KERAS_BACKEND")
if not _chosen:
    os.environ["KERAS_BACKEND"] = "jax" if importlib.util.find_spec("jax") else "torch"
import keras  # noqa: E402  (it reads the variable now, and never again)

if not _chosen:
    del os.environ["KERAS_BACKEND"]

from ...cells import BUILT_IN  # noqa: E402
from ...interop.layouts import forget_bias_in_biases, from_keras, to_keras  # noqa: E402
from ...params import Spec  # noqa: E402
from .. import threads  # noqa: E402
from ..base import States  # noqa: E402

BACKEND = keras.config.backend()
if BACKEND == "jax":
    import jax

    from . import jax as jax_peer
elif BACKEND == "torch":
    import torch

_LAYERS: dict[Any, tuple[Any, dict[str, Any]]] = {
    BUILT_IN["rnn_tanh"]: (keras.layers.SimpleRNN, {"activation": "tanh"}),
    BUILT_IN["rnn_relu"]: (keras.layers.SimpleRNN, {"activation": "relu"}),
    BUILT_IN["lstm"]: (keras.layers.LSTM, {}),
    BUILT_IN["gru"]: (keras.layers.GRU, {"reset_after": True}),
    BUILT_IN["gru_reset_before"]: (keras.layers.GRU, {"reset_after": False}),
}


def describe() -> str:
    """Library, version, its back end and threads, as in "keras 3.15.1 on jax 0.10.2, 2 threads"."""
    version = (jax if BACKEND == "jax" else torch).__version__.partition("+")[0]
    return f"keras {keras.__version__} on {BACKEND} {version}, {threads.in_words()}"


def why_unavailable() -> str | None:
    """Why this peer cannot train on the back end that Keras runs on, in a sentence; None if it can."""
    if BACKEND in ("jax", "torch"):
        return None
    return f"the backend keras runs on jax or torch, but Keras is set to {BACKEND}: set KERAS_BACKEND"


def why_unsupported(spec: Spec, direction: str) -> str | None:
    """None, or which of a network's features Keras lacks; see `base.Backend.why_unsupported`."""
    if spec.dtype != "float32":
        # keras.backend.result_type says float32 for float64, so tanh and joins of arrays round to it in float64 layers too
        return f"Keras on {BACKEND} computes parts of a layer of dtype {spec.dtype} in float32, so it runs float32 only"
    if spec.cell not in _LAYERS:
        runs = ", ".join(cell.name for cell in _LAYERS)
        return f"Keras has no layer for the cell {spec.cell.name}; it has {runs}"
    if spec.proj_size:
        return "Keras's LSTM has no projection of its output"
    return jax_peer.why_unsupported(spec, direction) if BACKEND == "jax" else None


def prepare(spec: Spec, params: Mapping[str, np.ndarray]) -> KerasNetwork:
    """The layers with these parameters; see `base.Backend.prepare`. Sets the back end's number of threads; raises RuntimeError
    if that is JAX and has already started with another number.
    """
    if BACKEND == "jax":
        jax_peer.start()
        return _OnJax(spec, params)
    torch.set_num_threads(threads.get_threads())
    return _OnTorch(spec, params)


class Gradient(NamedTuple):
    """A parameter's gradient, still in Keras's arrangement: the gradients of all weights of its layer."""

    name: str
    suffix: str
    weights: list[Any]


@dataclass
class KerasTape:
    """What differentiation keeps. pullback: JAX's function. leaves: (weights, x, states)."""

    output: Any
    final: States
    leaves: tuple[Any, ...]
    pullback: Any = None

    @property
    def nbytes(self) -> int:
        """See `base.Tape`; 0 on PyTorch, which does not report it."""
        if self.pullback is None:
            return 0
        return jax_peer.kept_bytes(self.pullback, jax.tree.leaves((self.leaves, self.output, self.final)))


class KerasNetwork:
    """See `base.Network`. Native arrays are the back end's, batch-major: x (B, T, I), states (B, layers*directions, H)."""

    def __init__(self, spec: Spec, params: Mapping[str, np.ndarray]) -> None:
        self.spec = spec
        whole, arrays = forget_bias_in_biases(spec, params)
        make, options = _LAYERS[spec.cell]
        self.layers, self.weights = [], []
        with self.scope():
            for layer, reading, suffix in spec.suffixes():
                made = make(
                    spec.hidden_size,
                    use_bias=whole.bias,
                    go_backwards=spec.reads_backwards(reading),
                    return_sequences=True,
                    return_state=True,
                    dtype=spec.dtype,
                    **options,
                )
                made.build((None, None, spec.layer_input_size(layer)))
                self.layers.append(made)
                self.weights.append([self.native(array) for array in to_keras(whole, arrays, suffix)])

    def scope(self) -> Any:
        """A context in which Keras makes layers, runs them and makes arrays; the settings of other code are not changed."""
        return jax_peer.precision(self.spec.dtype) if BACKEND == "jax" else keras.device("cpu")

    def native(self, array: np.ndarray) -> Any:
        """A copy as an array of the back end, on the CPU."""
        raise NotImplementedError

    def put(self, array: np.ndarray) -> Any:
        """A batch-major copy."""
        with self.scope():
            return self.native(np.ascontiguousarray(np.swapaxes(array, 0, 1)))

    def get(self, native: Any) -> np.ndarray:
        """A copy in our order of axes, or of gates."""
        if not isinstance(native, Gradient):
            return np.ascontiguousarray(np.swapaxes(self.to_numpy(native), 0, 1))
        arrays = from_keras(self.spec.cell, [self.to_numpy(w) for w in native.weights], native.suffix)
        if native.name.startswith("bias_hh") and native.weights[2].ndim == 1:
            # Keras has one bias, the sum of ours, so its gradient is that of both
            return arrays[native.name.replace("bias_hh", "bias_ih")]
        return arrays[native.name]

    def to_numpy(self, native: Any) -> np.ndarray:
        """A copy as a NumPy array."""
        raise NotImplementedError

    def run(self, weights: Any, x: Any, state: Any, lengths: Any) -> tuple[Any, States]:
        """Output and final states in the back end's arrays, with or without a graph, as the caller has decided."""
        ops, D, final = keras.ops, self.spec.num_directions, []
        mask = valid = None
        if lengths is not None:
            mask = ops.arange(x.shape[1], dtype="int32")[None] < lengths[:, None]
            valid = mask[:, :, None]
            x = ops.where(valid, x, ops.zeros_like(x))
        for layer in range(self.spec.num_layers):
            outputs = []
            for row in range(layer * D, layer * D + D):
                fixed = [variable.value for variable in self.layers[row].non_trainable_variables]
                results, _ = self.layers[row].stateless_call(
                    weights[row], fixed, x, mask=mask, initial_state=[s[:, row] for s in state]
                )
                output, *new = results
                if self.layers[row].go_backwards:
                    output = ops.flip(output, axis=1)
                outputs.append(output if valid is None else ops.where(valid, output, ops.zeros_like(output)))
                final.append(new)
            x = outputs[0] if D == 1 else ops.concatenate(outputs, axis=2)
        return x, tuple(ops.stack(rows, axis=1) for rows in zip(*final, strict=True))

    def named(self, dweights: Any, dx: Any, dstate: Any) -> dict[str, Any]:
        """Gradients under our names, still in Keras's arrangement."""
        sides = ["weight_ih", "weight_hh"] + ["bias_ih", "bias_hh"] * self.spec.bias
        gradients: dict[str, Any] = {
            f"{side}{suffix}": Gradient(f"{side}{suffix}", suffix, row)
            for (_, _, suffix), row in zip(self.spec.suffixes(), dweights, strict=True)
            for side in sides
        }
        gradients["x"] = dx
        return gradients | {f"{name}_0": d for name, d in zip(self.spec.cell.states, dstate, strict=True)}

    def zeros(self, x: Any) -> States:
        """Initial states (B, layers*directions, H)."""
        shape = (x.shape[0], self.spec.state_rows, self.spec.hidden_size)
        return tuple(keras.ops.zeros(shape, dtype=self.spec.dtype) for _ in self.spec.cell.states)


class _OnJax(KerasNetwork):
    """One jitted function for inference, one that also returns the pullback, one for the pullback."""

    def __init__(self, spec: Spec, params: Mapping[str, np.ndarray]) -> None:
        super().__init__(spec, params)
        self._infer, self._record = jax.jit(self.run), jax.jit(self._run_and_pullback)
        self._pull_back = jax.jit(lambda pullback, seeds: pullback(seeds))

    def native(self, array: np.ndarray) -> Any:
        return jax.numpy.array(array, copy=True, device=jax.local_devices(backend="cpu")[0])

    def to_numpy(self, native: Any) -> np.ndarray:
        return np.array(native)

    def _run_and_pullback(self, weights: Any, x: Any, state: Any, lengths: Any) -> tuple[Any, Any, Any]:
        (output, final), pullback = jax.vjp(lambda w, x, s: self.run(w, x, s, lengths), weights, x, state)
        return output, final, pullback

    def forward(
        self, x: Any, state: States | None, lengths: np.ndarray | None, training: bool
    ) -> tuple[Any, States, KerasTape | None]:
        """See `Network.forward`. Returns when XLA is done."""
        lengths = None if lengths is None else lengths.astype(np.int32)
        with self.scope():
            state = self.zeros(x) if state is None else tuple(state)
            if not training:
                return *jax.block_until_ready(self._infer(self.weights, x, state, lengths)), None
            output, final, pullback = jax.block_until_ready(self._record(self.weights, x, state, lengths))
        return output, final, KerasTape(output, final, (self.weights, x, state), pullback)

    def backward(self, tape: KerasTape, doutput: Any, dstate: States | None) -> dict[str, Any]:
        """See `Network.backward`. Returns when XLA is done."""
        with self.scope():
            doutput = jax.numpy.zeros_like(tape.output) if doutput is None else doutput
            dstate = tuple(map(jax.numpy.zeros_like, tape.final)) if dstate is None else tuple(dstate)
            return self.named(*jax.block_until_ready(self._pull_back(tape.pullback, (doutput, dstate))))


class _OnTorch(KerasNetwork):
    """PyTorch's eager mode, step by step."""

    def native(self, array: np.ndarray) -> Any:
        return torch.tensor(array)

    def to_numpy(self, native: Any) -> np.ndarray:
        return native.detach().numpy()

    def forward(
        self, x: Any, state: States | None, lengths: np.ndarray | None, training: bool
    ) -> tuple[Any, States, KerasTape | None]:
        """See `Network.forward`."""
        rows = None if lengths is None else torch.from_numpy(lengths)
        with self.scope():
            state = self.zeros(x) if state is None else tuple(state)
            if not training:
                with torch.inference_mode():
                    return *self.run(self.weights, x, state, rows), None
            weights = [[w.detach().requires_grad_() for w in row] for row in self.weights]
            x, state = x.detach().requires_grad_(), tuple(s.detach().requires_grad_() for s in state)
            output, final = self.run(weights, x, state, rows)
        return output, final, KerasTape(output, final, (weights, x, state))

    def backward(self, tape: KerasTape, doutput: Any, dstate: States | None) -> dict[str, Any]:
        """See `Network.backward`. The graph is kept, so that the tape can be used again."""
        weights, x, state = tape.leaves
        leaves = [w for row in weights for w in row] + [x, *state]
        doutput = torch.zeros_like(tape.output) if doutput is None else doutput
        dstate = tuple(map(torch.zeros_like, tape.final)) if dstate is None else tuple(dstate)
        options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
        flat = list(torch.autograd.grad([tape.output, *tape.final], leaves, [doutput, *dstate], **options))
        dweights = [[flat.pop(0) for _ in row] for row in weights]
        return self.named(dweights, flat[0], flat[1:])
