"""Pointwise code as text: straight-line Python that runs on whatever its arguments are.

The same text computes on NumPy arrays, on the SIMD vectors of a CPU kernel and on the scalars of a CUDA thread; only the
functions that its names are bound to, and how a constant is written, differ. A bare 1.0 would promote float32 to float64 in
CUDA code, so that dialect writes `real(1.0)`.
"""

from __future__ import annotations

import keyword
import linecache
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from .graph import OPERATIONS, Node, topological
from .program import Pointwise, Program

_DEEPEST = 40


def plain(value: float) -> str:
    """A constant for NumPy and for SIMD vectors, which give it their own dtype."""
    return repr(value)


def typed(value: float) -> str:
    """A constant for CUDA scalars, where `real` is the kernel's dtype."""
    return f"real({value!r})"


def emit(program: Program, code: Pointwise, constant: Callable[[float], str] = plain) -> str:
    """The source of `def code.name(loads...)`, which returns the tuple of the values of `code.stores`."""
    writer = _Writer(program, constant)
    arguments = [writer.name(node, program.place_name(place)) for place, node in code.loads]
    lines = writer.lines(code)
    returned = ", ".join(writer.expression(node)[0] for _, node in code.stores)
    comma = "," if len(code.stores) == 1 else ""
    head = f"def {code.name}({', '.join(arguments)}):"
    return "\n".join([head, *(f"    {line}" for line in lines), f"    return ({returned}{comma})"]) + "\n"


def compile_function(source: str, name: str, namespace: Mapping[str, Any]) -> Callable[..., Any]:
    """Compile `source`, with `namespace` as its globals, and return its function `name`. Tracebacks show the source's lines."""
    filename = f"<rnnbench {name} {abs(hash(source)):x}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    scope = dict(namespace)
    exec(compile(source, filename, "exec"), scope)
    return scope[name]


class _Writer:
    """Names the nodes of one function and writes their expressions."""

    def __init__(self, program: Program, constant: Callable[[float], str]) -> None:
        self._program, self._constant = program, constant
        self._names: dict[Node, str] = {}
        self._taken = set(OPERATIONS) | {"real"}

    def name(self, node: Node, wish: str) -> str:
        """Name `node` as wished, with a number appended if that name is taken."""
        name, count = wish, 1
        while name in self._taken or keyword.iskeyword(name):
            name, count = f"{wish}_{count}", count + 1
        self._taken.add(name)
        self._names[node] = name
        return name

    def lines(self, code: Pointwise) -> list[str]:
        """Assignments for the results and for nodes that are used more than once, have a name in the equation, or would nest
        expressions _DEEPEST levels deep, because Python's parser limits the depth. All other nodes are written inline.
        """
        results = {node: self._program.place_name(place) for place, node in code.stores}
        order = topological(results, stop=self._names)
        uses = Counter(a for node in order for a in node.inputs)
        written: list[str] = []
        depth: dict[Node, int] = {}
        for node in order:
            wish = results.get(node) or self._program.cell.labels.get(node)
            depth[node] = 1 + max((depth.get(a, 0) for a in node.inputs), default=0)
            if node.op != "constant" and (wish or uses[node] > 1 or depth[node] == _DEEPEST):
                depth[node] = 0
                text, _ = self.expression(node)
                written.append(f"{self.name(node, wish or f't{len(written)}')} = {text}")
        return written

    def expression(self, node: Node) -> tuple[str, int]:
        """The text of a node and its precedence; the text of a named node is its name."""
        if node in self._names:
            return self._names[node], 9
        if node.op == "constant":
            value = float(node.args[0])
            text = self._constant(value)
            return text, 6 if text.startswith("-") else 9
        operation = OPERATIONS[node.op]
        parts = [self.expression(a) for a in node.inputs]
        if not operation.symbol:
            return f"{node.op}({', '.join(text for text, _ in parts)})", 9
        if operation.arity == 1:
            return operation.symbol + _bracket(parts[0], operation.precedence), operation.precedence
        # Python groups from the left, and floating-point addition is not associative: keep the equation's grouping
        left, right = _bracket(parts[0], operation.precedence), _bracket(parts[1], operation.precedence + 1)
        return f"{left} {operation.symbol} {right}", operation.precedence


def _bracket(part: tuple[str, int], precedence: int) -> str:
    text, own = part
    return text if own >= precedence else f"({text})"
