"""Turns sequences of different lengths into padded, time-major batches. All shuffling uses a seeded generator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


class DataError(ValueError):
    """Data that cannot be trained on; the message says what is wrong with it, and what would work."""


def pad(sequences: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One batch, (T, B, ...) with zeros past each sequence's end, and the lengths (B,). T is the longest length.

    sequences: arrays (length, ...) that differ in length only. Raises DataError if there are none.
    """
    if not sequences:
        raise DataError("a batch needs at least one sequence")
    lengths = np.array([len(s) for s in sequences], np.int64)
    batch = np.zeros((lengths.max(), len(sequences), *sequences[0].shape[1:]), sequences[0].dtype)
    for row, sequence in enumerate(sequences):
        batch[: len(sequence), row] = sequence
    return batch, lengths


def shuffled(count: int, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The indices below `count` in random order, `batch_size` at a time; the last batch has the remainder."""
    order = rng.permutation(count)
    return [order[start : start + batch_size] for start in range(0, count, batch_size)]


def by_length(lengths: Sequence[int] | np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Indices of sequences, batched by similar length so that there is little padding. The batches are in random order.

    lengths: of the sequences. `rng` decides which sequences of equal length share a batch. With batch_size 1 this is `shuffled`.
    """
    order = rng.permutation(len(lengths))
    order = order[np.argsort(np.asarray(lengths)[order], kind="stable")]
    found = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [found[k] for k in rng.permutation(len(found))]


def windows(sequence: np.ndarray, batch_size: int, seq_len: int) -> Iterator[np.ndarray]:
    """One long sequence as windows (seq_len, batch_size, ...) for truncated BPTT: row b of a window continues where row b of the
    previous one ended, so the state can be carried over. An incomplete last window is dropped.

    Raises DataError for a sequence shorter than one window.
    """
    steps = len(sequence) // batch_size
    if steps < seq_len:
        raise DataError(
            f"{len(sequence)} steps are too few for {batch_size} rows of {seq_len}; at least {batch_size * seq_len} are needed"
        )
    rows = sequence[: steps * batch_size].reshape(batch_size, steps, *sequence.shape[1:]).swapaxes(0, 1)
    for start in range(0, steps - seq_len + 1, seq_len):
        yield np.ascontiguousarray(rows[start : start + seq_len])
