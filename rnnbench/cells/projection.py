"""A cell whose new h passes through one more matrix, as a cell of its own.

With W_r (P, H), and m for what the cell's equation gives for h:

    h = W_r m        instead of        h = m

The projection is a recurrent product without bias, so backends need nothing new. They pad h, which is P wide, to H with zeros.

Source: Sak, Senior, Beaufays, Long Short-Term Memory Based Recurrent Neural Network Architectures, arXiv:1402.1128.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from .trace import Cell

PROJECTION = "weight_hr"  # the name of the projection's gate, which is also that of its matrix


class Projected(Cell):
    """`base` with its new h projected. It is copied and pickled like its base."""

    def __init__(self, fn: Callable[..., Any], base: Cell) -> None:
        super().__init__(fn)
        self.base = base

    def __reduce__(self) -> Any:
        return projected, (self.base,)


@lru_cache(maxsize=64)
def projected(cell: Cell) -> Cell:
    """`cell` with its new h projected.

    Raises ValueError if h is used elementwise, as in a GRU, or becomes another state, because a projected h is narrower than the
    hidden units; if a recurrent matrix multiplies anything but h, because all these matrices are only as wide as h; and if a gate
    has the projection's own name.
    """
    reason = _why_not(cell)
    if reason:
        raise ValueError(f"{cell.name} cannot be projected: {reason}")

    def step(x: Any, R: Any, **arguments: Any) -> tuple[Any, ...]:
        new = cell.fn(x, R, **arguments)
        m, *others = new if isinstance(new, (tuple, list)) else (new,)
        return (getattr(R, PROJECTION) @ m, *others)

    step.__name__ = f"{cell.name}_projected"
    step.__signature__ = inspect.signature(cell.fn)  # type: ignore[attr-defined]
    return Projected(step, cell)


def projectable(cell: Cell) -> bool:
    """Whether `projected` takes the cell."""
    return not _why_not(cell)


def _why_not(cell: Cell) -> str:
    h = cell.graph.node("state", "h")
    elsewhere = [*cell.outputs, *(a for n in cell.order if n.op != "product" for a in n.inputs)]
    if not cell.recurrent_gates or any(node is h for node in elsewhere):
        return "its h must be used in recurrent products only"
    others = [n for n in cell.order if n.op == "product" and n.inputs[0] is not h]
    if others:
        return (
            f"R.{others[0].args[0]} multiplies something other than h, "
            "but recurrent matrices are only as wide as a projected h"
        )
    if PROJECTION in cell.recurrent_gates:
        return f"the projection is called R.{PROJECTION}; rename that gate"
    return ""
