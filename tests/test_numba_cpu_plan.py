"""How a call is divided among threads: by rows or by hidden units, and among how many."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from rnnbench import RNN
from rnnbench.backends import threads
from rnnbench.backends.numba_cpu import layer, plan
from rnnbench.backends.numba_cpu.tile import tile_rows

needs_two = pytest.mark.skipif(threads.available_threads() < 2, reason="this process may use one processor only")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    chosen = threads._chosen
    yield
    threads._chosen = chosen
    threads.limit_blas()


@pytest.mark.parametrize(
    ("count", "seq_len", "batch_size", "hidden_size", "expected"),
    [
        (1, 1000, 64, 256, (1, True)),
        (2, 1000, 64, 128, (2, True)),  # the weights are cached
        (2, 1000, 16, 512, (2, False)),  # they are not: each thread reads half of them
        (2, 1000, 128, 512, (2, True)),  # so many rows that reading them does not matter
        (2, 1000, 1, 512, (2, False)),
        (2, 1000, 1, 16, (1, True)),  # a barrier would take longer than the step
        (2, 1000, 4, 48, (2, True)),  # and longer than reading all of such small weights
        (2, 1000, 4, 64, (2, False)),
    ],
)
def test_the_work_is_divided_as_its_size_asks(
    count: int, seq_len: int, batch_size: int, hidden_size: int, expected: tuple[int, bool]
) -> None:
    geometry = RNN("lstm", 4, hidden_size).network.layers[0][0]._geometry
    assert geometry.divide(plan.Shape(seq_len, batch_size, 4, hidden_size, 0, False, False, count), 1) == expected


@pytest.mark.parametrize(("rows", "hidden_size"), [(1, 64), (2, 48)])
def test_as_many_threads_divide_units_as_have_something_to_do(rows: int, hidden_size: int) -> None:
    geometry = RNN("lstm", 4, hidden_size).network.layers[0][0]._geometry
    busy = min(geometry.panels, 2 * 4 * hidden_size**2 * rows // 6000)  # panels are narrower with narrower vectors
    shape = plan.Shape(1000, rows, 4, hidden_size, 0, False, False, 16)
    assert busy > 2 and geometry.divide(shape, 1) == (busy, False)


@pytest.mark.parametrize(
    ("count", "hidden_size", "tiles", "by_rows"),
    [(2, 128, 2, True), (2, 128, 1, False), (2, 32, 1, True), (64, 128, 1, True)],
)
def test_with_few_tiles_of_rows_threads_divide_units_if_that_pays(
    count: int, hidden_size: int, tiles: int, by_rows: bool
) -> None:
    geometry = RNN("lstm", 4, hidden_size).network.layers[0][0]._geometry
    rows = count * tiles * tile_rows(4 * geometry.vectors)
    assert geometry.divide(plan.Shape(1000, rows, 4, hidden_size, 0, False, False, count), 1) == (count, by_rows)


def test_what_reading_small_weights_may_cost_grows_with_the_barriers_of_a_step() -> None:
    geometry = RNN("gru_reset_before", 4, 64).network.layers[0][0]._geometry  # 48 KiB of recurrent weights
    shape = plan.Shape(64, 4, 4, 64, 0, False, False, 2)
    assert [geometry.divide(shape, stages) for stages in (1, 2)] == [(2, False), (2, True)]


def test_threads_meet_for_six_thousand_operations() -> None:
    geometry = RNN("gru_reset_before", 4, 64).network.layers[0][0]._geometry  # 24,576 in a step of one row
    shape = plan.Shape(64, 1, 4, 64, 0, False, False, 2)
    assert [geometry.divide(shape, stages) for stages in (2, 3)] == [(2, False), (1, True)]


def test_threads_do_not_divide_rows_of_which_the_last_are_soon_done() -> None:
    geometry = RNN("lstm", 4, 128).network.layers[0][0]._geometry
    shapes = [plan.Shape(64, 64, 4, 128, 0, True, uneven, 2) for uneven in (False, True)]
    assert [geometry.divide(shape, 1) for shape in shapes] == [(2, True), (2, False)]
    small = RNN("gru_reset_before", 4, 48).network.layers[0][0]._geometry
    shapes = [plan.Shape(64, 4, 4, 48, 0, True, uneven, 2) for uneven in (False, True)]
    assert [small.divide(shape, 2) for shape in shapes] == [(2, True), (2, False)]
    assert layer._ragged(None) == (False, False) and layer._ragged(np.array([9, 9, 5])) == (True, False)
    assert layer._ragged(np.array([9, 9, 4])) == (True, True)


@pytest.mark.parametrize(
    ("hidden_size", "threads_and_rows", "expected"),
    [
        (128, (1, True), (0, 0)),  # 256 KiB of each kind
        (256, (1, True), (1, 1)),  # 1 MiB
        (256, (2, True), (1, 1)),  # each thread reads all of them
        (256, (2, False), (0, 0)),  # and here half
        (512, (2, False), (1, 1)),
    ],
)
def test_weights_are_far_that_leave_the_second_level_cache(hidden_size, threads_and_rows, expected) -> None:
    geometry = RNN("lstm", hidden_size, hidden_size).network.layers[0][0]._geometry
    assert geometry.far(*threads_and_rows) == expected


@needs_two
def test_a_little_work_wakes_nobody() -> None:
    geometry = RNN("lstm", 4, 32).network.layers[0][0]._geometry
    threads.set_threads(2)
    assert geometry.threads(1, 1) == 1 and geometry.threads(1000, 64) == 2
    least = 1_000_000 / (2 * 4 * 32**2)  # rows of all steps together
    assert [geometry.threads(1, int(least * share)) for share in (0.9, 1.1, 1.4)] == [1, 2, 2]
    threads.set_threads(1)
    assert geometry.threads(1000, 64) == 1
