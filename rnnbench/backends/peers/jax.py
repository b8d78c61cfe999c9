"""JAX: any cell's emitted code on `jax.numpy`, one `lax.scan` per layer and direction, compiled by XLA for the CPU.

JAX has no recurrent layers of its own; this is what its users write, with the input products of all steps before the scan. One
`jax.jit` holds the whole network. Gradients are JAX's own of the forward pass (`jax.vjp`), not those that we derive, so the
two check each other; the function that `jax.vjp` returns is a pytree of arrays, and that is the tape.

No buffers are donated. Under the protocol, weights, x and initial states are used again in the next call, and a tape and the
arguments of `backward` may be used again too; the carry of a scan, which XLA could reuse, it updates in place by itself.

XLA's pool of threads is made when JAX starts, as large as the environment variable NPROC says. So the first `prepare`
decides: later ones refuse another number of threads, and so does the first if other code has started JAX with another one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...cells import PROJECTION, program
from ...cells.emit import compile_function, emit
from ...cells.program import PreActivation
from ...params import Spec
from .. import threads
from ..base import States

# At ties minimum and maximum give the whole adjoint to the first argument, as our own derivatives do; JAX would halve it. NaN wins.
NAMESPACE = {
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "exp": jnp.exp,
    "log": jnp.log,
    "sqrt": jnp.sqrt,
    "abs": jnp.abs,
    "minimum": lambda a, b: jnp.where((a <= b) | jnp.isnan(a), a, b),
    "maximum": lambda a, b: jnp.where((a >= b) | jnp.isnan(a), a, b),
    "where": jnp.where,
}
_matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
_pool: int | None = None  # threads in XLA's pool, once JAX has started


def describe() -> str:
    """Library, version, what runs and threads."""
    return f"jax {jax.__version__}, jitted scan on the CPU, {threads.in_words()}"


def why_unsupported(spec: Spec, direction: str) -> str | None:
    """None, because JAX runs every cell, or a sentence if its pool of threads cannot be changed to the number in force."""
    return _why_fixed()


def _why_fixed() -> str | None:
    """Why JAX cannot compute with the number of threads in force, in a sentence; None if it can."""
    if _pool is not None and _pool != threads.get_threads():
        return f"JAX has started with {_pool} threads in this process and cannot change to {threads.get_threads()}"
    return None


def prepare(spec: Spec, params: Mapping[str, np.ndarray]) -> JaxNetwork:
    """The network with these parameters; see `base.Backend.prepare`. Starts JAX with the number of threads in force, and
    raises RuntimeError if JAX already runs with another one.
    """
    start()
    return JaxNetwork(spec, params)


def start() -> None:
    """Start JAX's CPU client with the number of threads in force. It reads NPROC then, and never again. Raises RuntimeError
    if it already runs with another number.
    """
    global _pool
    if _pool is None:
        before = os.environ.get("NPROC")
        os.environ["NPROC"] = str(threads.get_threads())
        try:
            jax.local_devices(backend="cpu")
        finally:
            os.environ.pop("NPROC")
            if before is not None:
                os.environ["NPROC"] = before
        # other code may have started it before us: on Linux the threads of XLA's pool can be counted by name, elsewhere not
        names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
        _pool = names.count("tf_XLAEigen") or threads.get_threads()
    reason = _why_fixed()
    if reason:
        raise RuntimeError(f"{reason}; use a new process")


def precision(dtype: str) -> Any:
    """A context in which JAX computes with `dtype`. By default it truncates float64; the setting of other code is not changed."""
    return jax.enable_x64(dtype == "float64")


def kept_bytes(pullback: Any, known: list[jax.Array]) -> int:
    """Bytes of the arrays in a function that `jax.vjp` returned, besides the arrays in `known`."""
    kept = {leaf.unsafe_buffer_pointer(): leaf.nbytes for leaf in jax.tree.leaves(pullback)}
    return sum(kept[address] for address in kept.keys() - {array.unsafe_buffer_pointer() for array in known})


@dataclass
class JaxTape:
    """What `jax.vjp` keeps: pullback maps adjoints of (output, final) to those of the weights, x and initial states.

    known: the arrays that exist anyway: weights, inputs, results.
    """

    pullback: Any
    output: jax.Array
    final: States
    known: list[jax.Array]

    @property
    def nbytes(self) -> int:
        """Bytes of the pullback's arrays besides weights, inputs and results."""
        return kept_bytes(self.pullback, self.known)


class JaxNetwork:
    """See `base.Network`. Native arrays are JAX's, on the CPU."""

    def __init__(self, spec: Spec, params: Mapping[str, np.ndarray]) -> None:
        self.spec, self._program = spec, program(spec.step, False)
        self._device = jax.local_devices(backend="cpu")[0]
        self._code = [
            compile_function(emit(self._program, stage.code), stage.code.name, NAMESPACE)
            for stage in self._program.forward
        ]
        # NumPy scalars of the network's dtype; JAX would take Python's floats too, but round them differently
        self._numbers = [np.dtype(spec.dtype).type(value) for value in spec.numbers.values()]
        self._infer, self._record = jax.jit(self._network), jax.jit(self._network_and_pullback)
        self._pull_back = jax.jit(self._gradients)
        self._like = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in params.items()}
        with precision(self.spec.dtype):
            weights = jax.jit(self._arrange)({name: self.put(array) for name, array in params.items()})
            self._weights = jax.block_until_ready(weights)

    def put(self, array: np.ndarray) -> jax.Array:
        """A copy in JAX's memory."""
        with precision(self.spec.dtype):
            return jnp.array(array, copy=True, device=self._device)

    def get(self, native: jax.Array) -> np.ndarray:
        """A copy as a NumPy array; JAX's own memory is read-only."""
        return np.array(native)

    def forward(
        self, x: jax.Array, state: States | None, lengths: np.ndarray | None, training: bool
    ) -> tuple[jax.Array, States, JaxTape | None]:
        """See `Network.forward`. Returns when XLA is done."""
        if lengths is not None:
            lengths = lengths.astype(np.int32)
        with precision(self.spec.dtype):
            if not training:
                output, final = jax.block_until_ready(self._infer(self._weights, x, state, lengths))
                return output, final, None
            output, final, pullback = jax.block_until_ready(self._record(self._weights, x, state, lengths))
        known = jax.tree.leaves((self._weights, x, state, output, final))
        return output, final, JaxTape(pullback, output, final, known)

    def backward(self, tape: JaxTape, doutput: jax.Array | None, dstate: States | None) -> dict[str, Any]:
        """See `Network.backward`. Returns when XLA is done."""
        with precision(self.spec.dtype):
            if doutput is None:
                doutput = jnp.zeros_like(tape.output)
            if dstate is None:
                dstate = tuple(jnp.zeros_like(s) for s in tape.final)
            return jax.block_until_ready(self._pull_back(tape.pullback, doutput, tuple(dstate)))

    # ---- what is traced

    def _arrange(self, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """For each layer and direction: one matrix (I, n*H) for all input products, one for each operand's recurrent
        products, the bias of each pre-activation or None, vectors. Linear, so that its transpose takes gradients back.
        """
        spec, part = self.spec, self._program
        return [
            {
                "input": jnp.concatenate(
                    [self._block(params, "weight_ih", suffix, pre.input).T for pre in part.pre if pre.input], axis=1
                ),
                "recurrent": [
                    jnp.concatenate(
                        [
                            self._block(params, "weight_hh", suffix, part.pre[block].recurrent).T
                            for block in operand.pre
                        ],
                        axis=1,
                    )
                    for operand in part.operands
                ],
                "bias": [self._bias(params, suffix, pre) for pre in part.pre],
                "vector": [params[f"p_{vector}{suffix}"] for vector in spec.cell.vectors],
            }
            for _, _, suffix in spec.suffixes()
        ]

    def _block(self, params: Mapping[str, Any], name: str, suffix: str, gate: str | None) -> Any:
        """The rows of a parameter that belong to a gate."""
        cell, H = self.spec.cell, self.spec.hidden_size
        if self._is_projection(gate):
            return params[f"weight_hr{suffix}"]
        gates: tuple[Any, ...] = cell.input_gates if name.endswith("_ih") else cell.recurrent_gates
        start = gates.index(gate) * H
        return params[f"{name}{suffix}"][start : start + H]

    def _bias(self, params: Mapping[str, Any], suffix: str, pre: PreActivation) -> Any:
        """The sum of a pre-activation's biases; None where it has none."""
        if not self.spec.bias or self._is_projection(pre.recurrent):
            return None
        both = (("bias_ih", pre.input), ("bias_hh", pre.recurrent))
        return sum(self._block(params, name, suffix, gate) for name, gate in both if gate)

    def _is_projection(self, gate: str | None) -> bool:
        return self.spec.proj_size > 0 and gate == PROJECTION

    def _network_and_pullback(self, weights: Any, x: Any, state: Any, lengths: Any) -> tuple[Any, Any, Any]:
        state = self._zeros(x) if state is None else tuple(state)
        (output, final), pullback = jax.vjp(lambda w, x, s: self._network(w, x, s, lengths), weights, x, state)
        return output, final, pullback

    def _gradients(self, pullback: Any, doutput: Any, dstate: Any) -> dict[str, Any]:
        dweights, dx, dinitial = pullback((doutput, dstate))
        (named,) = jax.linear_transpose(self._arrange, self._like)(dweights)
        initial = {f"{name}_0": d for name, d in zip(self.spec.cell.states, dinitial, strict=True)}
        return named | {"x": dx} | initial

    def _zeros(self, x: Any) -> States:
        return tuple(jnp.zeros((self.spec.state_rows, x.shape[1], size), x.dtype) for size in self.spec.state_sizes)

    def _network(self, weights: Any, x: Any, state: Any, lengths: Any) -> tuple[Any, States]:
        state = self._zeros(x) if state is None else state
        valid = None
        if lengths is not None:
            valid = (jnp.arange(x.shape[0])[:, None] < lengths)[:, :, None]
            x = jnp.where(valid, x, 0)
        D, final = self.spec.num_directions, []
        for layer in range(self.spec.num_layers):
            outputs = []
            for reading in range(D):
                row = layer * D + reading
                new, output = self._layer(weights[row], x, tuple(s[row] for s in state), valid, reading)
                final.append(new)
                outputs.append(output)
            x = jnp.concatenate(outputs, axis=2)
        return x, tuple(jnp.stack(rows) for rows in zip(*final, strict=True))

    def _layer(self, weights: Any, x: Any, state: States, valid: Any, reading: int) -> tuple[States, Any]:
        """Final states and output (T, B, H) of one layer in one direction."""
        inputs = _matmul(x, weights["input"])
        if self.spec.bias:
            blocks = zip(weights["bias"], self._program.pre, strict=True)
            inputs += jnp.concatenate([bias for bias, pre in blocks if pre.input])
        return jax.lax.scan(
            partial(self._step, weights), state, (inputs, valid), reverse=self.spec.reads_backwards(reading)
        )

    def _step(self, weights: Any, state: States, inputs: tuple[Any, Any]) -> tuple[States, Any]:
        """One step for `lax.scan`: inputs are the input products (B, n*H) and, with lengths, which rows still run."""
        part, H = self._program, self.spec.hidden_size
        projected, valid = inputs
        gates = iter(jnp.split(projected, projected.shape[1] // H, axis=1))
        pre = [next(gates) if p.input else b for p, b in zip(part.pre, weights["bias"], strict=True)]
        buffers: dict[str, list[Any]] = {
            "pre": pre, "state": list(state), "vector": weights["vector"], "number": self._numbers,
            "operand": [None] * len(part.computed), "saved": [None] * len(part.saved), "new": [None] * len(state),
        }  # fmt: skip
        for stage, code in zip(part.forward, self._code, strict=True):
            for index in stage.operands:
                operand = part.operands[index]
                value = buffers["operand"][operand.computed or 0] if operand.state is None else state[operand.state]
                sizes = [self.spec.proj_size if self._is_projection(part.pre[b].recurrent) else H for b in operand.pre]
                products = _matmul(value, weights["recurrent"][index])
                for block, product in zip(operand.pre, jnp.split(products, np.cumsum(sizes)[:-1], axis=1), strict=True):
                    pre[block] = product if pre[block] is None else pre[block] + product
            values = code(*[buffers[place.buffer][place.at] for place, _ in stage.code.loads])
            for (place, _), stored in zip(stage.code.stores, values, strict=True):
                buffers[place.buffer][place.at] = stored
        # a value that depends on constants and numbers alone is not an array yet
        new = tuple(jnp.broadcast_to(n, s.shape).astype(s.dtype) for n, s in zip(buffers["new"], state, strict=True))
        if valid is None:
            return new, new[0]
        held = tuple(jnp.where(valid, n, s) for n, s in zip(new, state, strict=True))
        return held, jnp.where(valid, new[0], 0)
