"""One layer in one direction on the device: weights packed once, buffers, and the launches of the planned kernel."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cells import Program, program
from ...params import Spec
from ..base import LayerWeights
from . import device
from .buffers import Backward, Forward, Now, in_backward, in_inference, in_training
from .gradients import Gradients
from .moves import get_states, pointwise, put_states
from .persistent import persistent
from .plan import Plan, plan
from .product import ADD, FROM_BIAS
from .queue import Queue
from .segments import Segment, segments
from .weights import pack


@dataclass
class Tape:
    """What BPTT needs from a layer's forward pass: its input x (T, B, I), lengths, and values and saved as in `buffers`."""

    x: Any
    lengths: Any
    values: Any
    saved: Any

    @property
    def nbytes(self) -> int:
        """Bytes of values and saved; the input belongs to the caller or to the layer below."""
        return int(self.values.nbytes + self.saved.nbytes)


class DeviceLayer:
    """Layer `row // D`, direction `row % D` of a network.

    queue: uploads its weights. spec: the network. weights: on the host. reverse: whether it reads from the sequences' ends.
    forced: the kernel to use, "" for the plan's choice.
    """

    def __init__(self, queue: Queue, spec: Spec, weights: LayerWeights, reverse: bool, row: int, forced: str) -> None:
        self.spec, self.reverse, self.row, self.forced = spec, reverse, row, forced
        self._program, self._training = program(spec.step, False), program(spec.step, True)
        self._number = queue.upload_for_all(np.array(list(spec.numbers.values()), spec.dtype))
        self._plans: dict[int, Plan] = {}
        self._take(queue, weights)

    def with_weights(self, queue: Queue, weights: LayerWeights) -> DeviceLayer:
        """The same layer with other weights. This one and its tapes stay as they are."""
        other = copy.copy(self)
        other._take(queue, weights)
        return other

    def _take(self, queue: Queue, weights: LayerWeights) -> None:
        self._recurrent = pack(weights.recurrent, queue.stored)
        P, H, I = weights.input.shape
        self._blocks = P
        self._bias = queue.upload_for_all(weights.bias.reshape(P * H))
        self._vector = queue.upload_for_all(weights.vector.reshape(weights.vector.size))
        self._input_t = queue.upload_for_all(weights.input.reshape(P * H, I).T)
        self._input = queue.upload_for_all(weights.input.reshape(P * H, I))
        self._packed: dict[tuple[str, bool], Any] = {}

    def plan(self, queue: Queue, batch_size: int) -> Plan:
        """How the layer runs with `batch_size` rows."""
        made = self._plans.get(batch_size)
        if made is None:
            made = self._plans[batch_size] = plan(
                self.spec, batch_size, queue.device, queue.stored, self.forced, queue.tensor_cores
            )
        return made

    # ---- forward

    def forward(
        self, queue: Queue, x: Any, state: tuple[Any, ...] | None, lengths: Any, training: bool, output: Any,
        final: tuple[Any, ...],
    ) -> Tape | None:  # fmt: skip
        """Enqueue the pass over x (T, B, I). state, final: the network's (L*D, B, width), of which this layer's row is read and
        written; None for zeros. output (T, B, D*W): this direction's columns are written.
        """
        program = self._training if training else self._program
        (T, B, _), H, S = x.shape, self.spec.hidden_size, len(self.spec.cell.states)
        position = in_training if training else in_inference
        slots, steps = (T + 1, T) if training else (2, 1)
        kept = (slots, B, S + len(program.computed), H), (steps, B, max(1, len(program.saved)), H)
        if training:
            values, saved = (queue.empty(*shape) for shape in kept)
        else:
            values, saved = (queue.buffer(name, *shape) for name, shape in zip(("values", "saved"), kept, strict=True))
        pre = queue.buffer("pre", T, B, self._blocks, H)
        self._project(queue, x, pre)
        self._put_states(queue, state, values, position(0, T, self.reverse).prev)
        flat = queue.flat
        buffers = Forward(
            flat(pre), flat(values), flat(saved), flat(output), self._vector, self._number, lengths, output.shape[2],
            self._column, self.spec.state_sizes[0],
        )  # fmt: skip
        made = self.plan(queue, B)
        if made.tile is not None:
            self._persist(queue, made, buffers, program, False, T)
        else:
            records = _records(queue, values), _records(queue, pre)
            for step, segment in itertools.product(range(T), segments(program, False, H)):
                now = position(step, T, self.reverse)
                self._multiply(queue, segment, now, *records, B)
                queue.each(pointwise(program, False, segment.stage, queue.dtype, queue.fast), B * H, buffers, now, B, H)
        self._get_states(queue, values, position(T - 1, T, self.reverse).new, final)
        return Tape(x, lengths, values, saved) if training else None

    @property
    def _column(self) -> int:
        """Where this direction's columns of the output start."""
        return self.row % self.spec.num_directions * self.spec.state_sizes[0]

    def _project(self, queue: Queue, x: Any, pre: Any) -> None:
        """Enqueue pre = input projections and biases, for all steps at once; the bias alone where there is no input projection."""
        (T, B, I), H = x.shape, self.spec.hidden_size
        rows = x.reshape(T * B, I), _records(queue, pre)
        for has_input, run in itertools.groupby(range(self._blocks), lambda p: self._program.pre[p].input is not None):
            blocks = list(run)
            at, depth = (0, blocks[0] * H), I if has_input else 0
            queue.multiply(
                rows[0], self._input_t, rows[1], T * B, len(blocks) * H, depth,
                b_at=at, c_at=at, bias=self._bias, start=FROM_BIAS,
            )  # fmt: skip

    def _persist(self, queue: Queue, made: Plan, buffers: Any, program: Program, backward: bool, T: int) -> None:
        """Enqueue the whole time loop in one launch."""
        tile = made.back if backward else made.tile
        assert tile is not None
        kernel = persistent(program, backward, tile, self.spec.hidden_size, queue.dtype, queue.fast, queue.stored)
        threads = tile.units, tile.slices
        weights = self._weights(queue, "held", backward)
        cluster = made.blocks[0] if made.kernel == "cluster" else 1
        with device.residency_errors(cluster if cluster > 1 else made.blocks[0] * made.blocks[1]):
            queue.launch(kernel, made.blocks, threads, buffers, weights, T, self.reverse, made.rows, cluster=cluster)

    def _multiply(self, queue: Queue, segment: Segment, now: Now, values: Any, pre: Any, B: int) -> None:
        """Enqueue the segment's recurrent products for one step, as tiled products."""
        H = self.spec.hidden_size
        for product in segment.products:
            slot = now.new if product.at_new else now.prev
            queue.multiply(
                values, self._weights(queue, "tiles", False)[product.operand], pre, B, product.outs * H, H,
                a_at=(slot * B, product.place * H), c_at=(now.t * B, product.first * H), start=ADD,
                stored=queue.stored,
            )  # fmt: skip

    def _put_states(self, queue: Queue, state: tuple[Any, ...] | None, values: Any, slot: int) -> None:
        """Enqueue a copy of the states into their slot, in H columns each, with zeros past a state's width; None is zeros."""
        (_, B, _, H), target, widths = values.shape, _records(queue, values), self.spec.state_sizes
        given = _rows(state, widths) if state is not None else (target,) * len(widths)
        filled = widths if state is not None else (0,) * len(widths)
        queue.each(put_states(len(widths)), B * H, given, self.row * B, filled, target, slot * B, B, H)

    def _get_states(self, queue: Queue, values: Any, slot: int, final: tuple[Any, ...]) -> None:
        """Enqueue the reverse of `_put_states`: a copy of the states in a slot into this layer's row of `final`."""
        (_, B, _, H), widths = values.shape, self.spec.state_sizes
        source, states = _records(queue, values), _rows(final, widths)
        queue.each(get_states(len(widths)), B * H, source, slot * B, states, self.row * B, widths, B, H)

    # ---- weights

    def _weights(self, queue: Queue, form: str, backward: bool) -> Any:
        """The recurrent weights packed for a kernel and for the forward or backward pass, uploaded once.

        form "held": (products * H, H), see `persistent`. form "tiles": for each operand, a matrix by which rows of `values`, or
        backwards of `dpre`, are multiplied.
        """
        key = form, backward
        if key not in self._packed:
            R, H = self._recurrent, self.spec.hidden_size
            if form == "held":
                blocks = R if backward else R.transpose(0, 2, 1)
                self._packed[key] = queue.upload_for_all(blocks.reshape(-1, H))
            else:
                parts = [R[o.pre.start : o.pre.stop].reshape(-1, H) for o in self._program.operands]
                self._packed[key] = [queue.upload_for_all(part if backward else part.T) for part in parts]
        return self._packed[key]

    # ---- backward

    def backward(
        self, queue: Queue, tape: Tape, doutput: Any, dstate: tuple[Any, ...] | None, dx: Any,
        dinitial: tuple[Any, ...], suffix: str,
    ) -> dict[str, Any]:  # fmt: skip
        """Enqueue BPTT. doutput (T, B, D*W); dstate, dinitial as state and final in `forward`. Adds to dx (T, B, I). Returns the
        gradients under the parameters' names.
        """
        program, spec = self._training, self.spec
        (T, B, _), H, S = tape.x.shape, spec.hidden_size, len(spec.cell.states)
        dpre = queue.buffer("pre", T, B, self._blocks, H)
        flowing = queue.buffer("dstate", 2, B, S, H)
        back = queue.buffer("back", B, max(1, len(program.operands)), H)
        dvector = queue.zeros(B, max(1, len(spec.cell.vectors)), H)
        self._put_states(queue, dstate, flowing, in_backward(0, T, self.reverse).turn)
        flat = queue.flat
        buffers = Backward(
            flat(dpre), flat(tape.values), flat(tape.saved), flat(doutput), flat(flowing), flat(back), flat(dvector),
            self._vector, self._number, tape.lengths, doutput.shape[2], self._column, spec.state_sizes[0],
        )  # fmt: skip
        made = self.plan(queue, B)
        if made.tile is not None:
            self._persist(queue, made, buffers, program, True, T)
        else:
            records = _records(queue, dpre), queue.reshaped(back, B, back.size // B)
            for step, segment in itertools.product(range(T), segments(program, True, H)):
                now = in_backward(step, T, self.reverse)
                self._multiply_back(queue, segment, now, *records, B)
                queue.each(pointwise(program, True, segment.stage, queue.dtype, queue.fast), B * H, buffers, now, B, H)
        self._get_states(queue, flowing, 1 - in_backward(T - 1, T, self.reverse).turn, dinitial)
        gradients = Gradients(queue, spec, program, self.reverse, suffix)
        gradients.of_input(dpre, self._input, dx)
        return gradients.of_parameters(dpre, dvector, tape.x, tape.values)

    def _multiply_back(self, queue: Queue, segment: Segment, now: Now, dpre: Any, back: Any, B: int) -> None:
        """Enqueue the segment's transposed products for one step, as tiled products."""
        H = self.spec.hidden_size
        for product in segment.products:
            queue.multiply(
                dpre, self._weights(queue, "tiles", True)[product.operand], back, B, H, product.depth,
                a_at=(now.t * B, product.place * H), c_at=(0, product.operand * H), stored=queue.stored,
            )  # fmt: skip


def _records(queue: Queue, array: Any) -> Any:
    """(steps, B, places, H) as a matrix with a row for each step and row of the batch."""
    steps, B, places, H = array.shape
    return queue.reshaped(array, steps * B, places * H)


def _rows(states: tuple[Any, ...], widths: tuple[int, ...]) -> tuple[Any, ...]:
    """Each of the network's states (L*D, B, width) as a matrix with a row for each layer, direction and row of the batch."""
    return tuple(state.reshape(state.size // width, width) for state, width in zip(states, widths, strict=True))
