"""`rnnbench check`: every cell, backend and dtype over shapes that have broken kernels before."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rnnbench.bench.cases import DIRECTIONS, Case, Unusual
from rnnbench.bench.verify import Verification, verify
from rnnbench.cells import find, projectable

# One step, one sequence, one unit; sizes that are odd, prime, one above a power of two (17 and 33 leave tails in every
# vector width); batches that do not fill a tile; sequences that end early; networks of several layers and directions.
SHAPES: tuple[dict[str, Any], ...] = (
    {"seq_len": 1, "batch_size": 1, "input_size": 1, "hidden_size": 1},
    {"seq_len": 1, "batch_size": 3, "input_size": 4, "hidden_size": 5},
    {"seq_len": 9, "batch_size": 2, "input_size": 3, "hidden_size": 1},
    {"seq_len": 6, "batch_size": 1, "input_size": 7, "hidden_size": 17},
    {"seq_len": 5, "batch_size": 4, "input_size": 1, "hidden_size": 33},
    {"seq_len": 7, "batch_size": 5, "input_size": 6, "hidden_size": 17, "lengths": "ragged"},
    {"seq_len": 8, "batch_size": 13, "input_size": 16, "hidden_size": 32},
    {"seq_len": 5, "batch_size": 3, "input_size": 5, "hidden_size": 33, "num_layers": 2},
    {"seq_len": 6, "batch_size": 4, "input_size": 3, "hidden_size": 17, "bidirectional": True},
    {
        "seq_len": 7, "batch_size": 3, "input_size": 5, "hidden_size": 33, "num_layers": 2, "bidirectional": True,
        "lengths": "ragged",
    },
)  # fmt: skip

# What the networks of these shapes have besides. `rnnbench gpu` checks the shapes without it.
OPTIONS: tuple[tuple[str, ...], ...] = (
    (),
    ("no bias",),
    ("numbers",),
    ("reverse",),
    ("projection",),
    ("numbers", "reverse"),
    (),
    ("numbers", "no bias"),
    ("numbers",),
    (),
)


@dataclass
class Group:
    """The findings for one cell, backend and dtype. worst: the verification that used the largest part of its tolerance."""

    cell: str
    backend: str
    dtype: str
    found: list[Verification] = field(default_factory=list)

    def count(self, *statuses: str) -> int:
        """How many cases have one of these statuses."""
        return sum(v.status in statuses for v in self.found)

    @property
    def worst(self) -> Verification | None:
        """The verification that used the largest part of its tolerance; None if nothing was compared."""
        compared = [v for v in self.found if v.status in ("ok", "wrong")]
        return max(compared, key=lambda v: v.used, default=None)

    @property
    def reasons(self) -> list[str]:
        """Why cases were skipped, without duplicates."""
        return sorted({v.reason for v in self.found if v.status == "skipped"})


def cases(
    cells: Iterable[str],
    backends: Iterable[str],
    dtypes: Iterable[str],
    directions: Iterable[str] = DIRECTIONS,
    seed: int = 0,
) -> Iterator[list[Case]]:
    """The cases, grouped by cell, backend and dtype. seed: of the data; the arguments are axes of `Case`."""
    directions, dtypes, backends = list(directions), list(dtypes), list(backends)
    for cell in cells:
        shapes = [
            shape | {"options": _options(cell, shape, names)} for shape, names in zip(SHAPES, OPTIONS, strict=True)
        ]
        for dtype in dtypes:
            for backend in backends:
                yield [Unusual(cell, backend, dtype, d, **shape, seed=seed) for shape in shapes for d in directions]


def _options(name: str, shape: dict[str, Any], wanted: Collection[str]) -> tuple[tuple[str, float], ...]:
    """`Unusual.options` of a cell: those of OPTIONS that are wanted and that it has."""
    cell, found = find(name), dict[str, float]()
    if "numbers" in wanted:
        # below the default and of its sign, so that what may not be 0, negative or above 1 does not become so; no two the same
        shares = {number: 0.5 + 0.25 / k for k, number in enumerate(cell.numbers, 1)}
        found |= {number: share * (cell.numbers[number] or 0.5) for number, share in shares.items()}
    if "no bias" in wanted:
        found["bias"] = False
    if "reverse" in wanted:
        found["reverse"] = True
    if "projection" in wanted and projectable(cell):
        found["proj_size"] = shape["hidden_size"] // 2 + 1
    return tuple(found.items())


def check(groups: Iterable[list[Case]]) -> Iterator[tuple[Verification, Group, bool]]:
    """Verify one case after the other: its verification, its group so far, and whether that is complete. groups: from `cases`."""
    for group_cases in groups:
        first = group_cases[0]
        group = Group(first.cell, first.backend, first.dtype)
        for case in group_cases:
            verification = verify(case)
            group.found.append(verification)
            yield verification, group, case is group_cases[-1]
