"""A cell whose new h passes through one more matrix, as a cell of its own.

With W_r (P, H), m what the cell's equation gives for h:

    h = W_r m        instead of        h = m

The matrix is a recurrent product without bias, so backends need nothing new; h is P wide and padded with zeros to H there.

Source: Sak, Senior, Beaufays, Long Short-Term Memory Based Recurrent Neural Network Architectures, arXiv:1402.1128.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

from .trace import Cell

PROJECTION = "weight_hr"  # the gate, called as its matrix is


@lru_cache(maxsize=64)
def projected(cell: Cell) -> Cell:
    """`cell` with its new h projected.

    Raises ValueError where h meets hidden units one by one, as in a GRU: a projected h is narrower than they are.
    """
    pointwise = [
        n for n in cell.order if n.op != "product" and any(a.op == "state" and a.args[0] == "h" for a in n.inputs)
    ]
    if pointwise or not cell.recurrent_gates:
        raise ValueError(f"{cell.name} cannot be projected: its h must enter by recurrent products and by nothing else")

    def step(x: Any, R: Any, **arguments: Any) -> tuple[Any, ...]:
        new = cell.fn(x, R, **arguments)
        m, *others = new if isinstance(new, (tuple, list)) else (new,)
        return (getattr(R, PROJECTION) @ m, *others)

    step.__name__ = f"{cell.name}_projected"
    step.__signature__ = inspect.signature(cell.fn)  # type: ignore[attr-defined]
    return Cell(step)
