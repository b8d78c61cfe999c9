"""From two revisions to two folders that workers can run, both with the libraries of the running Python.

A revision is checked out as a git worktree in a temporary folder, built into a wheel without its dependencies, and the wheel is
installed into a folder of its own, which comes first on its worker's path. So both sides share one set of run-time dependencies
and differ in the change only. If the project is rnnbench itself, the harness (rnnbench/bench and the reference) in both folders is
replaced by that of the running rnnbench; other projects use that one anyway.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from rnnbench.bench.environment import outside_hooks, python_path
from rnnbench.bench.gate.project import GateError, Project
from rnnbench.bench.git import GitError, git

PACKAGE = Path(__file__).resolve().parents[2]  # of the running rnnbench
HARNESS = ("bench", "reference.py", "plugins.py")  # paths below PACKAGE


@dataclass(frozen=True)
class Side:
    """One revision, ready to run.

    name: "base" or "head". revision: as requested, and the commit that it resolves to. checkout: its files. site: where its wheel
    is installed. cache: for its compiled kernels. own_rnnbench: whether `site` holds an rnnbench of this revision.
    """

    name: str
    revision: str
    commit: str
    checkout: Path
    site: Path
    cache: Path
    own_rnnbench: bool = False

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of its worker."""
        path = python_path(self.site, PACKAGE.parent)
        return {"PYTHONPATH": path, "RNNBENCH_CACHE_DIR": str(self.cache), "PYTHONNOUSERSITE": "1"}

    def __str__(self) -> str:
        return f"{self.name} {self.revision} ({self.commit[:8]})"


def find_root(start: Path) -> Path:
    """The top folder of the git checkout that contains `start`. Raises GateError if there is none."""
    try:
        return Path(git(start, "rev-parse", "--show-toplevel"))
    except GitError as error:
        raise GateError(
            f"rnnbench gate compares commits of a git checkout, and finds none at {start}: {error}"
        ) from error


def resolve(root: Path, revision: str) -> str:
    """The commit that a revision resolves to. Raises GateError if the checkout does not have it."""
    try:
        return git(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    except GitError:
        pass
    if git(root, "rev-parse", "--is-shallow-repository") == "true":
        raise GateError(
            f"the revision {revision!r} is not in this shallow clone; fetch it with `git fetch --unshallow` "
            "(on GitHub Actions: actions/checkout with fetch-depth: 0)"
        )
    raise GateError(f"there is no revision {revision!r} in {root}; use a branch, a tag or a commit's hash")


def check_clean(root: Path) -> None:
    """Raises GateError if tracked files differ from the commit, because the gate builds the commit."""
    changed = git(root, "status", "--porcelain", "--untracked-files=no").splitlines()
    if changed:
        raise GateError(
            f"{changed[0][3:]}{f' and {len(changed) - 1} more' if len(changed) > 1 else ''} in {root} has uncommitted changes, "
            "which the gate would not see; commit them, or name the commit to be gated with --head"
        )


@contextmanager
def built(project: Project, base: str, head: str) -> Iterator[tuple[Side, Side]]:
    """Both revisions, built; their folders are deleted when the block is left.

    base, head: revisions of the checkout. Raises GateError, with the last lines of the build's output, if one does not build, or if
    its submodules cannot be fetched.
    """
    with tempfile.TemporaryDirectory(prefix="rnnbench-gate-", ignore_cleanup_errors=True) as folder:
        sides: list[Side] = []
        try:
            for name, revision in (("base", base), ("head", head)):
                sides.append(_side(project, name, revision, Path(folder) / name))
                _check_out_submodules(sides[-1])
                _build(sides[-1])
            yield sides[0], sides[1]
        finally:
            for side in sides:
                with suppress(GitError):  # the folder is deleted anyway, and git forgets worktrees whose folder is gone
                    git(project.root, "worktree", "remove", "--force", str(side.checkout))


def _side(project: Project, name: str, revision: str, folder: Path) -> Side:
    commit = resolve(project.root, revision)
    side = Side(
        name, revision, commit, folder / "checkout", folder / "site", folder / "cache", project.name == "rnnbench"
    )
    for path in (side.site, side.cache):
        path.mkdir(parents=True)
    git(project.root, "worktree", "add", "--quiet", "--detach", str(side.checkout), commit)
    return side


def _check_out_submodules(side: Side) -> None:
    """Fetch the revision's submodules, which `git worktree add` leaves empty: kernels in them would be missing on both sides."""
    if not (side.checkout / ".gitmodules").is_file():
        return
    try:
        # active for this one command, since --init would write into the configuration of the user's checkout
        git(side.checkout, "-c", "submodule.active=.", "submodule", "--quiet", "update", "--recursive")
    except GitError as error:
        raise GateError(f"{side}: its submodules cannot be fetched: {str(error).splitlines()[0]}") from error


def _build(side: Side) -> None:
    """Build the wheel and install it; does nothing for a project that is not a package."""
    path = side.checkout / "pyproject.toml"
    try:
        about = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise GateError(f"{side} does not build: its pyproject.toml cannot be read: {error}") from error
    if "project" in about or "build-system" in about or (side.checkout / "setup.py").is_file():
        wheels = side.site.parent / "wheel"
        isolation = [] if _missing(about) else ["--no-build-isolation"]
        _pip(side, "wheel", "--no-deps", *isolation, "--wheel-dir", str(wheels), str(side.checkout))
        _pip(side, "install", "--no-deps", "--target", str(side.site), *map(str, wheels.glob("*.whl")))
    if side.own_rnnbench:
        _install_harness(side)


def _missing(about: dict[str, dict[str, list[str]]]) -> bool:
    """Whether this Python lacks any of the project's build requirements. If not, pip need not fetch them for each side."""
    for text in about.get("build-system", {}).get("requires", ["setuptools"]):
        try:
            wanted = Requirement(text)
            if wanted.specifier.contains(importlib.metadata.version(wanted.name), prereleases=True):
                continue
        except (importlib.metadata.PackageNotFoundError, InvalidRequirement):
            pass
        return True
    return False


def _pip(side: Side, command: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", *arguments],
        env=outside_hooks(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        # a builder's error comes somewhere before pip's own message, which only says that there was one
        told = (
            [line for line in said if re.match(r"(error|\w+(Error|Exception)): .* ", line)]
            or said
            or [f"pip {command} failed"]
        )
        raise GateError(f"{side} does not build: {told[-1]}")


def _install_harness(side: Side) -> None:
    for name in HARNESS:
        source, target = PACKAGE / name, side.site / "rnnbench" / name
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
