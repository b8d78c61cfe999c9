"""Names of compiled functions that stay apart when kernels from different processes meet.

Numba keeps functions of the same name and argument types apart by a counter, which starts anew in each process. A kernel on disk
carries the functions that it calls along; loaded beside a kernel that another process compiled, a function of the same name, types
and count is taken for the same function, and one of the kernels then runs the other's code. So a compiled function that closes over
something says so in its name, unless its arguments' types already do (a `StageType` does).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def named(function: Callable[..., Any], *closed_over: Any) -> Callable[..., Any]:
    """`function` with `closed_over` in its qualified name, from which Numba makes the symbol's."""
    words = "_".join(str(word) for word in closed_over)
    function.__qualname__ = f"{function.__qualname__}_{''.join(c if c.isalnum() else '_' for c in words)}"
    return function
