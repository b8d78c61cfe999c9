"""A SIMD vector as a Numba type: `Vector(float32, 16)` is one AVX-512 register, and so on down to NEON's four floats.

A vector is loaded from an array at a flat index, and stored likewise. + - * / unary minus and comparisons work on two vectors,
or on a vector and a number, which takes the vector's dtype (a literal 1.0 never promotes float32). Sums and products may be
contracted to fused multiply-adds.

The width is the machine's; `RNNBENCH_SIMD_BYTES` (16, 32 or 64) forces another, which LLVM splits or which uses part of a register.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

WIDTHS = (16, 32, 64)


@lru_cache(maxsize=1)
def host_features() -> dict[str, bool]:
    """The features of this processor, as named by LLVM."""
    return dict(llvm.get_host_cpu_features())


def simd_bytes() -> int:
    """Bytes in a vector register of this machine, or what RNNBENCH_SIMD_BYTES says. Raises ValueError for another width."""
    forced = os.environ.get("RNNBENCH_SIMD_BYTES")
    if forced is not None:
        if forced not in map(str, WIDTHS):
            raise ValueError(f"RNNBENCH_SIMD_BYTES must be 16, 32 or 64, not {forced!r}")
        return int(forced)
    features = host_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx") else 16


SIMD_BYTES = simd_bytes()
# AVX-512 and AArch64 have 32 vector registers, older x86 has 16
REGISTERS = 32 if host_features().get("avx512f") or not host_features().get("sse2") else 16
# without the instruction, llvm.fma becomes a library call for each lane
HAS_FMA = bool(host_features().get("fma") or host_features().get("avx512f") or not host_features().get("sse2"))


class Vector(types.Type):
    """`lanes` numbers of `dtype` in one register."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype, self.lanes = dtype, lanes(dtype)
        super().__init__(name=f"Vector({dtype}x{self.lanes})")


class Mask(types.Type):
    """A boolean for each lane of `vector`."""

    def __init__(self, vector: Vector) -> None:
        self.vector = vector
        super().__init__(name=f"Mask({vector.name})")


def lanes(dtype: types.Float) -> int:
    """Numbers of `dtype` in a vector."""
    return SIMD_BYTES // (dtype.bitwidth // 8)


def llvm_vector(dtype: types.Float) -> ir.VectorType:
    """LLVM's type of a vector of `dtype`."""
    return ir.VectorType(ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType(), lanes(dtype))


def llvm_integers(dtype: types.Float) -> ir.VectorType:
    """Integers as wide as `dtype`, as many as a vector has lanes."""
    return ir.VectorType(ir.IntType(dtype.bitwidth), lanes(dtype))


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, llvm_vector(vector.dtype))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, mask: Mask) -> None:
        super().__init__(manager, mask, ir.VectorType(ir.IntType(1), mask.vector.lanes))


# ---- code generation, shared by the intrinsics here and in tile.py


def splat(builder: ir.IRBuilder, scalar: ir.Value, vector: ir.VectorType) -> ir.Value:
    """`scalar` in every lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None))


def fused(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """a * b + c, with a single rounding if the machine can."""
    if not HAS_FMA:
        return builder.fadd(builder.fmul(a, b), c)
    return builder.call(_llvm_intrinsic(builder, "llvm.fma", a.type, 3), [a, b, c])


def _llvm_intrinsic(builder: ir.IRBuilder, name: str, vector: ir.VectorType, arguments: int) -> ir.Function:
    suffix = f"v{vector.count}f{32 if isinstance(vector.element, ir.FloatType) else 64}"
    return cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector] * arguments), f"{name}.{suffix}"
    )


def pointer(context: Any, builder: ir.IRBuilder, array_type: Any, array: ir.Value, index: ir.Value) -> ir.Value:
    """The address of element `index` of a one-dimensional contiguous array."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def index(value: int) -> ir.Constant:
    """A constant index."""
    return ir.Constant(ir.IntType(64), value)


def constant(vector: ir.VectorType, value: float) -> ir.Constant:
    """`value` in every lane."""
    return ir.Constant(vector, [value] * vector.count)


def lanes_below(builder: ir.IRBuilder, count: ir.Value, vector: ir.VectorType) -> ir.Value:
    """A mask of the lanes whose index is below `count`."""
    numbers = ir.Constant(ir.VectorType(ir.IntType(64), vector.count), list(range(vector.count)))
    return builder.icmp_signed("<", numbers, splat(builder, count, numbers.type))


def load_vector(builder: ir.IRBuilder, address: ir.Value, vector: ir.VectorType) -> ir.Value:
    """Load a vector from `address`, which needs only an element's alignment."""
    value = builder.load(builder.bitcast(address, vector.as_pointer()))
    value.align = 4 if isinstance(vector.element, ir.FloatType) else 8
    return value


def fetch(builder: ir.IRBuilder, address: ir.Value) -> None:
    """Prefetch the cache line of `address` into the second-level cache. An invalid address is ignored."""
    number, raw = ir.IntType(32), ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [raw, number, number, number])
    read, second_level, data = (ir.Constant(number, n) for n in (0, 2, 1))
    function = builder.module.declare_intrinsic("llvm.prefetch", (raw,), kind)
    builder.call(function, [builder.bitcast(address, raw), read, second_level, data])


def store_vector(builder: ir.IRBuilder, value: ir.Value, address: ir.Value) -> None:
    """Write a vector to `address`, aligned or not."""
    instruction = builder.store(value, builder.bitcast(address, value.type.as_pointer()))
    instruction.align = 4 if isinstance(value.type.element, ir.FloatType) else 8


def as_vector(context: Any, builder: ir.IRBuilder, vector: Vector, given: Any, value: ir.Value) -> ir.Value:
    """A vector unchanged, or a number in every lane, converted to the vector's dtype."""
    if isinstance(given, Vector):
        return value
    return splat(builder, context.cast(builder, value, given, vector.dtype), llvm_vector(vector.dtype))


# ---- intrinsics


def _typing(*given: Any) -> Vector | None:
    """The vector type among the arguments, if all others are of that type or numbers; else None."""
    vector = next((g for g in given if isinstance(g, Vector)), None)
    fits = all(g == vector or isinstance(g, (types.Number, types.Literal)) for g in given)
    return vector if fits else None


def _pointwise(arity: int, result: Callable[[Vector], Any], generate: Callable[..., ir.Value]) -> Any:
    """An intrinsic on `arity` vectors or numbers, of which at least one is a vector."""

    def build(given: tuple[Any, ...]) -> Any:
        vector = _typing(*given)
        if vector is None:
            return None

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
            vectors = [as_vector(context, builder, vector, g, v) for g, v in zip(given, values, strict=True)]
            return generate(builder, *vectors)

        return result(vector)(*given), codegen

    # Numba reads the arity from the signature
    if arity == 1:
        return intrinsic(lambda context, a: build((a,)))
    if arity == 2:
        return intrinsic(lambda context, a, b: build((a, b)))
    return intrinsic(lambda context, a, b, c: build((a, b, c)))


def _same(vector: Vector) -> Vector:
    return vector


def _condition(vector: Vector) -> Mask:
    return Mask(vector)


fma = _pointwise(3, _same, fused)
sqrt = _pointwise(1, _same, lambda b, x: b.call(_llvm_intrinsic(b, "llvm.sqrt", x.type, 1), [x]))
absolute = _pointwise(1, _same, lambda b, x: b.call(_llvm_intrinsic(b, "llvm.fabs", x.type, 1), [x]))
copysign = _pointwise(2, _same, lambda b, x, y: b.call(_llvm_intrinsic(b, "llvm.copysign", x.type, 2), [x, y]))
# no vector logarithm: LLVM calls the C library for each lane, which is correct but slow
log = _pointwise(1, _same, lambda b, x: b.call(_llvm_intrinsic(b, "llvm.log", x.type, 1), [x]))


def _keep_nan(choose: str) -> Callable[..., ir.Value]:
    def generate(builder: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
        # an ordered comparison with NaN is false and selects y; a NaN in x is restored afterwards
        chosen = builder.select(builder.fcmp_ordered(choose, x, y), x, y)
        return builder.select(builder.fcmp_unordered("uno", x, x), x, chosen)

    return generate


minimum = _pointwise(2, _same, _keep_nan("<"))
maximum = _pointwise(2, _same, _keep_nan(">"))
# x clamped to a bound that is not NaN: one instruction, and a NaN in x stays because the comparison is false
at_most = _pointwise(2, _same, lambda b, x, bound: b.select(b.fcmp_ordered("<", bound, x), bound, x))
at_least = _pointwise(2, _same, lambda b, x, bound: b.select(b.fcmp_ordered(">", bound, x), bound, x))


@intrinsic
def where(context: Any, condition: Any, a: Any, b: Any) -> Any:
    """a in the lanes where the condition holds, else b; a and b may be numbers."""
    if not isinstance(condition, Mask):
        return None
    vector = condition.vector  # two numbers would not say which they are to be
    if _typing(vector, a, b) is None:
        return None

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        chosen, *rest = values
        x, y = (as_vector(context, builder, vector, g, v) for g, v in zip((a, b), rest, strict=True))
        return builder.select(chosen, x, y)

    return vector(condition, a, b), codegen


@intrinsic
def two_to_the(context: Any, shifted: Any) -> Any:
    """2 ** n for shifted = n + 1.5 * 2**23 (float32) or n + 1.5 * 2**52, where n is an integer, by writing the exponent's bits. n
    has to be in the range of normal numbers; the first n above it gives infinity. NaN gives an arbitrary number (converting it to
    an integer would be undefined).
    """
    if not isinstance(shifted, Vector):
        return None

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        mantissa, bias = (23, 127) if shifted.dtype.bitwidth == 32 else (52, 1023)
        vector, integers = llvm_vector(shifted.dtype), llvm_integers(shifted.dtype)
        bits = builder.add(builder.bitcast(values[0], integers), ir.Constant(integers, [bias] * vector.count))
        return builder.bitcast(builder.shl(bits, ir.Constant(integers, [mantissa] * vector.count)), vector)

    return shifted(shifted), codegen


@intrinsic
def load(context: Any, array: Any, index: Any) -> Any:
    """The vector at flat index `index` of a one-dimensional contiguous array."""
    vector = Vector(array.dtype)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return load_vector(builder, pointer(context, builder, array, *values), llvm_vector(array.dtype))

    return vector(array, types.intp), codegen


@intrinsic
def store(context: Any, array: Any, index: Any, value: Any) -> Any:
    """Write a vector, or a number in every lane, to flat index `index`."""
    vector = Vector(array.dtype)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        written = as_vector(context, builder, vector, value, values[2])
        store_vector(builder, written, pointer(context, builder, array, values[0], values[1]))
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def lane(context: Any, vector: Any, number: Any) -> Any:
    """The number in lane `number` of a vector."""
    if not isinstance(vector, Vector):
        return None

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return builder.extract_element(*values)

    return vector.dtype(vector, types.intp), codegen


def masked_load(builder: ir.IRBuilder, address: ir.Value, count: ir.Value, vector: ir.VectorType) -> ir.Value:
    """As `load_vector`, but only the first `count` lanes; the others are 0, and their memory is not accessed."""
    return _masked(builder, "load", vector, [address], count, constant(vector, 0.0))


def masked_store(builder: ir.IRBuilder, value: ir.Value, address: ir.Value, count: ir.Value) -> None:
    """As `store_vector`, but only the first `count` lanes; the memory of the others is not accessed."""
    _masked(builder, "store", value.type, [value, address], count)


def _masked(builder: ir.IRBuilder, name: str, vector: ir.VectorType, given: list[Any], count: Any, *last: Any) -> Any:
    """Call an LLVM intrinsic for masked memory access; there is one for each type of vector. `given` ends with the address."""
    bits = 32 if isinstance(vector.element, ir.FloatType) else 64
    typed, alignment = builder.bitcast(given.pop(), vector.as_pointer()), ir.Constant(ir.IntType(32), bits // 8)
    arguments = [*given, typed, alignment, lanes_below(builder, count, vector), *last]
    kind = ir.FunctionType(vector if name == "load" else ir.VoidType(), [argument.type for argument in arguments])
    called = f"llvm.masked.{name}.v{vector.count}f{bits}.p0v{vector.count}f{bits}"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, called), arguments)


@intrinsic
def load_first(context: Any, array: Any, index: Any, count: Any) -> Any:
    """As `load`, but only the first `count` lanes; the others are 0, and their memory is not accessed."""
    vector = Vector(array.dtype)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        given, index_, count_ = values
        return masked_load(builder, pointer(context, builder, array, given, index_), count_, llvm_vector(array.dtype))

    return vector(array, types.intp, types.int64), codegen


@intrinsic
def store_first(context: Any, array: Any, index: Any, value: Any, count: Any) -> Any:
    """As `store`, but only the first `count` lanes."""
    vector = Vector(array.dtype)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        given, index_, value_, count_ = values
        written = as_vector(context, builder, vector, value, value_)
        masked_store(builder, written, pointer(context, builder, array, given, index_), count_)
        return context.get_dummy_value()

    return types.void(array, types.intp, value, types.int64), codegen


_CONTRACT = ("contract",)
_Operation = tuple[Callable[[Vector], Any], Callable[..., ir.Value]]
_OPERATORS: dict[Callable[..., Any], _Operation] = {
    operator.add: (_same, lambda b, x, y: b.fadd(x, y, flags=_CONTRACT)),
    operator.sub: (_same, lambda b, x, y: b.fsub(x, y, flags=_CONTRACT)),
    operator.mul: (_same, lambda b, x, y: b.fmul(x, y, flags=_CONTRACT)),
    operator.truediv: (_same, lambda b, x, y: b.fdiv(x, y)),
    operator.lt: (_condition, lambda b, x, y: b.fcmp_ordered("<", x, y)),
    operator.le: (_condition, lambda b, x, y: b.fcmp_ordered("<=", x, y)),
}
less = _pointwise(2, *_OPERATORS[operator.lt])


def _register(symbol: Callable[..., Any], result: Callable[[Vector], Any], generate: Callable[..., ir.Value]) -> None:
    """Define an operator for vectors: its type and its instructions. With `overload` Numba would compile a function for each pair
    of types.
    """

    @type_callable(symbol)
    def _types(context: Any) -> Any:
        def of_two(a, b):
            vector = _typing(a, b)
            return None if vector is None else result(vector)

        return of_two

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        given = signature.args
        vector = next(g for g in given if isinstance(g, Vector))
        vectors = [as_vector(context, builder, vector, g, v) for g, v in zip(given, values, strict=True)]
        return generate(builder, *vectors)

    for pair in ((Vector, Vector), (Vector, types.Any), (types.Any, Vector)):
        lower_builtin(symbol, *pair)(codegen)


for _symbol, _operation in _OPERATORS.items():
    _register(_symbol, *_operation)


@type_callable(operator.neg)
def _negative(context: Any) -> Any:
    return lambda a: a if isinstance(a, Vector) else None


@lower_builtin(operator.neg, Vector)
def _negate(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
    return builder.fneg(values[0])
