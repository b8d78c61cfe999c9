"""The vector-Jacobian product of a cell, derived from its graph.

Given the adjoints of the new states (`seed` nodes), every node's adjoint is built as a graph of its own, in reverse order.
A recurrent product sends R^T da to its operand; that product is a `back` node, which a backend fills in with a matrix
product, just as it does with `product` nodes on the way forward.
"""

from __future__ import annotations

from .graph import OPERATIONS, Node
from .trace import Cell


def adjoints(cell: Cell) -> dict[Node, Node]:
    """The adjoint of every node of `cell` as a node (the constant 0 where nothing depends on it).

    For a product `R.g @ v` it is the adjoint of the product itself; the matrix's gradient is its outer product with v, and
    v receives `back(v)`, the sum over all products of v of R^T times their adjoints.
    """
    graph = cell.graph
    result = {node: graph.constant(0) for node in cell.order}
    for state, output in zip(cell.states, cell.outputs, strict=True):
        result[output] = result[output] + graph.node("seed", state)
    sent_back: set[Node] = set()
    for node in reversed(cell.order):
        adjoint = result[node]
        if node.op == "product":
            operand = node.args[1]
            if operand not in sent_back:  # several products of one operand send their sum once
                sent_back.add(operand)
                result[operand] = result[operand] + graph.node("back", operand)
        elif node.op in OPERATIONS and adjoint.value != 0:
            vjp = OPERATIONS[node.op].vjp
            for argument, contribution in zip(node.args, vjp(node, adjoint, *node.args), strict=True):
                result[argument] = result[argument] + contribution
    for state in cell.states:
        result.setdefault(graph.node("state", state), graph.constant(0))
    return result
