"""A training run, or a trained model, as one `.npz` file: named groups of arrays, and a line of JSON. Nothing is pickled."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..files import replace_file
from ..interop.npz import InteropError, read_arrays

ABOUT = "rnnbench-training"  # the entry of the JSON line
VERSION = 1
Groups = dict[str, dict[str, np.ndarray]]


class CheckpointError(ValueError):
    """A file is no checkpoint, is damaged, or belongs to something else; the message says which, and what would work."""


def save(
    path: str | os.PathLike[str], about: Mapping[str, Any], groups: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Write `path` completely, or leave it as it was. about: anything that JSON can represent. groups: name -> name -> array."""
    arrays = {f"{group}/{name}": array for group, named in groups.items() for name, array in named.items()}
    text = json.dumps({"version": VERSION, **about})
    replace_file(path, lambda file: np.savez(file, **{ABOUT: np.array(text)}, **arrays))  # type: ignore[arg-type]


def is_one(path: str | os.PathLike[str]) -> bool:
    """Whether a file was written by `save`, judged by the names of its entries alone. Raises OSError if it cannot be read."""
    try:
        with zipfile.ZipFile(path) as file:
            return f"{ABOUT}.npy" in file.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return False


def load(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Groups]:
    """What `save` was given. Raises CheckpointError for a file that is damaged or no checkpoint, OSError for a missing one."""
    try:
        arrays = read_arrays(path)
    except InteropError as error:
        raise CheckpointError(str(error)) from error
    try:
        about = json.loads(str(arrays.pop(ABOUT)))
        version = about.pop("version")
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{path} is not a checkpoint of rnnbench train: its entry {ABOUT!r} is missing or damaged"
        ) from error
    if version != VERSION:
        raise CheckpointError(f"{path} has version {version} of the format; this rnnbench reads version {VERSION}")
    groups: Groups = {}
    for name, array in arrays.items():
        group, _, rest = name.partition("/")
        groups.setdefault(group, {})[rest] = array
    return about, groups
