"""Calls in a separate process, which may die or hang without losing earlier results.

A kernel that writes out of bounds leaves its process without a usable device, and one that waits forever cannot be stopped.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any


class Lost(RuntimeError):
    """The process died or did not answer in time; the message says which."""


class Isolated:
    """A function that runs in another process, which is started by the first call and serves later ones too.

    function: at module level, because the process imports it by name.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._process: Any = None
        self._connection: Connection | None = None

    def __call__(self, *arguments: Any, seconds: float) -> Any:
        """What the function returns for `arguments`. These must be picklable, and so must what it returns or raises.

        seconds: to wait.

        Raises Lost if no answer comes; the next call then starts a new process. Raises whatever the function raises.
        """
        if self._process is None:
            self._start()
        assert self._connection is not None
        try:
            self._connection.send(arguments)
            if not self._connection.poll(seconds):
                self.close()
                raise Lost(f"no answer within {seconds:.0f} s")
            returned, value = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(5)
            status = self._process.exitcode
            self.close()
            raise Lost(f"the process died with exit status {status}") from error
        if not returned:
            raise value
        return value

    def close(self) -> None:
        """End the process, whatever it is doing. The next call starts another one."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            assert self._connection is not None
            self._connection.close()
            self._process = self._connection = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a CUDA driver in use does not survive a fork
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._function), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Isolated:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _serve(connection: Connection, function: Callable[..., Any]) -> None:
    while True:
        try:
            arguments = connection.recv()
        except EOFError:  # the caller is gone
            return
        try:
            answer = True, function(*arguments)
        except Exception as error:  # for the caller to handle
            answer = False, error
        connection.send(answer)
