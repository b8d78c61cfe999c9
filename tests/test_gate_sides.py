"""From a revision to a folder that a worker runs: git's hooks around the gate, and submodules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gate_projects import CELL, TABLE, commit, git

from rnnbench.bench.gate import sides, workers
from rnnbench.bench.gate.project import GateError, Project

ROOT = Path(__file__).resolve().parent.parent
HOOK = """#!{python}
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from rnnbench.bench.gate import sides
from rnnbench.bench.gate.project import read
with sides.built(read(Path.cwd()), "before", "HEAD"):
    pass
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    commit(tmp_path / "small", {"pyproject.toml": TABLE, "cells/mgu.py": CELL}, "before")
    return tmp_path / "small"


@pytest.mark.skipif(sys.platform == "win32", reason="git's own shell runs hooks there")
def test_a_gate_within_a_hook_leaves_the_commit_as_it_is(small: Path) -> None:
    """git names the index of `commit -a` to its hook, and `worktree add` wrote the tree of another revision into it."""
    commit(small, {"cells/mgu.py": CELL + "# head\n"})
    hook = small / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(HOOK.format(python=sys.executable, root=str(ROOT)))
    hook.chmod(0o755)
    (small / "cells" / "mgu.py").write_text(CELL + "# mine\n")
    git(small, "commit", "-a", "-q", "-m", "mine")
    assert git(small, "show", "HEAD:cells/mgu.py").endswith("# mine")
    assert git(small, "status", "--porcelain") == "" and git(small, "worktree", "list").count("\n") == 0


def test_builds_and_workers_do_not_see_the_repository_of_a_hook(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_INDEX_FILE", str(small / "elsewhere"))
    monkeypatch.setenv("GIT_DIR", str(small / "elsewhere"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "0")  # the user's settings hold
    seen: list[dict[str, str]] = []

    def run(command: list[str], env: dict[str, str], **options: Any) -> SimpleNamespace:
        seen.append(env)
        return SimpleNamespace(returncode=0)

    def start(command: list[str], env: dict[str, str], **options: Any) -> None:
        seen.append(env)
        raise GateError("enough")

    side = sides.Side("head", "main", "0" * 40, small, small / "site", small / "cache")
    monkeypatch.setattr(sides, "subprocess", SimpleNamespace(run=run))
    sides._pip(side, "wheel")
    monkeypatch.setattr(workers, "subprocess", SimpleNamespace(Popen=start, PIPE=subprocess.PIPE))
    with pytest.raises(GateError, match="enough"):
        workers.Worker(side, Project(small))
    assert len(seen) == 2
    for environment in seen:
        assert not {"GIT_DIR", "GIT_INDEX_FILE"} & environment.keys() and "GIT_CONFIG_COUNT" in environment
    assert "GIT_DIR" in os.environ


@pytest.fixture
def with_submodule(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of a project with a submodule that has one too, neither checked out."""
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")
    for name, inner in (("middle", small), ("outer", tmp_path / "middle")):
        commit(tmp_path / name, {"pyproject.toml": TABLE})
        git(tmp_path / name, "submodule", "--quiet", "add", str(inner), "inner")
        commit(tmp_path / name, {}, "before")
    git(tmp_path, "clone", "--quiet", "outer", "clone")
    return tmp_path / "clone"


def test_submodules_are_checked_out_and_the_users_checkout_stays_as_it_was(with_submodule: Path) -> None:
    settings = (with_submodule / ".git" / "config").read_text()
    with sides.built(Project(with_submodule), "before", "HEAD") as both:
        for side in both:
            assert (side.checkout / "inner" / "inner" / "cells" / "mgu.py").read_text() == CELL
    assert (with_submodule / ".git" / "config").read_text() == settings
    assert list((with_submodule / "inner").iterdir()) == []
    assert git(with_submodule, "worktree", "list").count("\n") == 0


def test_submodules_that_cannot_be_fetched_are_told(with_submodule: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "https")
    monkeypatch.setenv("LC_ALL", "C")  # git translates
    sentence = r"^base before \(.*\): its submodules cannot be fetched: git .* failed in .*: fatal: transport 'file' not allowed$"
    with pytest.raises(GateError, match=sentence), sides.built(Project(with_submodule), "before", "HEAD"):
        pass
    assert git(with_submodule, "worktree", "list").count("\n") == 0
