"""Environment variables that are set for a while are as before afterwards, whatever happens, and no other is touched."""

from __future__ import annotations

import os

import pytest

from rnnbench.bench.environment import python_path, variables


def test_variables_hold_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNBENCH_ONE", "before")
    monkeypatch.delenv("RNNBENCH_TWO", raising=False)
    monkeypatch.delenv("RNNBENCH_OTHER", raising=False)
    before = dict(os.environ)
    with pytest.raises(RuntimeError), variables({"RNNBENCH_ONE": "1", "RNNBENCH_TWO": "2"}):
        assert (os.environ["RNNBENCH_ONE"], os.environ["RNNBENCH_TWO"]) == ("1", "2")
        os.environ["RNNBENCH_OTHER"] = "stays"
        raise RuntimeError
    assert dict(os.environ) == before | {"RNNBENCH_OTHER": "stays"}
    del os.environ["RNNBENCH_OTHER"]


def test_a_childs_path_ends_with_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "mine")
    assert python_path("a", "b") == os.pathsep.join(["a", "b", "mine"])
    monkeypatch.setenv("PYTHONPATH", "")  # an empty entry would be the current folder
    assert python_path("a") == "a"
