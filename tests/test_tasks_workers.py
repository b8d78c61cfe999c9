"""Work divided among threads: every number once, results in order, errors raised; BLAS on one thread each and as before after."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from rnnbench import RNN
from rnnbench.backends import threads
from rnnbench.tasks.layers import Dense
from rnnbench.tasks.workers import divide


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    threads.set_threads(threads.available_threads())


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in ThreadpoolController().info() if library["user_api"] == "blas"}


@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_every_number_is_in_one_part(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rnnbench.tasks.workers.get_threads", lambda: 3)
    parts = divide(lambda part, some: (part, list(range(count))[some]), count, 2)
    assert [part for part, _ in parts] == list(range(len(parts)))
    assert sum((numbers for _, numbers in parts), []) == list(range(count))
    assert len(parts) == max(1, min(3, count // 2))


@pytest.mark.parametrize("outputs", [4, 4_000_000], ids=["one part", "many parts"])
def test_blas_has_one_thread_in_a_layer_and_all_afterwards(outputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = blas_threads(), []
    layer = Dense("output", 1, outputs)
    params, x = layer.initialise(np.random.default_rng(0), "float32"), np.ones((1, 1), np.float32)
    real = np.matmul
    monkeypatch.setattr(np, "matmul", lambda *a, **options: (seen.append(blas_threads()), real(*a, **options))[1])
    layer.backward(params, x, layer.forward(params, x))
    assert len(seen) >= 2 and all(found == {1} for found in seen)
    assert blas_threads() == before


@pytest.mark.parametrize("failing", [0, 1])
def test_what_a_part_raises_is_raised_when_all_have_ended(failing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rnnbench.tasks.workers.get_threads", lambda: 2)
    ended = []

    def work(part: int, some: slice) -> None:
        if part == failing:
            raise ArithmeticError(f"part {part}")
        ended.append(part)

    with pytest.raises(ArithmeticError, match=f"part {failing}"):
        divide(work, 10, 1)
    assert ended == [1 - failing]  # waited for: it writes into arrays of the caller's


def test_settings_of_floating_point_hold_in_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rnnbench.tasks.workers.get_threads", lambda: 2)

    def overflow(part: int, some: slice) -> float:
        return float(np.float32(3e38) * np.float32(10))

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert divide(overflow, 2, 1) == [np.inf, np.inf]
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        divide(overflow, 2, 1)


def test_a_new_set_of_weights_does_not_look_for_libraries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rnn = RNN("rnn_tanh", 3, 4, backend="numpy")
    looked: list[int] = []
    real = threads.ThreadpoolController
    monkeypatch.setattr(threads, "ThreadpoolController", lambda: looked.append(1) or real())
    for _ in range(3):
        rnn.load(rnn.params)
    assert not looked
    threads.set_threads(1)  # another number is told at once
    assert looked and blas_threads() == {1}
