"""The shortest time of a step on a GPU: counted by hand for small layers, and nothing that a plan does is left out."""

from __future__ import annotations

import pytest

from rnnbench import cells
from rnnbench.backends.numba_cuda import plan
from rnnbench.backends.numba_cuda.floor import floor_us
from rnnbench.bench.cases import Case

DEVICE = plan.Device("a device", 4, cluster=2)
CEILINGS = {
    "multiply_add_float32_gflops": 1e-3,  # one FLOP a microsecond
    "copy_in_l2_gbytes_per_s": 1e-3,  # one byte
    "launch_us": 1e4,
    "cluster_barrier_us": 1e3,
    "grid_barrier_us_1_blocks": 10.0,
    "grid_barrier_us_3_blocks": 1e5,
    "grid_barrier_us_8_blocks": 1e6,
}


def floor(cell: str, kernel: str, hidden_size: int, batch_size: int, training: bool = False, **changed: float) -> float:
    case = Case(cell, "", direction="train" if training else "forward", seq_len=1, batch_size=batch_size, input_size=2,
                hidden_size=hidden_size)  # fmt: skip
    made = plan.plan(case.spec, batch_size, DEVICE, "float32", kernel)
    return floor_us(case.spec, batch_size, training, made, DEVICE, case.flops, CEILINGS | changed)


def test_a_layer_in_one_block_has_one_multiprocessor_a_row() -> None:
    input_product, recurrent = 2 * 3 * 2 * 5, 2 * 3 * 5 * 5  # three rows
    assert floor("rnn_tanh", "block", 5, 3) == pytest.approx(input_product + recurrent * 4 / 3)
    assert floor("rnn_tanh", "block", 5, 4) == pytest.approx(2 * 4 * 5 * (2 + 5))


def test_a_grid_meets_and_exchanges() -> None:
    products = 2 * 3 * 3 * 12 * 2 + 2 * 3 * 3 * 12 * 12 * 4 / 3  # three blocks of four units, three rows each
    read = 3 * 3 * 12 * 4 * 2  # r and z read h, then n reads r h: bytes, by each block
    assert floor("gru_reset_before", "grid", 12, 3) == pytest.approx(products + read + 2 * 1e5)
    fewer = {"grid_barrier_us_8_blocks": 1.0}
    assert floor("gru_reset_before", "grid", 12, 3, **fewer) == floor("gru_reset_before", "grid", 12, 3)
    missing = {name: value for name, value in CEILINGS.items() if "barrier" not in name}
    with pytest.raises(KeyError, match="grid_barrier"):
        made = plan.plan(Case("lstm", "", hidden_size=12).spec, 1, DEVICE, "float32", "grid")
        floor_us(Case("lstm", "", hidden_size=12).spec, 1, False, made, DEVICE, 1.0, missing)


def test_a_cluster_meets_and_exchanges_by_itself() -> None:
    products = 2 * 3 * 3 * 12 * 2 + 2 * 3 * 3 * 12 * 12 * 4 / 2  # a cluster of two blocks, all three rows
    read = 2 * 3 * 12 * 4 * 2  # by each block of a row's cluster
    assert floor("gru_reset_before", "cluster", 12, 3) == pytest.approx(products + read + 2 * 1e3)


def test_training_comes_back() -> None:
    """The products of the way back are as many and deeper: an LSTM's reads four gates' gradients of each unit."""
    there = floor("lstm", "grid", 12, 1, launch_us=0.0)
    both = floor("lstm", "grid", 12, 1, training=True, launch_us=0.0)
    flops = cells.flops(cells.find("lstm"), 1, 1, 2, 12, "train") - cells.flops(
        cells.find("lstm"), 1, 1, 2, 12, "forward"
    )
    recurrent, read = 2 * 4 * 12 * 12, 3 * 4 * 12 * 4
    assert both - there == pytest.approx(flops + recurrent * (4 / 3 - 1) + read + 1e5)


def test_a_step_is_launched() -> None:
    assert floor("lstm", "step", 5, 1) == 2 * 1e4, "a product and the pointwise code"
    way_back = 3  # code, the product, and code that adds what it sends back
    assert floor("lstm", "step", 5, 1, training=True) == (2 + way_back) * 1e4
    assert floor("lstm", "step", 5, 1, launch_us=1.0) == 2 * 4 * 5 * (2 + 5)
