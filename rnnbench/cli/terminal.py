"""The output of commands: tables, colours where they are wanted, and a line of progress that goes away."""

from __future__ import annotations

import codecs
import io
import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import TextIO

# Replacements for signs that standard output cannot encode; any other such character is written as \xe9, \u2265 and so on.
PLAIN = {"×": "x", "µ": "u", "–": "-", "·": "."}
COLOURS = {"ok": "32", "skipped": "33", "wrong": "31;1", "failed": "31;1"}  # by status
SECONDS_BETWEEN_LINES = 60.0  # of progress in a log


def paint(text: str, status: str, stream: TextIO) -> str:
    """`text` in the colour of a status, if `stream` is a terminal and NO_COLOR is not set."""
    wanted = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\033[{COLOURS[status]}m{text}\033[0m" if wanted and status in COLOURS else text


def never_fail(stream: object) -> None:
    """Make a text stream replace characters that its encoding lacks, such as the × of a ratio in ASCII or – in Latin-1.

    A stream with an error handler of its own (PYTHONIOENCODING=ascii:replace) is left as it is, and so is one that is not a
    file of Python's.
    """
    if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        codecs.register_error("rnnbench.plain", _plain)
        stream.reconfigure(errors="rnnbench.plain")


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """An error handler for codecs: the replacement for characters that cannot be encoded, and where to continue."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    written = b""
    for sign in error.object[error.start : error.end]:
        if "\udc80" <= sign <= "\udcff":  # a byte of a file's name, which Python could not decode either
            written += bytes([ord(sign) - 0xDC00])
        else:
            written += PLAIN.get(sign, sign).encode("ascii", "backslashreplace")
    return (written.decode("ascii") if written.isascii() else written), error.end


def columns(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Rows of cells as lines with aligned columns: the first `left` columns on the left, the others on the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            text.ljust(width) if k < left else text.rjust(width)
            for k, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


class Progress:
    """The progress of long work, on standard error: in a terminal a line that rewrites itself, in a log a line now and then.

    total: the number of steps.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done, self.start = total, 0, time.monotonic()
        self.live, self.logged = sys.stderr.isatty(), self.start

    def show(self, what: str) -> None:
        """Say what is being worked on; nothing is after the last step."""
        if self.done == self.total:
            return
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r\033[K{self.count()} {what}"[: width + 4])
            sys.stderr.flush()
        elif time.monotonic() - self.logged >= SECONDS_BETWEEN_LINES:
            self.logged = time.monotonic()
            print(self.count(), what, file=sys.stderr, flush=True)

    def step(self) -> None:
        """Count one more step as done."""
        self.done += 1

    def count(self) -> str:
        """The present step and the time so far, as in "[ 7/84] 0:31"."""
        seconds = int(time.monotonic() - self.start)
        return f"[{self.done + 1:>{len(str(self.total))}}/{self.total}] {seconds // 60}:{seconds % 60:02}"

    def clear(self) -> None:
        """Empty the line for whatever is printed next."""
        if self.live:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
