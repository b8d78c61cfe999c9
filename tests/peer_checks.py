"""What a network computes on a peer beside what it computes on NumPy, for features that the grid of cases has not."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnbench import RNN
from rnnbench.bench.cases import Case
from rnnbench.bench.tolerance import tolerances

T, B, I, H = 6, 4, 3, 7
LENGTHS = np.array([6, 0, 2, 5])  # a full row, an empty one
EMPTY = np.zeros(B, int)


def everything(
    backend: str,
    cell: str,
    dtype: str,
    training: bool,
    lengths: np.ndarray | None = LENGTHS,
    *,
    given: bool = True,
    padding: float = 0.0,
    **options: Any,
) -> dict[str, np.ndarray]:
    """What comes out of an RNN: "output", "h_n" and so on, in training gradients as "d" + name.

    given: with initial states and adjoints of the final ones. padding: what is added to x past a row's end.
    """
    rng = np.random.default_rng(5)
    rnn = RNN(cell, I, H, backend=backend, dtype=dtype, seed=3, **options)
    rnn.load({n: w * (0.5 if n.startswith("weight_hh") else 1.0) for n, w in rnn.params.items()})
    states, rows = rnn.spec.cell.states, rnn.spec.num_layers * rnn.spec.num_directions

    def draw(*shape: int) -> np.ndarray:
        return rng.uniform(-1, 1, shape).astype(dtype)

    x, doutput = draw(T, B, I), draw(T, B, rnn.spec.output_size)
    state, dstate = (tuple(draw(rows, B, size) for size in rnn.spec.state_sizes) for _ in range(2))
    if lengths is not None:
        x[np.arange(T)[:, None] >= lengths] += padding
    if not given:
        state = dstate = None  # type: ignore[assignment]
    if not training:
        output, final = rnn(x, state, lengths)
        return {"output": output} | {f"{s}_n": v for s, v in zip(states, final, strict=True)}
    output, final, tape = rnn.forward(x, state, lengths)
    gradients = rnn.backward(tape, doutput, dstate)
    results = {"output": output} | {f"{s}_n": v for s, v in zip(states, final, strict=True)}
    return results | {f"d{name}": value for name, value in gradients.items()}


def disagreements(peer: str, cell: str, dtype: str = "float64", training: bool = True, **options: Any) -> list[str]:
    """What differs by more than rounding between a peer and NumPy, in words. The arguments are those of `everything`."""
    got, right = (everything(name, cell, dtype, training, **options) for name in (peer, "numpy"))
    layers, both = options.get("num_layers", 1), options.get("bidirectional", False)
    allowed = tolerances(Case(cell, peer, dtype, "train", T, B, I, H, layers, both))
    assert got.keys() == right.keys(), got.keys() ^ right.keys()
    found = []
    for name, expected in right.items():
        assert got[name].shape == expected.shape and got[name].dtype == expected.dtype, name
        error, size = np.linalg.norm(got[name] - expected), np.linalg.norm(expected)
        # both may be off, so they may lie twice as far apart
        if not error <= 2 * allowed.relative(name.startswith("d")) * size:
            found.append(f"{name} differs by {error / size if size else error:.1e}")
    return found
