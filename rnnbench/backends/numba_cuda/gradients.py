"""The large products after BPTT's time loop: gradients of the parameters and of the input, over all steps at once.

They are written directly into arrays with the parameters' names and shapes. Adjacent pre-activations whose gates are adjacent too
are one product, and the products of a recurrent gate that appears several times are summed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...cells import PROJECTION, Program
from ...params import Spec
from ..base import input_spans
from .buffers import in_training
from .moves import add_row
from .product import ADD
from .queue import Queue


@dataclass(frozen=True)
class Gradients:
    """The gradients of one layer in one direction. suffix: of the parameters' names."""

    queue: Queue
    spec: Spec
    program: Program
    reverse: bool
    suffix: str

    def of_input(self, dpre: Any, weights: Any, dx: Any) -> None:
        """Enqueue dx (T, B, I) += dpre (T, B, P, H) times the input weights (P * H, I)."""
        (T, B, P, H), I = dpre.shape, dx.shape[2]
        for span in input_spans(self.program):
            self.queue.multiply(
                dpre.reshape(T * B, P * H), weights, dx.reshape(T * B, I), T * B, I, (span.stop - span.start) * H,
                a_at=(0, span.start * H), b_at=(span.start * H, 0), start=ADD,
            )  # fmt: skip

    def of_parameters(self, dpre: Any, dvector: Any, x: Any, values: Any) -> dict[str, Any]:
        """Enqueue the gradients of all parameters, under their names."""
        queue, spec, cell = self.queue, self.spec, self.spec.cell
        (T, B, P, H), I, width = dpre.shape, x.shape[2], self.spec.state_sizes[0]
        rows = dpre.reshape(T * B, P * H)
        result = {f"weight_ih{self.suffix}": queue.zeros(len(cell.input_gates) * H, I)}
        inputs = [None if pre.input is None else cell.input_gates.index(pre.input) for pre in self.program.pre]
        for block, gate, count in _gate_spans(inputs):
            queue.multiply(
                rows, x.reshape(T * B, I), result[f"weight_ih{self.suffix}"], count * H, I, T * B,
                a_at=(0, block * H), c_at=(gate * H, 0), start=ADD, transposed=True,
            )  # fmt: skip
        flat = values.reshape(values.shape[0] * B, values.shape[2] * H)
        recurrents = self._recurrent_gates()
        if cell.recurrent_gates:
            result[f"weight_hh{self.suffix}"] = queue.zeros(len(cell.recurrent_gates) * H, width)
        if spec.bias:
            self._biases(result, rows, inputs, recurrents)
        for operand in self.program.operands:
            gates = [gate if p in operand.pre else None for p, gate in enumerate(recurrents)]
            b_at = self._where(operand.state, operand.computed, T, B)
            for block, gate, count in _gate_spans(gates):
                queue.multiply(
                    rows, flat, result[f"weight_hh{self.suffix}"], count * H, width, T * B,
                    a_at=(0, block * H), b_at=b_at, c_at=(gate * H, 0), start=ADD, transposed=True,
                )  # fmt: skip
            if spec.proj_size and self.program.pre[operand.pre.start].recurrent == PROJECTION:
                result[f"weight_hr{self.suffix}"] = queue.empty(width, H)
                queue.multiply(
                    rows, flat, result[f"weight_hr{self.suffix}"], width, H, T * B,
                    a_at=(0, operand.pre.start * H), b_at=b_at, transposed=True,
                )  # fmt: skip
        if cell.vectors:
            total = queue.empty(len(cell.vectors) * H)
            queue.sum_rows(dvector.reshape(B, total.size), total)
            for i, vector in enumerate(cell.vectors):
                result[f"p_{vector}{self.suffix}"] = total[i * H : (i + 1) * H]
        return result

    def _recurrent_gates(self) -> list[int | None]:
        """For each pre-activation the gate of its product in weight_hh; None if it has none or is the projection."""
        gates: list[int | None] = []
        for pre in self.program.pre:
            projects = pre.recurrent == PROJECTION and self.spec.proj_size
            named = pre.recurrent is not None and not projects
            gates.append(self.spec.cell.recurrent_gates.index(str(pre.recurrent)) if named else None)
        return gates

    def _where(self, state: int | None, computed: int | None, T: int, B: int) -> tuple[int, int]:
        """(row, column) in `values`, taken as (slots * B, (S + C) * H), at which an operand's T * B rows start."""
        H = self.spec.hidden_size
        first = in_training(T - 1 if self.reverse else 0, T, self.reverse)
        if state is not None:
            return first.prev * B, state * H
        return first.new * B, (len(self.spec.cell.states) + (computed or 0)) * H

    def _biases(
        self, result: dict[str, Any], rows: Any, inputs: list[int | None], recurrents: list[int | None]
    ) -> None:
        queue, cell, H = self.queue, self.spec.cell, self.spec.hidden_size
        sums = queue.buffer("bias", rows.shape[1])
        queue.sum_rows(rows, sums)
        for kind, names, gates in (("ih", cell.input_gates, inputs), ("hh", cell.recurrent_gates, recurrents)):
            if names:
                result[f"bias_{kind}{self.suffix}"] = total = queue.zeros(len(names) * H)
                for block, gate, count in _gate_spans(gates):
                    queue.each(add_row, count * H, sums, block * H, total, gate * H, count * H)


def _gate_spans(gates: Sequence[int | None]) -> list[tuple[int, int, int]]:
    """(block, gate, count) for each span of adjacent blocks whose gates are adjacent, too."""
    spans: list[tuple[int, int, int]] = []
    for block, gate in enumerate(gates):
        if gate is None:
            continue
        if spans and (spans[-1][0] + spans[-1][2], spans[-1][1] + spans[-1][2]) == (block, gate):
            spans[-1] = (spans[-1][0], spans[-1][1], spans[-1][2] + 1)
        else:
            spans.append((block, gate, 1))
    return spans
