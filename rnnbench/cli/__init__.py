"""The command `rnnbench`.

Exit status: 0 all is well; 1 something disagrees with the reference or failed; 2 the command was used wrongly; 3 a gate is
inconclusive; 4 a gate's budget ended before it had timed every case. And as usual in shells: 130 after Ctrl-C, SIGTERM, which a
cancelled job gets, or SIGHUP, when the terminal is closed; 141 if the reader of a pipe is gone.
"""

from __future__ import annotations

import _thread
import errno
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from rnnbench.cli.terminal import never_fail


class UsageError(Exception):
    """The command was used wrongly; one sentence says how, and what would work. Exit status 2."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. argv: without the program's name; None takes the process's own."""
    if argv is None:  # a process of our own: SIGTERM ends it like Ctrl-C, with everything saved and cleaned up
        signal.signal(signal.SIGTERM, _terminate)
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it
            signal.signal(signal.SIGHUP, _terminate)
        sys.unraisablehook = _again_after(sys.unraisablehook)
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed by the caller; what is written is lost, but asking it works
                setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        never_fail(sys.stdout)
    try:
        from rnnbench.cli.line import parse  # here, because it takes a moment in which Ctrl-C may come

        arguments = parse(sys.argv[1:] if argv is None else list(argv))
        command = importlib.import_module(f"rnnbench.cli.{arguments.command}")
        status: int = command.run(arguments)
        sys.stdout.flush()
        return status
    except UsageError as error:
        print(f"rnnbench: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:  # from our own checks, before any work is done, or NumPy's, which also names a size
        print(f"rnnbench: {str(error) or 'there is not enough memory'}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nrnnbench: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Python flushes standard output once more when it exits; that must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # the disk under standard output is full; commands handle the errors of other files themselves
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO) or error.filename is not None:
            raise
        print(f"rnnbench: the output cannot be written: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception:
        if not _PENDING:
            raise
        # Numba found a kernel without code, because the interruption ended the callback that LLVM hands the code to
        print("\nrnnbench: interrupted", file=sys.stderr)
        return 130


def _terminate(number: int, frame: FrameType | None) -> None:
    """Do what Ctrl-C would do, also in a shell's background job, which ignores Ctrl-C but has to end."""
    handler = signal.getsignal(signal.SIGINT)
    if number != signal.SIGTERM:
        # shell and kernel both tell of a closed terminal, and the second time would interrupt the cleaning up
        signal.signal(number, signal.SIG_IGN)
    _PENDING.clear()
    (handler if callable(handler) else signal.default_int_handler)(number, frame)


_PENDING: list[Any] = []  # interruptions that could not be raised where they struck and are not repeated yet


def _again_after(before: Callable[[Any], object]) -> Callable[[Any], None]:
    """A hook for exceptions that Python cannot raise where they occur: an interruption is repeated later, others go to `before`.

    Python code runs in a callback while LLVM compiles, and in hooks while a process forks; a KeyboardInterrupt is lost there.
    """

    def hook(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            before(unraisable)
            return
        _PENDING.append(unraisable.exc_value)
        later = threading.Timer(0.1, _interrupt)  # if the callback has not returned by then, this happens again
        later.daemon = True
        later.start()

    return hook


def _interrupt() -> None:
    """Send SIGTERM to the main thread, which counts as Ctrl-C even where that is ignored."""
    if hasattr(signal, "pthread_kill"):  # it also wakes a thread that waits
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    else:
        _thread.interrupt_main(signal.SIGTERM)
