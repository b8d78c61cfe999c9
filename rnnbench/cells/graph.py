"""The expression graph that an equation leaves behind when it is traced.

A `Node` stands for one value per hidden unit. Nodes are hash-consed: the same operation on the same arguments is the same
object, so common subexpressions are shared and identity means equality. `R.g @ v` is the only matrix product; all other
operations are pointwise.

Kinds of node (`node.op`, `node.args`):

    input     (gate,)            x.gate: the input's projection W x + b_ih, one value per unit
    product   (gate, operand)    R.gate @ operand: the recurrent product, with its bias b_hh
    state     (name,)            a state before the step
    vector    (name,)            p.name: a per-unit parameter (a peephole)
    number    (name,)            a run-time number such as forget_bias
    constant  (value,)
    seed      (state,)           in derivatives: the adjoint of a state after the step
    back      (operand,)         in derivatives: the adjoint that products send to their operand, R^T da
    an operation of `OPERATIONS`
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf, isfinite
from numbers import Real
from typing import Any

import numpy as np

Function = Callable[..., Any]


class CellError(ValueError):
    """An equation asks for something that a cell cannot be; the message says what, where and what would work."""


@dataclass(frozen=True)
class Operation:
    """A pointwise operation: how NumPy computes it, and how the adjoint `d` of its result `y` propagates to its arguments.

    `saved` results are kept for backpropagation through time because computing them again costs an exponential or
    worse; all others are recomputed. `symbol` and `precedence` are set for what Python writes as an operator.
    """

    arity: int
    compute: Callable[..., Any]
    vjp: Callable[..., tuple[Node | float, ...]]
    saved: bool = False
    symbol: str = ""
    precedence: int = 9


def _sigmoid(a: Any) -> Any:
    # exp overflows to infinity for very negative arguments, and 1 / (1 + inf) is the right limit
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-a))


def _no_gradient(y: Node, d: Node, *arguments: Node) -> tuple[float, ...]:
    return (0.0,) * len(arguments)


# Derivatives at kinks: relu and abs have 0 at 0; minimum and maximum give the whole adjoint to their first argument when the two
# are equal.
OPERATIONS: dict[str, Operation] = {
    "add": Operation(2, np.add, lambda y, d, a, b: (d, d), symbol="+", precedence=4),
    "sub": Operation(2, np.subtract, lambda y, d, a, b: (d, -d), symbol="-", precedence=4),
    "mul": Operation(2, np.multiply, lambda y, d, a, b: (d * b, d * a), symbol="*", precedence=5),
    "div": Operation(2, np.true_divide, lambda y, d, a, b: (d / b, -(d * y / b)), symbol="/", precedence=5),
    "neg": Operation(1, np.negative, lambda y, d, a: (-d,), symbol="-", precedence=6),
    "sigmoid": Operation(1, _sigmoid, lambda y, d, a: (d * (y * (1 - y)),), saved=True),
    "tanh": Operation(1, np.tanh, lambda y, d, a: (d * (1 - y * y),), saved=True),
    "relu": Operation(1, lambda a: np.maximum(a, 0), lambda y, d, a: (where(y > 0, d, 0),)),
    "exp": Operation(1, np.exp, lambda y, d, a: (d * y,), saved=True),
    "log": Operation(1, np.log, lambda y, d, a: (d / a,)),
    "sqrt": Operation(1, np.sqrt, lambda y, d, a: (0.5 * d / y,)),
    "abs": Operation(1, np.abs, lambda y, d, a: (where(a > 0, d, where(a < 0, -d, 0)),)),
    "minimum": Operation(2, np.minimum, lambda y, d, a, b: (where(a <= b, d, 0), where(a <= b, 0, d))),
    "maximum": Operation(2, np.maximum, lambda y, d, a, b: (where(a >= b, d, 0), where(a >= b, 0, d))),
    "where": Operation(3, np.where, lambda y, d, c, a, b: (0.0, where(c, d, 0), where(c, 0, d))),
    "lt": Operation(2, np.less, _no_gradient, symbol="<", precedence=3),
    "le": Operation(2, np.less_equal, _no_gradient, symbol="<=", precedence=3),
}
CONDITIONS = frozenset({"lt", "le"})
FUNCTIONS = tuple(name for name, operation in OPERATIONS.items() if not operation.symbol)
NO_NUMPY = "a NumPy function does not work on a value of an equation; use rnnbench's function of that name"
ALLOWED = f"+ - * / unary minus, comparisons < <= > >= inside where, {', '.join(FUNCTIONS)}, and numbers"


class Graph:
    """Owns the nodes of one cell and makes equal ones identical."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[Any, ...], Node] = {}

    def node(self, op: str, *args: Any) -> Node:
        """The node `op(*args)`, made at its first use. Arguments are nodes, names or, for a constant, a float."""
        key = (op, *(id(a) if isinstance(a, Node) else a for a in args))
        if key not in self._nodes:
            self._nodes[key] = Node(self, op, args, len(self._nodes))
        return self._nodes[key]

    def constant(self, value: float) -> Node:
        """The node of a number."""
        # repr distinguishes 0.0 from -0.0, which compare equal
        return self.node("constant", repr(float(value)))

    def lift(self, value: Any) -> Node:
        """`value` as a node: a node is returned as it is, a number becomes a constant. Raises CellError for anything else."""
        if isinstance(value, Node):
            if value.graph is not self:
                raise CellError("a value of another cell is used here; a cell may only use its own arguments")
            return value
        number = real(value)
        if number is None:
            raise CellError(f"{_describe(value)} is not a value of an equation")
        if not isfinite(number):
            raise CellError(f"the constant {number} is not finite")
        return self.constant(number)

    def number(self, value: Any) -> Node:
        """Like `lift`, but also raises CellError for a comparison."""
        node = self.lift(value)
        if node.op in CONDITIONS:
            raise CellError("a comparison is used as a number; use where(a < b, 1.0, 0.0)")
        return node

    def apply(self, op: str, *values: Any) -> Node:
        """A pointwise operation on values as a node, simplified where its result is known in advance."""
        args = [self.lift(v) if op == "where" and i == 0 else self.number(v) for i, v in enumerate(values)]
        if op == "where" and args[0].op not in CONDITIONS:
            raise CellError("the first argument of where must be a comparison such as a < b")
        folded = self._fold(op, args)
        return self.node(op, *args) if folded is None else folded

    def _fold(self, op: str, args: list[Node]) -> Node | None:
        """Simplify 0 + a, 1 * a, 0 * a, --a and the like, which would litter derivatives, and operations on constants, which no
        backend should compute. Returns None if there is nothing to simplify.

        Raises CellError for a division by the constant 0 and for a constant that is not finite.
        """
        a, b = args[0].value, args[1].value if len(args) > 1 else None
        if op == "where" and all(part.op == "constant" for part in args[0].args):
            holds = OPERATIONS[args[0].op].compute(*(part.value for part in args[0].args))
            return args[1] if holds else args[2]
        if op == "div" and b == 0:
            raise CellError("the division is by the constant 0")
        if op not in CONDITIONS and all(arg.op == "constant" for arg in args):
            with np.errstate(all="ignore"):  # `lift` raises an error for a result that is not finite
                return self.lift(float(OPERATIONS[op].compute(*(arg.value for arg in args))))
        if op == "add" and a == 0:
            return args[1]
        if op in ("add", "sub") and b == 0:
            return args[0]
        if op == "sub" and a == 0:
            return self.apply("neg", args[1])
        if op == "mul" and (a == 0 or b == 0):
            return self.constant(0)
        if op == "mul" and a == 1:
            return args[1]
        if op in ("mul", "div") and b == 1:
            return args[0]
        if op == "div" and a == 0:
            return self.constant(0)
        if op == "neg" and args[0].op == "neg":
            return args[0].args[0]
        if op == "add" and args[1].op == "neg":
            return self.node("sub", args[0], args[1].args[0])
        if op == "where" and args[1] is args[2]:
            return args[1]
        return None


def real(value: Any) -> float | None:
    """`value` as a float, infinity if it is too large for one; None if it is not a number. True and False are not numbers."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:  # Python's integers have no upper bound
        return inf


def _describe(value: Any) -> str:
    if isinstance(value, Unfinished):
        return str(value)
    text = " ".join(repr(value).split())  # an array has lines
    return f"{type(value).__name__} {text if len(text) < 40 else text[:37] + '...'}"


class Symbol:
    """What an equation holds. It is kept from NumPy's functions, which would take it for an array of one object: np.dot(h, h) would
    be h * h.
    """

    __slots__ = ()
    __array_ufunc__ = None  # so that NumPy hands `array + symbol` to us, and np.tanh(symbol) raises

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        raise CellError(NO_NUMPY)


class Unfinished(Symbol):
    """What is no value yet, such as `R.g` without @; its text says what is missing."""

    __slots__ = ()

    def _refuse(self, *others: Any) -> Any:
        """What every operation does."""
        raise CellError(f"{self} is not a value of an equation")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __neg__ = __pos__ = __abs__ = __bool__ = __call__ = __getitem__ = __iter__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __pow__ = __rpow__ = _refuse
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __divmod__ = __rdivmod__ = __round__ = _refuse
    __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = __and__ = __rand__ = __or__ = __ror__ = _refuse
    __xor__ = __rxor__ = __invert__ = __setitem__ = __delitem__ = _refuse


class Node(Symbol):
    """One value per hidden unit; see the module's docstring. Only `Graph.node` makes nodes."""

    __slots__ = ("graph", "op", "args", "index")

    def __init__(self, graph: Graph, op: str, args: tuple[Any, ...], index: int) -> None:
        self.graph, self.op, self.args, self.index = graph, op, args, index

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The nodes that this one is computed from. `back` has none: its argument names an operand whose value it does not use."""
        return () if self.op == "back" else tuple(a for a in self.args if isinstance(a, Node))

    @property
    def value(self) -> float | None:
        """The number of a constant; None for all other nodes."""
        return float(self.args[0]) if self.op == "constant" else None

    def __add__(self, other: Any) -> Node:
        return self.graph.apply("add", self, other)

    def __radd__(self, other: Any) -> Node:
        return self.graph.apply("add", other, self)

    def __sub__(self, other: Any) -> Node:
        return self.graph.apply("sub", self, other)

    def __rsub__(self, other: Any) -> Node:
        return self.graph.apply("sub", other, self)

    def __mul__(self, other: Any) -> Node:
        return self.graph.apply("mul", self, other)

    def __rmul__(self, other: Any) -> Node:
        return self.graph.apply("mul", other, self)

    def __truediv__(self, other: Any) -> Node:
        return self.graph.apply("div", self, other)

    def __rtruediv__(self, other: Any) -> Node:
        return self.graph.apply("div", other, self)

    def __neg__(self) -> Node:
        return self.graph.apply("neg", self)

    def __pos__(self) -> Node:
        return self

    def __abs__(self) -> Node:
        return self.graph.apply("abs", self)

    def __lt__(self, other: Any) -> Node:
        return self.graph.apply("lt", self, other)

    def __le__(self, other: Any) -> Node:
        return self.graph.apply("le", self, other)

    def __gt__(self, other: Any) -> Node:
        return self.graph.apply("lt", other, self)

    def __ge__(self, other: Any) -> Node:
        return self.graph.apply("le", other, self)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        # containers compare by identity first, so only an equation that compares values gets here
        raise CellError("== and != between values are not supported; compare with < <= > >= inside where")

    def __pow__(self, other: Any) -> Node:
        raise CellError("** is not supported; write a * a, or exp(b * log(a))")

    __rpow__ = __pow__

    def __matmul__(self, other: Any) -> Node:
        raise CellError("@ multiplies by a recurrent matrix and is written R.gate @ value")

    __rmatmul__ = __matmul__

    def __and__(self, other: Any) -> Node:
        raise CellError("& and | are not supported; write where(a > 0, where(b > 0, u, v), v) for `a > 0 and b > 0`")

    __rand__ = __or__ = __ror__ = __and__

    def __mod__(self, *others: Any) -> Node:
        raise CellError("// % divmod round ~ ^ << >> are not supported; / divides, and where chooses")

    __floordiv__ = __rfloordiv__ = __rmod__ = __divmod__ = __rdivmod__ = __round__ = __mod__
    __xor__ = __rxor__ = __invert__ = __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = __mod__

    def __setitem__(self, *place: Any) -> None:
        raise CellError("a value cannot be changed in place; give the new one a name, as in h = a + b")

    __delitem__ = __setitem__

    def __bool__(self) -> bool:
        raise CellError(
            "a traced value cannot be used as True or False; use where(condition, a, b) instead of if, "
            "and where(a > 0, where(b > 0, u, v), v) instead of `a > 0 and b > 0`"
        )

    def __float__(self) -> float:
        raise CellError("a traced value is not a number; use rnnbench's functions, not math's")

    def __iter__(self, *place: Any) -> Any:
        raise CellError("a value cannot be taken apart or iterated over; it stands for one number per hidden unit")

    __getitem__ = __len__ = __iter__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if hasattr(np.ndarray, name):  # np.sum(h) asks for it, too
            raise CellError(f"a value has no attribute {name!r}, as it is no array but one number per hidden unit")
        raise CellError(
            f"a value has no attribute {name!r}; gates are x.{name} and R.{name}: where `x` or `R` is overwritten above, "
            "the value there needs another name"
        )

    def __repr__(self) -> str:
        return f"{self.op}({', '.join(str(a) for a in self.args)})"


def _function(op: str, documentation: str) -> Callable[..., Any]:
    operation = OPERATIONS[op]

    def function(*values: Any) -> Any:
        if len(values) != operation.arity:
            raise TypeError(f"{op} takes {operation.arity} argument(s), {len(values)} given")
        for value in values:
            if isinstance(value, Unfinished):
                value._refuse()
        node = next((v for v in values if isinstance(v, Node)), None)
        return operation.compute(*values) if node is None else node.graph.apply(op, *values)

    function.__name__ = function.__qualname__ = op
    function.__doc__ = f"{documentation} Works on the values of a cell's equations and on NumPy arrays alike."
    return function


sigmoid: Function = _function("sigmoid", "1 / (1 + exp(-a)).")
tanh: Function = _function("tanh", "Hyperbolic tangent.")
relu: Function = _function("relu", "max(a, 0); its derivative at 0 is 0.")
exp: Function = _function("exp", "Exponential.")
log: Function = _function("log", "Natural logarithm.")
sqrt: Function = _function("sqrt", "Square root.")
minimum: Function = _function(
    "minimum", "The smaller of two values, NaN if one is; the first one's derivative where they are equal."
)
maximum: Function = _function(
    "maximum", "The larger of two values, NaN if one is; the first one's derivative where they are equal."
)
where: Function = _function("where", "where(condition, a, b): a where the condition holds, else b.")


def topological(roots: Iterable[Node], stop: Iterable[Node] = ()) -> list[Node]:
    """`roots` and every node that they depend on, arguments before users. The walk ends at the nodes in `stop`, and omits them."""
    seen, order = set(stop), []
    stack = [(node, False) for node in reversed(list(roots))]
    while stack:
        node, arguments_done = stack.pop()
        if arguments_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.inputs))
    return order
