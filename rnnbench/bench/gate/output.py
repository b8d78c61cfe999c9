"""Formats a result as Markdown for a pull request's comment. The table for the terminal is made by the command."""

from __future__ import annotations

import math

from rnnbench.backends.threads import in_words
from rnnbench.bench.gate.outcome import BYTES_SLACK, Outcome, Result
from rnnbench.bench.gate.verdict import CONTROL_LIMIT
from rnnbench.bench.text import counted, duration

HEAD = ["case", "verdict", "head / base", "99% interval", "base", "head", "control", "memory"]
MARKS = {
    "slower": "🔴 slower", "wrong": "🔴 wrong", "missing": "⚪ missing", "inconclusive": "🟡 inconclusive",
    "faster": "🟢 faster", "same": "same",
}  # fmt: skip
TITLES = {0: "✅", 1: "❌", 3: "⚠️", 4: "❌"}


def cells(outcome: Outcome) -> list[str]:
    """An outcome's table cells, in the order of HEAD."""
    timed = math.isfinite(outcome.ratio)
    verdict = outcome.verdict if outcome.verdict != "missing" else f"missing on {outcome.missing_on}"
    return [
        str(outcome.case),
        verdict,
        f"{outcome.ratio:.3f}" if timed else "-",
        f"{outcome.lower:.3f} to {outcome.upper:.3f}" if timed else "-",
        *(duration(seconds) for seconds in outcome.seconds),
        f"{outcome.control:.3f}" if timed else "-",
        memory(outcome),
    ]


def memory(outcome: Outcome) -> str:
    """How workspace and tape have changed, in a few words."""
    if not outcome.memory:
        return "-"
    if outcome.grown:
        return "grew"
    base, head = (sum(sizes[side] for sizes in outcome.memory.values()) for side in (0, 1))
    return "shrank" if head < base - BYTES_SLACK else "same"


def sentences(result: Result) -> list[str]:
    """What does not fit into the table: the reasons of verdicts, memory that grew, and the notes."""
    told = []
    for outcome in result.outcomes:
        if outcome.reason:
            told.append(f"{outcome.verdict}: {outcome.case}: {outcome.reason}")
        told += [f"memory: {outcome.case}: {sentence}" for sentence in outcome.grown]
    return [*told, *result.notes]


def about(result: Result) -> str:
    """What was compared and how, in one line."""
    pairs = sum(outcome.pairs for outcome in result.outcomes)
    done = f"{counted(len(result.outcomes), 'case')}, {counted(pairs, 'pair')}, {result.seconds:.0f} s"
    return (
        f"head {result.head} against base {result.base}: {done}; "
        f"timed with {_threads(result)}; a change counts from {result.threshold:.1%}, the control may move by {CONTROL_LIMIT:.0%}"
    )


def _threads(result: Result) -> str:
    """Which numbers of threads the cases are timed with: a reader must not take one core's times for the machine's."""
    counts = sorted({outcome.case.threads for outcome in result.outcomes}) or [1]
    return " and ".join(in_words(count) for count in counts)


def markdown(result: Result) -> str:
    """The result as a comment: the verdict first, then what fails or is unclear, then the whole table, collapsed."""
    rows = [cells(outcome) for outcome in result.outcomes]
    loud = [
        row
        for row, o in zip(rows, result.outcomes, strict=True)
        if o.fails or o.missing_on == "both" or o.verdict not in ("same", "missing")
    ]
    parts = [f"## {TITLES[result.status]} rnnbench gate: {result.sentence}", about(result)]
    if loud:
        parts.append(_table(loud))
    told = sentences(result)
    if told:
        parts.append("\n".join(f"- {_escaped(sentence)}" for sentence in told))
    if len(loud) < len(rows):  # otherwise the whole table is there already
        parts.append(f"<details><summary>All {counted(len(rows), 'case')}</summary>\n\n{_table(rows)}\n\n</details>")
    parts.append(
        "head / base is the ratio of times: above 1 is slower. "
        "Every case agreed with its reference on both sides before it was timed."
    )
    return "\n\n".join(parts) + "\n"


def _table(rows: list[list[str]]) -> str:
    lines = [HEAD, ["---", "---", *["---:"] * (len(HEAD) - 3), "---"]]
    for row in rows:
        kind = row[1].partition(" ")[0]
        lines.append([_escaped(row[0]), MARKS[kind] + row[1].removeprefix(kind), *map(_escaped, row[2:])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    """Text of a case or an error as plain Markdown: it may come from a stranger's pull request, and is shown in a comment."""
    for mark in "\\`*_[]#!|":
        text = text.replace(mark, f"\\{mark}")
    for mark, entity in (("<", "&lt;"), (">", "&gt;"), ("@", "&#64;")):
        text = text.replace(mark, entity)
    return " ".join(text.split())
