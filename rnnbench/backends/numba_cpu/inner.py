"""Functions that kernels call: linked into them, optimised there, and never machine code of their own.

Numba optimises each function that it compiles and turns it into machine code, with two more around it, one that takes Python's
objects and one for C. What a function calls is part of it, so a tile five calls below a kernel goes through all of that five times
before the kernel itself does. Nobody but kernels calls these functions, so they skip all that: a cell compiles in 14 s where it
took 25, and kernels are up to a tenth faster, for loops that are unrolled and divided early are not what fits where they end up.

Numba keeps functions of the same name and argument types apart by a counter, which starts anew in each process. A kernel on disk
carries the functions that it calls along; loaded beside a kernel that another process compiled, a function of the same name, types
and count is taken for the same function, and one of the kernels then runs the other's code. So a compiled function that closes over
something says so in its name, unless its arguments' types already do (a `StageType` does).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import _dynfunc, njit  # type: ignore[attr-defined]
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.extending import overload


class _Ingredient(JITCodeLibrary):
    """LLVM's code of a function and of what it calls, for other functions to be made of."""

    def _optimize_final_module(self) -> None:
        """Nothing: the kernel that this becomes a part of is optimised as a whole."""

    def _finalize_final_module(self) -> None:
        """What Numba's own does, but for handing the code to the engine that makes machine code."""
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


class _InnerCompiler(Compiler):
    """Numba's compiler, with an `_Ingredient` as its result."""

    def define_pipelines(self) -> Any:
        """See `numba.core.compiler.CompilerBase`."""
        state = self.state
        state.library = _Ingredient(state.targetctx.codegen(), state.func_id.func_qualname)
        state.targetctx.get_executable = _entry_point  # the context is this compilation's own
        return super().define_pipelines()


def _entry_point(library: Any, description: Any, environment: Any) -> Any:
    """What Numba knows a compiled function by; Python cannot call this one, for there is no code at its address, 0."""
    module, name = description.lookup_module(), description.qualname.rpartition(".")[2]
    return _dynfunc.make_function(module, name, "linked into kernels", 0, environment, (library,))


_OPTIONS: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": _InnerCompiler}
# `njit` and `overload` for functions that Python never calls
inner_njit: Any = njit(**_OPTIONS)


def inner_overload(function: Callable[..., Any], once: bool = False) -> Any:
    """`numba.extending.overload` of `function`. once: it is called in one place, of which it becomes a part: a call would hand over
    60 numbers, at each time step.
    """
    return overload(function, jit_options=_OPTIONS | {"forceinline": once})


def named(function: Callable[..., Any], *closed_over: Any) -> Callable[..., Any]:
    """`function` with `closed_over` in its qualified name, from which Numba makes the symbol's."""
    words = "_".join(str(word) for word in closed_over)
    function.__qualname__ = f"{function.__qualname__}_{''.join(c if c.isalnum() else '_' for c in words)}"
    return function
