"""A stage's pointwise code as a device function for one item (a row and a hidden unit), from the text emitted for the equations.

`glue` puts that text between loads and stores of the buffers; it is straight-line code with constant indices.
`forward_item` and `backward_item` add what all cells share: the ends of ragged rows, the output, and the output's gradient.

No function here uses the `cuda` module: Numba's simulator replaces the global `cuda` of a kernel's module while the kernel runs.
For device functions of other modules each thread would do so, all at the same time.
"""

from __future__ import annotations

from typing import Any

from numba import cuda

from ...cells import Program
from ...cells.emit import compile_function, emit, typed
from ...cells.program import Pointwise
from .maths import index, namespace

FORWARD = ("pre", "state", "new", "saved", "vector", "number")
BACKWARD = ("state", "new", "saved", "vector", "number", "dnew", "back", "dpre", "dstate", "dvector")


def glue(program: Program, code: Pointwise, buffers: tuple[str, ...], dtype: str, fast: bool) -> Any:
    """A device function that loads, computes and stores.

    It takes each of `buffers`, each but number followed by the index of its place 0, and then H.
    dtype, fast: which mathematics, see maths.py. Gradients of vectors are accumulated, because they are sums over time.
    """
    names = namespace(dtype, fast)
    jit = cuda.jit(device=True, fastmath=fast)
    if not code.stores:  # a stage with products only
        return jit(compile_function(glue_source(program, code, buffers), f"{code.name}_item", {"index": index}))
    compute = jit(compile_function(emit(program, code, typed), code.name, names))
    names = {"compute": compute, "index": index}
    return jit(compile_function(glue_source(program, code, buffers), f"{code.name}_item", names))


def glue_source(program: Program, code: Pointwise, buffers: tuple[str, ...]) -> str:
    """The text of that device function; the `compute` in it is the emitted pointwise code."""
    states = len(program.cell.states)

    def place(buffer: str, at: int) -> str:
        if buffer == "operand":  # computed operands follow the states, in the slot after the step
            buffer, at = "new", states + at
        return f"number[{at}]" if buffer == "number" else f"{buffer}[index({buffer}_at + {at} * H)]"

    arguments = ", ".join(name if name == "number" else f"{name}, {name}_at" for name in buffers)
    loads = ", ".join(place(*where) for where, _ in code.loads)
    compute = f"values = compute({loads})" if code.stores else "pass"
    lines = [f"def {code.name}_item({arguments}, H):", f"    {compute}"]
    for i, (where, _) in enumerate(code.stores):
        lines.append(f"    {place(*where)} {'+=' if where.buffer == 'dvector' else '='} values[{i}]")
    return "\n".join(lines) + "\n"


def forward_item(program: Program, stage: int, dtype: str, fast: bool) -> Any:
    """Device function (b: Forward, now: Now, row, unit, H): the pointwise code of forward stage `stage` on one item."""
    stages = program.forward
    is_first, is_last = stage == 0, stage == len(stages) - 1
    places, states, saved = len(program.pre), len(program.cell.states), max(1, len(program.saved))
    values = states + len(program.computed)
    run = glue(program, stages[stage].code, FORWARD, dtype, fast)
    zero = namespace(dtype, fast)["real"](0)

    def item(b, now, row, unit, H):
        B = b.lengths.shape[0]
        new = (now.new * B + row) * values * H + unit
        prev = (now.prev * B + row) * values * H + unit
        if now.t < b.lengths[row]:
            pre = (now.t * B + row) * places * H + unit
            kept = (now.kept * B + row) * saved * H + unit
            run(b.pre, pre, b.values, prev, b.values, new, b.saved, kept, b.vector, unit, b.number, H)
            if is_last and unit < b.width:
                b.output[index((now.t * B + row) * b.output_row + b.column + unit)] = b.values[index(new)]
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
                    b.output[index((now.t * B + row) * b.output_row + b.column + unit)] = zero

    return cuda.jit(device=True, fastmath=fast)(item)


def backward_item(program: Program, stage: int, dtype: str, fast: bool) -> Any:
    """Device function (b: Backward, now: Now, row, unit, H): the pointwise code of backward stage `stage` on one item."""
    stages = program.backward
    is_first, is_last = stage == 0, stage == len(stages) - 1
    places, states, saved = len(program.pre), len(program.cell.states), max(1, len(program.saved))
    values, operands, vectors = states + len(program.computed), len(program.operands), len(program.cell.vectors)
    run = glue(program, stages[stage].code, BACKWARD, dtype, fast)
    zero = namespace(dtype, fast)["real"](0)

    def item(b, now, row, unit, H):
        B = b.lengths.shape[0]
        pre = (now.t * B + row) * places * H + unit
        after = (now.turn * B + row) * states * H + unit
        before = ((1 - now.turn) * B + row) * states * H + unit
        if now.t < b.lengths[row]:
            if is_first and unit < b.width:
                arrived = (now.t * B + row) * b.output_row + b.column + unit
                b.dstate[index(after)] += b.doutput[index(arrived)]
            prev = (now.prev * B + row) * values * H + unit
            new = (now.new * B + row) * values * H + unit
            kept = (now.kept * B + row) * saved * H + unit
            run(
                b.values, prev, b.values, new, b.saved, kept, b.vector, unit, b.number, b.dstate, after,
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

    return cuda.jit(device=True, fastmath=fast)(item)
