"""Files that are there whole or as they were before: what every part of the project writes results with."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO


def replace_file(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that it is there whole or, if writing fails, as it was before.

    path: of the file. write: gets it open. Raises what it raises, and OSError for a full disk, a folder that cannot be written and
    a path that is a folder; its `filename` is the path that was given.
    """
    target = Path(path)
    _refuse_folder(target, path)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with open(unfinished, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, target)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(unfinished):
            error.filename = str(path)
            del error.filename2  # nobody knows the other name; None would be printed
        raise


def require_writable(path: str | os.PathLike[str]) -> None:
    """Raise the OSError that `replace_text` would for its folder or its name, before any work is done for it."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    _refuse_folder(target, path)
    tried = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        tried.touch()
    except OSError as error:
        error.filename = str(path)
        raise
    tried.unlink()


def _refuse_folder(target: Path, given: str | os.PathLike[str]) -> None:
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(given))


def replace_text(path: str | os.PathLike[str], text: str) -> None:
    """`replace_file` with text in UTF-8; the folder is made where it is missing."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda file: file.write(text.encode("utf-8")))
