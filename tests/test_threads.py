"""One number of threads, for BLAS and for every backend."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from rnnbench import RNN
from rnnbench.backends import threads


@pytest.fixture(autouse=True)
def as_before():
    before = threads._chosen
    yield
    threads._chosen = before
    threads.limit_blas()


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_available_threads_are_those_that_the_process_may_use(monkeypatch):
    assert 1 <= threads.available_threads() <= (os.cpu_count() or 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert threads.available_threads() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert threads.available_threads() == 1


def test_all_threads_until_one_says_otherwise():
    threads._chosen = None
    assert threads.get_threads() == min(threads.available_threads(), threads.allowed_threads(os.environ))
    threads.set_threads(1)
    assert threads.get_threads() == 1


def test_blas_follows_at_once_and_with_each_network():
    assert np.dot(np.ones((4, 4)), np.ones((4, 4))).sum() == 64
    threads.set_threads(1)
    assert blas_threads() == {1}
    threads._chosen = None
    RNN("rnn_tanh", 2, 2, backend="numpy")
    assert blas_threads() == {threads.get_threads()}


@pytest.mark.parametrize(
    ("variables", "allowed"),
    [
        ({}, math.inf),
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "8", "OPENBLAS_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "4"}, 2),
        ({"OMP_NUM_THREADS": " 4,2 "}, 4),
        ({"OMP_NUM_THREADS": "4", "OMP_THREAD_LIMIT": "1"}, 1),
        ({"MKL_NUM_THREADS": "", "OMP_NUM_THREADS": "many", "NUMBA_NUM_THREADS": "0"}, math.inf),
    ],
)
def test_variables_of_the_environment_limit_threads(variables, allowed):
    assert threads.allowed_threads(variables) == allowed


def test_a_process_that_was_given_one_thread_takes_one():
    code = (
        "from rnnbench import RNN; from threadpoolctl import threadpool_info; from rnnbench.backends import threads\n"
        "RNN('rnn_tanh', 2, 2, backend='numpy')\n"
        "print(threads.get_threads(), {i['num_threads'] for i in threadpool_info() if i['user_api'] == 'blas'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.stdout == "1 {1}\n", done.stderr


def test_numpys_whole_numbers_count():
    threads.set_threads(np.int64(1))
    assert threads.get_threads() == 1 and type(threads.get_threads()) is int


@pytest.mark.parametrize("count", [0, -1, 10**6, 1.0, "1", None, True])
def test_other_counts_are_refused_and_change_nothing(count):
    threads.set_threads(1)
    with pytest.raises(ValueError, match="^threads must be a whole number from 1 to [0-9]+, not "):
        threads.set_threads(count)
    assert threads.get_threads() == 1


def test_a_new_set_of_weights_does_not_look_for_libraries_again(monkeypatch):
    rnn = RNN("rnn_tanh", 3, 4, backend="numpy")
    looked: list[int] = []
    real = threads.ThreadpoolController
    monkeypatch.setattr(threads, "ThreadpoolController", lambda: looked.append(1) or real())
    for _ in range(3):
        rnn.load(rnn.params)
    assert not looked
    threads.set_threads(1)  # another number is told at once
    assert looked and blas_threads() == {1}
