"""Vectorised NumPy: the input products of all steps at once, then a step at a time, each operation on a whole batch.

This is what a careful NumPy programmer writes, and the baseline that the other backends are measured against. The pointwise
code is the cell's emitted text run on arrays (B, H); the matrix products are BLAS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .. import memory
from ..cells import Cell, Program, program
from ..cells.emit import compile_function, emit
from ..cells.graph import OPERATIONS
from ..cells.program import Stage
from ..params import Spec
from . import threads
from .base import LayerWeights, States, input_spans
from .stack import Stack


@lru_cache
def _namespace(dtype: str) -> dict[str, Callable[..., Any]]:
    """What the names in emitted code stand for, in a network of this dtype."""
    real = np.dtype(dtype).type

    def where(condition: Any, a: Any, b: Any) -> Any:
        # of two Python numbers np.where makes float64, which whatever meets it would become
        a = a if isinstance(a, np.ndarray) else real(a)
        return np.where(condition, a, b if isinstance(b, np.ndarray) else real(b))

    return {name: operation.compute for name, operation in OPERATIONS.items()} | {"where": where}


def describe() -> str:
    """The BLAS behind the products and the number of threads, as in "OpenBLAS 0.3.31, 2 threads"."""
    return f"{threads.blas()}, {threads.in_words()}"


def why_unsupported(spec: Spec, direction: str) -> str | None:
    """None: NumPy runs every cell, size and direction."""
    return None


def prepare(spec: Spec, params: Mapping[str, np.ndarray]) -> Stack:
    """A `Network` of NumPy layers; see `base.Backend.prepare`."""
    return Stack(spec, params, NumpyLayer)


def _padded(h: np.ndarray, hidden_size: int) -> np.ndarray:
    """h (B, P) padded with zeros to `hidden_size` columns; h itself if it has as many."""
    missing = hidden_size - h.shape[1]
    return np.pad(h, ((0, 0), (0, missing))) if missing else h


@dataclass(frozen=True)
class _Step:
    """A stage with its pointwise code compiled: `run` reads its loads and writes its stores."""

    stage: Stage
    code: Callable[..., tuple[Any, ...]]

    def run(self, buffers: dict[str, Any], like: np.ndarray) -> None:
        values = self.code(*[buffers[place.buffer][place.at] for place, _ in self.stage.code.loads])
        for (place, _), value in zip(self.stage.code.stores, values, strict=True):
            # a value that depends on constants and numbers alone has no units yet
            has_units = isinstance(value, np.ndarray) and value.ndim > 0
            buffers[place.buffer][place.at] = value if has_units else np.full_like(like, value)


@lru_cache(maxsize=256)
def _steps(cell: Cell, dtype: str, training: bool, backward: bool) -> tuple[_Step, ...]:
    program_ = program(cell, training)
    stages = program_.backward if backward else program_.forward
    names = _namespace(dtype)
    return tuple(_Step(s, compile_function(emit(program_, s.code), s.code.name, names)) for s in stages)


@dataclass
class _NumpyTape:
    """saved: for each step, a list of arrays (B, H). states: (T+1, B, H) each. operands: the computed ones, (T, B, H) each."""

    x: np.ndarray
    lengths: np.ndarray | None
    saved: list[list[np.ndarray]]
    states: list[np.ndarray]
    operands: list[np.ndarray]

    @property
    def nbytes(self) -> int:
        kept = [a for step in self.saved for a in step] + self.states + self.operands
        return sum(a.nbytes for a in kept)


class NumpyLayer:
    """One layer in one direction; see `stack.Layer`."""

    def __init__(self, spec: Spec, weights: LayerWeights, reverse: bool) -> None:
        self.spec, self.reverse = spec, reverse
        self._weights = weights
        P, H, I = weights.input.shape
        self._spans = input_spans(program(spec.step, False))
        self._input_t = [np.ascontiguousarray(weights.input[span].reshape(-1, I).T) for span in self._spans]
        self._recurrent = [
            np.ascontiguousarray(weights.recurrent[o.pre.start : o.pre.stop].reshape(-1, H))
            for o in program(spec.step, False).operands
        ]
        self._recurrent_t = [np.ascontiguousarray(r.T) for r in self._recurrent]
        self._vectors = list(weights.vector)
        # NumPy scalars of the network's dtype, so that a float32 cell stays float32
        self._numbers = [np.dtype(spec.dtype).type(value) for value in spec.numbers.values()]

    def with_weights(self, weights: LayerWeights) -> NumpyLayer:
        """See `stack.Layer.with_weights`."""
        return NumpyLayer(self.spec, weights, self.reverse)

    @np.errstate(all="ignore")  # infinity and NaN propagate as in IEEE 754, silently as in the other backends
    def forward(
        self, x: np.ndarray, state: States, lengths: np.ndarray | None, training: bool, output: np.ndarray, column: int
    ) -> _NumpyTape | None:
        """See `stack.Layer.forward`."""
        program_ = program(self.spec.step, training)
        T, B, I = x.shape
        P, H = self._weights.bias.shape
        width = self.spec.state_sizes[0]
        output = output[:, :, column : column + width]
        # copies: a cell may pass one state on as another, and `state` is overwritten at the end
        initial = [_padded(s, H).copy() for s in state]
        pre = self._pre_activations(x)
        steps = _steps(self.spec.step, self.spec.dtype, training, False)
        buffers: dict[str, Any] = {"vector": self._vectors, "number": self._numbers, "state": initial}
        tape = None
        if training:
            tape = _NumpyTape(
                x,
                lengths,
                [[] for _ in range(T)],
                [np.empty((T + 1, B, H), x.dtype) for _ in state],
                [np.empty((T, B, H), x.dtype) for _ in program_.computed],
            )
            for kept, s in zip(tape.states, initial, strict=True):
                kept[T if self.reverse else 0] = s
        for t in reversed(range(T)) if self.reverse else range(T):
            buffers["pre"] = [pre[t, :, block] for block in range(P)]
            buffers["saved"], buffers["operand"] = [None] * len(program_.saved), [None] * len(program_.computed)
            buffers["new"] = [None] * len(state)
            for step in steps:
                for index in step.stage.operands:
                    operand = program_.operands[index]
                    value = self._operand(operand, buffers["state"], buffers["operand"])
                    columns = pre[t].reshape(B, P * H)[:, operand.pre.start * H : operand.pre.stop * H]
                    columns += value @ self._recurrent_t[index]
                step.run(buffers, pre[t, :, 0])
            new = [np.broadcast_to(np.asarray(n, x.dtype), (B, H)) for n in buffers["new"]]
            computed = buffers["operand"]
            output[t] = new[0][:, :width]
            if lengths is not None:
                valid = (t < lengths)[:, None]
                output[t] = np.where(valid, output[t], 0)
                new = [np.where(valid, n, s) for n, s in zip(new, buffers["state"], strict=True)]
            buffers["state"] = new
            if tape is not None:
                # a pre-activation is a view, which would keep those of all gates alive
                tape.saved[t] = [a if a.base is None else a.copy() for a in buffers["saved"]]
                for kept, n in zip(tape.states, new, strict=True):
                    kept[t if self.reverse else t + 1] = n
                for kept, o in zip(tape.operands, computed, strict=True):
                    kept[t] = o
        for s, final in zip(state, buffers["state"], strict=True):
            s[:] = final[:, : s.shape[1]]
        return tape

    def _pre_activations(self, x: np.ndarray) -> np.ndarray:
        """(T, B, P, H): every input projection and bias, all steps in one product for each span of gates."""
        T, B, I = x.shape
        P, H = self._weights.bias.shape
        memory.require(
            T * B * P * H * x.itemsize, f"the pre-activations of seq_len {T}, batch_size {B}, hidden_size {H}"
        )
        pre = np.empty((T, B, P, H), x.dtype)
        pre[:] = self._weights.bias
        for span, weight in zip(self._spans, self._input_t, strict=True):
            pre[:, :, span] += (x.reshape(T * B, I) @ weight).reshape(T, B, -1, H)
        return pre

    @staticmethod
    def _operand(operand: Any, states: list[np.ndarray], computed: list[np.ndarray]) -> np.ndarray:
        return computed[operand.computed] if operand.state is None else states[operand.state]

    @np.errstate(all="ignore")
    def backward(
        self, tape: _NumpyTape, doutput: np.ndarray, column: int, dstate: States, dx: np.ndarray
    ) -> LayerWeights:
        """See `stack.Layer.backward`."""
        program_ = program(self.spec.step, True)
        T, B, I = tape.x.shape
        P, H = self._weights.bias.shape
        width = self.spec.state_sizes[0]
        doutput = doutput[:, :, column : column + width]
        before = [s[1:] if self.reverse else s[:-1] for s in tape.states]
        after = [s[:-1] if self.reverse else s[1:] for s in tape.states]
        steps = _steps(self.spec.step, self.spec.dtype, True, True)
        dpre = np.empty((T, B, P, H), tape.x.dtype)
        dvector = np.zeros((len(self._vectors), H), tape.x.dtype)
        flowing = [_padded(d, H).copy() for d in dstate]
        buffers: dict[str, Any] = {"vector": self._vectors, "number": self._numbers}
        for t in range(T) if self.reverse else reversed(range(T)):
            buffers |= {
                "state": [s[t] for s in before],
                "new": [s[t] for s in after],
                "saved": tape.saved[t],
                "dnew": [flowing[0] + _padded(doutput[t], H), *flowing[1:]],
                "dpre": [dpre[t, :, block] for block in range(P)],
                "back": [None] * len(program_.operands),
                "dstate": [None] * len(flowing),
                "dvector": [None] * len(self._vectors),
            }
            for step in steps:
                self._run_backward_step(step, buffers, dpre[t], program_)
            arrived = [np.broadcast_to(np.asarray(d, tape.x.dtype), (B, H)) for d in buffers["dstate"]]
            contributions = [np.broadcast_to(d, (B, H)) for d in buffers["dvector"]]
            if tape.lengths is not None:
                valid = (t < tape.lengths)[:, None]
                dpre[t] = np.where(valid[:, :, None], dpre[t], 0)
                arrived = [np.where(valid, d, f) for d, f in zip(arrived, flowing, strict=True)]
                contributions = [np.where(valid, d, 0) for d in contributions]
            for total, contribution in zip(dvector, contributions, strict=True):
                total += contribution.sum(0)
            flowing = arrived
        for d, initial in zip(dstate, flowing, strict=True):
            d[:] = initial[:, : d.shape[1]]
        return self._weight_gradients(tape, before, dpre, dvector, dx)

    def _run_backward_step(self, step: _Step, buffers: dict[str, Any], dpre: np.ndarray, program_: Program) -> None:
        B, P, H = dpre.shape
        values = step.code(*[buffers[place.buffer][place.at] for place, _ in step.stage.code.loads])
        for (place, _), value in zip(step.stage.code.stores, values, strict=True):
            if place.buffer == "dpre":
                dpre[:, place.at] = value
            else:
                buffers[place.buffer][place.at] = value
        for index in step.stage.operands:
            pre = program_.operands[index].pre
            buffers["back"][index] = dpre.reshape(B, P * H)[:, pre.start * H : pre.stop * H] @ self._recurrent[index]

    def _weight_gradients(
        self, tape: _NumpyTape, before: list[np.ndarray], dpre: np.ndarray, dvector: np.ndarray, dx: np.ndarray
    ) -> LayerWeights:
        """The gradients of the weights; adds the input's gradient to dx."""
        T, B, P, H = dpre.shape
        flat, x = dpre.reshape(T * B, P * H), tape.x.reshape(T * B, -1)
        gradients = LayerWeights(
            np.zeros_like(self._weights.input), np.empty_like(self._weights.recurrent), dpre.sum((0, 1)), dvector
        )
        for span, weight in zip(self._spans, self._input_t, strict=True):
            columns = flat[:, span.start * H : span.stop * H]
            gradients.input[span] = (columns.T @ x).reshape(-1, H, x.shape[1])
            dx += (columns @ weight.T).reshape(dx.shape)
        for operand in program(self.spec.step, True).operands:
            value = self._operand(operand, before, tape.operands)
            if tape.lengths is not None:
                # steps past a row's end are multiplied by 0, which must not meet a NaN of its final state
                value = np.where((np.arange(T)[:, None] < tape.lengths)[:, :, None], value, 0)
            value = value.reshape(T * B, H)
            columns = flat[:, operand.pre.start * H : operand.pre.stop * H]
            gradients.recurrent[operand.pre.start : operand.pre.stop] = (columns.T @ value).reshape(-1, H, H)
        return gradients
