"""Measures history in retrospect: the benchmarks of earlier commits, each as it was, on this machine with today's libraries.

Every commit is checked out as a git worktree in a temporary folder and runs its own `rnnbench run` there, into the results of
this checkout. So a number belongs to the commit's kernels and to the commit's benchmarks. If a benchmark has changed since, so has
its version, and neither asv nor the report joins the two into one line.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rnnbench.bench import record
from rnnbench.bench.checkout import SuiteError, git
from rnnbench.bench.environment import outside_hooks, python_path
from rnnbench.files import replace_file


def commits(root: Path, since: str, every: int = 1) -> list[str]:
    """The commits after `since` up to HEAD along first parents, oldest first: HEAD, and every `every`-th one before it.

    Raises SuiteError if `since` is unknown, is no ancestor of HEAD, or has no commits after it.
    """
    shallow = git(root, "rev-parse", "--is-shallow-repository") == "true"
    try:
        git(root, "rev-parse", "--verify", "--quiet", f"{since}^{{commit}}")
        git(root, "merge-base", "--is-ancestor", since, "HEAD")
    except SuiteError:
        hint = "this clone is shallow, so try `git fetch --unshallow`" if shallow else "use a tag or commit before it"
        raise SuiteError(f"{since!r} is not a commit before HEAD in {root}; {hint}") from None
    newest_first = git(root, "rev-list", "--first-parent", f"{since}..HEAD").splitlines()
    if not newest_first:
        raise SuiteError(f"there is no commit after {since!r}: it is HEAD")
    return newest_first[::every][::-1]


def measured(results_dir: Path, machine: str, commit: str, suite: str, bench: Sequence[str]) -> bool:
    """Whether a run of the suite on this commit and machine came to its end.

    A result file alone says little: it may be of another suite, or of a run that was interrupted.

    suite, bench: as for `record.finished`; a run without patterns has measured them all.
    """
    records = record.read(_records(results_dir, machine, commit))
    return any(record.finished(suite, patterns) in records for patterns in (bench, ()))


def _records(results_dir: Path, machine: str, commit: str) -> Path:
    return results_dir / machine / f"{commit[:8]}-rnnbench.jsonl"


def description(results_dir: Path) -> bytes | None:
    """asv's description of the benchmarks beside their results; None without results."""
    described = results_dir / "benchmarks.json"
    return described.read_bytes() if described.is_file() else None


def run(
    root: Path,
    results_dir: Path,
    machine: str,
    commit: str,
    suite: str,
    bench: Sequence[str],
    described: bytes | None = None,
) -> int:
    """Measure one commit and return the exit status of its `rnnbench run`.

    root: the checkout with the commit. results_dir, machine: where results go. suite, bench: what to measure. described: asv's
    description of newer benchmarks, which is put back; None where this commit's own is the newest.
    """
    with tempfile.TemporaryDirectory(prefix="rnnbench-backfill-", ignore_cleanup_errors=True) as folder:
        checkout = Path(folder) / "checkout"
        git(root, "worktree", "add", "--quiet", "--detach", str(checkout), commit)
        try:
            command = [sys.executable, "-m", "rnnbench", "run", "--machine", machine]
            command += ["--results", str(results_dir.resolve()), "--suite", suite]
            command += [part for pattern in bench for part in ("--bench", pattern)]
            environment = {**outside_hooks(), "PYTHONPATH": python_path(checkout)}
            status = subprocess.run(command, cwd=checkout, env=environment, check=False).returncode
            if status == 0:  # an old commit's own run does not record that it is finished
                record.append(record.finished(suite, bench), _records(results_dir, machine, commit))
            return status
        finally:
            if described is not None:
                replace_file(results_dir / "benchmarks.json", lambda file: file.write(described))
            with suppress(SuiteError):  # the folder is deleted anyway, and git forgets worktrees whose folder is gone
                git(root, "worktree", "remove", "--force", str(checkout))
