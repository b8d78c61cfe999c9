"""Threads inside a kernel: how they start, how work is divided, and a barrier for threads that meet at every step.

The threads are those of Numba's own pool. `prange` would use them too, but Numba compiles and optimises its loop body several
times, which was half of a kernel's compile time; `on_threads` is a single call.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core import config as _numba_config
from numba.extending import NativeValue, intrinsic, models, register_model, typeof_impl, unbox
from numba.np.ufunc import parallel as _pool

from ..threads import NEVER_MORE
from .inner import inner_njit
from .layout import Part
from .processors import BYTES, INT, INTP, Processors, bound, call, keep_off, whereabouts

_config: Any = _numba_config  # its attributes are made at run time

# attempts before a waiting thread goes to sleep, about a quarter of a millisecond: a partner without a processor is 4 ms late. With
# 30,000, threads also slept while their partner was merely at work, and calls on an idle machine took up to half as long again
_SPINS = 400_000
_MOST = 1024
# Linux's number of the system call futex
_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine()) if sys.platform == "linux" else None
_WAIT, _WAKE = 128, 129  # FUTEX_WAIT and FUTEX_WAKE, within a process
_has_lost_threads = False  # whether the pool's threads are missing, in a forked child
# Numba's simplest threading layer aborts the process when two threads enter a parallel kernel at once
_lock = threading.Lock()
_here = threading.local()  # OpenMP keeps this setting for each thread


def most_threads() -> int:
    """The most threads a kernel can have: those that Numba's pool was started with, which NUMBA_NUM_THREADS may limit, and no more
    than OMP_THREAD_LIMIT. With fewer than it asked for, one would wait for another that had not begun.

    Only one in a process forked from one whose pool was running: GNU's OpenMP, which Numba uses if there is no TBB, terminates a
    child that asks for its threads.
    """
    if not getattr(_here, "gets_all_threads", False):
        _get_all_threads()
    return 1 if _has_lost_threads else int(min(_config.NUMBA_NUM_THREADS, _MOST, NEVER_MORE))


def _get_all_threads() -> None:
    """Have OpenMP start as many threads as the calling one asks for. With OMP_DYNAMIC=true in the environment it starts fewer on a
    busy machine, and the first would wait for ever for one that was to run after it.
    """
    start_pool()
    if numba.threading_layer() == "omp":
        from numba.np.ufunc import omppool  # type: ignore[attr-defined]

        ctypes.CDLL(omppool.__file__).omp_set_dynamic(0)  # of the library that the pool itself is linked with
    _here.gets_all_threads = True


def _after_fork() -> None:
    global _has_lost_threads, _lock
    _lock = threading.Lock()  # another thread of the parent may have held it, and would never release it in the child
    _has_lost_threads = _has_lost_threads or (_pool._is_initialized and numba.threading_layer() == "omp")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def one_call() -> threading.Lock:
    """The lock to hold while a kernel runs: the pool and the kept buffers serve one kernel at a time."""
    return _lock


def start_pool() -> None:
    """Start Numba's pool unless it is running. A kernel from disk refers to it by name, and would fail to load without it."""
    _pool._launch_threads()


# ---- the functions that threads run


class Body(int):
    """The address of a compiled function that returns nothing, as a value to pass to a kernel. arguments: their types."""

    arguments: tuple[types.Type, ...]


class BodyType(types.Type):
    """The Numba type of a `Body`: an address and, in the type's name, its arguments' types."""

    def __init__(self, arguments: tuple[types.Type, ...]) -> None:
        self.arguments = arguments
        super().__init__(name=f"Body({', '.join(map(str, arguments))})")


@register_model(BodyType)
class _BodyModel(models.PrimitiveModel):
    def __init__(self, manager: Any, body: BodyType) -> None:
        super().__init__(manager, body, INTP)


@typeof_impl.register(Body)
def _typeof_body(value: Body, context: Any) -> BodyType:
    return BodyType(value.arguments)


@unbox(BodyType)
def _unbox_body(body: BodyType, value: Any, c: Any) -> NativeValue:
    return c.unbox(types.intp, value)


def body_of(function: Any, kinds: tuple[types.Type, ...]) -> Body:
    """Compile a function for arguments of these types and a thread's index, and return it as a `Body`. It must return nothing."""
    taken = (*kinds, types.intp)
    function.compile(taken)
    compiled = function.overloads[taken]
    if compiled.signature.return_type != types.none:
        raise TypeError(f"{function.py_func.__name__} must return nothing, not {compiled.signature.return_type}")
    body = Body(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))
    body.arguments = taken
    return body


class Kernel(NamedTuple):
    """A compiled function, and the function that it runs on threads.

    They are compiled separately: linked together, the second would be optimised and turned into machine code twice.

    function: takes a Body, `own` arguments of its own, and the body's arguments. body: takes those, sequences (T, B, width) made
    one-dimensional, and a thread's index.
    """

    function: Any
    body: Any
    own: int

    def compiled(self, *arguments: Any) -> tuple[Callable[..., None], Body]:
        """The function compiled for arguments of these types, which no longer checks them; and the body, its first argument."""
        kinds = tuple(map(numba.typeof, arguments))
        body = body_of(self.body, tuple(map(_flat, kinds[self.own :])))
        return self.function.compile((numba.typeof(body), *kinds)), body


def _flat(kind: types.Type) -> types.Type:
    return kind.copy(ndim=1) if isinstance(kind, types.Array) and kind.ndim == 3 else kind


@intrinsic
def on_threads(context, body, arguments, threads):
    """Call body(*arguments, thread) for each thread from 0 to threads - 1 at the same time, and wait for all.

    A single thread is the calling one. Raises RuntimeError if a thread failed.
    """
    if body.arguments != (*arguments.types, types.intp):
        raise TypeError(f"the body takes {body.arguments}, not {arguments.types} and a thread's number")

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        address, packed, count = values
        # the body, its arguments, how many threads failed, the calling thread, its processor and those that it may use
        shared = ir.LiteralStructType([INTP, packed.type, INTP, INTP, INT, Processors.kind])
        worker = _worker(context, builder.module, body.arguments, shared)
        data = cgutils.alloca_once(builder, shared)
        *fields, allowed = (builder.gep(data, [INT(0), INT(i)]) for i in range(6))
        failures = fields[2]
        for field, value in zip(fields, (address, packed, INTP(0), *whereabouts(builder)), strict=True):
            builder.store(value, field)
        # the pool calls worker(args, dimensions, steps, data): args[0] is the address of the first of dimensions[0] numbers
        numbers = cgutils.alloca_once(builder, INTP, size=INTP(_MOST))
        with cgutils.for_range(builder, count) as loop:
            builder.store(loop.index, builder.gep(numbers, [loop.index]))
        args, dimensions = cgutils.alloca_once(builder, BYTES), cgutils.alloca_once(builder, INTP)
        steps = cgutils.alloca_once_value(builder, INTP(INTP.width // 8))
        builder.store(builder.bitcast(numbers, BYTES), args)
        builder.store(count, dimensions)
        passed = [builder.bitcast(pointer, BYTES) for pointer in (args, dimensions, steps, data)]
        with builder.if_else(builder.icmp_signed("==", count, INTP(1))) as (alone, together):
            with alone:
                builder.call(worker, passed)
            with together:
                kind = ir.FunctionType(ir.VoidType(), [BYTES] * 5 + [INTP] * 3)
                parallel_for = cgutils.get_or_insert_function(builder.module, kind, "numba_parallel_for")
                if sys.platform == "linux":
                    Processors(builder, allowed).read()
                builder.call(parallel_for, [builder.bitcast(worker, BYTES), *passed, INTP(0), INTP(1), count])
        with builder.if_then(builder.icmp_signed("!=", builder.load(failures), INTP(0)), likely=False):
            context.call_conv.return_user_exc(builder, RuntimeError, ("a thread of a kernel failed",))
        return context.get_dummy_value()

    return types.void(body, arguments, types.intp), codegen


def _worker(context: Any, module: ir.Module, arguments: tuple[types.Type, ...], shared: ir.Type) -> ir.Function:
    """What the pool calls on each thread: unpacks the arguments from `shared` and passes them to the body with its index."""
    kind = ir.FunctionType(ir.VoidType(), [BYTES] * 4)
    worker = ir.Function(module, kind, name=module.get_unique_name("on_thread"))
    worker.linkage = "internal"
    builder = ir.IRBuilder(worker.append_basic_block("entry"))
    args, dimensions, _, raw = worker.args
    data = builder.bitcast(raw, shared.as_pointer())
    first = builder.load(builder.bitcast(builder.load(builder.bitcast(args, BYTES.as_pointer())), INTP.as_pointer()))
    count = builder.load(builder.bitcast(dimensions, INTP.as_pointer()))
    fields = [builder.gep(data, [INT(0), INT(i)]) for i in range(6)]
    address, packed, _, caller, processor = map(builder.load, fields[:5])
    body = builder.inttoptr(address, context.call_conv.get_function_type(types.none, arguments).as_pointer())
    keep_off(builder, caller, processor, fields[5])
    unpacked = [builder.extract_value(packed, i) for i in range(len(arguments) - 1)]
    with cgutils.for_range(builder, count) as loop:
        thread = builder.add(first, loop.index)
        status, _ = context.call_conv.call_function(builder, body, types.none, arguments, [*unpacked, thread])
        with builder.if_then(status.is_error, likely=False):
            builder.atomic_rmw("add", builder.gep(data, [INT(0), INT(2)]), INTP(1), "acq_rel")
    builder.ret_void()
    return worker


@intrinsic
def _add(context, counters, index, value):
    """counters[index] += value, atomically; returns the new value."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        data = context.make_array(counters)(context, builder, values[0]).data
        old = builder.atomic_rmw("add", builder.gep(data, [values[1]]), values[2], "seq_cst")
        return builder.add(old, values[2])

    return types.int64(counters, types.intp, types.int64), codegen


@intrinsic
def _read(context, counters, index):
    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        data = context.make_array(counters)(context, builder, values[0]).data
        return builder.load_atomic(builder.gep(data, [values[1]]), "seq_cst", 8)

    return types.int64(counters, types.intp), codegen


def _futex(builder: ir.IRBuilder, counter: ir.Value, what: int, value: ir.Value) -> None:
    """The futex system call on the low half of a counter: Linux compares 32 bits, enough for the visits in one call."""
    numbers = [INTP(_FUTEX), builder.ptrtoint(counter, INTP), INTP(what), value, *[INTP(0)] * 3]
    call(builder, INTP, "syscall", *numbers)


def _sleeper(module: ir.Module) -> ir.Function:
    """(counter, value): sleeps until a wake at the counter, unless that is no longer `value`."""
    kind = ir.FunctionType(ir.VoidType(), [INTP.as_pointer(), INTP])
    sleeper = ir.Function(module, kind, name=module.get_unique_name("asleep"))
    sleeper.linkage = "internal"
    sleeper.attributes.add("noinline")  # nothing of it belongs into the loops that wait
    builder = ir.IRBuilder(sleeper.append_basic_block("entry"))
    with bound(builder):
        _futex(builder, sleeper.args[0], _WAIT, sleeper.args[1])
    builder.ret_void()
    return sleeper


@intrinsic
def _sleep(context, counters, value):
    """Sleep until `_wake`, unless counters[0] is no longer `value`. On other systems than Linux: let another thread run."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        if _FUTEX is None:
            call(builder, INT, "sched_yield")
        else:
            counter = context.make_array(counters)(context, builder, values[0]).data
            builder.call(_sleeper(builder.module), [counter, values[1]])
        return context.get_dummy_value()

    return types.void(counters, types.int64), codegen


@intrinsic
def _wake(context, counters):
    """Wake all threads that sleep at counters[0]."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        if _FUTEX is not None:
            _futex(builder, context.make_array(counters)(context, builder, values[0]).data, _WAKE, INTP(_MOST))
        return context.get_dummy_value()

    return types.void(counters), codegen


@inner_njit
def wait(barrier, parties, visits):
    """Wait until `parties` threads have called this `visits` times; returns the next value of `visits`.

    barrier: an int64 array whose first two elements start at 0: the calls so far, and the number of sleeping threads. A thread
    spins for a bounded time and then sleeps until the last one arrives. When it only yielded its processor, and other programs
    were computing, each step took their time slice of 4 ms: on two busy cores a call took 216 ms instead of 0.6.
    """
    if parties == 1:
        return visits
    everyone = parties * visits
    if _add(barrier, 0, 1) == everyone:
        # a thread that registers as sleeping after this sees that all have arrived: both operations are sequentially consistent
        if _read(barrier, 1) > 0:
            _wake(barrier)
        return visits + 1
    spins = 0
    while _read(barrier, 0) < everyone and spins < _SPINS:
        spins += 1
    if spins == _SPINS:
        _add(barrier, 1, 1)
        there = _read(barrier, 0)
        while there < everyone:
            _sleep(barrier, there)
            there = _read(barrier, 0)
        _add(barrier, 1, -1)
    return visits + 1


@inner_njit
def share(count, threads, thread):
    """(first, end) of thread `thread`'s share when `count` things are divided nearly equally among `threads`."""
    return count * thread // threads, count * (thread + 1) // threads


@inner_njit
def to_and_fro(i, first, end, turn):
    """The panel for i from first to end - 1: ascending in one turn, descending in the next.

    If the weights exceed a cache, each turn thus begins with those that the previous one left in it. Read in the same order every
    time, all of them would have been evicted.
    """
    return i if turn % 2 == 0 else first + end - 1 - i


@inner_njit
def part_of(rows, panels, work, last_work, threads, thread, by_rows):
    """Thread `thread`'s `Part` of the work: some of the rows and all panels, or all rows and some of the panels.

    A share may begin or end inside a panel, after some of its rows: if two threads had 7 panels whole, one would have a third more.
    work, last_work: what a row of a panel and one of the last panel take, in any unit.
    """
    if by_rows:
        first, end = share(rows, threads, thread)
        return Part(thread, first, end, 0, first, panels, end, 1)
    first, end = share(((panels - 1) * work + last_work) * rows, threads, thread)
    first_panel, head = _place(first, rows, panels, work, last_work)
    last_panel, tail = _place(end, rows, panels, work, last_work)
    if tail == 0:
        last_panel, tail = last_panel - 1, rows
    return Part(thread, 0, rows, first_panel, head, last_panel + 1, tail, threads)


@inner_njit
def _place(at, rows, panels, work, last_work):
    """(panel, row) before which `at` of the work is done."""
    panel = min(at // (work * rows), panels - 1)
    return panel, (at - panel * work * rows) // (work if panel < panels - 1 else last_work)


@inner_njit
def rows_of(part, panel):
    """(first, end) of the part's rows in one of its panels; first is not less than end if none is left."""
    first = part.head if panel == part.first_panel else part.first_row
    return first, min(part.tail, part.end_row) if panel == part.end_panel - 1 else part.end_row


@inner_njit
def going_on(part, lengths, ragged, t):
    """The part without those last rows that have ended before step t: their products are not needed.

    If the batch is sorted by length, longest first, this skips all rows that have ended.
    """
    end = part.end_row
    if ragged:
        while end > part.first_row and lengths[end - 1] <= t:
            end -= 1
    return Part(
        part.thread, part.first_row, end, part.first_panel, part.head, part.end_panel, part.tail, part.parties
    )  # fmt: skip
