"""`rnnbench backfill`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rnnbench.bench import backfill
from rnnbench.bench.checkout import SuiteError, asv_machine, find_checkout, git, require_place
from rnnbench.bench.text import counted
from rnnbench.cli.values import UsageError


def run(arguments: argparse.Namespace) -> int:
    """Measure earlier commits, one after the other. Returns 1 if one of them could not be measured, 130 after Ctrl-C."""
    try:
        root = find_checkout(Path.cwd(), "backfill")
        results_dir = Path(arguments.results or root / "results")
        machine = asv_machine(arguments.machine, results_dir)["machine"]
        chosen = backfill.commits(root, arguments.since, arguments.every)
        what = arguments.suite, arguments.bench
        done = {c for c in chosen if backfill.measured(results_dir, machine, c, *what)}
        due = [c for c in chosen if arguments.again or c not in done]
        if due and not arguments.dry_run:
            require_place(results_dir.absolute() / machine)
        print(
            f"{counted(len(chosen), 'commit')} after {arguments.since}, {len(due)} of them to be measured on {machine}"
        )
        described, failed = backfill.description(results_dir), 0
        for number, commit in enumerate(due, start=1):
            subject = git(root, "log", "-1", "--format=%cs %s", commit)
            print(f"[{number}/{len(due)}] {commit[:8]} {subject}", flush=True)
            if arguments.dry_run:
                continue
            # the newest commit, HEAD, brings the newest description itself
            status = backfill.run(
                root, results_dir, machine, commit, *what, described=None if commit == chosen[-1] else described
            )
            if status == 130:
                return status
            if status:
                failed += 1
                print(f"rnnbench: {commit[:8]} was not measured in full (exit status {status})", file=sys.stderr)
    except SuiteError as error:
        raise UsageError(str(error)) from error
    return 1 if failed else 0
