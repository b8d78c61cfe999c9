"""A step as a list of segments, each some matrix products followed by pointwise code. One form for both directions.

Forwards a stage has this form already: its products come before its code. Backwards a stage's code comes before its products, so a
segment is the products of one stage and the code of the next. The products of the last stage have no reader and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...cells import Program


@dataclass(frozen=True)
class Product:
    """A matrix product that gives, for each row of the batch and each hidden unit, `outs` sums of `depth` terms.

    operand: the index of the operand in the program. first: the first of its pre-activations, of which there are `outs` forwards
    and `depth` / H backwards. place: where the vector that is multiplied lies: forwards a place of `values`, backwards the places
    of dpre from `first` on. at_new: forwards, whether that is in the slot after the step, as for computed operands, or in the one
    before it, as for states.
    """

    operand: int
    first: int
    outs: int
    depth: int
    place: int
    at_new: bool = False


@dataclass(frozen=True)
class Segment:
    """Products, and the index of the stage whose pointwise code follows them."""

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
