"""What git says, as text; and why it says nothing, in a sentence."""

from __future__ import annotations

import subprocess
from pathlib import Path


class GitError(Exception):
    """git is missing or has failed; the message is one sentence."""


def git(root: Path, *arguments: str) -> str:
    """What `git` prints in the folder `root`, without the last line's end. Raises GitError where git is missing or fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise GitError("git is needed, and is not on the PATH") from None
    except subprocess.CalledProcessError as error:
        raise GitError(f"git {' '.join(arguments)} failed in {root}: {error.stderr.strip()}") from None
    return done.stdout.rstrip("\n")
