"""Write files completely or leave them as they were: what every part of the project writes results with."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO


def replace_file(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that it is complete or, if writing fails, as it was before.

    path: of the file; if it is a link, its target is written, and a device or a pipe is written to directly. write: is called
    with the open file.

    Raises what `write` raises, and OSError for a full disk, a folder that cannot be written and a path that is a folder; its
    `filename` is the path that was given.
    """
    target = _target(path)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if _is_special(target):
            with open(target, "wb") as file:
                write(file)
        else:
            _replace(target, unfinished, write)
    except OSError as error:
        # an open file that the disk has no room for does not say its name
        if error.errno and error.filename in (None, str(unfinished)):
            error.filename = str(path)
            del error.filename2  # nobody knows the other name; None would be printed
        raise


def _replace(target: Path, unfinished: Path, write: Callable[[IO[bytes]], object]) -> None:
    try:
        with open(unfinished, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, target)
    except BaseException:
        with contextlib.suppress(OSError):  # a folder that cannot be written holds none, and says so again
            unfinished.unlink(missing_ok=True)
        raise


def require_writable(path: str | os.PathLike[str]) -> None:
    """Raise the OSError that `replace_text` would for its folder or its name, before any work is done for it."""
    target = _target(path)
    _make_folder(target)
    if _is_special(target):
        return
    tried = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        tried.touch()
    except OSError as error:
        error.filename = str(path)
        raise
    tried.unlink()


def _target(path: str | os.PathLike[str]) -> Path:
    """What is to be written: that which a link points to. Raises IsADirectoryError for a folder."""
    # the link /dev/stdout of a pipe points to /proc/1/fd/pipe:[2], a name that only the kernel follows
    target = Path(path) if _is_special(Path(path)) else Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return target


def _is_special(target: Path) -> bool:
    """Whether it is there and is a device, a pipe, a socket or a folder, in whose place no file may be put."""
    return target.exists() and not target.is_file()


def replace_text(path: str | os.PathLike[str], text: str) -> None:
    """`replace_file` with text in UTF-8; the folder is made where it is missing.

    The bytes of a file's name that are no UTF-8, which Python holds as lone surrogates, are written as \\udce9 and the like.
    """
    _make_folder(path)
    replace_file(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def _make_folder(path: str | os.PathLike[str]) -> None:
    """Make the folder that will hold a file. Raises NotADirectoryError with the file's name if a file has the folder's name."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:  # "File exists" is no reason why this one cannot be written
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from error
