"""`rnnbench check`."""

from __future__ import annotations

import argparse
import sys

from rnnbench import backends
from rnnbench.bench import check
from rnnbench.bench.cases import DIRECTIONS
from rnnbench.bench.text import counted
from rnnbench.bench.verify import Verification
from rnnbench.cli import against, values
from rnnbench.cli.terminal import Progress, paint

SHOWN = 20  # reasons for disagreements that are listed one by one
HEAD = ("cell", "backend", "dtype", "cases", "error", "allowed", "used", "of")


def run(arguments: argparse.Namespace) -> int:
    """Verify and print a row for each cell, backend and dtype as it completes; then each disagreement in a sentence."""
    values.use_threads(arguments.threads)
    if arguments.against:
        return against.run(arguments)
    if arguments.count is not None:
        raise values.UsageError("--count is the number of random cases of --against; without it the cases are fixed")
    directions = DIRECTIONS if arguments.direction == "both" else (arguments.direction,)
    named = arguments.backends or backends.OWN
    groups = list(check.cases(arguments.cells, named, arguments.dtypes, directions, seed=arguments.seed))
    progress = Progress(sum(map(len, groups)))
    # rows are printed as they complete, so the widths of the names' columns are set beforehand
    widths = [max(len(name), *(len(getattr(cases[0], name)) for cases in groups)) for name in HEAD[:3]]
    form = " ".join(f"{{:<{width}}}" for width in widths) + " {:>5} {:>9} {:>9} {:>6}  {}"
    print(form.format(*HEAD), flush=True)
    found: list[Verification] = []
    progress.show(str(groups[0][0]))
    for verification, group, complete in check.check(groups):
        found.append(verification)
        progress.step()
        progress.show(str(verification.case))
        if complete:
            progress.clear()
            print(_row(group, form), flush=True)
    progress.clear()
    return _summary(found)


def _row(group: check.Group, form: str) -> str:
    """A line of the table, formatted by `form`. The case that used most of its tolerance stands for its group."""
    worst, names = group.worst, (group.cell, group.backend, group.dtype, str(len(group.found)))
    if worst is None:
        status = "failed" if group.count("failed") else "skipped"
        return paint(form.format(*names, "", "", "", f"{status}: {group.found[0].reason}"), status, sys.stdout)
    what = f"{worst.worst} at {_sizes(worst)}"
    line = form.format(*names, f"{worst.error:.1e}", f"{worst.tolerance:.1e}", f"{worst.used:.0%}", what)
    bad = group.count("wrong", "failed")
    if bad:
        return paint(f"{line}; {bad} of {len(group.found)} disagree", "wrong", sys.stdout)
    skipped = group.count("skipped")
    return line + (f"; {skipped} skipped: {group.reasons[0]}" if skipped else "")


def _sizes(verification: Verification) -> str:
    """A case without the cell, backend and dtype that its row has already named."""
    case = verification.case
    return str(case).removeprefix(f"{case.cell} {case.backend} {case.dtype} ")


def _summary(found: list[Verification]) -> int:
    bad = [v for v in found if v.status in ("wrong", "failed")]
    passed = sum(v.ok for v in found)
    skipped = sum(v.status == "skipped" for v in found)
    by_reason: dict[tuple[str, ...], list[Verification]] = {}
    for v in bad:
        by_reason.setdefault((v.case.cell, v.case.backend, v.case.dtype, v.reason), []).append(v)
    for same in list(by_reason.values())[:SHOWN]:
        more = f" (and {counted(len(same) - 1, 'more case')})" if len(same) > 1 else ""
        print(paint(f"{same[0].status}: {same[0].case}{more}: {same[0].reason}", "wrong", sys.stdout))
    if len(by_reason) > SHOWN:
        print(f"... and {counted(len(by_reason) - SHOWN, 'more reason')}")
    tail = (f", {skipped} skipped" if skipped else "") + (f", {len(bad)} do not" if bad else "")
    print(f"{passed} of {len(found)} cases agree with the reference{tail}")
    if not passed and not bad:
        print("rnnbench: nothing was verified", file=sys.stderr)
    return 1 if bad or not passed else 0
