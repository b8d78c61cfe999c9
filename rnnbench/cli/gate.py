"""`rnnbench gate`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from rnnbench.bench.gate import output, sides
from rnnbench.bench.gate.outcome import Result
from rnnbench.bench.gate.project import GateError, cases, read
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
    project = read(root)
    project = dataclasses.replace(
        project,
        threshold=arguments.threshold or project.threshold,
        budget=arguments.budget or project.budget,
    )
    wanted = cases(project, arguments.cases or project.cases)
    if arguments.head is None:
        sides.check_clean(root)
    for revision in (arguments.base, arguments.head or "HEAD"):
        sides.resolve(root, revision)
    progress = Progress(1)
    try:
        result = gate(project, arguments.base, arguments.head or "HEAD", wanted, progress.show)
    finally:
        progress.clear()
    known = describe()
    result.machine = {name: known.get(name) for name in ("cpu", "cores", "memory", "os", "python", "versions")}
    return result


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
