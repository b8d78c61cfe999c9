"""One layer in one direction on the compiled kernels: packed weights, buffers, and the calls."""

from __future__ import annotations

import threading as _threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...params import Spec
from ..base import Arrays as States
from ..base import LayerWeights, input_runs
from . import gradients, layout
from .backward import backward
from .cache import entry_point
from .forward import forward
from .plan import BackwardPlan, ForwardPlan, Geometry, Shape, plan_backward, plan_forward

# Numba's simplest threading layer aborts the process when two threads enter a parallel kernel at once
_LOCK = _threading.Lock()
_NO_LENGTHS = np.zeros(0, np.int64)
# shapes whose plans are kept: lengths that vary from call to call should not fill the memory
_MOST_PLANS = 256


@dataclass
class _Planned:
    """A plan and the compiled kernel that goes with it, once there is one."""

    plan: Any
    kernel: Callable[..., None] | None = None

    def run(self, dispatcher: Any, *arguments: Any) -> None:
        """Call the kernel. Numba's own dispatch would find out the types of 40 values, the same ones at every call."""
        if self.kernel is None:
            self.kernel = entry_point(dispatcher, arguments)
        self.kernel(*arguments)


@dataclass
class KernelTape:
    """What `backward` needs: the input, the lengths and the kernel's tape array."""

    x: np.ndarray
    lengths: np.ndarray | None
    array: np.ndarray
    dims: layout.ForwardDims

    @property
    def nbytes(self) -> int:
        """Bytes of the tape array; the input is the caller's."""
        return self.array.nbytes


@dataclass
class _Packed:
    """Packed weights and where their parts start."""

    array: np.ndarray
    at: dict[str, int]
    plans: dict[Any, _Planned] = field(default_factory=dict)

    def planned(self, key: Any, make: Callable[[], Any]) -> _Planned:
        """The plan for `key`, made at its first use."""
        found = self.plans.get(key)
        if found is None:
            if len(self.plans) >= _MOST_PLANS:
                self.plans.clear()
            found = self.plans[key] = _Planned(make())
        return found


class KernelLayer:
    """See `stack.Layer`."""

    def __init__(self, spec: Spec, weights: LayerWeights, reverse: bool) -> None:
        self.spec, self.reverse, self._weights = spec, reverse, weights
        self.dtype = np.dtype(spec.dtype)
        self._geometry = Geometry(spec, weights, reverse)
        self._numbers = np.array([spec.numbers[n] for n in spec.cell.numbers], self.dtype)
        g = self._geometry
        self._packed = _Packed(*layout.pack_forward(g.program, weights, self._numbers, g.width))
        self._packed_back: _Packed | None = None
        self._buffers: dict[str, np.ndarray] = {}
        self._barrier = np.zeros(8, np.int64)

    # ---- forward

    def forward(
        self, x: np.ndarray, state: States, lengths: np.ndarray | None, training: bool, output: np.ndarray, column: int
    ) -> KernelTape | None:
        """See `stack.Layer.forward`."""
        x, packed = _usable(x), self._packed
        T, B, I = x.shape
        shape = Shape(T, B, I, output.shape[2], column, lengths is not None, self._geometry.threads(T, B))
        with _LOCK:
            call = packed.planned((training, shape), lambda: plan_forward(self._geometry, shape, packed.at, training))
            plan: ForwardPlan = call.plan
            if training:
                tape = layout.aligned_empty(plan.tape_size, self.dtype)
            else:
                tape = self._buffer("ring", plan.tape_size)
            call.run(
                forward,
                plan.stages,
                x.reshape(-1),
                layout.Arrays(packed.array, tape, self._buffer("pre", plan.work_size)),
                tuple([s.reshape(-1) for s in state]),
                output.reshape(-1),
                _NO_LENGTHS if lengths is None else lengths,
                plan.dims,
                self._geometry.panels,
                plan.threads,
                plan.by_rows,
                self._barrier,
            )
        return KernelTape(x, lengths, tape, plan.dims) if training else None

    def _buffer(self, name: str, size: int) -> np.ndarray:
        """A buffer that is kept between calls: fresh memory costs a page fault for each 4 KiB."""
        kept = self._buffers.get(name)
        if kept is None or kept.size < size:
            kept = self._buffers[name] = layout.aligned_empty(size, self.dtype)
        return kept

    # ---- backward

    def backward(
        self, tape: KernelTape, doutput: np.ndarray, column: int, dstate: States, dx: np.ndarray
    ) -> LayerWeights:
        """See `stack.Layer.backward`."""
        doutput, g = _usable(doutput), self._geometry
        T, B, I = tape.x.shape
        shape = Shape(T, B, I, doutput.shape[2], column, tape.lengths is not None, g.threads(T, B))
        vector_count = len(self._weights.vector)
        with _LOCK:
            packed = self._backward_weights()
            call = packed.planned(shape, lambda: plan_backward(g, shape, packed.at, tape.dims, vector_count))
            plan: BackwardPlan = call.plan
            d = plan.dims
            work = self._buffer("dpre", plan.work_size)
            work[d.back_at : plan.work_size] = 0
            flowing = work[d.dstate_at : d.back_at].reshape(-1, 2, B, d.padded)
            flowing[:] = 0
            for kept, given in zip(flowing, dstate, strict=True):
                kept[0, :, : given.shape[1]] = given
            call.run(
                backward,
                plan.stages,
                layout.Arrays(packed.array, tape.array, work),
                doutput.reshape(-1),
                _NO_LENGTHS if tape.lengths is None else tape.lengths,
                d,
                g.panels,
                g.back_panels,
                plan.threads,
                plan.by_rows,
                self._barrier,
            )
            for kept, given in zip(flowing, dstate, strict=True):
                given[:] = kept[T & 1, :, : given.shape[1]]
            dvector = work[d.dvector_at : plan.work_size].reshape(-1, B, g.padded)
            result = self._weight_gradients(tape, work, packed, dx, plan.threads)
            result.vector[:] = dvector[:, :, : self.spec.hidden_size].sum(1)
        return result

    def _weight_gradients(
        self, tape: KernelTape, dpre: np.ndarray, packed: _Packed, dx: np.ndarray, count: int
    ) -> LayerWeights:
        """The large products over all steps; dpre (T, B, dpre_row) flat is zero in the padding."""
        g, d = self._geometry, tape.dims
        H, Hp, row, part, lanes = self.spec.hidden_size, g.padded, g.dpre_row, g.training, g.lanes
        T, B, I = tape.x.shape
        K = T * B
        scratch = self._buffer("scratch", count * gradients.scratch_size(lanes))
        x, dx_flat = tape.x.reshape(-1), dx.reshape(-1)
        bias = np.zeros(len(part.pre) * Hp, self.dtype)
        gradients.row_sums(dpre, row, bias.size, K, bias, count)
        result = LayerWeights(
            np.zeros_like(self._weights.input),
            np.zeros_like(self._weights.recurrent),
            bias.reshape(-1, Hp)[:, :H],
            np.empty_like(self._weights.vector),
        )
        packed_at, columns = packed.at["input"], layout.round_up(I, lanes)
        for run in input_runs(part):
            rows = (run.stop - run.start) * Hp
            with _padded_sums(result.input[run], Hp, columns) as sums:
                gradients.outer_sum(dpre, run.start * Hp, row, rows, x, 0, I, I, K, sums, columns, scratch, count)
            gradients.add_product(
                dpre, run.start * Hp, row, K, packed.array, packed_at, rows, I, g.input_vectors, dx_flat, scratch, count
            )
            packed_at += rows * layout.round_up(I, g.input_vectors * lanes)
        plane = B * Hp
        for operand in part.operands:
            if operand.state is not None:
                value_at = (operand.state * d.slots + int(self.reverse)) * plane
            else:
                value_at = d.operand_at + (operand.computed or 0) * d.steps * plane
            start, rows = operand.pre.start, len(operand.pre) * Hp
            with _padded_sums(result.recurrent[start : operand.pre.stop], Hp, Hp) as sums:
                gradients.outer_sum(
                    dpre, start * Hp, row, rows, tape.array, value_at, Hp, H, K, sums, Hp, scratch, count
                )
        return result

    def _backward_weights(self) -> _Packed:
        """Packed at the first use: inference never needs them."""
        if self._packed_back is None:
            g = self._geometry
            self._packed_back = _Packed(
                *layout.pack_backward(
                    g.training, self._weights, self._numbers, g.width, g.back_width, g.input_vectors * g.lanes
                )
            )
        return self._packed_back


@contextmanager
def _padded_sums(blocks: np.ndarray, rows: int, columns: int) -> Iterator[np.ndarray]:
    """(n * rows * columns,), to be summed up in, for blocks (n, H, K) of zeros: themselves where they need no padding."""
    n, H, K = blocks.shape
    if (H, K) == (rows, columns):
        yield blocks.reshape(-1)
        return
    padded = np.zeros((n, rows, columns), blocks.dtype)
    yield padded.reshape(-1)
    blocks[:] = padded[:, :H, :K]


def _usable(array: np.ndarray) -> np.ndarray:
    """The array, or a copy of one that is read-only or unaligned: kernels are compiled for those that are neither."""
    return array if array.flags.behaved else array.copy()
