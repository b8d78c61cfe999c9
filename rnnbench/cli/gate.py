"""`rnnbench gate`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from rnnbench.bench.gate import output, sides
from rnnbench.bench.gate.outcome import Result
from rnnbench.bench.gate.project import GateError, Project, cases, no_longer_asked, read
from rnnbench.bench.gate.run import gate
from rnnbench.bench.git import GitError
from rnnbench.bench.machine import describe
from rnnbench.cli.terminal import Progress, columns, paint
from rnnbench.cli.values import UsageError
from rnnbench.files import replace_text, require_writable

# verdict -> the status in whose colour it is shown
STATUS = {"slower": "wrong", "wrong": "wrong", "missing": "skipped", "inconclusive": "skipped", "faster": "ok"}


def run(arguments: argparse.Namespace) -> int:
    """Run the gate and print its findings. Returns `Result.status`; a GateError is wrong usage, 2."""
    try:
        for path in filter(None, (arguments.markdown, arguments.json)):
            require_writable(path)  # fail now, not after minutes of measuring
        result = _gate(arguments)
        _print(result, arguments.format)
        if arguments.markdown:
            replace_text(arguments.markdown, output.markdown(result))
        if arguments.json:
            replace_text(arguments.json, _json(result))
    except (GateError, GitError) as error:
        raise UsageError(str(error)) from error
    except OSError as error:  # a disk that is full, a folder that cannot be written
        raise UsageError(f"the gate cannot write what it needs: {error}") from error
    return 130 if result.interrupted else result.status


def _gate(arguments: argparse.Namespace) -> Result:
    root = sides.find_root(Path.cwd())
    head = sides.resolve(root, arguments.head or "HEAD")
    base = sides.resolve(root, arguments.base)
    # the verdict on a commit must not depend on what happens to be checked out; without --head that is the commit
    found = read(root, head if arguments.head else None)
    project = dataclasses.replace(
        found,
        threshold=arguments.threshold or found.threshold,
        budget=arguments.budget or found.budget,
    )
    wanted = cases(project, arguments.cases or project.cases)
    if arguments.head is None:
        sides.check_clean(root)
    progress = Progress(1)
    try:
        result = gate(project, arguments.base, arguments.head or "HEAD", wanted, progress.show)
    finally:
        progress.clear()
    result.notes += _changes_of_the_table(root, base, found, arguments)
    known = describe()
    result.machine = {name: known.get(name) for name in ("cpu", "cores", "memory", "os", "python", "versions")}
    return result


def _changes_of_the_table(root: Path, base: str, head: Project, arguments: argparse.Namespace) -> list[str]:
    """A sentence on each part of head's table that makes the gate easier to pass than base's: a reader must not miss that."""
    try:
        before = read(root, base)
    except GateError:  # base has no table, or one of an earlier rnnbench
        return []
    told = []
    gone = [] if arguments.cases else no_longer_asked(before, head)
    if gone:
        told.append(f"Not compared, since base's pyproject.toml asks for it and head's does not: {'; '.join(gone)}.")
    if head.threshold > before.threshold and not arguments.threshold:
        told.append(
            f"Head's pyproject.toml has raised the threshold from {before.threshold:.1%} to {head.threshold:.1%}."
        )
    return told


def _json(result: Result) -> str:
    return json.dumps(result.record(), indent=1, allow_nan=False) + "\n"


def _print(result: Result, format: str) -> None:
    if format == "json":
        sys.stdout.write(_json(result))
    elif format == "markdown":
        sys.stdout.write(output.markdown(result))
    else:
        table = columns([output.HEAD, *map(output.cells, result.outcomes)], left=2)
        print(output.about(result))
        print(table[0])
        for outcome, line in zip(result.outcomes, table[1:], strict=True):
            print(paint(line, "wrong" if outcome.fails else STATUS.get(outcome.verdict, ""), sys.stdout))
        for sentence in output.sentences(result):
            print(sentence)
        print(result.sentence)
