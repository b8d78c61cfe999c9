"""A gate's findings: an outcome for each case, and the overall result."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from rnnbench.bench.gate import pairs
from rnnbench.bench.gate.case import GateCase
from rnnbench.bench.gate.pairs import Timings
from rnnbench.bench.gate.verdict import Judgement

VERDICTS = ("wrong", "slower", "missing", "inconclusive", "faster", "same")  # from alarming to calm
COMPILE_FACTOR = 1.5  # from this factor on, slower compilation is reported; it never fails the gate
# tracemalloc counts Python's own small objects too, whose number varies slightly from call to call
BYTES_SLACK = 4096
LEFT_OUT = "left out"  # the status of a case that the budget left no time to check
PASSED, REGRESSION, INCONCLUSIVE, UNFINISHED = 0, 1, 3, 4
Pair = tuple[float, float]  # of base and head


@dataclass
class Outcome:
    """A case with its verdict.

    verdict: one of VERDICTS. ratio, lower, upper: head's time divided by base's with its 99% interval; NaN if nothing was timed.
    control: the control kernel's ratio. seconds: median time per call of base and head. pairs, restarts: how many it is based on.
    memory: bytes of base and head by name. compile: seconds of the first call of base and head. reason: a sentence, if the verdict
    needs one. missing_on: "base", "head" or "both" if it is missing. grown: which memory is larger in head, in words.
    """

    case: GateCase
    verdict: str = "inconclusive"
    ratio: float = math.nan
    lower: float = math.nan
    upper: float = math.nan
    control: float = math.nan
    seconds: Pair = (math.nan, math.nan)
    pairs: int = 0
    restarts: int = 0
    memory: dict[str, tuple[int, int]] = field(default_factory=dict)
    compile: Pair = (math.nan, math.nan)
    reason: str = "not measured: the budget was used up"
    missing_on: str = ""

    @property
    def grown(self) -> list[str]:
        names = {"workspace_bytes": "workspace", "tape_bytes": "tape"}
        return [
            f"{names.get(name, name)} grew from {base:,} to {head:,} bytes"
            for name, (base, head) in self.memory.items()
            if head > base + BYTES_SLACK
        ]

    @property
    def fails(self) -> bool:
        """Whether this alone fails the gate: slower, wrong, missing from head, or more memory."""
        return self.verdict in ("slower", "wrong") or self.missing_on == "head" or bool(self.grown)

    @property
    def unfinished(self) -> bool:
        """Whether the budget ended before one whole batch: nothing is known of this case, so it must not look like noise."""
        return self.verdict == "inconclusive" and self.restarts < pairs.RESTARTS

    def judged(self, judgement: Judgement, timings: Iterable[Timings]) -> None:
        """Take over a judgement and the data behind it. timings: of all batches of this case."""
        batches = list(timings)
        self.verdict, self.reason = judgement.verdict, judgement.reason
        self.ratio, self.lower, self.upper = judgement.ratio
        self.control = judgement.control
        self.pairs = sum(len(row) for batch in batches for row in batch.ratios)
        self.restarts = sum(len(batch.ratios) for batch in batches)
        self.seconds = _medians([pair for batch in batches for pair in batch.seconds])

    def not_timed(self, statuses: tuple[str, str], reasons: tuple[str, str]) -> bool:
        """Record why a case is not timed. Returns False, and does nothing, if both sides are "ok".

        statuses, reasons: of base and head, as reported by the workers. Wrong or crashed in head is wrong whatever base does; in
        base alone it means that there is nothing to compare with.
        """
        base, head = statuses
        bad = ("wrong", "failed")
        if (base, head) == ("ok", "ok"):
            return False
        if head in bad:
            self.verdict, self.reason = "wrong", f"head {'is wrong' if head == 'wrong' else 'failed'}: {reasons[1]}"
            return True
        if LEFT_OUT in statuses:
            return True  # it stays inconclusive
        self.verdict = "missing"
        self.missing_on = "head" if base == "ok" else "base" if head == "ok" else "both"
        what = {"wrong": "base is wrong: ", "failed": "base failed: "}.get(base, "")
        self.reason = reasons[1] if self.missing_on == "head" else what + reasons[0]
        if self.missing_on == "both" and reasons[0] != reasons[1]:
            self.reason = f"{what or 'base: '}{reasons[0]}; head: {reasons[1]}"
        return True

    def record(self) -> dict[str, Any]:
        """The outcome as JSON values: names and numbers, None where there is none."""
        plain: dict[str, Any] = {name: value for name, value in asdict(self).items() if name != "case"}
        for name in ("seconds", "compile"):
            plain[name] = dict(zip(("base", "head"), plain[name], strict=True))
        for name, sizes in plain["memory"].items():
            plain["memory"][name] = dict(zip(("base", "head"), sizes, strict=True))
        plain = {"case": str(self.case), **plain, "fails": self.fails, "grown": self.grown}
        return _finite(plain)


def _medians(pairs: list[Pair]) -> Pair:
    middles = [sorted(side)[len(side) // 2] if side else math.nan for side in zip(*pairs, strict=True)]
    return (middles[0], middles[1]) if middles else (math.nan, math.nan)


def _finite(value: Any) -> Any:
    """The value with None in place of NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def slow_to_compile(outcomes: Iterable[Outcome]) -> list[str]:
    """A sentence for each kind of kernel that compiles COMPILE_FACTOR times as slowly in head; advice, not a verdict."""
    sums: dict[str, list[float]] = {}
    for outcome in outcomes:
        if all(map(math.isfinite, outcome.compile)):
            case = outcome.case
            total = sums.setdefault(f"{case.cell} {case.backend} {case.dtype} {case.direction}", [0.0, 0.0])
            for side in (0, 1):
                total[side] += outcome.compile[side]
    return [
        f"the first calls of {kind} take {head:.1f} s instead of {base:.1f} s"
        for kind, (base, head) in sums.items()
        if head > COMPILE_FACTOR * base and head - base > 1.0
    ]


@dataclass
class Result:
    """The result of a whole gate.

    base, head: the revisions in words. threshold: the gate's. outcomes: one per case. seconds: that it took. machine: its processor
    and the like. notes: further remarks for the reader, a sentence each.
    """

    base: str
    head: str
    threshold: float
    outcomes: list[Outcome]
    seconds: float = 0.0
    machine: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False  # by Ctrl-C

    @property
    def status(self) -> int:
        """The exit status: REGRESSION if anything fails, else UNFINISHED if the budget ended before a case had its first whole
        batch, else INCONCLUSIVE if anything is unclear, or neither side could run some case, or nothing was compared.
        """
        if any(outcome.fails for outcome in self.outcomes):
            return REGRESSION
        if any(outcome.unfinished for outcome in self.outcomes):
            return UNFINISHED
        verdicts = {outcome.verdict for outcome in self.outcomes}
        untested = any(outcome.missing_on == "both" for outcome in self.outcomes)
        if untested or "inconclusive" in verdicts or not verdicts & {"same", "faster"}:
            return INCONCLUSIVE
        return PASSED

    @property
    def sentence(self) -> str:
        """The result in one line."""
        word = {PASSED: "pass", REGRESSION: "regression", INCONCLUSIVE: "inconclusive", UNFINISHED: "unfinished"}[
            self.status
        ]
        counts = [(verdict, sum(o.verdict == verdict for o in self.outcomes)) for verdict in VERDICTS]
        told = ", ".join(f"{count} {verdict}" for verdict, count in counts if count)
        grown = sum(bool(outcome.grown) for outcome in self.outcomes)
        return f"{word}: {told or 'no case'}" + (f", {grown} with more memory" if grown else "")

    def record(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "format": 1, "base": self.base, "head": self.head, "threshold": self.threshold, "status": self.status,
            "verdict": self.sentence.partition(":")[0], "seconds": round(self.seconds, 1), "machine": self.machine,
            "notes": self.notes, "cases": [outcome.record() for outcome in self.outcomes],
        }  # fmt: skip
