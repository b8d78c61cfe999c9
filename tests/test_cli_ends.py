"""How the command ends that is interrupted, or whose caller has closed its streams."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

COMPARE = ["compare", "--cells", "rnn_tanh", "--backends", "numpy", "--hidden-sizes", "8", "--seq-lens", "3"]
STRUCK = """
import ctypes, signal, sys, time, types
from rnnbench import cli

def run(arguments):
    callback = ctypes.CFUNCTYPE(None)
    callback(lambda: 1 / 0)()  # none of ours: told as ever
    callback(lambda: signal.raise_signal(signal.{signal}))()
    {then}
    return 0

if "{signal}" == "SIGHUP":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
if "{signal}" != "SIGINT":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a job in the background
sys.modules["rnnbench.cli.info"] = types.SimpleNamespace(run=run)
sys.argv = ["rnnbench", "info"]
sys.exit(cli.main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals that wake a thread")
@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("then", ["time.sleep(60)", "raise RuntimeError('no compiled object yet')"])
def test_an_interruption_inside_of_a_callback_is_not_lost(signal: str, then: str) -> None:
    code = STRUCK.replace("{signal}", signal).replace("{then}", then)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 130, done.stderr
    assert "rnnbench: interrupted" in done.stderr and "ZeroDivisionError" in done.stderr
    assert "KeyboardInterrupt" not in done.stderr and "RuntimeError" not in done.stderr


HUNG_UP = """
import signal, sys, types
from rnnbench import cli

def run(arguments):
    try:
        signal.raise_signal(signal.SIGHUP)
        print("went on")
    except KeyboardInterrupt:
        signal.raise_signal(signal.SIGHUP)
        print("cleaned up")
        raise
    return 0

signal.signal(signal.SIGHUP, signal.{before})
sys.modules["rnnbench.cli.info"] = types.SimpleNamespace(run=run)
sys.argv = ["rnnbench", "info"]
sys.exit(cli.main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
@pytest.mark.parametrize(("before", "status", "told"), [("SIG_DFL", 130, "cleaned up"), ("SIG_IGN", 0, "went on")])
def test_a_closed_terminal_is_an_interruption_save_for_nohup(before: str, status: int, told: str) -> None:
    """The shell and the kernel both tell of it, so the second one must not interrupt the cleaning up."""
    code = HUNG_UP.replace("{before}", before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (status, told + "\n"), done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals that wake a thread")
def test_an_error_after_an_interruption_that_was_caught_is_told() -> None:
    then = """
    try: time.sleep(60)
    except KeyboardInterrupt: raise RuntimeError('another')
"""
    code = STRUCK.replace("{signal}", "SIGINT").replace("{then}", then)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1 and "RuntimeError: another" in done.stderr


def test_an_interruption_while_the_command_is_loaded_is_one_sentence() -> None:
    code = """
import sys
class Struck:
    def find_spec(name, path, target=None):
        if name == "rnnbench.cells":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Struck)
from rnnbench.cli import main
sys.exit(main(["info"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (130, "\nrnnbench: interrupted\n")


@pytest.mark.skipif(sys.platform == "win32", reason="the shell of POSIX closes the streams")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_lose_what_is_written_and_nothing_else(closed: str) -> None:
    command = [sys.executable, "-m", "rnnbench", *COMPARE, "--batch-sizes", "1,2", "--format", "csv"]
    done = subprocess.run(f"{shlex.join(command)} {closed}", shell=True, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stderr == ""
    assert len(done.stdout.splitlines()) == (3 if closed == "2>&-" else 0)
