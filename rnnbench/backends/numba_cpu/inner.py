"""Functions that kernels call: compiled without what a call from outside needs, under names that stay apart.

Numba makes two more of each function that it compiles, one that takes Python's objects and one for C, optimises them and turns
them into machine code. For functions that only compiled ones call that was a ninth of the time to compile a cell.

It keeps functions of the same name and argument types apart by a counter, which starts anew in each process. A kernel on disk
carries the functions that it calls along; loaded beside a kernel that another process compiled, a function of the same name, types
and count is taken for the same function, and one of the kernels then runs the other's code. So a compiled function that closes over
something says so in its name, unless its arguments' types already do (a `StageType` does).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit
from numba.extending import overload

WITHOUT_WRAPPERS: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
# `njit` and `overload` for functions that Python never calls
inner_njit: Any = njit(**WITHOUT_WRAPPERS)


def inner_overload(function: Callable[..., Any], once: bool = False) -> Any:
    """`numba.extending.overload` of `function`. once: it is called in one place, of which it becomes a part: a call would hand over
    60 numbers, at each time step.
    """
    options: Any = WITHOUT_WRAPPERS | {"forceinline": once}
    return overload(function, jit_options=options)


def named(function: Callable[..., Any], *closed_over: Any) -> Callable[..., Any]:
    """`function` with `closed_over` in its qualified name, from which Numba makes the symbol's."""
    words = "_".join(str(word) for word in closed_over)
    function.__qualname__ = f"{function.__qualname__}_{''.join(c if c.isalnum() else '_' for c in words)}"
    return function
