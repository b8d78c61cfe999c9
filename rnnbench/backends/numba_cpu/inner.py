"""How kernels are compiled, and the functions that only kernels call: those are linked into kernels and optimised there, and never
become machine code on their own.

Numba optimises each function that it compiles and generates machine code for it, plus two wrappers, one for Python and one for C.
A function includes its callees, so a tile five calls below a kernel goes through all of that five times before the kernel itself
does. Only kernels call these functions, so they skip it: an LSTM then compiled in 14 s instead of 25, and kernels are up to a tenth
faster, because loops that are unrolled and split too early do not suit the place where they end up. For the same reason a kernel is
optimised once. Numba does so twice, the first time to find pairs of reference counts that cancel out, and kernels have none.

Numba distinguishes functions with the same name and argument types by a counter, which starts anew in each process. A kernel on
disk contains the functions that it calls. If it is loaded together with a kernel that another process compiled, functions with the
same name, types and count are taken for the same function, and one kernel runs the other's code. So the name of a compiled function
that closes over values must contain them, unless its arguments' types already do (a `StageType` does).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import _dynfunc, njit  # type: ignore[attr-defined]
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.extending import overload


class _Ingredient(JITCodeLibrary):
    """The LLVM code of a function and its callees, to be linked into other functions."""

    def _optimize_functions(self, ll_module: Any) -> None:
        """Does nothing: the kernel that this is linked into is optimised as a whole."""

    def _optimize_final_module(self) -> None:
        """Does nothing, likewise."""

    def _finalize_final_module(self) -> None:
        """Does what Numba's own method does, except for passing the code to the execution engine."""
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


class _Whole(JITCodeLibrary):
    """The LLVM code of a kernel, to become machine code."""

    def _optimize_final_module(self) -> None:
        """Does the second half of what Numba's own method does."""
        passes, builder = self._codegen._module_pass_manager()
        passes.run(self._final_module, builder)


class KernelCompiler(Compiler):
    """Numba's compiler, with a `_Whole` as its result."""

    def define_pipelines(self) -> Any:
        """See `numba.core.compiler.CompilerBase`."""
        state = self.state
        state.library = _Whole(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()  # it is kept on disk
        return super().define_pipelines()


class _InnerCompiler(Compiler):
    """Numba's compiler, with an `_Ingredient` as its result."""

    def define_pipelines(self) -> Any:
        """See `numba.core.compiler.CompilerBase`."""
        state = self.state
        state.library = _Ingredient(state.targetctx.codegen(), state.func_id.func_qualname)
        state.targetctx.get_executable = _entry_point  # the context belongs to this compilation alone
        return super().define_pipelines()


def _entry_point(library: Any, description: Any, environment: Any) -> Any:
    """The object by which Numba knows a compiled function. Python cannot call this one: its address is 0."""
    module, name = description.lookup_module(), description.qualname.rpartition(".")[2]
    return _dynfunc.make_function(module, name, "linked into kernels", 0, environment, (library,))


_OPTIONS: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": _InnerCompiler}
# `njit` and `overload` for functions that Python never calls
inner_njit: Any = njit(**_OPTIONS)
# for a function that is called in a single place, in a time loop, and inlined there
inner_njit_once: Any = njit(**_OPTIONS | {"forceinline": True})


def inner_overload(function: Callable[..., Any], once: bool = False) -> Any:
    """`numba.extending.overload` of `function`. once: as in `inner_njit_once`. A call would pass 60 numbers, at each time step."""
    return overload(function, jit_options=_OPTIONS | {"forceinline": once})


def named(function: Callable[..., Any], *closed_over: Any) -> Callable[..., Any]:
    """`function` with `closed_over` in its qualified name, from which Numba derives the symbol."""
    words = "_".join(str(word) for word in closed_over)
    function.__qualname__ = f"{function.__qualname__}_{''.join(c if c.isalnum() else '_' for c in words)}"
    return function
