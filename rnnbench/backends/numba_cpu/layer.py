"""One layer in one direction on the compiled kernels: packed weights, buffers, and the calls."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ...params import Spec
from ..base import LayerWeights, States
from . import gradients, layout
from .backward import BACKWARD
from .forward import FORWARD
from .gradient_plan import GradientPlan, plan_gradients
from .plan import BackwardPlan, ForwardPlan, Geometry, Shape, plan_backward, plan_forward
from .threading import Body, Kernel, one_call

_NO_LENGTHS = np.zeros(0, np.int64)
# the most plans that are kept: shapes that vary from call to call should not fill the memory
_MOST_PLANS = 256


@dataclass
class _Planned:
    """A plan and the kernels compiled for it so far."""

    plan: Any
    # by the kernel's id, because kernels are module constants
    compiled: dict[int, tuple[Callable[..., None], Body]] = field(default_factory=dict)

    def run(self, kernel: Kernel, *arguments: Any) -> None:
        """Call a kernel. Numba's own dispatch would determine the types of 40 values, which are the same at every call."""
        found = self.compiled.get(id(kernel))
        if found is None:
            found = self.compiled[id(kernel)] = kernel.compiled(*arguments)
        function, body = found
        function(body, *arguments)


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


class _Plans(dict[Any, _Planned]):
    """Key -> plan. No plan depends on the weights' values, so all are kept when weights change, as at each training step."""

    def find(self, key: Any, make: Callable[[], Any]) -> _Planned:
        """The plan for `key`, made at first use."""
        found = self.get(key)
        if found is None:
            if len(self) >= _MOST_PLANS:
                self.clear()
            found = self[key] = _Planned(make())
        return found


class _Packed(NamedTuple):
    """Packed weights and where their sections start."""

    array: np.ndarray
    at: dict[str, int]


class KernelLayer:
    """See `stack.Layer`."""

    def __init__(self, spec: Spec, weights: LayerWeights, reverse: bool) -> None:
        self.spec, self.reverse = spec, reverse
        self.dtype = np.dtype(spec.dtype)
        self._geometry = Geometry(spec, weights, reverse)
        self._numbers = np.array(list(spec.numbers.values()), self.dtype)
        self._plans, self._back_plans = _Plans(), _Plans()
        self._buffers: dict[str, np.ndarray] = {}
        self._barrier = np.zeros(8, np.int64)
        self._rows = np.zeros(0, np.int64)
        self._pack(weights)

    def with_weights(self, weights: LayerWeights) -> KernelLayer:
        """See `stack.Layer.with_weights`. Buffers are shared: only one call at a time uses them."""
        other = copy.copy(self)
        other._pack(weights)
        return other

    def _pack(self, weights: LayerWeights) -> None:
        g = self._geometry
        self._weights = weights
        self._packed = _Packed(*layout.pack_forward(g.inference, weights, self._numbers, g.width, g.lanes))
        self._packed_back: _Packed | None = None
        self._arrays: layout.KernelArrays | None = None  # of inference, kept because a small call takes only 6 us

    # ---- forward

    def forward(
        self, x: np.ndarray, state: States, lengths: np.ndarray | None, training: bool, output: np.ndarray, column: int
    ) -> KernelTape | None:
        """See `stack.Layer.forward`."""
        x, packed = _usable(x), self._packed
        T, B, I = x.shape
        shape = T, B, I, output.shape[2], column, *_ragged(lengths), self._geometry.threads(T, B)
        with one_call():
            call = self._plans.find(
                (training, shape), lambda: plan_forward(self._geometry, Shape(*shape), packed.at, training)
            )
            plan: ForwardPlan = call.plan
            arrays = None if training else self._arrays
            if arrays is None or arrays.tape.size < plan.tape_size or arrays.work.size < plan.work_size:
                size = plan.tape_size
                tape = layout.aligned_empty(size, self.dtype) if training else self._buffer("ring", size)
                arrays = layout.KernelArrays(packed.array, tape, self._buffer("pre", plan.work_size))
            if not training:
                self._arrays = arrays
            call.run(
                FORWARD,
                state,
                plan.specialisation,
                x,
                arrays,
                output,
                _NO_LENGTHS if lengths is None else lengths,
                plan.dims,
                self._geometry.panels,
                plan.threads,
                plan.by_rows,
                self._barrier,
            )
        return KernelTape(x, lengths, arrays.tape, plan.dims) if training else None

    def _buffer(self, name: str, size: int) -> np.ndarray:
        """A buffer that is kept between calls: fresh memory costs a page fault per 4 KiB."""
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
        shape = T, B, I, doutput.shape[2], column, *_ragged(tape.lengths), g.threads(T, B)
        with one_call():
            packed = self._backward_weights()
            call = self._back_plans.find(shape, lambda: _plan_backward(g, Shape(*shape), packed.at, tape.dims))
            plan: BackwardPlan = call.plan[0]
            products: GradientPlan = call.plan[1]
            work = self._buffer("dpre", plan.dims.work_size)
            call.run(
                BACKWARD,
                dstate,
                plan.specialisation,
                layout.KernelArrays(packed.array, tape.array, work),
                doutput,
                _NO_LENGTHS if tape.lengths is None else tape.lengths,
                plan.dims,
                g.panels,
                g.back_panels,
                plan.threads,
                plan.by_rows,
                self._barrier,
            )
            sums = np.zeros(products.size, self.dtype)
            call.run(
                gradients.WEIGHT_GRADIENTS,
                (work, tape.x.reshape(-1), tape.array),
                packed.array,
                products.table,
                products.inputs,
                self._rows_within(tape.lengths, T, B),
                products.dims,
                sums,
                dx.reshape(-1),
                self._buffer("scratch", plan.threads * products.dims.scratch),
                plan.threads,
            )
        input_, recurrent, bias, vector = products.blocks
        return LayerWeights(input_.of(sums), recurrent.of(sums), bias.of(sums)[:, :, 0], vector.of(sums)[:, :, 0])

    def _rows_within(self, lengths: np.ndarray | None, seq_len: int, batch_size: int) -> np.ndarray:
        """The indices of those of the T * B rows that lie within their lengths, ascending."""
        if lengths is not None:
            return np.flatnonzero(np.arange(seq_len)[:, None] < lengths)
        if len(self._rows) < seq_len * batch_size:
            self._rows = np.arange(seq_len * batch_size)
        return self._rows[: seq_len * batch_size]

    def _backward_weights(self) -> _Packed:
        """Packed at first use, because inference does not need them."""
        if self._packed_back is None:
            g = self._geometry
            self._packed_back = _Packed(
                *layout.pack_backward(g.training, self._weights, self._numbers, g.width, g.lanes)
            )
        return self._packed_back


def _plan_backward(
    g: Geometry, shape: Shape, at: dict[str, int], forward: layout.ForwardDims
) -> tuple[BackwardPlan, GradientPlan]:
    plan = plan_backward(g, shape, at, forward)
    return plan, plan_gradients(g, shape, at, forward, plan.dims)


def _ragged(lengths: np.ndarray | None) -> tuple[bool, bool]:
    """(ragged, uneven), see `Shape`."""
    return (False, False) if lengths is None else (True, bool(2 * lengths[-1] < lengths[0]))


def _usable(array: np.ndarray) -> np.ndarray:
    """The array, or a copy if it is read-only or unaligned: kernels are compiled for writable, aligned arrays."""
    return array if array.flags.behaved else array.copy()
