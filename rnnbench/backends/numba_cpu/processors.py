"""On which processors the threads of a kernel run, as code inside kernels.

In a virtual machine Linux may take an idle processor for busy, and tends to wake a thread on its waker's processor. There the two
take turns until the next tick of 4 ms, many times what a short call takes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from llvmlite import ir
from numba.core import cgutils

INTP = ir.IntType(np.dtype(np.intp).itemsize * 8)
BYTES = ir.IntType(8).as_pointer()
INT = ir.IntType(32)
_MASK_BYTES = 128  # of a set of processors in Linux's libraries
_WORD = ir.IntType(64)


def whereabouts(builder: ir.IRBuilder) -> tuple[ir.Value, ir.Value]:
    """(this thread, the processor it runs on); (0, 0) unless on Linux."""
    if sys.platform != "linux":
        return INTP(0), INT(0)
    return call(builder, INTP, "pthread_self"), call(builder, INT, "sched_getcpu")


class Processors:
    """A set of processors in a kernel, as Linux's C library takes it. builder: of the code that uses it. words: where it is."""

    kind = ir.ArrayType(_WORD, _MASK_BYTES // 8)

    def __init__(self, builder: ir.IRBuilder, words: ir.Value) -> None:
        self._builder, self._words = builder, words
        self._raw = builder.bitcast(words, BYTES)

    def read(self) -> ir.Value:
        """Make it those that this thread may run on. Returns whether that succeeded; the set is empty where not."""
        self._builder.store(self.kind(None), self._words)
        told = call(self._builder, INT, "sched_getaffinity", INT(0), INTP(_MASK_BYTES), self._raw)
        return self._builder.icmp_signed("==", told, INT(0))

    def allow(self) -> None:
        """Let this thread run on these only. Nothing changes if there is none that it may run on."""
        call(self._builder, INT, "sched_setaffinity", INT(0), INTP(_MASK_BYTES), self._raw)

    def set(self, processor: ir.Value, within: bool) -> None:
        """Put a processor into the set or, if not `within`, take it out. One outside of all sets, such as -1, changes nothing."""
        builder = self._builder
        with builder.if_then(builder.icmp_unsigned("<", processor, INT(8 * _MASK_BYTES))):
            number = builder.zext(processor, _WORD)
            word = builder.gep(self._words, [INT(0), builder.udiv(number, _WORD(64))])
            old, bit = builder.load(word), builder.shl(_WORD(1), builder.urem(number, _WORD(64)))
            builder.store(builder.or_(old, bit) if within else builder.and_(old, builder.not_(bit)), word)


def keep_off(builder: ir.IRBuilder, caller: ir.Value, processor: ir.Value, allowed: ir.Value) -> None:
    """Move this thread away from the calling thread's processor, permanently, if both run there.

    builder: of the thread's code. caller, processor: the calling thread, and where it is. allowed: a pointer to the `Processors`
    that it may use. Without this the first call of a small network after a pause took ten times as long.
    """
    if sys.platform != "linux":
        return
    here, now = whereabouts(builder)
    is_stacked = builder.and_(builder.icmp_signed("!=", here, caller), builder.icmp_signed("==", now, processor))
    with builder.if_then(is_stacked, likely=False):
        others = cgutils.alloca_once(builder, Processors.kind)
        builder.store(builder.load(allowed), others)
        Processors(builder, others).set(processor, False)
        Processors(builder, others).allow()


@contextmanager
def bound(builder: ir.IRBuilder) -> Iterator[None]:
    """Let this thread run on its processor only, while the code within sleeps, so that it wakes there.

    When the caller woke elsewhere, the others, which keep off the processor where it had been, had nowhere to go: for several calls
    in a row they met it on one processor after the other, each time for 4 to 12 ms.
    """
    allowed, own = (Processors(builder, cgutils.alloca_once(builder, Processors.kind, zfill=True)) for _ in range(2))
    is_known = allowed.read()
    with builder.if_then(is_known):
        own.set(whereabouts(builder)[1], True)
        own.allow()
    yield
    with builder.if_then(is_known):
        allowed.allow()


def call(builder: ir.IRBuilder, result: ir.Type, name: str, *arguments: ir.Value) -> ir.Value:
    """Call a function of the C library. builder: of the code that calls it. result: what it returns. name, arguments: its own."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)
