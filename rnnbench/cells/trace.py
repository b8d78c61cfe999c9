"""From a Python function to a `Cell`: the equation runs once on symbols and leaves its graph.

    @cell
    def rnn_tanh(x, R, h):
        return tanh(x.h + R.h @ h)

`x.g` is gate g's projection of the input, `R.g @ v` its recurrent product. The positional arguments after `R` are the
states, `h` first, and are returned in the same order; one called `p` is not a state but the namespace of per-unit parameter
vectors (`p.i`). Keyword-only arguments are numbers given at run time; each needs a default.
"""

from __future__ import annotations

import hashlib
import inspect
import linecache
import sys
import textwrap
import traceback
from collections.abc import Callable
from math import isfinite
from types import FrameType
from typing import Any

from .graph import ALLOWED, NO_NUMPY, CellError, Graph, Node, Unfinished, real, topological


class _Namespace(Unfinished):
    """`x`, `R` or `p`: makes the object that `x.name` stands for and remembers the names in the order of their first use."""

    def __init__(self, letter: str, make: Callable[[str], Any]) -> None:
        self.__dict__.update(_letter=letter, _make=make, _names={})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python itself asks, to copy or inspect the object
            raise AttributeError(name)
        if name.startswith("_"):
            raise CellError(f"{self._letter}.{name}: a name after {self._letter} may not begin with an underscore")
        if not name.isidentifier():
            raise CellError(f"{self._letter} is asked for {name!r}, which is not a Python name")
        return self._names.setdefault(name, self._make(name))

    def __setattr__(self, name: str, value: Any) -> None:
        raise CellError(f"{self._letter}.{name} cannot be assigned to; give the value a name of its own")

    def __repr__(self) -> str:
        return f"{self._letter} without a name"


class _Gate(Unfinished):
    """`R.g`, which only means something in `R.g @ value`."""

    def __init__(self, graph: Graph, name: str) -> None:
        self._graph, self._name = graph, name

    def __matmul__(self, value: Any) -> Node:
        operand = self._graph.number(value)
        if operand.op == "constant":
            raise CellError(
                f"R.{self._name} @ {operand.value} multiplies a constant; a recurrent product needs a value"
            )
        return self._graph.node("product", self._name, operand)

    def __repr__(self) -> str:
        return f"R.{self._name} without @"


class Cell:
    """A recurrent cell, traced from its equation. Made by `@cell`; has no data, only structure.

    Attributes: `name`; `states`, the states' names, the output h first; `input_gates` and `recurrent_gates` in the order of
    first use (the order of the blocks in weight_ih and weight_hh); `vectors`, the names of per-unit parameters; `numbers`,
    run-time numbers with their defaults; `outputs`, the new states' nodes; `labels`, the equation's own names for nodes;
    `equations`, the source text; `digest`, a hash that changes when the mathematics does. `rnnbench.cells` says how it is
    copied and pickled.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        self.name: str = fn.__name__
        self.__module__, self.__qualname__ = fn.__module__, fn.__qualname__
        self.__doc__ = inspect.getdoc(fn)
        self.equations = _source(fn)
        if inspect.iscoroutinefunction(fn) or inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise CellError(
                f"{self._where()}: {self.name} is written with async or yield, so a call computes nothing; "
                "write it with def and return the new states"
            )
        takes_vectors = self._read_signature(fn)
        self.graph = Graph()
        x = _Namespace("x", lambda g: self.graph.node("input", g))
        R = _Namespace("R", lambda g: _Gate(self.graph, g))
        p = _Namespace("p", lambda v: self.graph.node("vector", v))
        arguments: dict[str, Any] = {s: self.graph.node("state", s) for s in self.states}
        if takes_vectors:
            arguments["p"] = p
        arguments |= {n: self.graph.node("number", n) for n in self.numbers}
        returned, names = _run(fn, x, R, arguments)
        self.outputs = self._read_outputs(returned)
        self.labels = {
            node: name for name, node in names.items() if isinstance(node, Node) and node.graph is self.graph
        }
        self.order = topological(self.outputs)
        self.input_gates = self._used("input", x._names)
        products = [node for node in self.order if node.op == "product"]
        self.recurrent_gates = tuple(g for g in R._names if any(node.args[0] == g for node in products))
        self.vectors = self._used("vector", p._names)
        if not self.input_gates:
            raise CellError(
                f"{self._where()}: {self.name} never uses its input; at least one x.gate must reach a result"
            )
        self.digest = self._digest()

    def _read_signature(self, fn: Callable[..., Any]) -> bool:
        parameters = list(inspect.signature(fn).parameters.values())
        kinds = inspect.Parameter
        if any(q.kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD) for q in parameters):
            raise CellError(f"{self._where()}: {self.name} takes *args or **kwargs; name every state and number")
        if any(q.kind is kinds.POSITIONAL_ONLY for q in parameters):
            raise CellError(
                f"{self._where()}: {self.name} has a / among its arguments, which are passed by name; leave it out"
            )
        for q in parameters:
            if q.kind is not kinds.KEYWORD_ONLY and q.default is not q.empty:
                raise CellError(
                    f"{self._where()}: {q.name} of {self.name} has a default and would be a state; a number goes behind *, "
                    f"as in {self.name}(x, R, h, *, {q.name}={q.default!r})"
                )
        positional = [q.name for q in parameters if q.kind is not kinds.KEYWORD_ONLY]
        if len(positional) < 3 or positional[:2] != ["x", "R"]:
            raise CellError(
                f"{self._where()}: {self.name}({', '.join(positional)}) must take x, R and at least one state, such as "
                f"{self.name}(x, R, h)"
            )
        self.states = tuple(name for name in positional[2:] if name != "p")
        if not self.states or self.states[0] != "h":
            raise CellError(f"{self._where()}: the first state of {self.name} is the output and must be called h")
        self.numbers: dict[str, float] = {}
        for q in parameters:
            if q.kind is kinds.KEYWORD_ONLY:
                default = real(q.default)
                if default is None or not isfinite(default):
                    raise CellError(
                        f"{self._where()}: the number {q.name} of {self.name} needs a finite number as its default"
                    )
                self.numbers[q.name] = default
        return "p" in positional

    def _read_outputs(self, returned: Any) -> tuple[Node, ...]:
        values = returned if isinstance(returned, (tuple, list)) else (returned,)
        if returned is None or len(values) != len(self.states):
            count = "nothing" if returned is None else f"{len(values)} value(s)"
            raise CellError(
                f"{self._where()}: {self.name} has {len(self.states)} state(s) ({', '.join(self.states)}) and returns "
                f"{count}; return the new {', '.join(self.states)} in this order"
            )
        try:
            return tuple(self.graph.number(v) for v in values)
        except CellError as error:
            raise CellError(f"{self._where()}: {self.name} returns something that is not a value: {error}") from None

    def _used(self, op: str, names: dict[str, Any]) -> tuple[str, ...]:
        used = {node.args[0] for node in self.order if node.op == op}
        return tuple(name for name in names if name in used)

    def _where(self) -> str:
        code = self.fn.__code__
        return f"{code.co_filename}, line {code.co_firstlineno}"

    def _digest(self) -> str:
        numbering = {node: i for i, node in enumerate(self.order)}
        lines = [f"{node.op} {[numbering[a] if isinstance(a, Node) else a for a in node.args]}" for node in self.order]
        signature = [self.states, self.input_gates, self.recurrent_gates, self.vectors, tuple(self.numbers)]
        text = "\n".join([*lines, repr([numbering[o] for o in self.outputs]), repr(signature)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"<cell {self.name}({', '.join(self.states)}): gates {', '.join(self.input_gates)}>"


def cell(fn: Callable[..., Any] | None = None) -> Cell:
    """Make a cell from an equation.

    fn: a function `fn(x, R, h, ...)` as the module's docstring describes. It is run once, now, on symbols.
    Raises CellError, naming the line, for an equation that cannot be a cell.
    """
    if fn is None:  # written as @cell()
        raise CellError("@cell is written above a function, not None: write @cell without brackets")
    if not inspect.isfunction(fn):
        raise CellError(f"@cell is written above a function, not {fn!r}")
    if not fn.__name__.isidentifier():
        raise CellError("a cell needs a name of its own: write it with def instead of lambda")
    return Cell(fn)


def _source(fn: Callable[..., Any]) -> str:
    try:
        return textwrap.dedent(inspect.getsource(fn))
    except OSError:  # typed at a prompt or made by exec: the equation works, only its text cannot be shown
        return f"# the source of {fn.__name__} is not in a file"


def _run(fn: Callable[..., Any], x: _Namespace, R: _Namespace, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Run the equation. Returns its result and its local variables, whose names make the emitted code readable."""
    names: dict[str, Any] = {}

    def keep_locals(frame: FrameType, event: str, _: Any) -> None:
        if event == "return" and frame.f_code is fn.__code__:
            names.update(frame.f_locals)

    # An active profiler is left alone: cProfile could not be restored, and the names serve readability only
    hook = sys.getprofile() is None
    if hook:
        sys.setprofile(keep_locals)
    try:
        return fn(x, R, **arguments), names
    except Exception as error:
        raise _explain(fn, error) from error
    finally:
        if hook:
            sys.setprofile(None)


def _explain(fn: Callable[..., Any], error: Exception) -> CellError:
    """A CellError for what an equation raised, with the line of the equation that raised it and what is allowed."""
    code = fn.__code__
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == code.co_filename]
    line = (frames[-1].lineno if frames else None) or code.co_firstlineno
    source = linecache.getline(code.co_filename, line).strip()  # empty for code that exec ran
    reason = str(error) if isinstance(error, CellError) else f"{type(error).__name__}: {error}"
    if isinstance(error, TypeError) and "does not support ufuncs" in reason:
        reason = NO_NUMPY
    return CellError(
        f"{code.co_filename}, line {line}: {fn.__name__}: {f'`{source}`: ' if source else ''}{reason}. An equation may use x.gate, "
        f"R.gate @ value, its states, p.vector, its numbers, and {ALLOWED}."
    )
