"""What the commands print with: colours, progress and columns."""

from __future__ import annotations

import io
import os
import pty

import pytest

from rnnbench.cli.terminal import Progress, columns, paint


def test_colours_only_on_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = pty.openpty()
    with open(follower, "w") as terminal, io.StringIO() as file:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        assert paint("bad", "wrong", terminal) == "\033[31;1mbad\033[0m"
        assert paint("bad", "wrong", file) == "bad"
        monkeypatch.setenv("NO_COLOR", "1")
        assert paint("bad", "wrong", terminal) == "bad"
        monkeypatch.delenv("NO_COLOR")
        monkeypatch.setenv("TERM", "dumb")
        assert paint("bad", "wrong", terminal) == "bad"
    os.close(leader)


def test_progress_is_silent_unless_someone_watches(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(12)
    progress.show("work")
    progress.step()
    progress.clear()
    assert progress.count().startswith("[ 2/12] 0:0") and capsys.readouterr().err == ""


def test_a_log_gets_a_line_of_progress_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("rnnbench.cli.terminal.time.monotonic", lambda: clock[0])
    progress = Progress(12)
    for clock[0], what in ((110.0, "a"), (165.0, "b"), (170.0, "c"), (230.0, "d")):
        progress.show(what)
        progress.step()
    assert capsys.readouterr().err == "[ 2/12] 1:05 b\n[ 4/12] 2:10 d\n"
    progress.total = progress.done
    clock[0] = 300.0
    progress.show("")
    assert capsys.readouterr().err == ""


def test_columns_are_aligned() -> None:
    assert columns([["name", "1"], ["x", "222"]]) == ["name    1", "x     222"]
