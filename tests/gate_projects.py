"""Small git projects for the tests of the gate, and workers that only pretend."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rnnbench.bench.gate.project import HEADLINE, Project, parse

CELL = """from rnnbench import cell, sigmoid, tanh


@cell
def mgu(x, R, h):
    f = sigmoid(x.f + R.f @ h)
    n = tanh(x.n + R.n @ (f * h))
    return (1 - f) * h + f * n
"""
# A backend of a project's own: NumPy's with something between the call and its result.
BACKEND = """import time

from rnnbench.backends import numpy_backend


class Network:
    def __init__(self, inner):
        self.inner = inner
        self.put, self.get, self.backward = inner.put, inner.get, inner.backward

    def forward(self, *arguments):
        start = time.perf_counter()
        found = self.inner.forward(*arguments)
        {extra}
        return found


def describe():
    return "NumPy in a coat"


def why_unsupported(spec, direction):
    return {unsupported!r}


def prepare(spec, params):
    return Network(numpy_backend.prepare(spec, params))
"""
SLOW = "while time.perf_counter() < start + 0.003: pass"
WRONG = "found[0][...] += 1"
DIES = "import os; os.write(2, b'caf\\xe9 is closed\\n'); os._exit(9)"  # in Latin-1, as a C library may say it
HOARDS = "self.kept = bytearray(100_000)"


def backend(extra: str = "pass", unsupported: str | None = None) -> str:
    """The text of the backend, with a statement behind its work, or a reason why it does nothing."""
    return BACKEND.format(extra=extra, unsupported=unsupported)


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=tests", "-c", "user.email=tests@example.org", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def commit(root: Path, files: dict[str, str], tag: str = "") -> str:
    """Write files, commit them, tag the commit, and return its hash."""
    if not (root / ".git").exists():
        root.mkdir(parents=True, exist_ok=True)
        git(root, "init", "-q", "-b", "main")
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root, "add", ".")
    git(root, "commit", "-q", "--allow-empty", "-m", "test")
    if tag:
        git(root, "tag", tag)
    return git(root, "rev-parse", "HEAD")


TABLE = """[tool.rnnbench]
cells = { mgu = "cells/mgu.py:mgu" }
cases = ["mgu numpy forward T=3 B=2 H=5"]
"""


def project(**about: Any) -> Project:
    return Project(Path("/nowhere"), **about)


def case(text: str = HEADLINE[0]) -> Any:
    return parse(project(), text)


class Pretender:
    """A worker whose timings and answers are given. Every request is noted."""

    def __init__(
        self, seconds: Callable[[], float], control: Callable[[], float] = lambda: 0.001, **answers: Any
    ) -> None:
        self.seconds, self.control, self.answers, self.asked = seconds, control, answers, []

    def ask(self, question: str, **details: Any) -> dict[str, Any]:
        self.asked.append((question, details))
        if question in ("speed", "time"):
            return {"seconds": self.seconds() if details["what"] == "case" else self.control()}
        answer = self.answers.get(question, {"status": "ok", "reason": ""})
        return answer() if callable(answer) else answer

    def try_asking(self, question: str, **details: Any) -> dict[str, Any]:
        return self.ask(question, **details)

    def about_case(self, question: str, case: Any) -> dict[str, Any]:
        return self.try_asking(question, case=case)

    def close(self) -> None:
        """There is no process to end."""
