"""Runs git: its output as text, or a one-sentence error."""

from __future__ import annotations

import subprocess
from pathlib import Path

from rnnbench.bench.environment import outside_hooks


class GitError(Exception):
    """git is missing or has failed; the message is one sentence."""


def git(root: Path, *arguments: str) -> str:
    """What `git` prints in the folder `root`, without the final newline. Raises GitError if git is missing or fails."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, env=outside_hooks(), capture_output=True, text=True, check=True,
            encoding="utf-8", errors="surrogateescape",  # names of files need not be text
        )  # fmt: skip
    except FileNotFoundError:
        raise GitError("git is needed, and is not on the PATH") from None
    except subprocess.CalledProcessError as error:
        raise GitError(f"git {' '.join(arguments)} failed in {root}: {error.stderr.strip()}") from None
    return done.stdout.rstrip("\n")
