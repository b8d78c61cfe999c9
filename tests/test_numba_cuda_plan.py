"""The plans of the CUDA backend, without a GPU: which kernel runs a layer, and how its work is divided."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from rnnbench import cells, cli
from rnnbench.backends.numba_cuda import VARIABLE, plan, product_tiles
from rnnbench.backends.numba_cuda.tile import Tile
from rnnbench.params import Spec

device: Any = pytest.importorskip("rnnbench.backends.numba_cuda.device")
pytestmark = pytest.mark.skipif(device.why_unavailable("numba-cuda") is None, reason="there is a GPU here")


def spec(cell: str = "lstm", hidden_size: int = 512, dtype: str = "float32") -> Spec:
    return Spec(cells.find(cell), hidden_size, hidden_size, dtype=dtype)


@pytest.mark.parametrize(
    ("cell", "hidden_size", "batch_size", "kernel"),
    [
        ("lstm", 64, 1, "block"),
        ("lstm", 64, 1000, "block"),
        ("lstm", 512, 4, "grid"),
        ("lstm", 1024, 64, "grid"),
        ("gru", 1024, 1, "grid"),
        ("lstm", 1024, 128, "grid"),
        ("lstm", 1024, 129, "step"),
        ("lstm", 86, 1, "cluster"),
        ("lstm", 256, 1920, "cluster"),
        ("lstm", 256, 1921, "step"),
        ("lstm", 257, 256, "grid"),
        ("lstm", 257, 257, "step"),
        ("rnn_tanh", 512, 16, "cluster"),
        ("lstm", 1500, 4, "step"),
        ("rnn_tanh", 128, 16, "block"),
    ],
)
def test_the_plan_on_an_h200(cell: str, hidden_size: int, batch_size: int, kernel: str) -> None:
    made = plan.plan(spec(cell, hidden_size), batch_size, plan.H200, "float32")
    assert made.kernel == kernel
    if made.tile is not None:
        assert made.blocks[0] * made.tile.units >= hidden_size and made.blocks[1] * made.rows >= batch_size
        assert made.tile.units * made.tile.slices <= 512
        assert made.held * made.tile.itemsize <= plan.HELD_BYTES and made.shared_bytes <= plan.SHARED_BYTES
        if kernel in ("cluster", "grid"):
            assert made.blocks[0] * made.blocks[1] <= plan.H200.multiprocessors
        if kernel == "cluster":
            assert 1 < made.blocks[0] <= 8 and made.blocks[1] <= 15 * (8 // made.blocks[0]), (
                "one cluster more would wait for the others to end"
            )


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("cell", "hidden_size", "float32", "kernel"),
    [
        ("lstm", 128, "cluster", "block"),
        ("lstm", 129, "cluster", "cluster"),
        ("lstm", 352, "grid", "cluster"),
        ("lstm", 1452, "step", "grid"),
        ("gru", 1638, "step", "grid"),
    ],
)
def test_in_16_bits_larger_layers_stay_in_registers(
    cell: str, hidden_size: int, float32: str, kernel: str, stored: str
) -> None:
    assert plan.plan(spec(cell, hidden_size), 4, plan.H200, "float32").kernel == float32
    made = plan.plan(spec(cell, hidden_size), 4, plan.H200, stored)
    assert made.kernel == kernel and made.shared_bytes <= plan.SHARED_BYTES
    assert plan.held_bytes(made.held, stored) <= plan.HELD_BYTES


def test_show_tells_what_weights_are_stored_in(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["show", "lstm", "--backend", "numba-cuda-fp16", "--hidden-size", "1025", "--batch-size", "4"]
    assert cli.main(command) == 0
    told = capsys.readouterr().out
    for words in (
        "kernel            grid",
        f"recurrent weights {4 * 1025**2:,} in float16, {8 * 1025**2:,} bytes",
        "in registers      72 weights a thread (144 bytes)",
    ):
        assert words in told
    with pytest.raises(plan.Unsuitable, match="float32 with weights in bfloat16: .* 128 in bfloat16 fit"):
        plan.plan(spec("lstm", 512), 4, plan.H200, "bfloat16", "block")


def test_every_weight_is_held_once() -> None:
    """The slices of a depth are even parts of it, and so are the chunks that are staged."""
    for depth, slices, across in itertools.product((1, 5, 64, 100, 2048), (1, 3, 64, 85), (False, True)):
        tile = Tile(2, 4, slices, 4, 4096, "grid", across)
        cuts = 4 * slices if across else slices
        assert tile.each(depth) * cuts >= depth > (tile.each(depth) - 1) * cuts
        assert tile.held(1, depth) == tile.each(depth) * (4 if across else 1)
        assert tile.chunk(depth) % cuts == 0
        assert tile.chunk(depth) * tile.rows * 4 <= max(4096, cuts * tile.rows * 4)


@pytest.mark.parametrize(
    ("cell", "hidden_size", "batch_size", "stored", "rows"),
    [
        ("lstm", 256, 16, "float32", 8),
        ("lstm", 512, 8, "float32", 8),
        ("lstm", 512, 4, "float64", 4),
        ("lstm", 640, 64, "float32", 8),
        ("lstm", 768, 16, "float32", 4),  # 512 threads' sums for 8 rows are more than a block's shared memory
        ("lstm", 1024, 16, "float32", 3),
        ("gru", 768, 16, "float32", 8),
        ("lstm", 1152, 4, "bfloat16", 2),
    ],
)
def test_backward_a_thread_of_the_grid_sums_all_units_of_its_block(
    cell: str, hidden_size: int, batch_size: int, stored: str, rows: int
) -> None:
    dtype = "float64" if stored == "float64" else "float32"
    made = plan.plan(spec(cell, hidden_size, dtype), batch_size, plan.H200, stored, "grid")
    assert made.tile is not None and made.back is not None
    assert not made.tile.across and made.back.across and made.back.rows == rows
    assert (made.back.units, made.back.slices) == (made.tile.units, made.tile.slices)
    staged = replace(made.back, across=False)
    for depth in (hidden_size, 4 * hidden_size):
        assert made.back.held(1, depth) < staged.held(1, depth) + made.back.units, "more weights than rounding up adds"


@pytest.mark.parametrize(
    ("cell", "hidden_size", "batch_size", "blocks", "rows", "computed"),
    [
        (
            "lstm",
            128,
            128,
            (4, 26),
            5,
            5 * 32,
        ),  # 15 clusters of 8 blocks would have 9 rows each: two groups of 5, or 16 of 8
        ("lstm", 128, 64, (8, 13), 5, 5 * 16),
        ("lstm", 128, 16, (4, 16), 1, 32),  # as much as with 8 clusters of 8, of which more blocks would meet
        ("lstm", 128, 4, (8, 4), 1, 16),
        ("lstm", 256, 128, (8, 15), 9, 10 * 32),  # fewer blocks cannot hold the weights
        ("rnn_tanh", 256, 200, (4, 29), 7, 7 * 64),
        ("gru", 192, 128, (4, 26), 5, 5 * 48),
        ("lstm", 384, 128, (64, 2), 64, 64 * 6),  # 96 blocks of 4 units would leave a quarter of the device idle
        ("lstm", 512, 4, (128, 1), 4, 4 * 4),
        ("lstm", 512, 128, (64, 2), 64, 64 * 8),  # no less work than 128 blocks, in half the groups
        ("lstm", 64, 1188, (1, 132), 9, 10 * 64),
    ],
)
def test_work_is_divided_evenly(
    cell: str, hidden_size: int, batch_size: int, blocks: tuple[int, int], rows: int, computed: int
) -> None:
    """computed: the rows x units that a block computes in a step forward, with those that fill up its last group."""
    made = plan.plan(spec(cell, hidden_size), batch_size, plan.H200, "float32")
    assert made.tile is not None
    assert (made.blocks, made.rows) == (blocks, rows)
    assert made.tile.passes(rows) * made.tile.rows * made.tile.units == computed


def test_a_cluster_has_little_more_work_than_a_grid() -> None:
    """So little that the grid's barrier, which takes a microsecond or more longer, makes up for it: it is never asked."""
    microsecond = 1700 * 128  # multiply-adds of a multiprocessor
    for cell, H, B in itertools.product(("lstm", "gru", "rnn_tanh"), (96, 128, 192, 256, 288, 512), range(2, 257, 9)):
        made = plan.plan(spec(cell, H), B, plan.H200, "float32")
        if made.kernel == "cluster" and B <= plan.GRID_ROWS * (132 // -(-H // 4)):
            other = plan.plan(spec(cell, H), B, plan.H200, "float32", "grid")
            both = [plan._work(spec(cell, H), (m.tile, m.back), m.rows) for m in (made, other) if m.tile and m.back]
            assert both[0] - both[1] < 2 * microsecond, "a step forward and one backward"


@pytest.mark.parametrize(
    ("rows", "itemsize", "stride"), [(1, 4, 1), (2, 4, 2), (3, 4, 4), (5, 4, 8), (8, 4, 8), (1, 8, 1), (3, 8, 4)]
)
def test_the_rows_of_an_element_begin_where_16_bytes_are_loaded_at_once(rows: int, itemsize: int, stride: int) -> None:
    assert Tile(rows, 4, 8, itemsize, 4096).stride == stride


@pytest.mark.parametrize(
    ("hidden_size", "stored", "kernel"),
    [(64, "float32", "block"), (1408, "bfloat16", "grid"), (1408, "float16", "grid")],
)
def test_where_those_sums_or_their_weights_do_not_fit_it_sums_one(hidden_size: int, stored: str, kernel: str) -> None:
    made = plan.plan(spec("lstm", hidden_size), 4, plan.H200, stored, kernel)
    assert made.back is not None and not made.back.across
    assert plan.held_bytes(made.held, stored) <= plan.HELD_BYTES and made.shared_bytes <= plan.SHARED_BYTES


@pytest.mark.parametrize(
    ("kernel", "hidden_size", "batch_size", "words"),
    [
        ("block", 512, 4, "each of 512 threads would hold 2048 weights; 64 in float32 fit"),
        ("block", 600, 4, "a block has 512 threads, fewer than the 600 hidden units"),
        ("cluster", 257, 4, "each of 495 threads would hold 72 weights; 64 in float32 fit"),
        (
            "cluster,block",
            512,
            4,
            "not cluster: each of 512 threads would hold 256 weights; 64 in float32 fit; not block: each of",
        ),
        ("grid", 512, 129, "129 rows a block are more than 128"),
        ("grid", 4096, 1, "would hold"),
    ],
)
def test_a_forced_kernel_that_does_not_suit_says_why(
    kernel: str, hidden_size: int, batch_size: int, words: str
) -> None:
    with pytest.raises(plan.Unsuitable) as error:
        plan.plan(spec(hidden_size=hidden_size), batch_size, plan.H200, "float32", kernel)
    what = f"the kernel {kernel!r} cannot run lstm with hidden_size {hidden_size}, batch_size {batch_size}, float32: "
    assert str(error.value).startswith(what) and words in str(error.value)


def test_a_device_without_clusters_runs_the_others() -> None:
    older = plan.Device("an A100", 108)
    assert plan.plan(spec(hidden_size=128), 4, older, "float32").kernel == "grid"
    with pytest.raises(
        plan.Unsuitable, match="an A100 has no clusters of blocks, which compute capability 9.0 brought"
    ):
        plan.plan(spec(hidden_size=128), 4, older, "float32", "cluster")


def test_clusters_that_are_launched_together_run_together() -> None:
    assert [plan.H200.clusters(blocks) for blocks in (8, 7, 5, 4, 3, 2)] == [15, 15, 15, 30, 30, 60]
    assert plan.Device("a small one", 10, cluster=8).clusters(8) == 1


def test_with_tensor_cores_much_work_runs_step_by_step(capsys: pytest.CaptureFixture[str]) -> None:
    def kernel(hidden_size: int, batch_size: int, forced: str = "") -> str:
        return plan.plan(spec("lstm", hidden_size), batch_size, plan.H200, "float32", forced, tensor_cores=True).kernel

    for hidden_size, most in ((1024, 36), (768, 68)):
        assert kernel(hidden_size, most) == "grid" and kernel(hidden_size, most + 1) == "step"
    assert kernel(512, 128) == "grid" and kernel(256, 128) == "cluster" and kernel(64, 128) == "block"
    assert kernel(1024, 128, "grid") == kernel(1024, 128, "block,grid") == "grid", "where step must not run"
    command = ["show", "lstm", "--backend", "numba-cuda-tf32", "--hidden-size", "1024", "--batch-size"]
    for batch_size, told in ((4, "products in float32"), (128, "products in TF32, on tensor cores")):
        assert cli.main([*command, str(batch_size)]) == 0
        said = capsys.readouterr().out
        assert told in said and ("beyond which tensor cores take less time" in said) == (batch_size == 128)


def test_several_kernels_may_be_allowed() -> None:
    for allowed, kernel in (
        ("block,grid,step", "grid"),
        ("step, grid", "step"),
        ("block,cluster,grid,step", "cluster"),
    ):
        assert plan.plan(spec(hidden_size=128), 4, plan.H200, "float32", allowed).kernel == kernel
    with pytest.raises(ValueError, match="gird"):
        plan.plan(spec(hidden_size=128), 4, plan.H200, "float32", "block,gird")


def test_show_tells_the_plan_and_why(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["show", "lstm", "--backend", "numba-cuda", "--hidden-size", "512", "--batch-size", "4"]
    assert cli.main(command) == 0
    told = capsys.readouterr().out
    for words in (
        "kernel            grid",
        "128 blocks keep their units' recurrent weights in registers, 32 a thread",
        "rows at once      4 forward, 4 backward",
        "backward          a thread sums all units of its block",
        "not block: each of 512 threads would hold 2048 weights; 64 in float32 fit",
        "no GPU can be used here",
        "real(1.0)",
    ):
        assert words in told
    monkeypatch.setenv(VARIABLE, "block")
    assert cli.main(command) == 2
    assert "the kernel 'block' cannot run lstm" in capsys.readouterr().err
    monkeypatch.delenv(VARIABLE)
    assert cli.main(["show", "lstm", "--backend", "numpy", "--hidden-size", "5", "--batch-size", "4"]) == 0
    assert "# Plan" not in capsys.readouterr().out
    assert cli.main(["show", "lstm", "--backend", "numba-cuda", "--batch-size", "4"]) == 2


def test_a_plan_needs_no_numba() -> None:
    code = (
        "import sys\n"
        "from rnnbench import cells\nfrom rnnbench.params import Spec\nfrom rnnbench.backends.numba_cuda import plan\n"
        "print(plan.plan(Spec(cells.find('lstm'), 5, 5), 1, plan.H200, 'float32').kernel, 'numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["block", "False"]


@pytest.mark.parametrize(
    ("blocks", "depth", "expected"),
    [
        (16, 1024 * 16, 16),  # LSTM, H = 128: of 2 * 132 blocks 17 slices would be 8 too many
        (1, 1024, 4),  # no slice of fewer than 256 terms
        (1, 100, 1),
        (512, 1024 * 16, 1),  # the tiles alone fill the device
        (264, 10**6, 1),
    ],
)
def test_long_sums_into_little_are_cut_into_slices(blocks: int, depth: int, expected: int) -> None:
    assert product_tiles.slices(blocks, depth, plan.H200) == expected


def test_more_rows_than_a_grid_has_blocks_run_step_by_step() -> None:
    @cells.cell
    def alone(x, R, h):
        return 0.5 * h + x.a

    assert plan.plan(Spec(alone, 2, 3), 65_535, plan.H200, "float32").kernel == "block"
    many = plan.plan(Spec(alone, 2, 3), 65_536, plan.H200, "float32")
    assert many.kernel == "step" and "at most 65535 blocks of rows" in many.why
