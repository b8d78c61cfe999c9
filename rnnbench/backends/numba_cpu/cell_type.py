"""A cell's stages as Numba types, so that a kernel is specialised, compiled and cached for each cell.

A type's name contains the hash of the cell's equations, so the disk cache never returns a kernel for other equations.
A kernel walks the stages by recursion over types (`next_stage`), and a stage's products likewise (`next_operand`); the recursion
ends at a type that says that nothing is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from numba import types
from numba.extending import NativeValue, intrinsic, models, register_model, typeof_impl, unbox

from ...cells import Cell, Program, program
from ...cells.emit import compile_function, emit
from ...cells.program import Stage
from . import simd
from .inner import inner_njit, inner_overload, named
from .vector_math import NAMESPACE

# which of the kernel's three arrays (weights, tape, work) holds a buffer of the program, for each pass
FORWARD_BUFFERS = {"pre": 2, "state": 1, "new": 1, "saved": 1, "operand": 1, "vector": 0, "number": 0}
BACKWARD_BUFFERS = {
    "state": 1,
    "new": 1,
    "saved": 1,
    "vector": 0,
    "number": 0,
    "dpre": 2,
    "dnew": 2,
    "dstate": 2,
    "back": 2,
    "dvector": 2,
}


@dataclass(frozen=True)
class Specialisation:
    """What a kernel is compiled for, as a value that it takes: one pass of a cell's program, and the widths of its panels.

    `vectors` is the width of a panel in SIMD vectors, `last_back` that of the last panel of the transposed products.
    """

    key: str
    program: Program
    backward: bool
    vectors: int
    last_back: int

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The program's stages in this pass."""
        return self.program.backward if self.backward else self.program.forward

    @property
    def buffers(self) -> dict[str, int]:
        """Buffer -> which of the kernel's three arrays holds it."""
        return BACKWARD_BUFFERS if self.backward else FORWARD_BUFFERS


_KNOWN: dict[str, Specialisation] = {}


@lru_cache(maxsize=1024)
def specialisation_of(cell: Cell, training: bool, vectors: int, last_back: int = 0) -> Specialisation:
    """The `Specialisation` of a cell: of the backward pass if `last_back` is given. Cached kernels are found by its key."""
    program_ = program(cell, training)
    key = f"{program_.key}-{vectors}-{last_back}"
    _KNOWN[key] = Specialisation(key, program_, bool(last_back), vectors, last_back)
    return _KNOWN[key]


class StageType(types.Type):
    """Stage `index` of the `Specialisation` called `key`, and within it the operand at `operand`."""

    def __init__(self, key: str, index: int = 0, operand: int = 0) -> None:
        self.specialisation_key, self.index, self.operand = key, index, operand
        super().__init__(name=f"Stage({key}, {index}, {operand})")

    @property
    def specialisation(self) -> Specialisation:
        """The specialisation that the key stands for."""
        return _KNOWN[self.specialisation_key]

    @property
    def program(self) -> Program:
        """The program that it runs."""
        return self.specialisation.program

    @property
    def is_end(self) -> bool:
        """Whether all stages are done."""
        return self.index == len(self.specialisation.stages)

    @property
    def stage(self) -> Stage:
        """The stage itself."""
        return self.specialisation.stages[self.index]

    @property
    def has_operand(self) -> bool:
        """Whether an operand of the stage is left."""
        return self.operand < len(self.stage.operands)


register_model(StageType)(models.OpaqueModel)


@typeof_impl.register(Specialisation)
def _typeof_specialisation(value: Specialisation, context: Any) -> StageType:
    return StageType(value.key)


@unbox(StageType)
def _unbox_specialisation(stage: StageType, value: Any, context: Any) -> NativeValue:
    return NativeValue(context.context.get_dummy_value())


def _successor(make: Any) -> Any:
    @intrinsic
    def successor(context, stage):
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return context.get_dummy_value()

        return make(stage)(stage), codegen

    return successor


next_stage = _successor(lambda s: StageType(s.specialisation_key, s.index + 1))
next_operand = _successor(lambda s: StageType(s.specialisation_key, s.index, s.operand + 1))


# ---- pointwise code: load what it reads, compute, store what it writes


@intrinsic
def _load_all(context, stage, arrays, at, stride):
    """The vectors that the stage's code reads, as a tuple. Item i of a buffer starts at at[buffer] + i * stride[buffer]."""
    dtype = arrays.dtype.dtype
    code, buffers = stage.stage.code, list(stage.specialisation.buffers.items())
    order = [name for name, _ in buffers]
    result = types.UniTuple(simd.Vector(dtype), len(code.loads))

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        address = _addresses(context, builder, arrays, values[1:], buffers)
        vector = simd.llvm_vector(dtype)
        loaded = []
        for place, _ in code.loads:
            where = address(order.index(place.buffer), place.at)
            if place.buffer == "number":
                loaded.append(simd.splat(builder, builder.load(where), vector))
            else:
                loaded.append(simd.load_vector(builder, where, vector))
        return context.make_tuple(builder, signature.return_type, loaded)

    return result(stage, arrays, at, stride), codegen


@intrinsic
def _store_all(context, stage, arrays, at, stride, count, results):
    """Write the results of the stage's code. Lanes from `count` on lie past the last hidden unit: in dpre, that is where the next
    pre-activation's numbers are. Gradients of vectors are accumulated, because they sum over time.
    """
    dtype = arrays.dtype.dtype
    code, buffers = stage.stage.code, list(stage.specialisation.buffers.items())
    order = [name for name, _ in buffers]

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _, arrays_, at_, stride_, count_, results_ = values
        address = _addresses(context, builder, arrays, (arrays_, at_, stride_), buffers)
        vector = simd.llvm_vector(dtype)
        adjoints = []
        for i, (place, _) in enumerate(code.stores):
            value = builder.extract_value(results_, i)
            value = simd.as_vector(context, builder, simd.Vector(dtype), results.types[i], value)
            where = address(order.index(place.buffer), place.at)
            if place.buffer == "dpre":
                adjoints.append((value, where))
                continue
            if place.buffer == "dvector":
                value = builder.fadd(value, simd.load_vector(builder, where, vector))
            simd.store_vector(builder, value, where)
        # a masked store takes many cycles on some processors, so only vectors that reach past the last hidden unit have them
        if adjoints:
            whole = builder.icmp_signed(">=", count_, simd.index(vector.count))
            with builder.if_else(whole, likely=True) as (inside, edge):
                with inside:
                    for value, where in adjoints:
                        simd.store_vector(builder, value, where)
                with edge:
                    for value, where in adjoints:
                        simd.masked_store(builder, value, where, count_)
        return context.get_dummy_value()

    return types.void(stage, arrays, at, stride, types.int64, results), codegen


def _addresses(context: Any, builder: Any, arrays: Any, values: Any, buffers: list[tuple[str, int]]) -> Any:
    """A function from (position of a buffer, index of an item) to an address."""
    arrays_, at, stride = values

    def address(position: int, index: int) -> Any:
        array = builder.extract_value(arrays_, buffers[position][1])
        step = builder.mul(builder.extract_value(stride, position), simd.index(index))
        return simd.pointer(
            context, builder, arrays.dtype, array, builder.add(builder.extract_value(at, position), step)
        )

    return address


def _compute(stage, values):
    raise NotImplementedError("compiled only")


@inner_overload(_compute)
def _compute_stage(stage, values):
    function = compile_function(emit(stage.program, stage.stage.code), stage.stage.code.name, NAMESPACE)
    function = inner_njit(named(function, stage.specialisation_key))
    return lambda stage, values: function(*values)


def pointwise(stage, arrays, at, stride, count):
    """Run the stage's pointwise code on one SIMD vector of hidden units of one row.

    arrays: the kernel's. at, stride: where the vector starts in each buffer, and elements from one item of a buffer to the next.
    count: hidden units from the vector's first on; less than its lanes at the end of the last panel, and not positive past it.
    """
    raise NotImplementedError("compiled only")


@inner_overload(pointwise)
def _pointwise_stage(stage, arrays, at, stride, count):
    if not stage.stage.code.stores:
        return lambda stage, arrays, at, stride, count: None

    def run(stage, arrays, at, stride, count):
        _store_all(stage, arrays, at, stride, count, _compute(stage, _load_all(stage, arrays, at, stride)))

    return run
