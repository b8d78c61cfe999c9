"""One layer in one direction on the compiled kernels: packed weights, buffers, threads, and the calls."""

from __future__ import annotations

import threading as _threading
from dataclasses import dataclass

import numpy as np

from ...cells import program
from ...params import Spec
from .. import threads
from ..base import Arrays as States
from ..base import LayerWeights, input_runs
from . import gradients, layout, simd
from .backward import backward
from .cell_type import stages_of
from .forward import forward
from .threading import most_threads
from .tile import tile_rows

# Numba's simplest threading layer aborts the process when two threads enter a parallel kernel at once
_LOCK = _threading.Lock()
_NO_LENGTHS = np.zeros(0, np.int64)
# below this many floating-point operations a call costs less on one thread than waking the others does
_WORTH_THREADS = 3_000_000
# and this many make a step worth a barrier
_WORTH_BARRIER = 500_000
# input projections are computed ahead for as many steps as fit into this, so that they are still cached when they are used
_CHUNK_BYTES = 256 * 1024


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


class KernelLayer:
    """See `stack.Layer`."""

    def __init__(self, spec: Spec, weights: LayerWeights, reverse: bool) -> None:
        self.spec, self.reverse = spec, reverse
        self.dtype = np.dtype(spec.dtype)
        self._program, self._training = program(spec.step, False), program(spec.step, True)
        self._lanes = lanes = simd.SIMD_BYTES // self.dtype.itemsize
        H = spec.hidden_size
        self._vectors = layout.panel_vectors(self._program, H, lanes)
        self._back_vectors = layout.back_vectors(H, lanes)
        self._input_vectors = gradients.WIDE if weights.input.shape[2] > (gradients.WIDE - 1) * lanes else 1
        self._width, self._back_width = self._vectors * lanes, self._back_vectors * lanes
        self._padded, self._padded_back = layout.round_up(H, self._width), layout.round_up(H, self._back_width)
        self._weights = weights
        self._numbers = np.array([spec.numbers[n] for n in spec.cell.numbers], self.dtype)
        self._packed, self._at = layout.pack_forward(self._program, weights, self._numbers, self._width)
        self._packed_back: tuple[np.ndarray, dict[str, int]] | None = None
        self._buffers: dict[str, np.ndarray] = {}

    # ---- forward

    def forward(
        self, x: np.ndarray, state: States, lengths: np.ndarray | None, training: bool, output: np.ndarray, column: int
    ) -> tuple[States, KernelTape | None]:
        """See `stack.Layer.forward`."""
        x = _writable(x)
        T, B, I = x.shape
        d = self._forward_dims(T, B, I, training, lengths, output.shape[2], column)
        stages = stages_of(self.spec.step, training, self._vectors)
        plane = B * self._padded
        part = stages.program
        tape_size = d.operand_at + len(part.computed) * d.steps * plane
        work_size = d.chunk * plane * len(part.pre)
        count, by_rows = self._divide(B, self._flops(T, B), self._flops(1, B) / (len(stages.stages) or 1))
        with _LOCK:
            if training:
                tape = layout.aligned_empty(tape_size, self.dtype)
            else:
                tape = self._buffer("ring", tape_size)
            states = self._states(tape, d)
            for kept, given in zip(states, state, strict=True):
                first = kept[T if training and self.reverse else 0]
                first[:, : given.shape[1]] = given
                first[:, given.shape[1] :] = 0
            arrays = layout.Arrays(self._packed, tape, self._buffer("pre", work_size))
            forward(
                stages,
                x.reshape(-1),
                arrays,
                output.reshape(-1),
                _NO_LENGTHS if lengths is None else lengths,
                d,
                self._padded // self._width,
                count,
                by_rows,
                np.zeros(8, np.int64),
            )
            last = (0 if self.reverse else T) if training else T & 1
            final = tuple(s[last, :, :width].copy() for s, width in zip(states, self.spec.state_sizes, strict=True))
        return final, KernelTape(x, lengths, tape, d) if training else None

    def _forward_dims(
        self, T: int, B: int, I: int, training: bool, lengths: np.ndarray | None, output_row: int, column: int
    ) -> layout.ForwardDims:
        part = self._training if training else self._program
        slots, steps = (T + 1, T) if training else (2, 1)
        plane = B * self._padded
        saved_at = len(part.cell.states) * slots * plane
        chunk = _CHUNK_BYTES // (plane * len(part.pre) * self.dtype.itemsize)
        return layout.ForwardDims(
            seq_len=T,
            batch_size=B,
            input_size=I,
            hidden_size=self.spec.hidden_size,
            output_size=self.spec.state_sizes[0],
            padded=self._padded,
            slots=slots,
            steps=steps,
            chunk=max(1, min(T, chunk)),
            training=training,
            reverse=self.reverse,
            ragged=lengths is not None,
            output_row=output_row,
            output_column=column,
            saved_at=saved_at,
            operand_at=saved_at + len(part.saved) * steps * plane,
            vector_at=self._at["vector"],
            input_at=self._at["input"],
            recurrent_at=self._at["recurrent"],
            number_at=self._at["number"],
        )

    def _states(self, tape: np.ndarray, d: layout.ForwardDims) -> np.ndarray:
        """(S, slots, B, Hp): the states' part of a tape."""
        return tape[: d.saved_at].reshape(len(self.spec.cell.states), d.slots, d.batch_size, d.padded)

    def _buffer(self, name: str, size: int) -> np.ndarray:
        """A buffer that is kept between calls: fresh memory costs a page fault for each 4 KiB."""
        kept = self._buffers.get(name)
        if kept is None or kept.size < size:
            kept = self._buffers[name] = layout.aligned_empty(size, self.dtype)
        return kept

    def _flops(self, T: int, B: int) -> float:
        products = sum(len(o.pre) for o in self._program.operands) or 1
        return 2.0 * T * B * products * self.spec.hidden_size**2

    def _divide(self, B: int, flops: float, flops_of_stage: float) -> tuple[int, bool]:
        """(threads, whether they divide rows): rows where each thread fills its tiles, else hidden units."""
        count = most = min(threads.get_threads(), most_threads())
        if count == 1 or flops < _WORTH_THREADS:
            return 1, True
        widest = max((len(o.pre) for o in self._program.operands), default=1) * self._vectors
        if B >= count * tile_rows(widest):
            return count, True
        count = min(count, self._padded // self._width, self._padded_back // self._back_width)
        if count > 1 and flops_of_stage >= _WORTH_BARRIER:
            return count, False
        return (min(most, B), True) if B > 1 else (1, True)

    # ---- backward

    def backward(
        self, tape: KernelTape, doutput: np.ndarray, column: int, dstate: States, dx: np.ndarray
    ) -> tuple[LayerWeights, States]:
        """See `stack.Layer.backward`."""
        doutput = _writable(doutput)
        T, B, _ = tape.x.shape
        H, part = self.spec.hidden_size, self._training
        packed, at = self._backward_weights()
        stages = stages_of(self.spec.step, True, self._vectors, self._back_vectors)
        plane, states = B * self._padded, len(self.spec.cell.states)
        dstate_at = T * plane * len(part.pre)
        back_at = dstate_at + 2 * states * plane
        # the last panel of back may end after the last panel of units; reads go up to the longer one
        padded_back = layout.round_up(max(self._padded, self._padded_back), self._back_width)
        dvector_at = back_at + len(part.operands) * B * padded_back
        size = dvector_at + len(self._weights.vector) * plane
        d = layout.BackwardDims(
            seq_len=T,
            batch_size=B,
            hidden_size=H,
            output_size=self.spec.state_sizes[0],
            padded=self._padded,
            padded_back=padded_back,
            packed_back=self._padded_back,
            reverse=self.reverse,
            ragged=tape.lengths is not None,
            output_row=doutput.shape[2],
            output_column=column,
            saved_at=tape.dims.saved_at,
            vector_at=at["vector"],
            recurrent_at=at["recurrent"],
            number_at=at["number"],
            dstate_at=dstate_at,
            back_at=back_at,
            dvector_at=dvector_at,
        )
        count, by_rows = self._divide(B, self._flops(T, B), self._flops(1, B) / len(stages.stages))
        with _LOCK:
            work = self._buffer("dpre", size)
            work[back_at:size] = 0
            flowing = work[dstate_at:back_at].reshape(states, 2, B, self._padded)
            flowing[:] = 0
            for kept, given in zip(flowing, dstate, strict=True):
                kept[0, :, : given.shape[1]] = given
            backward(
                stages,
                layout.Arrays(packed, tape.array, work),
                doutput.reshape(-1),
                _NO_LENGTHS if tape.lengths is None else tape.lengths,
                d,
                self._padded // self._width,
                self._padded_back // self._back_width,
                count,
                by_rows,
                np.zeros(8, np.int64),
            )
            dbefore = tuple(f[T & 1, :, :w].copy() for f, w in zip(flowing, self.spec.state_sizes, strict=True))
            dvector = work[dvector_at:size].reshape(-1, B, self._padded)[:, :, :H].sum(1)
            return self._weight_gradients(tape, work, dvector, dx, count), dbefore

    def _weight_gradients(
        self, tape: KernelTape, dpre: np.ndarray, dvector: np.ndarray, dx: np.ndarray, count: int
    ) -> LayerWeights:
        """The large products over all steps; dpre (T*B*P*Hp,) is zero in the padding."""
        H, Hp, part, d = self.spec.hidden_size, self._padded, self._training, tape.dims
        T, B, I = tape.x.shape
        lanes, row, K = self._lanes, len(part.pre) * Hp, T * B
        scratch = self._buffer("scratch", count * max(gradients.BLOCK, gradients.ROWS) * gradients.WIDE * lanes)
        x, dx_flat = tape.x.reshape(-1), dx.reshape(-1)
        bias = np.zeros(row, self.dtype)
        gradients.row_sums(dpre, row, row, K, bias, count)
        result = LayerWeights(
            np.zeros_like(self._weights.input),
            np.empty_like(self._weights.recurrent),
            bias.reshape(-1, Hp)[:, :H],
            dvector,
        )
        packed, at = self._backward_weights()
        packed_at, columns = at["input"], layout.round_up(I, lanes)
        for run in input_runs(part):
            rows = (run.stop - run.start) * Hp
            sums = np.zeros((rows, columns), self.dtype)
            gradients.outer_sum(
                dpre, run.start * Hp, row, rows, x, 0, I, I, K, sums.reshape(-1), columns, scratch, count
            )
            result.input[run] = sums.reshape(-1, Hp, columns)[:, :H, :I]
            gradients.add_product(
                dpre, run.start * Hp, row, K, packed, packed_at, rows, I, self._input_vectors, dx_flat, scratch, count
            )
            packed_at += rows * layout.round_up(I, self._input_vectors * lanes)
        plane = B * Hp
        for operand in part.operands:
            if operand.state is not None:
                value_at = (operand.state * d.slots + int(self.reverse)) * plane
            else:
                value_at = d.operand_at + (operand.computed or 0) * d.steps * plane
            start, rows = operand.pre.start, len(operand.pre) * Hp
            sums = np.zeros((rows, Hp), self.dtype)
            gradients.outer_sum(
                dpre, start * Hp, row, rows, tape.array, value_at, Hp, H, K, sums.reshape(-1), Hp, scratch, count
            )
            result.recurrent[start : operand.pre.stop] = sums.reshape(-1, Hp, Hp)[:, :H, :H]
        return result

    def _backward_weights(self) -> tuple[np.ndarray, dict[str, int]]:
        """Packed at the first use: inference never needs them."""
        if self._packed_back is None:
            self._packed_back = layout.pack_backward(
                self._training,
                self._weights,
                self._numbers,
                self._width,
                self._back_width,
                self._input_vectors * self._lanes,
            )
        return self._packed_back


def _writable(array: np.ndarray) -> np.ndarray:
    """The array, or a copy of a read-only one: to Numba that is another type, which kernels would be compiled for again."""
    return array if array.flags.writeable else array.copy()
