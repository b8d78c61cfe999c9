"""What a backend executes: a cell's graph cut into stages around its recurrent products.

A step of the forward pass is, for each stage in turn: the recurrent products whose operands are ready, then pointwise
code. The backward pass runs the same stages from the last to the first: pointwise code, then the products' transposes.
Stage 0 is pointwise code before any product; most cells have only stage 1, a GRU with the reset before has stages 1 and 2.

A *pre-activation* is the sum of an input projection and a recurrent product, such as `x.g + R.g @ v`; a backend accumulates both
into one buffer. A projection or product that is not in such a sum (the candidate of a GRU with the reset after) is a
pre-activation by itself.

Pointwise code reads and writes numbered *places* in named buffers:

    pre      pre-activations of this step             dpre     their adjoints
    state    states before the step                   dstate   their adjoints
    new      states after the step                    dnew     their adjoints
    operand  operands other than plain states         back     adjoints of all operands
    saved    values kept for later stages and BPTT    dvector  adjoints of vectors, one step's contribution
    vector   per-unit parameters                      number   run-time numbers
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from .derive import adjoints
from .graph import OPERATIONS, Node, topological
from .trace import Cell

LEAVES = ("state", "vector", "number", "constant")


class Place(NamedTuple):
    """Element `at` of the buffer called `buffer`."""

    buffer: str
    at: int


@dataclass(frozen=True, eq=False)
class PreActivation:
    """The sum of an input projection (gate `input`) and a recurrent product (gate `recurrent`), or one of them alone."""

    node: Node
    level: int
    input: str | None
    recurrent: str | None
    operand: Node | None


@dataclass(frozen=True, eq=False)
class Operand:
    """A vector that recurrent matrices multiply. `pre` is the range of pre-activations that its products fill.

    An operand is either a state, and `state` is its index, or is computed by the pointwise code of stage `level`, and `computed`
    is its index among such operands. The other index is None.
    """

    node: Node
    level: int
    state: int | None
    computed: int | None
    pre: range


@dataclass(frozen=True, eq=False)
class Pointwise:
    """Straight-line code: reads the nodes `loads`, computes, and writes the nodes `stores`, each to its place."""

    name: str
    loads: tuple[tuple[Place, Node], ...]
    stores: tuple[tuple[Place, Node], ...]


@dataclass(frozen=True, eq=False)
class Stage:
    """One stage of one pass. `operands` are the indices of those whose products (or transposes) belong to it."""

    level: int
    operands: tuple[int, ...]
    code: Pointwise


class Program:
    """The stages of `cell`. With `training`, the forward pass also saves what the backward pass reads."""

    def __init__(self, cell: Cell, training: bool) -> None:
        self.cell, self.training = cell, training
        # part of the names of emitted functions, for readable stack traces; a variant's name has brackets
        self._function = re.sub(r"\W+", "_", cell.name).strip("_")
        self._level: dict[Node, int] = {}
        for node in cell.order:
            below = max((self._level[a] for a in node.inputs), default=0)
            self._level[node] = below + (node.op == "product")
        self.last = max(self._level.values())
        self.pre, self.operands = self._pre_activations()
        self.computed = tuple(o for o in self.operands if o.computed is not None)
        self._pre_place = {p.node: Place("pre", i) for i, p in enumerate(self.pre)}
        self._operand_of = {o.node: o for o in self.operands}
        self._first_use, carried = self._uses()
        self.saved = tuple(node for node in self._saveable() if node in carried or (training and node in self._tape))

    @cached_property
    def key(self) -> str:
        """Identifies kernels made from the program: the cell's name, a hash of its mathematics, and a hash of the places of its
        values, which also depend on the order of the equation's lines.
        """
        at: dict[Node | None, int] = {node: i for i, node in enumerate(self.cell.order)}
        pre = [(at[p.node], p.level, p.input, p.recurrent, at.get(p.operand)) for p in self.pre]
        operands = [(at[o.node], o.level, o.state, o.computed, o.pre) for o in self.operands]
        places = hashlib.sha256(repr((pre, operands, [at[node] for node in self.saved])).encode()).hexdigest()[:8]
        return f"{self.cell.name}#{self.cell.digest}.{places}-{'training' if self.training else 'inference'}"

    # ---- pre-activations and operands

    def _partners(self) -> dict[Node, tuple[Node, Node]]:
        """Product -> (sum, input projection), for the sums in which both are used nowhere else: these are pre-activations."""
        uses = Counter(a for node in self.cell.order for a in node.inputs)
        results = set(self.cell.outputs)
        partner: dict[Node, tuple[Node, Node]] = {}
        for node in self.cell.order:
            if node.op == "add" and {a.op for a in node.args} == {"input", "product"}:
                if all(uses[a] == 1 and a not in results for a in node.args):
                    product, gate = sorted(node.args, key=lambda a: a.op == "input")
                    partner[product] = (node, gate)
        return partner

    def _pre_activations(self) -> tuple[tuple[PreActivation, ...], tuple[Operand, ...]]:
        """All pre-activations, those of one operand adjacent, and the operands in the order of their levels."""
        partner = self._partners()
        # node.index follows the order in which the equation makes nodes, so gates keep the order of their first use
        products = sorted((n for n in self.cell.order if n.op == "product"), key=lambda n: n.index)
        operand_nodes = list(dict.fromkeys(n.args[1] for n in sorted(products, key=lambda n: self._level[n])))
        pre: list[PreActivation] = []
        operands: list[Operand] = []
        computed = 0
        for operand in operand_nodes:
            start = len(pre)
            # products without an input projection come first: then those with one are adjacent, and their projections
            # are one matrix product
            own = [n for n in products if n.args[1] is operand]
            for product in sorted(own, key=lambda n: n in partner):
                node, gate = partner.get(product, (product, None))
                name = None if gate is None else gate.args[0]
                pre.append(PreActivation(node, self._level[product], name, product.args[0], operand))
            is_state = operand.op == "state"
            operands.append(
                Operand(
                    operand,
                    self._level[operand],
                    self.cell.states.index(operand.args[0]) if is_state else None,
                    None if is_state else computed,
                    range(start, len(pre)),
                )
            )
            computed += not is_state
        merged = {gate for _, gate in partner.values()}
        for node in sorted(self.cell.order, key=lambda n: n.index):
            if node.op == "input" and node not in merged:
                pre.append(PreActivation(node, 0, node.args[0], None, None))
        return tuple(pre), tuple(operands)

    # ---- what is saved

    def _uses(self) -> tuple[dict[Node, int], set[Node]]:
        """For each node that is expensive to compute, the first stage that needs it; and the nodes that several stages need."""
        first: dict[Node, int] = {}
        carried: set[Node] = set()
        for level in range(self.last + 1):
            for node in topological(self._results(level), stop=self._pre_place):
                if node.op in OPERATIONS and OPERATIONS[node.op].saved and first.setdefault(node, level) != level:
                    carried.add(node)
        return first, carried

    def _saveable(self) -> list[Node]:
        nodes = [n for n in self.cell.order if n in self._first_use or n in self._pre_place]
        return sorted(nodes, key=lambda n: n.index)

    @cached_property
    def _adjoints(self) -> dict[Node, Node]:
        return adjoints(self.cell)

    @cached_property
    def _tape(self) -> set[Node]:
        """The nodes that the backward pass cannot recompute from states, vectors, numbers and one another."""
        known = {node for node in self.cell.outputs if node.op not in LEAVES}
        tape: set[Node] = set()
        stack = [node for _, node in self._gradients()]
        seen: set[Node] = set()
        while stack:
            node = stack.pop()
            if node in seen or node in known:
                continue
            seen.add(node)
            if node in self._pre_place or (node.op in OPERATIONS and OPERATIONS[node.op].saved):
                tape.add(node)
            else:
                stack.extend(node.inputs)
        return tape

    # ---- forward

    def _results(self, level: int) -> list[Node]:
        computed = [o.node for o in self.computed if o.level == level]
        return computed + (list(self.cell.outputs) if level == self.last else [])

    @cached_property
    def forward(self) -> tuple[Stage, ...]:
        """The stages of one step, first to last."""
        stages = []
        for level in range(self.last + 1):
            stores = [(Place("operand", o.computed or 0), o.node) for o in self.computed if o.level == level]
            for i, node in enumerate(self.saved):
                at = self._first_use.get(node)
                if (at if at is not None else self._level[node]) == level:
                    stores.append((Place("saved", i), node))
            if level == self.last:
                stores += [(Place("new", i), node) for i, node in enumerate(self.cell.outputs)]
            operands = tuple(i for i, o in enumerate(self.operands) if o.level == level - 1)
            if stores or operands:
                code = self._pointwise(f"{self._function}_forward_{level}", stores, self._forward_leaves(level))
                stages.append(Stage(level, operands, code))
        return tuple(stages)

    def _forward_leaves(self, level: int) -> dict[Node, Place]:
        leaves = dict(self._pre_place)
        for i, node in enumerate(self.saved):
            if self._first_use.get(node, level) < level:
                leaves[node] = Place("saved", i)
        return leaves

    # ---- backward

    def _gradients(self) -> list[tuple[Place, Node]]:
        graph, adjoint = self.cell.graph, self._adjoints
        gradients = [(Place("dpre", i), adjoint[p.node]) for i, p in enumerate(self.pre)]
        gradients += [(Place("dstate", i), adjoint[graph.node("state", s)]) for i, s in enumerate(self.cell.states)]
        gradients += [(Place("dvector", i), adjoint[graph.node("vector", v)]) for i, v in enumerate(self.cell.vectors)]
        return gradients

    @cached_property
    def backward(self) -> tuple[Stage, ...]:
        """The stages of one step of backpropagation through time, last to first. Needs `training`."""
        assert self.training, "the backward direction reads what only a training program saves"
        leaves = {node: Place("saved", i) for i, node in enumerate(self.saved)}
        leaves |= {node: Place("new", i) for i, node in enumerate(self.cell.outputs) if node.op not in LEAVES}
        when: dict[int, list[tuple[Place, Node]]] = {}
        for place, node in self._gradients():
            backs = [n for n in topological([node], stop=leaves) if n.op == "back"]
            level = min((self._operand_of[n.args[0]].level for n in backs), default=self.last)
            when.setdefault(level, []).append((place, node))
        stages = []
        for level in range(self.last, -1, -1):
            stores = when.get(level, [])
            operands = tuple(i for i, o in enumerate(self.operands) if o.level == level - 1)
            if stores or operands:
                code = self._pointwise(f"{self._function}_backward_{level}", stores, leaves)
                stages.append(Stage(level, operands, code))
        return tuple(stages)

    # ---- both

    def place_name(self, place: Place) -> str:
        """The name of the value at `place` in emitted code."""
        buffer, index = place
        states, vectors = self.cell.states, self.cell.vectors
        if buffer in ("pre", "dpre"):
            pre = self.pre[index]
            return f"{'d' * (buffer == 'dpre')}{'r' if pre.input is None else 'a'}_{pre.input or pre.recurrent}"
        if buffer == "operand":
            return self.cell.labels.get(self.computed[index].node, f"operand_{index}")
        if buffer == "back":
            state, computed = self.operands[index].state, self.operands[index].computed
            name = self.place_name(Place("operand", computed or 0)) if state is None else states[state]
            return f"back_{name}"
        if buffer == "saved":
            node = self.saved[index]
            if node in self._pre_place:
                return self.place_name(self._pre_place[node])
            return self.cell.labels.get(node, f"saved_{index}")
        if buffer == "number":
            return list(self.cell.numbers)[index]
        form, names = {
            "state": ("{}", states),
            "new": ("{}_new", states),
            "dnew": ("d{}_new", states),
            "dstate": ("d{}", states),
            "vector": ("p_{}", vectors),
            "dvector": ("dp_{}", vectors),
        }[buffer]
        return form.format(names[index])

    def _pointwise(self, name: str, stores: list[tuple[Place, Node]], leaves: dict[Node, Place]) -> Pointwise:
        names = {
            "state": ("state", self.cell.states),
            "seed": ("dnew", self.cell.states),
            "vector": ("vector", self.cell.vectors),
            "number": ("number", tuple(self.cell.numbers)),
        }
        loads = {}
        for node in topological([n for _, n in stores], stop=leaves):
            if node.op in names:
                buffer, known = names[node.op]
                loads[node] = Place(buffer, known.index(node.args[0]))
            elif node.op == "back":
                loads[node] = Place("back", self.operands.index(self._operand_of[node.args[0]]))
        for node in _reached([n for _, n in stores], leaves):
            loads[node] = leaves[node]
        ordered = sorted(loads.items(), key=lambda item: item[0].index)
        return Pointwise(name, tuple((place, node) for node, place in ordered), tuple(stores))


def _reached(roots: list[Node], leaves: dict[Node, Place]) -> list[Node]:
    """The leaves at which a walk from `roots` stops."""
    inner = topological(roots, stop=leaves)
    candidates = (*roots, *(a for node in inner for a in node.inputs))
    return list(dict.fromkeys(n for n in candidates if n in leaves))


@lru_cache(maxsize=256)
def program(cell: Cell, training: bool) -> Program:
    """The program of `cell`, made once and then cached."""
    return Program(cell, training)
