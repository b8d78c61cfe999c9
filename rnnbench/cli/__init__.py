"""The command `rnnbench`.

Exit status: 0 all is well; 1 something disagrees with the reference or failed; 2 the command was used wrongly. And as
shells have it: 130 after Ctrl-C or a request to terminate (SIGTERM), which a job that is called off gets; 141 when the reader of
a pipe has gone.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from rnnbench.cli.parser import parse
from rnnbench.cli.values import UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. argv: without the program's name; None takes the process's own."""
    if argv is None:  # what is kept, saved and cleared away at Ctrl-C is so whoever ends the program
        signal.signal(signal.SIGTERM, _terminate)
    try:
        arguments = parse(sys.argv[1:] if argv is None else list(argv))
        command = importlib.import_module(f"rnnbench.cli.{arguments.command}")
        status: int = command.run(arguments)
        sys.stdout.flush()
        return status
    except UsageError as error:
        print(f"rnnbench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nrnnbench: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Python flushes standard output once more at its exit; that must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _terminate(number: int, frame: FrameType | None) -> None:
    """Do what Ctrl-C would; a job in a shell's background ignores that, and has to end all the same."""
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(number, frame)
