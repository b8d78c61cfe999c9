"""Parsers of values on the command line. For one that is not allowed, a sentence says what would work."""

from __future__ import annotations

import argparse
import math
import re
import shlex
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from rnnbench import backends, cells
from rnnbench.bench.cases import split_names
from rnnbench.cli import UsageError
from rnnbench.spelling import unknown


def names(what: str, known: Sequence[str]) -> Callable[[str], list[str]]:
    """A parser of comma-separated names, each one of `known`. what: says in errors what they name."""

    def parse(text: str) -> list[str]:
        return [_one_of(what, part, known) for part in _parts(what, text)]

    return parse


def name(what: str, known: Sequence[str]) -> Callable[[str], str]:
    """A parser of one name. The arguments are those of `names`."""
    return lambda text: _one_of(what, text, known)


def _one_of(what: str, text: str, known: Sequence[str]) -> str:
    if text not in known:
        raise UsageError(unknown(what, text, known))
    return text


def _parts(what: str, text: str) -> list[str]:
    parts = split_names(text)
    if not parts:
        raise UsageError(f"at least one {what} is needed, separated by commas; got {text!r}")
    for k, part in enumerate(parts):
        if part in parts[:k]:  # an error, because it would be missing from the results if it were silently left out
            raise UsageError(f"{what} {part} is named twice; leave one of the two out")
    return parts


def parts(what: str) -> Callable[[str], list[str]]:
    """A parser of comma-separated texts. what: the name of one, for errors."""
    return lambda text: _parts(what, text)


def numbers(what: str) -> Callable[[str], list[int]]:
    """A parser of comma-separated whole numbers from 1. what: the option, for errors."""
    return lambda text: [_number(what, part) for part in _parts(what, text)]


def number(what: str, lowest: int = 1) -> Callable[[str], int]:
    """A parser of one whole number from `lowest`. what: the option, for errors."""
    return lambda text: _number(what, text, lowest)


def _number(what: str, text: str, lowest: int = 1) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < lowest:
        raise UsageError(f"{what} must be a whole number of at least {lowest}; got {text!r}")
    return int(text)


def real(what: str, example: float) -> Callable[[str], float]:
    """A parser of one finite number above 0. what: the option, and example: a value that makes sense for it, for errors."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise UsageError(f"{what} must be a number above 0, such as {example:g}; got {text!r}")
        return value

    return parse


def threshold(text: str) -> float:
    """The gate's threshold, a number between 0 and 1."""
    value = real("--threshold", 0.03)(text)
    if value >= 1:
        raise UsageError(f"--threshold must be a fraction below 1, such as 0.03; got {text!r}")
    return value


def path(text: str) -> str:
    """A file's or folder's name; that of a shell's unset variable is empty, which would count as not given."""
    if not text:
        raise argparse.ArgumentTypeError("it must name a file or folder; got ''")  # argparse adds whose it is
    return text


def regex(text: str) -> str:
    """A regular expression of --bench."""
    try:
        re.compile(text)
    except re.error as error:
        raise UsageError(f"--bench {text!r} is not a regular expression: {error}") from error
    return text


def machine(text: str) -> str:
    """A machine's name, which becomes that of a folder in the results' folder and so must not be a path."""
    if text.strip() in ("", ".", "..") or set(text) & set("/\\\0"):
        raise UsageError(f"--machine must be a folder's name, such as my-desk, without / or \\; got {text!r}")
    return text


def cell(text: str) -> str:
    """A cell's name, or "path/to/file.py:name". The cell is looked up at once, so that later uses cannot fail."""
    try:
        cells.find(text)
    except ValueError as error:  # CellError is one
        raise UsageError(str(error)) from error
    except Exception as error:  # a user's file is a program, which may fail in any way
        raise UsageError(_why_not_run(Path(f"{text.partition('.py')[0]}.py"), error)) from error
    return text


def _why_not_run(path: Path, error: Exception) -> str:
    """What a user's file raised, the line of the file where it did, and what helps where a module lies beside the file."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path.resolve())]
    at = f" (line {lines[-1]})" if lines else ""  # a SyntaxError names its line itself
    told = f"{path} cannot be run: {type(error).__name__}: {error}{at}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        beside = path.parent / error.name.partition(".")[0]
        if beside.is_dir() or beside.with_suffix(".py").is_file():
            told += (
                f"; {beside.name} lies beside the file, and is found with PYTHONPATH={shlex.quote(str(path.parent))}"
            )
    return told


def cell_list(text: str) -> list[str]:
    """Comma-separated cells, each as `cell` takes them; "all" for every built-in one."""
    if text == "all":
        return list(cells.BUILT_IN)
    return [cell(part) for part in _parts("cell", text)]


def backend_list(text: str) -> list[str]:
    """Comma-separated backends. One that is named but cannot be used is an error, so that nothing is left out by mistake."""
    found = _parts("backend", text)
    for backend in found:
        try:
            reason = backends.why_unavailable(backend)
        except ValueError as error:
            raise UsageError(str(error)) from error
        if reason:
            raise UsageError(reason)
    return found


def own_backend(text: str) -> str:
    """One of our own backends, which can all train; one that cannot be used here is an error."""
    found = _one_of("backend", text, backends.OWN + backends.GPU)
    reason = backends.why_unavailable(found)
    if reason:
        raise UsageError(reason)
    return found


def use_threads(count: int | None) -> None:
    """Compute with `count` threads from now on, in every backend; None changes nothing."""
    if count is None:
        return
    from rnnbench.backends.threads import set_threads

    try:
        set_threads(count)
    except ValueError as error:
        raise UsageError(f"--threads: {error}") from error
