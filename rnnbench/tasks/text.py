"""From text to token ids: files, sentences, tokens, and the dictionary with its three marks."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from .batches import DataError

START, END, UNKNOWN = "<start>", "<end>", "<unknown>"
MARKS = (START, END, UNKNOWN)
_TOKEN = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")  # a word, including parts joined by apostrophes, or a sign
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n\s*\n")


def read_text(path: str | os.PathLike[str]) -> str:
    """The contents of a UTF-8 file. Raises DataError for one that is empty or not text, OSError for a missing one."""
    content = Path(path).read_bytes()
    if b"\0" in content:
        raise DataError(f"{path} is binary: byte {content.index(0)} is zero; a text file is needed")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text: byte 0x{content[error.start]:02x} at {error.start}; convert it, as with iconv -t utf-8"
        ) from error
    if not text.strip():
        raise DataError(f"{path} is empty; a text with some sentences is needed")
    return text


def read_column(path: str | os.PathLike[str], column: str) -> str:
    """A column of a CSV file with a header line; each cell is a paragraph, or a whole book.

    Raises DataError also for a file without the column, or with nothing in it; otherwise as `read_text`.
    """
    content, limit = read_text(path), csv.field_size_limit()
    try:
        csv.field_size_limit(max(limit, len(content)))  # Python's own limit, 131,072 letters, is the process's
        reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
        names = reader.fieldnames or []
        if column not in names:
            raise DataError(f"{path} has no column {column!r}; it has {', '.join(map(repr, names))}")
        cells = [row[column] or "" for row in reader]
    except csv.Error as error:
        raise DataError(f"{path} is not valid CSV: {error}") from error
    finally:
        csv.field_size_limit(limit)
    if not any(cell.strip() for cell in cells):
        raise DataError(f"the column {column!r} of {path} is empty; a text with some sentences is needed")
    return "\n\n".join(cells)


def default_text() -> str:
    """The help topics from Python's language reference, which come with Python (`pydoc_data.topics`; PSF licence).

    Their wording differs slightly between versions of Python. Raises DataError if this Python was installed without them.
    """
    try:
        from pydoc_data.topics import topics
    except ModuleNotFoundError as error:
        raise DataError("this Python comes without pydoc_data, the default text; give one with --text") from error
    return "\n\n".join(topics[name] for name in sorted(topics))


def sentences(text: str, longest: int | None = None) -> list[list[str]]:
    """The text's sentences as lists of tokens: lower-case words, numbers and single signs.

    A sentence ends at . ! or ? before white space, and at an empty line. longest: tokens after which a sentence is split. Raises
    DataError for a text without any word.
    """
    found = [_TOKEN.findall(sentence) for sentence in _SENTENCE.split(text.lower())]
    pieces = [f[k : k + (longest or len(f))] for f in found if f for k in range(0, len(f), longest or len(f))]
    if not any(token[0].isalnum() for piece in pieces for token in piece):
        raise DataError(f"there is no word in the text, which starts with {text.strip()[:20]!r}")
    return pieces


class Dictionary:
    """Maps words to ids and back: the three marks come first, then the words, the most frequent first.

    words: without the marks, no duplicates.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = (*MARKS, *words)
        self._numbers = {word: k for k, word in enumerate(self.words)}
        if len(self._numbers) != len(self.words):
            raise ValueError("a dictionary must have each word once, and none that is spelt like a mark")
        self.start, self.end, self.unknown = range(3)

    @classmethod
    def of(cls, tokens: Iterable[Sequence[str]], size: int) -> Dictionary:
        """The dictionary of the most frequent words: `size` entries including the marks, or fewer if there are fewer words.
        Equally frequent words are in alphabetical order. tokens: the sentences.
        """
        counts = Counter(token for sentence in tokens for token in sentence)
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(ranked[: max(0, size - len(MARKS))])

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, sentence: Sequence[str]) -> np.ndarray:
        """The words' ids, int64, between those of the start and end marks; a word not in the dictionary is the unknown mark."""
        inner = [self._numbers.get(word, self.unknown) for word in sentence]
        return np.array([self.start, *inner, self.end], np.int64)

    def decode(self, numbers: Iterable[int]) -> str:
        """The words as a line of text, without start and end marks; punctuation follows a word without a space."""
        words = [self.words[k] for k in numbers if k not in (self.start, self.end)]
        return re.sub(r" ([.,;:!?)\]}%])", r"\1", re.sub(r"([(\[{]) ", r"\1", " ".join(words)))
