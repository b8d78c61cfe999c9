"""Reads idx files, the format in which MNIST is published, plain or gzipped. Each fault of a file has its own error message.

A file is big-endian: two zero bytes, the type (8: uint8), the number of dimensions; each dimension as uint32; then the elements,
the last dimension fastest (http://yann.lecun.com/exdb/mnist).
"""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

import numpy as np

from .batches import DataError

IMAGES, LABELS = 0x00000803, 0x00000801
_MEANING = {IMAGES: "images (0x00000803)", LABELS: "labels (0x00000801)"}


def read_idx(path: str | os.PathLike[str], magic: int) -> np.ndarray:
    """The uint8 array in an idx file, gzipped or not, that starts with `magic`: IMAGES (N, rows, columns) or LABELS (N,).

    Raises DataError for a file that is empty, damaged, truncated, too long or of another kind; OSError for a missing one.
    """
    content = Path(path).read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is a damaged or truncated gzip file: {error}; fetch it again") from error
    dimensions = magic & 0xFF
    header = 4 + 4 * dimensions
    found = int.from_bytes(content[:4], "big")
    if len(content) >= 4 and found != magic:
        raise DataError(f"{path} starts with 0x{found:08x}{_guess(found)}; {_MEANING[magic]} were expected")
    if len(content) < header:
        raise DataError(f"{path} has {len(content)} bytes, fewer than the {header} of its header; fetch it again")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", dimensions, offset=4))
    size = header + int(np.prod(shape, dtype=object))
    if len(content) != size:
        what = "is truncated" if len(content) < size else "goes on after its end"
        raise DataError(f"{path} {what}: {len(content)} bytes, where its header {shape} makes {size}; fetch it again")
    if 0 in shape:
        raise DataError(f"{path} holds nothing: its shape is {shape}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_pair(images: str | os.PathLike[str], labels: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, rows, columns) and labels (N,) from 0 to 9, from two files. Raises DataError also if their counts differ."""
    pictures, digits = read_idx(images, IMAGES), read_idx(labels, LABELS)
    if len(pictures) != len(digits):
        raise DataError(
            f"{images} has {len(pictures)} images and {labels} {len(digits)} labels; they must belong together"
        )
    if digits.max() > 9:
        place = int(np.argmax(digits > 9))
        raise DataError(f"{labels} has the label {digits[place]} at place {place}; digits go from 0 to 9")
    return pictures, digits


def find(folder: str | os.PathLike[str], part: str) -> tuple[Path, Path] | None:
    """The image and label files of `part` ("train" or "t10k") in `folder`, plain or .gz, or None if both are missing.

    Raises DataError if only one exists.
    """
    paths = []
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        names = [f"{part}-{spelling}{end}" for spelling in (kind, kind.replace("-idx", ".idx")) for end in ("", ".gz")]
        paths.append(next((p for p in (Path(folder) / name for name in names) if p.is_file()), None))
    images, labels = paths
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        there, missing = (labels, "images-idx3") if images is None else (images, "labels-idx1")
        raise DataError(f"{folder} has {there.name if there else ''} but no {part}-{missing}-ubyte or .gz of it")
    return images, labels


def _guess(magic: int) -> str:
    if magic in _MEANING:
        return f", as {_MEANING[magic].partition(' ')[0]} do"
    return ", which is not an idx file of bytes"
