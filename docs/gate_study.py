"""How often does `rnnbench gate` err? The study behind gate.md; it runs in slices, for a machine has little quiet time.

    python docs/gate_study.py a-a --seconds 110        nothing changed: every change it sees is a false alarm
    python docs/gate_study.py slow --seconds 110       head's kernels slowed by 3%, 5% and 10% in turn
    python docs/gate_study.py load --seconds 110       the same two, beside another process that computes
    python docs/gate_study.py asv --seconds 110        the same cases and slowdowns by `asv continuous`
    python docs/gate_study.py table                    what all slices so far come to, as Markdown

Every verdict becomes a line of docs/gate_study.jsonl. The slowdown is put into the side's own copy of the code: behind
each call of a kernel the process computes on until the call has taken so many per cent longer. Sides are built once a slice, both
from one commit.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from rnnbench.bench.gate import run, sides, verdict
from rnnbench.bench.gate.outcome import Outcome, Result
from rnnbench.bench.gate.project import Project, cases
from rnnbench.bench.lock import only_one
from rnnbench.files import replace_text

HERE = Path(__file__).resolve().parent
LINES = HERE / "gate_study.jsonl"
CACHE = Path(tempfile.gettempdir()) / "rnnbench-gate-study"
# Cheap to verify, so that a slice holds many verdicts: from 50 us to 5 ms a call, NumPy's and compiled kernels.
CASES = (
    "lstm numba-cpu forward T=32 B=1 H=128", "lstm numba-cpu forward T=16 B=16 H=128", "gru numba-cpu forward T=32 B=1 H=128",
    "rnn_tanh numba-cpu forward T=64 B=1 H=64", "lstm numpy forward T=32 B=4 H=64", "gru numpy forward T=16 B=16 H=64",
    "rnn_tanh numpy forward T=64 B=4 H=64", "lstm numpy train T=16 B=4 H=64",
)  # fmt: skip
SLOWDOWNS = (0.03, 0.05, 0.10)
# Appended to a side's rnnbench/backends/__init__.py, which no kernel is made of: nothing has to be compiled anew.
INJECTION = '''

_import_as_it_is = _import


def _import(entry):
    """A backend whose networks take longer."""
    import time

    backend = _import_as_it_is(entry)
    if hasattr(backend, "prepare_as_it_is"):
        return backend
    backend.prepare_as_it_is = backend.prepare

    def longer(call):
        def slow(*arguments):
            start = time.perf_counter()
            found = call(*arguments)
            now = time.perf_counter()
            end = now + FACTOR * (now - start)
            while time.perf_counter() < end:
                pass
            return found

        return slow

    def prepare(spec, params):
        network = backend.prepare_as_it_is(spec, params)
        network.forward, network.backward = longer(network.forward), longer(network.backward)
        return network

    backend.prepare = prepare
    return backend
'''


def inject(package: Path, factor: float) -> None:
    """Slow the kernels of an installed or checked-out rnnbench down. package: its folder. factor: 0.05 for 5% longer."""
    path = package / "backends" / "__init__.py"
    text = path.read_text(encoding="utf-8").partition("\n\n_import_as_it_is")[0].rstrip() + "\n"
    path.write_text(text + (INJECTION.replace("FACTOR", repr(factor)) if factor else ""), encoding="utf-8")


@contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """Another process that multiplies matrices and copies memory, wherever the system puts it."""
    work = (
        "import numpy as np\na = np.random.rand(600, 600)\nb = np.random.rand(4_000_000)\nwhile True: a @ a; b.copy()"
    )
    process = subprocess.Popen([sys.executable, "-c", work]) if wanted else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


def append(line: dict[str, Any]) -> None:
    """Add a verdict to the raw numbers."""
    stamp = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with open(LINES, "a", encoding="utf-8") as file:
        file.write(json.dumps({"at": stamp, **line}) + "\n")


def gates(kind: str, seconds: float, revision: str = "HEAD", alone: bool = False, only: float | None = None) -> int:
    """Gates of all cases, with one slowdown after the other, until the slice is over; returns how many verdicts they gave."""
    given = 0
    project = Project(sides.find_root(HERE), name="rnnbench")
    slowdowns = {"a-a": (0.0,), "slow": SLOWDOWNS, "load": (0.0, 0.05)}[kind] if only is None else (only,)
    earlier = sum(line["study"] == kind for line in lines()) // len(CASES)
    base, head = _kept(project, revision)
    with only_one(run.PLACE), busy(kind == "load"):
        end = monotonic() + seconds
        for number in itertools.count(earlier):  # where the last slice stopped
            start, slowdown = monotonic(), slowdowns[number % len(slowdowns)]
            if start > end:
                break
            inject(head.site / "rnnbench", slowdown)
            result = Result("", "", project.threshold, [Outcome(case) for case in cases(project, CASES)])
            run.time_cases(result, base, head, project, end)
            for outcome in result.outcomes:
                if outcome.verdict == "inconclusive" and monotonic() > end:
                    continue  # the slice ended before the gate had taken its batches: no verdict
                numbers = {name: _short(getattr(outcome, name)) for name in ("ratio", "lower", "upper", "control")}
                about = {
                    "study": kind,
                    "alone": alone,
                    "slowdown": slowdown,
                    "case": str(outcome.case),
                    "verdict": outcome.verdict,
                    **numbers,
                }
                about |= {"restarts": outcome.restarts, "pairs": outcome.pairs, "reason": outcome.reason}
                about |= {"batches": verdict.BATCHES}
                append(about | {"seconds": round((monotonic() - start) / len(CASES), 1), "commit": base.commit[:8]})
                given += 1
    return given


def _kept(project: Project, revision: str) -> tuple[sides.Side, sides.Side]:
    """Both sides, built once for all slices. Their kernels too are compiled once: the injection is in nothing that is compiled."""
    commit = sides.resolve(project.root, revision)
    folder = CACHE / commit[:8]
    kept = [
        sides.Side(
            name, revision, commit, folder / name, folder / name / "site", folder / name / "cache", own_rnnbench=True
        )
        for name in ("base", "head")
    ]
    if not folder.exists():
        with sides.built(project, commit, commit) as (base, _):
            for side in kept:
                shutil.copytree(base.site, side.site)
                side.cache.mkdir()
    return kept[0], kept[1]


def _share(value: float) -> str:
    """In per cent, with a decimal where it would round to none."""
    return f"{value:.1%}" if value < 0.01 else f"{value:.0%}"


def _short(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def asv_continuous(seconds: float) -> int:
    """`asv continuous` on a clone with two commits, of which the second is slowed; its verdict on each of its cases.

    The clone and asv's environment in it are kept for the next slice. One slowdown after the other, until the slice is over.
    """
    end, given, longest = monotonic() + seconds, 0, 0.0
    slowdowns = (0.0, *SLOWDOWNS)
    earlier = sum(line["study"] == "asv" for line in lines()) // len(CASES)
    clone = CACHE / "asv"
    if not clone.exists():
        _run(["git", "clone", "--quiet", str(HERE.parent), str(clone)])
        _run([sys.executable, "-m", "asv", "machine", "--yes"], cwd=clone)
    (clone / "benchmarks" / "study.py").write_text(_asv_benchmark(), encoding="utf-8")
    for number in itertools.count(earlier):  # where the last slice stopped
        start, slowdown = monotonic(), slowdowns[number % len(slowdowns)]
        if start + longest > end:
            break
        commits = [_committed(clone, factor) for factor in (0.0, slowdown)]
        asv = [
            sys.executable,
            "-m",
            "asv",
            "continuous",
            "--launch-method",
            "spawn",
            "--factor",
            "1.03",
            "--bench",
            "^study",
        ]
        told = _run([*asv, *commits], cwd=clone, check=False).splitlines()
        longest = max(longest, monotonic() - start)
        marks = {"| +": "slower", "| -": "faster"}
        for text in CASES:
            seen = [marks[line[:3]] for line in told if line[:3] in marks and repr(text) in line]
            about = {"study": "asv", "slowdown": slowdown, "case": text, "verdict": seen[0] if seen else "same"}
            append(about | {"seconds": round((monotonic() - start) / len(CASES), 1)})
            given += 1
        if "All benchmarks:" not in told and not any(line.startswith("BENCHMARKS NOT") for line in told):
            print("\n".join(told[-20:]))
    return given


def _committed(clone: Path, factor: float) -> str:
    inject(clone / "rnnbench", factor)
    who = ["-c", "user.name=study", "-c", "user.email=study@example.org"]
    _run(["git", *who, "commit", "--quiet", "--allow-empty", "--all", "--message", f"slowed by {factor}"], cwd=clone)
    return _run(["git", "rev-parse", "HEAD"], cwd=clone).strip()


def _asv_benchmark() -> str:
    return f"""
from benchmarks.common import ready
from rnnbench.backends.threads import set_threads
from rnnbench.bench.gate.project import Project, parse

class Study:
    params = [{list(CASES)!r}]
    param_names = ["case"]
    version = "1"
    timeout = 120

    def setup(self, text):
        set_threads(1)
        self.session = ready(parse(Project("."), text))

    def time_case(self, text):
        self.session.run()
"""


def _run(command: list[str], cwd: Path | None = None, check: bool = True) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def lines() -> list[dict[str, Any]]:
    """The verdicts of all slices so far."""
    if not LINES.exists():
        return []
    return [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]


def wilson(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95% score interval of a proportion (Wilson, 1927)."""
    middle, spread = hits + z * z / 2, z * math.sqrt(hits * (count - hits) / count + z * z / 4)
    return (middle - spread) / (count + z * z), (middle + spread) / (count + z * z)


def table() -> str:
    """All slices as a Markdown table: verdicts by study and slowdown."""
    found: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for line in lines():
        name = line["study"] + ("" if line.get("alone") else ", machine in use")
        if line.get("batches", 4) != 4 and line["study"] != "asv":
            name += f", {line['batches']} batches"
        found.setdefault((name, line["slowdown"]), []).append(line)
    rows = ["| study | slowdown | verdicts | slower | faster | same | inconclusive | called slower, 95% interval | seconds each |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for (study, slowdown), part in sorted(found.items()):
        counts = Counter(line["verdict"] for line in part)
        low, high = wilson(counts["slower"], len(part))
        numbers = [len(part), *(counts[verdict] for verdict in ("slower", "faster", "same", "inconclusive"))]
        seconds = sorted(line["seconds"] for line in part)[len(part) // 2]
        rows.append(
            f"| {study} | {slowdown:.0%} | {' | '.join(map(str, numbers))} | {low:.0%} to {_share(high)} | {seconds:.0f} |"
        )
    return "\n".join(rows) + "\n"


def main() -> None:
    """Run a slice, or print the table and put it into gate.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("a-a", "slow", "load", "asv", "table"))
    parser.add_argument("--seconds", type=float, default=110.0, help="no verdict is begun after them")
    parser.add_argument(
        "--revision", default="HEAD", help="whose kernels both sides are; one for all slices saves compiling"
    )
    parser.add_argument("--slowdown", type=float, help="this one only, instead of each in turn: 0.05")
    parser.add_argument("--alone", action="store_true", help="nothing else runs on the machine, as far as you know")
    arguments = parser.parse_args()
    if arguments.study == "table":
        page = HERE / "gate.md"
        before, start, rest = page.read_text(encoding="utf-8").partition("<!-- table -->\n")
        _, stop, after = rest.partition("<!-- end of table -->")
        replace_text(page, before + start + table() + stop + after)
        print(table(), end="")
    else:
        if arguments.study == "asv":
            given = asv_continuous(arguments.seconds)
        else:
            given = gates(arguments.study, arguments.seconds, arguments.revision, arguments.alone, arguments.slowdown)
        print(f"{given} verdicts more, {len(lines())} in all")


if __name__ == "__main__":
    main()
