"""`rnnbench check --against`: our backends against the peers themselves, on random networks and data.

The reference is not involved: two independent implementations get the same numbers, and have to give the same outputs, final
states and gradients. Each may be as far from the truth as `tolerance` allows it, so they may be the sum of the two apart.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator, Sequence

import numpy as np

from rnnbench.bench.cases import LENGTHS, Case
from rnnbench.bench.data import make
from rnnbench.bench.session import Session, Unsupported
from rnnbench.bench.stored import STORED, Format, as_stored
from rnnbench.bench.tolerance import Tolerances
from rnnbench.bench.verify import Verification, compare, in_a_sentence, measured_tolerances
from rnnbench.params import NotHeld

Results = dict[str, np.ndarray]


def cases(
    count: int, cells: Sequence[str], dtypes: Sequence[str], directions: Sequence[str], seed: int
) -> Iterator[Case]:
    """`count` random cases: sizes, layers, directions, lengths and data, the same for the same arguments.

    cells, dtypes, directions: the values to draw from. seed: of the draw, and of the cases' own data.
    """
    draw = random.Random(seed)
    for number in range(count):
        yield Case(
            draw.choice(cells),
            "",
            draw.choice(dtypes),
            draw.choice(directions),
            seq_len=draw.randint(1, 20),
            batch_size=draw.randint(1, 9),
            input_size=draw.randint(1, 40),
            hidden_size=draw.randint(1, 48),
            num_layers=draw.choice((1, 1, 2, 3)),
            bidirectional=draw.random() < 0.3,
            lengths=draw.choice(LENGTHS),
            seed=seed * 1_000_003 + number,
        )


def against(case: Case, ours: Sequence[str], peers: Sequence[str]) -> Iterator[tuple[str, str, Verification]]:
    """Run one case on every pair of backends: (ours, peer, their comparison). A peer that cannot train is compared in inference.

    ours, peers: names of usable backends. A peer gets the weights as ours stores them. A verification's case names our backend,
    and its `runs` is the peer's description of itself.
    """
    known: dict[tuple[str, str, Format | None], tuple[Results, str] | Exception] = {}

    def results(backend: str, direction: str, stored: Format | None = None) -> tuple[Results, str] | Exception:
        key = backend, direction, stored
        if key not in known:
            known[key] = _results(dataclasses.replace(case, backend=backend, direction=direction), stored)
        return known[key]

    for peer, backend in itertools.product(peers, ours):
        direction, stored = case.direction, STORED.get(backend)
        theirs = results(peer, direction, stored)
        if isinstance(theirs, Unsupported) and direction == "train":
            direction, theirs = "forward", results(peer, "forward", stored)
        yield backend, peer, _compared(dataclasses.replace(case, backend=backend, direction=direction), peer,
                                       results(backend, direction), theirs)  # fmt: skip


def _results(case: Case, stored: Format | None) -> tuple[Results, str] | Exception:
    """All results with the weights rounded as `stored`, and the backend's description of itself; or the error that prevented it."""
    try:
        data = make(case)
        session = Session(case, dataclasses.replace(data, params=as_stored(data.params, stored)))
        with np.errstate(all="ignore"):
            return session.result(session.run()), session.runs
    except Exception as error:  # the caller reports it as a finding, and the next case must still run
        return error


def _compared(
    case: Case, peer: str, mine: tuple[Results, str] | Exception, theirs: tuple[Results, str] | Exception
) -> Verification:
    for name, result in ((peer, theirs), (case.backend, mine)):
        if isinstance(result, (Unsupported, NotHeld)):
            return Verification(case, "skipped", reason=str(result))
        if isinstance(result, Exception):
            line = (str(result).strip() or "no message").splitlines()[0]
            return Verification(case, "failed", reason=f"{name}: {type(result).__name__}: {line}")
    assert not isinstance(mine, Exception) and not isinstance(theirs, Exception)
    got, (peers, runs) = mine[0], theirs
    try:
        ours, other = (measured_tolerances(case.on(backend)) for backend in (case.backend, peer))
    except Exception as error:  # as in `_results`
        return Verification(case, "failed", reason=in_a_sentence(error))
    both = Tolerances(ours.forward + other.forward, ours.gradients + other.gradients, ours.flips + other.flips)
    if reason := both.why_untold(case.on(peer) if other.forward > ours.forward else case):
        return Verification(case, "skipped", reason=reason)
    found = compare(case, got, {name: value.astype(np.float64) for name, value in peers.items()}, both)
    return dataclasses.replace(found, runs=runs, reason=f"against {peer}: {found.reason}" if found.reason else "")
