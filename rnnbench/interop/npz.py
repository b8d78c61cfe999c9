"""A network as one `.npz` file: its arrays under their own names, and its description as a line of JSON. Nothing is pickled."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from typing import Any

import numpy as np

from .. import backends, cells
from ..files import replace_file
from ..rnn import RNN
from .common import InteropError, network, spec_of

ABOUT = "rnnbench"  # the entry that describes the network; no parameter has this name
VERSION = 1
_DAMAGE = (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def save_npz(rnn: RNN, path: str | os.PathLike[str]) -> None:
    """Write the network to `path`, whole or not at all. `load_npz` restores it bit for bit."""
    spec = spec_of(rnn)
    about = {
        "version": VERSION,
        "cell": spec.cell.name,
        "digest": spec.cell.digest,
        "numbers": dict(spec.numbers),
        "num_layers": spec.num_layers,
        "bidirectional": spec.bidirectional,
        "reverse": spec.reverse,
        "batch_first": rnn.batch_first,
    }
    arrays: dict[str, Any] = {ABOUT: np.array(json.dumps(about)), **rnn.params}
    replace_file(path, lambda file: np.savez(file, **arrays))


def load_npz(path: str | os.PathLike[str], backend: str = "numba-cpu", cell: cells.Cell | str | None = None) -> RNN:
    """The network that `save_npz` wrote to `path`.

    backend: of the RNN. cell: the cell itself if it is user-defined, because the file holds only its name and a hash.
    Raises InteropError for a file that is damaged, pickled, not written by `save_npz` or made with other equations; OSError if
    there is no file; ValueError for an unknown backend, BackendUnavailable if its library is missing.
    """
    backends.load(backend)  # before the file, which is not to blame for a backend that cannot be had
    arrays = read_arrays(path)
    try:
        about = json.loads(str(arrays.pop(ABOUT)))
        version = about.pop("version")
        name, digest, numbers = about.pop("cell"), about.pop("digest"), dict(about.pop("numbers"))
        if not isinstance(name, str):
            raise TypeError(f"a cell called {name!r}")
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise InteropError(f"{path} was not written by save_npz: its entry {ABOUT!r} is missing or damaged") from error
    if version != VERSION:
        raise InteropError(f"{path} has version {version} of the format; this rnnbench reads version {VERSION}")
    if cell is None and not (name in cells.BUILT_IN or cells.NAME.fullmatch(name)):
        raise InteropError(
            f"{path} holds a network of a user-defined cell {name!r}; pass the cell, as in load_npz(path, cell=...)"
        )
    try:
        found = cells.find(name if cell is None else cell)
    except ValueError as error:
        if cell is None:
            raise InteropError(f"{path} does not load: {error}") from error
        raise
    if found.digest != digest:
        own = "; if it is a cell of your own, pass it, as in load_npz(path, cell=...)" if cell is None else ""
        raise InteropError(f"{path} was made with a cell {name} whose equations are not those of {found.name} now{own}")
    try:
        return network(found, arrays, backend, **about, **numbers)
    except InteropError as error:
        raise InteropError(f"{path} does not load: {error}") from error
    except (KeyError, TypeError) as error:
        raise InteropError(f"{path} is damaged: {error}") from error


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Every array of an .npz file, by name. Raises InteropError if it is damaged or holds other things, OSError if missing."""
    # open raises OSError for a missing file; fspath rejects numbers, which open would take as file descriptors
    with open(os.fspath(path), "rb") as file:
        if not zipfile.is_zipfile(file):
            raise InteropError(f"{path} is not an .npz file, or the end of it is missing")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as stored:
                return dict(stored)
        except _DAMAGE as error:
            raise InteropError(f"{path} is damaged, or holds more than plain arrays: {error}") from error
