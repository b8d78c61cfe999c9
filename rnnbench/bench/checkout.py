"""Where benchmarks run: the git checkout, the commit that results belong to, and asv's name for the machine."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from asv import util
from asv.commands.publish import Publish
from asv.config import Config
from asv.machine import Machine, MachineCollection
from asv.results import Results, iter_results_paths

from rnnbench.bench.git import GitError
from rnnbench.bench.git import git as ask_git


class SuiteError(Exception):
    """No benchmark can be run here; the message is a sentence for the user that says why, and what would help."""


def find_checkout(start: Path, command: str) -> Path:
    """The git checkout with asv.conf.json at `start` or above. Raises SuiteError if there is none.

    command: of rnnbench, which needs it; for the message.
    """
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / "asv.conf.json").is_file() and (folder / ".git").exists():
            return folder
    raise SuiteError(
        f"rnnbench {command} needs a git checkout of rnnbench with its asv.conf.json; {start.resolve()} is not inside one"
    )


def uncommitted(root: Path, results_dir: Path) -> bool:
    """Whether tracked files, other than results, differ from the commit that results belong to."""
    # with -z paths are not quoted; without renames each has a state before it
    entries = git(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=no").split("\0")
    return any(not (root / entry[3:]).is_relative_to(results_dir.resolve()) for entry in entries if entry)


def require_place(folder: Path) -> None:
    """Raise SuiteError, before anything is measured, if no file can be created in `folder` or in its nearest existing parent."""
    try:
        there = next(place for place in (folder, *folder.parents) if place.exists())
        with TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise SuiteError(f"results cannot be written into {folder}: {error.strerror}") from error


def asv_machine(name: str | None, results_dir: Path) -> dict[str, str]:
    """asv's description of this machine: the one stored under `name`, or else asv's defaults, which are then stored.

    name: None means the only stored name, as in asv, so that results of one machine stay one line; if none or several are stored,
    the host's name. results_dir: with what earlier runs say of a machine that is named; it goes first.
    """
    wanted = name or Machine.get_unique_machine_name()
    stored: dict[str, str] = {}
    with suppress(util.UserError, ValueError):  # none stored yet, or the file is damaged
        stored = dict(MachineCollection.load(wanted))
    described = stored or {**Machine.get_defaults(), "machine": wanted}
    if name:
        # asv draws a line for each processor, system and size of memory; what goes by one name, as a service's runners may, is to
        # have one. What each run found is in its own record.
        with suppress(OSError, ValueError, util.UserError):
            described |= util.load_json(str(results_dir / name / "machine.json"), Machine.api_version) | {
                "machine": name
            }
    if not stored:
        # only a later plain `asv run` reads that file, and it asks the user itself
        with suppress(OSError, ValueError, util.UserError):
            MachineCollection.save(wanted, described)
    return described


def git(root: Path, *arguments: str) -> str:
    """What git prints. Raises SuiteError if git is missing or fails."""
    try:
        return ask_git(root, *arguments)
    except GitError as error:
        raise SuiteError(str(error)) from None


def configuration(root: Path, results_dir: Path) -> Config:
    """asv.conf.json of a checkout, with its paths made absolute. Raises SuiteError if it cannot be read."""
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

    root: the checkout. results_dir: with benchmarks.json. html_dir: None for the one in asv.conf.json.

    Raises SuiteError if there are no results, one of their files cannot be read, or the folder cannot be written or holds anything
    but such a site (asv would delete it).
    """
    config = configuration(root, results_dir)
    if html_dir is not None:
        config.html_dir = str(Path(html_dir).resolve())
        _require_a_place_for_a_site(Path(config.html_dir))
    if not (results_dir / "benchmarks.json").is_file():
        raise SuiteError(f"there are no results in {results_dir}: `make bench` or `rnnbench run` makes some")
    _require_readable(results_dir)
    try:
        Publish.run(config)
    except (util.UserError, ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        raise SuiteError(f"asv cannot make its site of {results_dir}: {error}") from error
    return Path(config.html_dir) / "index.html"


def _require_readable(results_dir: Path) -> None:
    """Raise SuiteError for a result file that asv cannot read: it would warn and leave it out, and the site would look complete."""
    listed = {Path(folder) / name for folder, name, _ in iter_results_paths(str(results_dir))}
    for path in sorted(results_dir.rglob("*.json")):
        if path.name in ("machine.json", "benchmarks.json"):
            continue
        if path not in listed:
            raise SuiteError(
                f"{path.parent / 'machine.json'} cannot be read, so {path.name} beside it would be left out; restore it"
            )
        try:
            Results.load(str(path))
        except (util.UserError, ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            raise SuiteError(f"{path} cannot be read ({error}); restore it, or move it away") from error


def _require_a_place_for_a_site(folder: Path) -> None:
    """Raise SuiteError if the folder has files that asv would delete although they are not a site of its own."""
    if folder.exists() and not folder.is_dir():
        raise SuiteError(f"{folder} is a file; the site needs a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "asv.js").is_file():
        raise SuiteError(
            f"{folder} holds files that are not a site of asv's, and making one would delete them; name a new or an empty folder"
        )
