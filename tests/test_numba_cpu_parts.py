"""How a kernel's work is laid out: what each thread has of it, and how panels of weights are packed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnbench import RNN, cell, cells, sigmoid, tanh
from rnnbench.backends.numba_cpu import gradient_plan, gradients, layout, plan, threading
from rnnbench.backends.numba_cpu.cache import cached_njit


@cached_njit()
def _take(taken, rows, panels, work, last, threads, thread, by_rows):
    """Count each row of each panel that is in the thread's part; returns how much work they are."""
    part = threading.part_of(rows, panels, work, last, threads, thread, by_rows)
    total = 0
    for panel in range(part.first_panel, part.end_panel):
        first, end = threading.rows_of(part, panel)
        for row in range(first, end):
            taken[panel, row] += 1
            total += last if panel == panels - 1 else work
    return total


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(1, 9),
    panels=st.integers(1, 9),
    work=st.integers(1, 4),
    less=st.integers(0, 3),
    threads=st.integers(1, 5),
    by_rows=st.booleans(),
)
def test_threads_have_equal_parts_that_make_up_the_whole(
    rows: int, panels: int, work: int, less: int, threads: int, by_rows: bool
) -> None:
    taken, last = np.zeros((panels, rows), np.int64), max(1, work - less)
    totals = [_take(taken, rows, panels, work, last, threads, thread, by_rows) for thread in range(threads)]
    assert (taken == 1).all()  # none is missing, none has two threads
    together = rows * ((panels - 1) * work + last)
    assert sum(totals) == together
    one_row = (panels - 1) * work + last
    # a share ends with a whole row: of all panels, or of one
    assert all(abs(total - together / threads) < 2 * (one_row if by_rows else work) for total in totals)


@cached_njit()
def _end_of(first, end, lengths, ragged, t):
    part = threading.Part(0, first, end, 0, first, 1, end, 1)
    return threading.going_on(part, lengths, ragged, t).end_row


def test_rows_at_the_end_that_have_ended_go_no_further() -> None:
    lengths = np.array([4, 4, 2, 3, 1, 0])
    ends = [int(_end_of(0, 6, lengths, True, t)) for t in range(5)]
    assert ends == [5, 4, 4, 2, 0]  # row 3 goes on longer than row 2, which has to wait for it
    assert [int(_end_of(4, 6, lengths, True, t)) for t in range(3)] == [5, 4, 4]
    assert int(_end_of(0, 6, lengths, False, 9)) == 6


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_panels_are_met_once_a_turn_and_the_last_ones_first_in_the_next(turn: int) -> None:
    order = [threading.to_and_fro.py_func(i, 3, 8, turn) for i in range(3, 8)]
    assert order == ([3, 4, 5, 6, 7] if turn % 2 == 0 else [7, 6, 5, 4, 3])


@pytest.mark.parametrize(
    ("cell", "hidden_size", "vectors"),
    [
        ("lstm", 32, 4),  # whole vectors
        ("lstm", 100, 1),  # four units of each of the four gates
        ("lstm", 20, 1),
        ("lstm", 5, 2),
        ("lstm", 31, 4),  # fifteen of each: no vector is saved
        ("lstm_peephole", 21, 2),
        ("rnn_tanh", 100, 3),  # its panels have four vectors of units
        ("gru", 100, 4),  # two products, which would write over each other's ends
        ("gru_reset_before", 100, 6),
    ],
)
def test_the_last_panel_takes_as_few_vectors_as_it_can(cell: str, hidden_size: int, vectors: int) -> None:
    program = plan.Geometry(*_layer(cell, hidden_size), False).inference
    width = 16 * layout.panel_vectors(program, hidden_size, 16)
    assert layout.last_vectors(program, hidden_size, width, 16) == vectors


@pytest.mark.parametrize(("cell", "close"), [("lstm", True), ("gru", False)])
def test_a_panel_that_is_packed_closely_needs_less_memory(cell: str, close: bool) -> None:
    spec, weights = _layer(cell, 33)
    g = plan.Geometry(spec, weights, False)
    packed, at = layout.pack_forward(g.inference, weights, np.zeros(0, spec.dtype), g.width, g.lanes)
    spread = weights.bias.shape[0] * g.padded
    saved = spread - (at["vector"] - at["bias"])
    assert (saved > 0) == close
    assert len(packed) == at["number"]  # no section is longer or shorter than those after it take it to be
    if close:  # the last unit's biases are side by side
        first = (g.panels - 1) * weights.bias.shape[0] * g.width
        np.testing.assert_array_equal(packed[first : first + 4], weights.bias[:, 32])


@pytest.mark.parametrize(
    ("hidden_size", "panels"),
    [(1, (1, 1)), (16, (1, 1)), (17, (1, 2)), (33, (1, 4)), (64, (1, 4)), (65, (2, 1)), (100, (2, 4)), (200, (4, 1))],
)
def test_the_last_transposed_panel_has_one_two_or_four_vectors(hidden_size: int, panels: tuple[int, int]) -> None:
    assert layout.back_panels(hidden_size, 16) == panels


def test_transposed_weights_have_their_gates_end_to_end() -> None:
    """Reset before the product: two products, the second of one gate. Of 65 units the last is in a panel of its own."""
    spec, weights = _layer("gru_reset_before", 65)
    g = plan.Geometry(spec, weights, False)
    packed, at = layout.pack_backward(g.training, weights, np.zeros(0, spec.dtype), g.width, 16)
    first, last = np.split(packed[at["recurrent"] :][: 130 * 80], [130 * 64])
    np.testing.assert_array_equal(first.reshape(130, 64), weights.recurrent[:2, :, :64].reshape(130, 64))
    np.testing.assert_array_equal(last.reshape(130, 16)[:, 0], weights.recurrent[:2, :, 64].reshape(130))
    assert not last.reshape(130, 16)[:, 1:].any()
    second = packed[at["recurrent"] + 130 * 80 :][: 65 * 64].reshape(65, 64)
    np.testing.assert_array_equal(second, weights.recurrent[2, :, :64])
    assert at["input"] - at["recurrent"] == 195 * 80


@pytest.mark.parametrize(("columns", "is_turned"), [(3, True), (70, False)])
def test_a_gradients_place_in_the_sums_is_known(columns: int, is_turned: bool) -> None:
    g = plan.Geometry(*_layer("lstm", 33), False)
    blocks = gradient_plan._blocks(g, 7, 4, columns, [range(4)])
    assert blocks.is_turned == is_turned
    sums = np.full(7 + blocks.size, np.nan, np.float32)
    right = np.arange(4 * 33 * columns, dtype=np.float32).reshape(4, 33, columns)
    whole = sums[7:].reshape(-1, blocks.row)
    if is_turned:
        whole[:, : 4 * 33] = right.reshape(132, columns).T
        assert blocks.row % g.lanes == 0
    else:
        whole[:, :columns] = right.reshape(132, columns)
    np.testing.assert_array_equal(blocks.of(sums), right)


@pytest.mark.parametrize(("hidden_size", "is_turned"), [(16, True), (33, False)])
def test_gradients_of_which_one_would_end_inside_another_are_not_turned(hidden_size: int, is_turned: bool) -> None:
    g = plan.Geometry(*_layer("gru_reset_before", hidden_size), False)
    assert gradient_plan._blocks(g, 0, 3, 3, [range(2), range(2, 3)]).is_turned == is_turned
    assert gradient_plan._blocks(g, 0, 3, 3, [range(3)]).is_turned


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [*cells.BUILT_IN, "mixed", "late"])
def test_no_element_of_the_sums_is_written_by_two(name: str, dtype: str) -> None:
    """Each row of each sum is a thread's own, with the rest of the last vector that is written with it."""
    for hidden_size in range(1, 36):
        for input_size in (1, 20, 70):
            which = {"mixed": mixed, "late": late}.get(name, name)
            layer = RNN(which, input_size, hidden_size, dtype=dtype, backend="numba-cpu").network.layers[0][0]
            planned = _gradient_plan(layer, plan.Shape(2, 3, input_size, hidden_size, 0, False, False, 2))
            assert _most_writers(planned, layer._geometry.lanes) == 1, (hidden_size, input_size)


def test_two_writers_are_seen() -> None:
    layer = RNN("gru", 20, 20, backend="numba-cpu").network.layers[0][0]
    planned = _gradient_plan(layer, plan.Shape(2, 3, 20, 20, 0, False, False, 2))
    table = planned.table.copy()
    table[1, gradients.Sum._fields.index("out_at")] -= 20 * 16  # where it once was: rows of the first had a vector less
    assert _most_writers(planned._replace(table=table), 16) == 2


def _gradient_plan(layer: Any, shape: plan.Shape) -> gradient_plan.GradientPlan:
    g = layer._geometry
    dims = plan.plan_forward(g, shape, layer._packed.at, True).dims
    at = layer._backward_weights().at
    return gradient_plan.plan_gradients(g, shape, at, dims, plan.plan_backward(g, shape, at, dims).dims)


def _most_writers(planned: gradient_plan.GradientPlan, lanes: int) -> int:
    """How many rows of sums write to the same element, at most."""
    writers = np.zeros(planned.size, np.int64)
    for row in planned.table:
        one = gradients.Sum(*row)
        width = layout.round_up(one.columns, lanes)
        for first in range(one.out_at, one.out_at + one.rows * one.out_row, one.out_row):
            assert first + width <= planned.size
            writers[first : first + width] += 1
    return int(writers.max())


def test_an_infinite_operand_stays_out_of_the_gradients_of_the_others() -> None:
    """The first product's operand is infinite, the second's is not."""
    r, state = RNN(mixed, 2, 5, dtype="float64", backend="numba-cpu"), np.ones((1, 2, 5))
    state[0, 0, 1] = np.inf
    output, _, tape = r.forward(np.ones((1, 2, 2)), (state,))
    gradient = r.backward(tape, np.ones_like(output))["weight_hh_l0"]
    assert np.isnan(gradient[:5, 1]).any() and np.isfinite(gradient[5:]).all()


@cell
def mixed(x, R, h):
    u = tanh(h)
    f = sigmoid(x.f + R.f @ h)
    n = x.n + R.n @ u
    return f * h + n


@cell
def late(x, R, h):
    """Nothing of the first product's is from the input."""
    return tanh(x.n * sigmoid(R.f @ h) + x.o)


def _layer(cell: str, hidden_size: int):
    """The specification and the weights of a layer."""
    layer = RNN(cell, 3, hidden_size).network.layers[0][0]
    return layer.spec, layer._weights
