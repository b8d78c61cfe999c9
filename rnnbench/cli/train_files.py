"""The files of `rnnbench train`: what cannot be written, or must not be, is refused before any work is done for it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rnnbench.cli.values import UsageError
from rnnbench.files import require_writable
from rnnbench.tasks import checkpoint, metrics


def check(arguments: argparse.Namespace) -> None:
    """Refuse files that cannot be written, one file for two purposes, and a checkpoint over a file that is not a checkpoint.

    Raises UsageError, and the OSError of a file that was named.
    """
    written = {f"--{name}": getattr(arguments, name) for name in ("save", "metrics", "plot")}
    read = {f"--{name}": getattr(arguments, name, None) for name in ("text", "resume")}
    seen: dict[Path, str] = {Path(path).resolve(): option for option, path in read.items() if path is not None}
    for option, path in written.items():
        if path is None:
            continue
        target = Path(path).resolve()
        # the checkpoint that is gone on from may be the one that is kept up to date
        if target in seen and (seen[target], option) != ("--resume", "--save"):
            raise UsageError(f"{seen[target]} and {option} are both {path}; give each a file of its own")
        seen[target] = option
        if not target.parent.is_dir():
            raise UsageError(f"{path} cannot be written: there is no folder {target.parent}")
        require_writable(path)
        if option == "--save" and target.is_file() and not checkpoint.is_one(target):
            raise UsageError(
                f"--save {path} would overwrite a file that is not a checkpoint of rnnbench train; name another one"
            )
    if arguments.save is None:
        _check_unnamed(arguments)
    try:
        if arguments.metrics is not None:
            metrics.check_path(arguments.metrics)
        if arguments.plot is not None:
            metrics.check_picture(arguments.plot)
    except (ValueError, ModuleNotFoundError) as error:
        raise UsageError(str(error)) from error


def _check_unnamed(arguments: argparse.Namespace) -> None:
    """Refuse to begin where the checkpoint could not be left that nobody has named: Ctrl-C would lose the training."""
    path = arguments.resume or free_name(arguments.task)
    if arguments.resume is not None and not os.path.isfile(path):
        return  # reading it says so
    try:
        require_writable(path)
    except OSError as error:
        raise UsageError(
            f"the checkpoint {path} cannot be written ({error.strerror}), so Ctrl-C would lose the training; "
            "name a place for it with --save FILE"
        ) from error


def free_name(task: str) -> str:
    """rnnbench-<task>.npz, rnnbench-<task>-2.npz, ... : what no file has yet; an earlier checkpoint is not written over.

    task: of `rnnbench train`.
    """
    names = (f"rnnbench-{task}{'' if k == 1 else f'-{k}'}.npz" for k in range(1, 10**6))
    return next(name for name in names if not os.path.exists(name))
