"""A step as a list of segments: matrix products, then pointwise code. One form for both directions.

The forward direction is that already: a stage's products come before its code. Backwards a stage's code comes before its products,
so the products of a stage and the code of the next one make a segment, and what a last stage sends back to nobody falls away.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...cells import Program


@dataclass(frozen=True)
class Product:
    """A matrix product with a vector for each row of the batch: `outs` sums of `depth` terms for each hidden unit.

    operand: its index in the program. first: the first of its `outs` or, backwards, of its `depth` / H pre-activations.
    place: what it multiplies: forward a place of `values`, backwards the places of dpre from `first` on. at_new: forward, whether
    that place is in the slot after the step, as computed operands are, or in the one before, as states are.
    """

    operand: int
    first: int
    outs: int
    depth: int
    place: int
    at_new: bool = False


@dataclass(frozen=True)
class Segment:
    """Products, and the stage whose pointwise code follows them."""

    products: tuple[Product, ...]
    stage: int


def segments(program: Program, backward: bool, hidden_size: int) -> tuple[Segment, ...]:
    """The segments of one step in one direction."""
    if not backward:
        return tuple(
            Segment(tuple(_forward(program, o, hidden_size) for o in stage.operands), index)
            for index, stage in enumerate(program.forward)
        )
    before = [(), *(stage.operands for stage in program.backward)]
    return tuple(
        Segment(tuple(_backward(program, o, hidden_size) for o in before[index]), index)
        for index in range(len(program.backward))
    )


def _forward(program: Program, index: int, hidden_size: int) -> Product:
    operand, states = program.operands[index], len(program.cell.states)
    place = states + (operand.computed or 0) if operand.state is None else operand.state
    return Product(index, operand.pre.start, len(operand.pre), hidden_size, place, operand.state is None)


def _backward(program: Program, index: int, hidden_size: int) -> Product:
    pre = program.operands[index].pre
    return Product(index, pre.start, 1, len(pre) * hidden_size, pre.start)
