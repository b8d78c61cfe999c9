"""`rnnbench check --against`."""

from __future__ import annotations

import argparse
import sys

from rnnbench import backends
from rnnbench.bench import against
from rnnbench.bench.cases import DIRECTIONS
from rnnbench.bench.check import Group
from rnnbench.bench.text import counted
from rnnbench.cli.terminal import Progress, columns, paint
from rnnbench.cli.values import UsageError

HEAD = ["backend", "against", "dtype", "cases", "skipped", "disagree", "difference", "allowed", "used", "largest in"]
DEFAULT_COUNT = 200
SHOWN = 10  # disagreements that are listed one by one


def run(arguments: argparse.Namespace) -> int:
    """Run random cases on our backends and the named peers; then print the largest difference of each pair and dtype."""
    ours = _ours(arguments)
    directions = DIRECTIONS if arguments.direction == "both" else (arguments.direction,)
    count = DEFAULT_COUNT if arguments.count is None else arguments.count
    cases = list(against.cases(count, arguments.cells, arguments.dtypes, directions, arguments.seed))
    groups = {
        (backend, peer, dtype): Group(peer, backend, dtype)
        for peer in arguments.against
        for backend in ours
        for dtype in arguments.dtypes
    }
    words: dict[str, str] = {}
    progress = Progress(len(cases))
    try:
        for case in cases:
            progress.show(f"{case.on('')} on {', '.join([*ours, *arguments.against])}")
            for backend, peer, found in against.against(case, ours, arguments.against):
                groups[backend, peer, case.dtype].found.append(found)
                words |= {peer: found.runs} if found.runs else {}
            progress.step()
    except KeyboardInterrupt:
        if not progress.done:
            raise
    progress.clear()
    for peer in arguments.against:
        print(f"{peer}: {words.get(peer, 'ran nothing')}")
    table = [[*HEAD], *(_row(peer, group) for (_, peer, _), group in groups.items() if group.found)]
    ends = [row.pop() for row in table]  # sentences, which are aligned left
    print("\n".join(f"{line}  {end}" for line, end in zip(columns(table, left=3), ends, strict=True)))
    return _summary(list(groups.values()), progress.done, len(cases))


def _ours(arguments: argparse.Namespace) -> list[str]:
    """The named backends, else our own except those they are compared with: a backend always agrees with itself."""
    same = [name for name in arguments.backends or () if name in arguments.against]
    if same:
        raise UsageError(f"--against {same[0]} would compare {same[0]} with itself; leave it out of --backends")
    ours = arguments.backends or [name for name in backends.OWN if name not in arguments.against]
    if not ours:
        raise UsageError(
            f"--against {','.join(arguments.against)} leaves nothing to compare with it; name some --backends"
        )
    return ours


def _row(peer: str, group: Group) -> list[str]:
    worst = group.worst
    names = [group.backend, peer, group.dtype, str(len(group.found)), str(group.count("skipped"))]
    names.append(str(group.count("wrong", "failed")))
    if worst is None:
        return [*names, "-", "-", "-", group.found[0].reason]
    where = str(worst.case).replace(f" {worst.case.backend} {worst.case.dtype}", "")
    return [*names, f"{worst.error:.1e}", f"{worst.tolerance:.1e}", f"{worst.used:.0%}", f"{worst.worst} of {where}"]


def _summary(groups: list[Group], done: int, asked: int) -> int:
    """Print the reasons of skips and the first disagreements, and return the exit status."""
    reasons = sorted({(group.cell, reason) for group in groups for reason in group.reasons})
    for peer, reason in reasons:
        print(paint(f"skipped on {peer}: {reason}", "skipped", sys.stdout))
    bad = [found for group in groups for found in group.found if found.status in ("wrong", "failed")]
    for found in bad[:SHOWN]:
        print(paint(f"{found.status}: {found.case}: {found.reason}", "wrong", sys.stdout))
    if len(bad) > SHOWN:
        print(f"... and {len(bad) - SHOWN} more")
    agreed = sum(group.count("ok") for group in groups)
    print(
        f"{counted(done, 'random case')}: {counted(agreed, 'comparison')} agree{'s' * (agreed == 1)}"
        + (f", {len(bad)} do not" if bad else "")
    )
    if done < asked:
        print(f"rnnbench: interrupted after {done} of {counted(asked, 'case')}", file=sys.stderr)
        return 130
    if not agreed and not bad:
        print("rnnbench: nothing was compared", file=sys.stderr)
    return 1 if bad or not agreed else 0
