"""The files of `rnnbench train`: those that cannot or must not be written are refused before any work is done."""

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
        # a training may keep the checkpoint up to date that it was resumed from
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
    """Without --save, refuse to begin if Ctrl-C could not write the checkpoint, because the training would be lost."""
    path = arguments.resume or free_name(arguments.task)
    if arguments.resume is not None and not os.path.isfile(path):
        return  # reading it will raise an error
    try:
        require_writable(path)
    except OSError as error:
        raise UsageError(
            f"the checkpoint {path} cannot be written ({error.strerror}), so Ctrl-C would lose the training; "
            "name a place for it with --save FILE"
        ) from error


def free_name(task: str) -> str:
    """The first of rnnbench-<task>.npz, rnnbench-<task>-2.npz, ... that does not exist: no earlier checkpoint is overwritten.

    task: of `rnnbench train`.
    """
    names = (f"rnnbench-{task}{'' if k == 1 else f'-{k}'}.npz" for k in range(1, 10**6))
    return next(name for name in names if not os.path.exists(name))
