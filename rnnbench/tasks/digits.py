"""Digits read row by row: each picture is a sequence of its rows, and the last hidden state tells which digit it is.

An input projection to as many units as the network has, the recurrent network (LSTM 128 with a forget bias of 1), an output
projection of the last step, softmax cross-entropy, Adam.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from .. import cells
from ..rnn import RNN
from . import idx
from .batches import DataError, shuffled
from .layers import Dense
from .model import Batch, SequenceModel

CLASSES = 10
_EVALUATED = 1024  # pictures in an evaluation batch


@dataclass(frozen=True)
class Pictures:
    """images: (N, rows, columns), from 0 to 1. labels: (N,), int64."""

    images: np.ndarray
    labels: np.ndarray

    def rows_first(self, index: np.ndarray | slice) -> Batch:
        """The pictures at `index` as sequences of rows: x (rows, B, columns), targets (B,)."""
        return Batch(np.ascontiguousarray(self.images[index].swapaxes(0, 1)), self.labels[index])


class Digits:
    """Pictures as `training.Data`.

    train: to train on. test: held out. batch_size: pictures in a batch. seed: for shuffling.

    Raises DataError if there is nothing to train on or nothing held out.
    """

    metrics: tuple[str, ...] = ("loss", "accuracy")

    def __init__(self, train: Pictures, test: Pictures, batch_size: int = 128, seed: int = 0) -> None:
        if not len(train.labels) or not len(test.labels):
            raise DataError(
                f"{len(train.labels)} pictures to learn from and {len(test.labels)} held out are too few; both must have some"
            )
        if train.images.shape[1:] != test.images.shape[1:]:
            raise DataError(
                f"pictures to learn from are {train.images.shape[1:]} and those held out {test.images.shape[1:]}"
            )
        self.train, self.test, self.batch_size, self.seed = train, test, batch_size, seed

    @property
    def digest(self) -> str:
        """A hash of the training data and the held-out data."""
        arrays = (self.train.images, self.train.labels, self.test.images, self.test.labels)
        return hashlib.sha256(b"".join(np.ascontiguousarray(a).data for a in arrays)).hexdigest()[:16]

    def batches(self, epoch: int) -> list[Batch]:
        """See `training.Data`: all pictures, shuffled anew in each epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        return [self.train.rows_first(index) for index in shuffled(len(self.train.labels), self.batch_size, rng)]

    def held_out(self) -> list[Batch]:
        """See `training.Data`."""
        starts = range(0, len(self.test.labels), _EVALUATED)
        return [self.test.rows_first(slice(start, start + _EVALUATED)) for start in starts]


def default_data(dtype: str = "float32", seed: int = 0) -> tuple[Pictures, Pictures]:
    """The 1,797 pictures of 8 x 8 pixels that come with the package, shuffled with `seed`: four fifths, and the last fifth."""
    with resources.files(__package__).joinpath("data", "digits.npz").open("rb") as file, np.load(file) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    return _split(images / np.dtype(dtype).type(16), labels.astype(np.int64), seed)


def mnist(folder: str | os.PathLike[str], dtype: str = "float32", seed: int = 0) -> tuple[Pictures, Pictures]:
    """MNIST from the published files in `folder`: the training set and the test set.

    Without the test set's files, a random fifth (by `seed`) of the training set is held out instead. Raises DataError for a file
    that is missing, damaged or of another kind, see `idx`.
    """
    if not Path(folder).is_dir():
        raise DataError(
            f"{folder} is not a folder; name the one with train-images-idx3-ubyte and its companions, plain or .gz"
        )
    pairs = [idx.find(folder, part) for part in ("train", "t10k")]
    if pairs[0] is None:
        raise DataError(f"{folder} has no train-images-idx3-ubyte and train-labels-idx1-ubyte, plain or .gz")
    parts = []
    for pair in pairs:
        if pair is not None:
            images, labels = idx.read_pair(*pair)
            parts.append((images / np.dtype(dtype).type(255), labels.astype(np.int64)))
    if len(parts) == 1:
        return _split(*parts[0], seed)
    return Pictures(*parts[0]), Pictures(*parts[1])


def _split(images: np.ndarray, labels: np.ndarray, seed: int) -> tuple[Pictures, Pictures]:
    order = np.random.default_rng(seed).permutation(len(labels))
    test, train = order[: len(order) // 5], order[len(order) // 5 :]
    return Pictures(images[train], labels[train]), Pictures(images[test], labels[test])


def classifier(
    columns: int,
    cell: str | cells.Cell = "lstm",
    hidden_size: int = 128,
    backend: str = "numba-cpu",
    dtype: str = "float32",
    seed: int = 0,
) -> SequenceModel:
    """The model for pictures of `columns` columns; backend, dtype, seed: as for `RNN`. A forget bias is 1."""
    found = cells.find(cell)
    numbers: dict[str, Any] = {"forget_bias": 1.0} if "forget_bias" in found.numbers else {}
    rnn = RNN(found, hidden_size, hidden_size, backend=backend, dtype=dtype, seed=seed, **numbers)
    return SequenceModel(rnn, CLASSES, Dense("input", columns, hidden_size), seed=seed)
