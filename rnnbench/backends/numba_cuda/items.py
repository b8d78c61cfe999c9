"""A stage's pointwise code for one item (a row and a hidden unit) as device functions, from the text emitted for the equations.

An `Item` first loads everything that its code reads into an array, which a kernel keeps in registers, and later computes and
stores. Between the two a kernel computes the products: the loads are under way meanwhile, and the sums go into that array directly.
The emitted text is straight-line code, and all indices are constants. `forward_item` and `backward_item` add what all cells share:
the ends of ragged rows, the output, and the output's gradient.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import cuda

from ...cells import Program
from ...cells.emit import compile_function, emit, typed
from ...cells.program import Place, Pointwise
from .maths import index, namespace

FORWARD = ("pre", "state", "new", "saved", "vector", "number")
BACKWARD = ("state", "new", "saved", "vector", "number", "dnew", "back", "dpre", "dstate", "dvector")


class Item(NamedTuple):
    """The pointwise code of one stage, for one item.

    places: what the code reads. load, run: device functions (b, inputs, first, now, row, unit, H), where b is Forward or Backward
    and `inputs` an array with `size` elements for an item: `load` sets inputs[first + i] to what is at place i, and `run` computes
    with these and stores.
    """

    places: tuple[Place, ...]
    load: Any
    run: Any

    @property
    def size(self) -> int:
        """The number of places, at least 1: there are no empty arrays."""
        return max(1, len(self.places))


def forward_item(program: Program, stage: int, dtype: str, fast: bool) -> Item:
    """The pointwise code of forward stage `stage`. dtype, fast: which mathematics, see maths.py."""
    stages = program.forward
    code, is_first, is_last = stages[stage].code, stage == 0, stage == len(stages) - 1
    places, states, saved = len(program.pre), len(program.cell.states), max(1, len(program.saved))
    values = states + len(program.computed)
    read, write = _load(program, code, FORWARD, (), fast), _run(program, code, FORWARD, dtype, fast)
    zero = namespace(dtype, fast)["real"](0)

    @cuda.jit(device=True)
    def starts(b, now, row, unit, H):
        """Where the item's places start in pre, in values before and after the step, and in saved."""
        B = b.lengths.shape[0]
        return (
            (now.t * B + row) * places * H + unit,
            (now.prev * B + row) * values * H + unit,
            (now.new * B + row) * values * H + unit,
            (now.kept * B + row) * saved * H + unit,
        )

    def load(b, inputs, first, now, row, unit, H):
        if now.t < b.lengths[row]:
            pre, prev, new, kept = starts(b, now, row, unit, H)
            read(inputs, first, b.pre, pre, b.values, prev, b.values, new, b.saved, kept, b.vector, unit, b.number, H)

    def run(b, inputs, first, now, row, unit, H):
        pre, prev, new, kept = starts(b, now, row, unit, H)
        output = (now.t * b.lengths.shape[0] + row) * b.output_row + b.column + unit
        if now.t < b.lengths[row]:
            write(inputs, first, b.pre, pre, b.values, prev, b.values, new, b.saved, kept, b.vector, unit, b.number, H)
            if is_last and unit < b.width:
                b.output[index(output)] = b.values[index(new)]
        else:
            # past a row's end its states stay as they are; computed operands become zero, before products read them: those of this
            # step, for sums that nobody uses, and BPTT's
            if is_first:
                for c in range(states, values):
                    b.values[index(new + c * H)] = zero
            if is_last:
                for s in range(states):
                    b.values[index(new + s * H)] = b.values[index(prev + s * H)]
                if unit < b.width:
                    b.output[index(output)] = zero

    return Item(tuple(place for place, _ in code.loads), _compiled(load, fast), _compiled(run, fast))


def backward_item(program: Program, stage: int, dtype: str, fast: bool, given: tuple[Place, ...] = ()) -> Item:
    """The pointwise code of backward stage `stage`, see `forward_item`; without loads of the places that are `given`, because the
    kernel sets these inputs itself.
    """
    stages = program.backward
    code, is_first, is_last = stages[stage].code, stage == 0, stage == len(stages) - 1
    places, states, saved = len(program.pre), len(program.cell.states), max(1, len(program.saved))
    values, operands, vectors = states + len(program.computed), len(program.operands), len(program.cell.vectors)
    read, write = _load(program, code, BACKWARD, given, fast), _run(program, code, BACKWARD, dtype, fast)
    zero = namespace(dtype, fast)["real"](0)

    @cuda.jit(device=True)
    def starts(b, now, row, unit, H):
        """Where the item's places start in dpre, in values before and after the step, in saved, and in dstate after and before."""
        B = b.lengths.shape[0]
        return (
            (now.t * B + row) * places * H + unit,
            (now.prev * B + row) * values * H + unit,
            (now.new * B + row) * values * H + unit,
            (now.kept * B + row) * saved * H + unit,
            (now.turn * B + row) * states * H + unit,
            ((1 - now.turn) * B + row) * states * H + unit,
        )

    def load(b, inputs, first, now, row, unit, H):
        if now.t < b.lengths[row]:
            pre, prev, new, kept, after, before = starts(b, now, row, unit, H)
            if is_first and unit < b.width:
                arrived = (now.t * b.lengths.shape[0] + row) * b.output_row + b.column + unit
                b.dstate[index(after)] += b.doutput[index(arrived)]
            read(
                inputs, first, b.values, prev, b.values, new, b.saved, kept, b.vector, unit, b.number, b.dstate, after,
                b.back, row * operands * H + unit, b.dpre, pre, b.dstate, before, b.dvector, row * vectors * H + unit, H,
            )  # fmt: skip

    def run(b, inputs, first, now, row, unit, H):
        pre, prev, new, kept, after, before = starts(b, now, row, unit, H)
        if now.t < b.lengths[row]:
            write(
                inputs, first, b.values, prev, b.values, new, b.saved, kept, b.vector, unit, b.number, b.dstate, after,
                b.back, row * operands * H + unit, b.dpre, pre, b.dstate, before, b.dvector, row * vectors * H + unit, H,
            )  # fmt: skip
        else:
            # the row had ended: its pre-activations get no gradient, and its states' adjoints pass unchanged
            if is_first:
                for p in range(places):
                    b.dpre[index(pre + p * H)] = zero
            if is_last:
                for s in range(states):
                    b.dstate[index(before + s * H)] = b.dstate[index(after + s * H)]

    return Item(tuple(place for place, _ in code.loads), _compiled(load, fast), _compiled(run, fast))


def _load(program: Program, code: Pointwise, buffers: tuple[str, ...], given: tuple[Place, ...], fast: bool) -> Any:
    """A device function (inputs, first, *buffers, H) that sets inputs[first + i] to what is at place i, unless that is given.

    Each buffer but number is followed by the index of its place 0.
    """
    lines = [
        f"inputs[first + {i}] = {_element(program, place)}"
        for i, (place, _) in enumerate(code.loads)
        if place not in given
    ]
    return _compiled(_function(f"{code.name}_load", buffers, lines, {}), fast)


def _run(program: Program, code: Pointwise, buffers: tuple[str, ...], dtype: str, fast: bool) -> Any:
    """Likewise, that computes from these inputs and stores. Gradients of vectors are accumulated: they are sums over time."""
    if not code.stores:  # a stage with products only
        return _compiled(_function(f"{code.name}_run", buffers, [], {}), fast)
    compute = _compiled(compile_function(emit(program, code, typed), code.name, namespace(dtype, fast)), fast)
    lines = [f"values = compute({', '.join(f'inputs[first + {i}]' for i in range(len(code.loads)))})"]
    for i, (place, _) in enumerate(code.stores):
        lines.append(f"{_element(program, place)} {'+=' if place.buffer == 'dvector' else '='} values[{i}]")
    return _compiled(_function(f"{code.name}_run", buffers, lines, {"compute": compute}), fast)


def _element(program: Program, place: Place) -> str:
    """The text of a place in its buffer."""
    buffer, at = place
    if buffer == "operand":  # computed operands follow the states, in the slot after the step
        buffer, at = "new", len(program.cell.states) + at
    return f"number[{at}]" if buffer == "number" else f"{buffer}[index({buffer}_at + {at} * H)]"


def _function(name: str, buffers: tuple[str, ...], lines: list[str], names: dict[str, Any]) -> Any:
    arguments = ", ".join(buffer if buffer == "number" else f"{buffer}, {buffer}_at" for buffer in buffers)
    body = "".join(f"    {line}\n" for line in lines or ["pass"])
    return compile_function(f"def {name}(inputs, first, {arguments}, H):\n{body}", name, {"index": index} | names)


def _compiled(function: Any, fast: bool) -> Any:
    return cuda.jit(device=True, fastmath=fast)(function)
