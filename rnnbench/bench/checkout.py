"""Where benchmarks run: the git checkout, the commit that results are filed under, and asv's name for the machine."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

from asv import util
from asv.machine import Machine, MachineCollection


class SuiteError(Exception):
    """A sentence for the user: why no benchmark can be run here, and what would help."""


def find_checkout(start: Path) -> Path:
    """The git checkout with asv.conf.json at `start` or above. Raises SuiteError where there is none."""
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / "asv.conf.json").is_file() and (folder / ".git").exists():
            return folder
    raise SuiteError(
        f"rnnbench run needs a git checkout of rnnbench with its asv.conf.json; {start.resolve()} is not inside one"
    )


def uncommitted(root: Path, results_dir: Path) -> bool:
    """Whether tracked files differ from the commit that results are filed under; results themselves do not count."""
    paths = [line[3:] for line in git(root, "status", "--porcelain", "--untracked-files=no").splitlines()]
    return any(not (root / path).is_relative_to(results_dir.resolve()) for path in paths)


def asv_machine(name: str | None) -> dict[str, str]:
    """asv's description of this machine: that stored under `name` (or the host's), or its defaults, then stored."""
    wanted = name or Machine.get_unique_machine_name()
    try:
        return dict(MachineCollection.load(wanted))
    except (util.UserError, ValueError):  # none stored yet, or the file is damaged
        described = {**Machine.get_defaults(), "machine": wanted}
    with suppress(
        OSError, ValueError, util.UserError
    ):  # only a later plain `asv run` looks there, and it asks for itself
        MachineCollection.save(wanted, described)
    return described


def git(root: Path, *arguments: str) -> str:
    """What git prints. Raises SuiteError where git is missing or fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise SuiteError("rnnbench run needs git, which is not on the PATH") from None
    except subprocess.CalledProcessError as error:
        raise SuiteError(f"git {' '.join(arguments)} failed in {root}: {error.stderr.strip()}") from None
    return done.stdout.rstrip("\n")
