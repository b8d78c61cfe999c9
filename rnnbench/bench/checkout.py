"""Where benchmarks run: the git checkout, the commit that results are filed under, and asv's name for the machine."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from asv import util
from asv.commands.publish import Publish
from asv.config import Config
from asv.machine import Machine, MachineCollection

from rnnbench.bench.git import GitError
from rnnbench.bench.git import git as ask_git


class SuiteError(Exception):
    """A sentence for the user: why no benchmark can be run here, and what would help."""


def find_checkout(start: Path, command: str) -> Path:
    """The git checkout with asv.conf.json at `start` or above. Raises SuiteError where there is none.

    command: of rnnbench, which wants it.
    """
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / "asv.conf.json").is_file() and (folder / ".git").exists():
            return folder
    raise SuiteError(
        f"rnnbench {command} needs a git checkout of rnnbench with its asv.conf.json; {start.resolve()} is not inside one"
    )


def uncommitted(root: Path, results_dir: Path) -> bool:
    """Whether tracked files differ from the commit that results are filed under; results themselves do not count."""
    paths = [line[3:] for line in git(root, "status", "--porcelain", "--untracked-files=no").splitlines()]
    return any(not (root / path).is_relative_to(results_dir.resolve()) for path in paths)


def require_place(folder: Path) -> None:
    """Raise SuiteError where no file can be put into `folder`, or into what is there of it, before anything is measured for it."""
    try:
        there = next(place for place in (folder, *folder.parents) if place.exists())
        with TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise SuiteError(f"results cannot be written into {folder}: {error.strerror}") from error


def asv_machine(name: str | None) -> dict[str, str]:
    """asv's description of this machine: that stored under `name`, or its defaults, then stored.

    name: None is the machine's only stored name, as it is for asv: results of one machine stay one line. Its host's name where
    none or several are stored.
    """
    wanted = name or Machine.get_unique_machine_name()
    try:
        return dict(MachineCollection.load(wanted))
    except (util.UserError, ValueError):  # none stored yet, or the file is damaged
        described = {**Machine.get_defaults(), "machine": wanted}
    # only a later plain `asv run` looks there, and it asks for itself
    with suppress(OSError, ValueError, util.UserError):
        MachineCollection.save(wanted, described)
    return described


def git(root: Path, *arguments: str) -> str:
    """What git prints. Raises SuiteError where git is missing or fails."""
    try:
        return ask_git(root, *arguments)
    except GitError as error:
        raise SuiteError(str(error)) from None


def configuration(root: Path, results_dir: Path) -> Config:
    """asv.conf.json of a checkout, with its paths made absolute. Raises SuiteError where it cannot be read."""
    try:
        config = Config.load(str(root / "asv.conf.json"))
    except (util.UserError, ValueError) as error:
        raise SuiteError(f"{root / 'asv.conf.json'} cannot be read: {error}") from error
    config.repo, config.results_dir = str(root), str(results_dir.resolve())
    for name in ("benchmark_dir", "html_dir", "env_dir"):
        setattr(config, name, str(root / getattr(config, name)))
    return config


def publish(root: Path, results_dir: Path, html_dir: str | None = None) -> Path:
    """Make asv's static site of all results and return its first page.

    root: the checkout. results_dir: with benchmarks.json. html_dir: None takes that of asv.conf.json.

    Raises SuiteError where there are no results, a file among them cannot be read, or the folder cannot be written or holds
    anything but such a site: asv clears it.
    """
    config = configuration(root, results_dir)
    if html_dir is not None:
        config.html_dir = str(Path(html_dir).resolve())
        _require_a_place_for_a_site(Path(config.html_dir))
    if not (results_dir / "benchmarks.json").is_file():
        raise SuiteError(f"there are no results in {results_dir}: `make bench` or `rnnbench run` makes some")
    try:
        Publish.run(config)
    except (util.UserError, ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        raise SuiteError(f"asv cannot make its site of {results_dir}: {error}") from error
    return Path(config.html_dir) / "index.html"


def _require_a_place_for_a_site(folder: Path) -> None:
    """Raise SuiteError for files that asv would delete and that are not a site it made."""
    if folder.exists() and not folder.is_dir():
        raise SuiteError(f"{folder} is a file; the site needs a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "asv.js").is_file():
        raise SuiteError(
            f"{folder} holds files that are not a site of asv's, and making one would delete them; name a new or an empty folder"
        )
