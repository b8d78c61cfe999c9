"""Every CUDA kernel compiled for real devices, without one: to PTX by NVVM, then assembled by nvJitLink with a budget of registers.

What the simulator cannot see shows here: types that NVVM refuses, an array that became local memory because an index of it was no
constant, registers that spill. Skipped, by name, where numba-cuda is not installed: pip install "rnnbench[cuda]".
"""

from __future__ import annotations

import glob
import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("numba_cuda", reason="the package numba-cuda is not installed")

import numba.cuda.codegen  # noqa: E402
import numba.cuda.dispatcher  # noqa: E402
from numba import cuda, types  # noqa: E402

from rnnbench import cells  # noqa: E402
from rnnbench.backends.numba_cuda import compiled, moves, plan, product, product_tiles  # noqa: E402
from rnnbench.backends.numba_cuda.buffers import Backward, Forward, Now  # noqa: E402
from rnnbench.backends.numba_cuda.persistent import persistent  # noqa: E402
from rnnbench.backends.numba_cuda.tile import Tile  # noqa: E402
from rnnbench.cells import program  # noqa: E402
from rnnbench.params import Spec  # noqa: E402

CAPABILITIES = [pytest.param((7, 5), marks=pytest.mark.full), pytest.param((8, 0), marks=pytest.mark.full), (9, 0)]
REAL = {"float32": types.float32, "float64": types.float64}
INT, PAIR = types.int64, types.UniTuple(types.int64, 2)
BACKWARD_BUFFERS, FORWARD_BUFFERS = 9, 6  # of numbers; then lengths and three sizes

# (cell, dtype of the weights, hidden size, batch size, kernel): the largest that still fits is in it. Where 512 threads hold 40
# registers of weights each and more, some addresses go to local memory and come back each step; next to nothing else may spill.
LAYERS = (
    ("lstm", "float32", 64, 4, "block"),
    ("lstm", "float32", 512, 8, "grid"),
    ("gru", "float32", 80, 1100, "block"),
    ("rnn_tanh", "float32", 128, 1, "block"),
    ("gru", "float32", 256, 64, "grid"),
    ("gru_reset_before", "float32", 256, 4, "grid"),
    ("lstm_peephole", "float64", 40, 4, "block"),
    ("lstm", "float32", 768, 16, "grid"),
    ("lstm", "float32", 1024, 4, "grid"),
    ("lstm", "float64", 256, 4, "grid"),
    ("lstm", "float16", 64, 4, "block"),
    ("lstm", "bfloat16", 120, 4, "block"),  # in float32 it does not fit: no weight may be widened before the time loop
    ("lstm", "float16", 120, 4, "block"),
    ("gru_reset_before", "float16", 256, 4, "grid"),
    ("lstm", "bfloat16", 1408, 4, "grid"),
    ("lstm", "float16", 1408, 4, "grid"),
    ("lstm", "float32", 256, 16, "cluster"),
    ("lstm", "float32", 256, 128, "cluster"),
    ("gru_reset_before", "float32", 256, 64, "cluster"),
    ("rnn_tanh", "float32", 512, 64, "cluster"),
    ("lstm", "float32", 128, 128, "cluster"),  # 5 rows at once
    ("lstm", "float32", 256, 200, "cluster"),  # and 7
    ("lstm", "float32", 512, 64, "grid"),
    ("lstm", "float32", 384, 64, "grid"),
    ("gru", "float32", 1024, 128, "grid"),
)
DEFAULT = {
    (LAYERS[0], "inference"), (LAYERS[1], "backward"), (LAYERS[10], "backward"), (LAYERS[11], "inference"),
    (LAYERS[16], "training"),
}  # fmt: skip
PERSISTENT = [
    pytest.param(
        layer, way, marks=() if (layer, way) in DEFAULT else pytest.mark.full, id="-".join(map(str, (*layer, way)))
    )
    for layer in LAYERS
    for way in ("inference", "training", "backward")
]
MOST_SPILLED_BYTES = {40: 8, 80: 144, 120: 32, 256: 24, 1024: 144, 1408: 192}


@pytest.fixture(autouse=True)
def _no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, (7, 5))  # where Numba asks while a kernel is made, not compiled


def stand_in(patch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    """In place of the device that Numba asks for when it compiles."""
    device = SimpleNamespace(compute_capability=capability, id=0)
    patch.setattr(numba.cuda.dispatcher, "get_current_device", lambda: device)
    patch.setattr(numba.cuda.codegen.devices, "get_context", lambda: SimpleNamespace(device=device))


def ptx(kernel: Any, signature: tuple[Any, ...], capability: tuple[int, int]) -> str:
    """The text that a device of this capability would be given: of the same compiler, with the same options."""
    assert kernel.targetoptions["lto"] is False, "then nvJitLink optimises, and what is counted here is not what runs"
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch, capability)
        compiled = numba.cuda.dispatcher._Kernel(kernel.py_func, signature, **kernel.targetoptions)
        text: str = compiled._codelibrary.get_asm_str()
    assert f".target sm_{capability[0]}{capability[1]}" in text
    return text


def array(ndim: int, dtype: Any) -> Any:
    return types.Array(dtype, ndim, "C")


def buffers(backward: bool, dtype: Any) -> Any:
    kind, count = (Backward, BACKWARD_BUFFERS) if backward else (Forward, FORWARD_BUFFERS)
    return types.NamedTuple([array(1, dtype)] * count + [array(1, INT)] + [INT] * 3, kind)


def persistent_ptx(layer: Any, backward: bool, training: bool, capability: tuple[int, int], fast: bool = False) -> str:
    name, stored, hidden_size, batch_size, forced = layer
    dtype = stored if stored in REAL else "float32"
    spec = Spec(cells.find(name), hidden_size, hidden_size, dtype=dtype)
    made = plan.plan(spec, batch_size, plan.H200, stored, forced)
    tile = made.back if backward else made.tile
    assert tile is not None
    kernel = persistent(program(spec.step, training), backward, tile, hidden_size, dtype, fast, stored)
    signature = buffers(backward, REAL[dtype]), array(2, REAL.get(stored, types.uint16)), INT, types.boolean, INT
    return ptx(kernel, signature, capability)


def assembled(text: str) -> dict[str, int]:
    """Registers, spilled bytes and shared bytes that ptxas reports for the kernel in a PTX text, for compute capability 9.0."""
    nvjitlink = pytest.importorskip("cuda.bindings.nvjitlink", reason="the package cuda-bindings is not installed")
    options = ["-arch=sm_90a", "-verbose"]
    linker = nvjitlink.create(len(options), options)
    code = text.encode() + b"\0"
    nvjitlink.add_data(linker, nvjitlink.InputType.PTX, code, len(code), "kernel")
    if "cudaCG" in text:  # the grid's barrier is a function of the device runtime
        (library,) = glob.glob(f"{sys.prefix}/lib/python3*/site-packages/nvidia/**/libcudadevrt.a", recursive=True)
        with open(library, "rb") as file:
            runtime = file.read()
        nvjitlink.add_data(linker, nvjitlink.InputType.LIBRARY, runtime, len(runtime), "cudadevrt")
    nvjitlink.complete(linker)
    log = bytearray(nvjitlink.get_info_log_size(linker))
    nvjitlink.get_info_log(linker, log)
    nvjitlink.destroy(linker)
    report = log.decode()
    (spilled,) = re.findall(r"(\d+) bytes spill stores", report)
    registers = re.search(r"ptxas info\s+: Used (\d+) registers", report)
    assert registers is not None, report
    return {"registers": int(registers[1]), "spilled": int(spilled)}


@pytest.mark.parametrize(("layer", "direction"), PERSISTENT)
def test_a_persistent_kernel_keeps_its_weights_in_registers(layer: Any, direction: str) -> None:
    text = persistent_ptx(layer, direction == "backward", direction != "inference", (9, 0))
    hidden_size = layer[2]
    assert ".local" not in text, "an array whose indices are no constants lies in local memory"
    assert (".f64" in text) == (layer[1] == "float64")
    assert ("cudaCG" in text) == (layer[4] == "grid") and ("barrier.cluster" in text) == (layer[4] == "cluster")
    assert "prefetch.global.L2 [" in text, "each step waits for memory"
    used = assembled(text)
    threads = int(re.findall(r"\.maxntid (\d+)", text)[0])
    assert used["registers"] * threads <= 65536
    assert used["spilled"] <= MOST_SPILLED_BYTES.get(hidden_size, 0), used


@pytest.mark.parametrize(("layer", "early"), [(LAYERS[1], True), (LAYERS[8], False)])
def test_chunks_are_fetched_early_where_registers_suffice(layer: Any, early: bool) -> None:
    """The next chunk's loads then stand between a barrier and the first multiplication."""
    text = persistent_ptx(layer, False, True, (9, 0))
    last = text[: text.index("ld.shared.v4")].rindex("bar.sync")
    assert ("ld.global" in text[last : text.index("ld.shared.v4")]) == early


@pytest.mark.parametrize(("layer", "chunk", "early"), [(LAYERS[1], 16, True), (LAYERS[8], 8, False)])
def test_backward_so_are_those_that_are_not_staged(layer: Any, chunk: int, early: bool) -> None:
    """Behind the grid's barrier: its first chunk, and then more before the first multiplication."""
    text = persistent_ptx(layer, True, True, (9, 0))
    product = text[text.rindex("cudaCGSynchronize") :]
    fetched = product[: product.index("fma.rn")].count("ld.global.f32")
    assert fetched >= 2 * chunk if early else chunk <= fetched < 2 * chunk


@pytest.mark.parametrize(
    ("hidden_size", "batch_size", "terms"),
    [
        (512, 8, 256),
        pytest.param(256, 8, 64, marks=pytest.mark.full),
        pytest.param(256, 16, 128, marks=pytest.mark.full),
    ],
)
def test_backward_no_multiplication_waits_for_shared_memory(hidden_size: int, batch_size: int, terms: int) -> None:
    """Between the grid's barrier and the first of a block's a thread multiplies what it has fetched. What it reads of shared memory
    are sums: 32 of others' and 8 of those, where each of its `terms` had been read before, and all of them been staged.
    """
    text = persistent_ptx(("lstm", "float32", hidden_size, batch_size, "grid"), True, True, (9, 0))
    product = text[text.rindex("cudaCGSynchronize") :]
    assert product.count("fma.rn.f32") >= terms
    assert "shared" not in product[: product.index("bar.sync")]
    assert "ld.shared.v" not in text and product.count("ld.shared.f32") <= 40
    assert len(re.findall("st.shared.v4.f32", product)) == product.count("st.shared") - 1
    assert product.count("bar.sync") == 4


def test_forward_sums_go_from_the_product_to_the_item() -> None:
    """Behind the grid's barrier a block meets four times: over its operand, its sums twice, and what they are in all."""
    text = persistent_ptx(LAYERS[1], False, False, (9, 0))
    _, products, sums, _, item = text[text.rindex("cudaCGSynchronize") :].split("bar.sync")
    assert products.count("fma.rn.f32") == 8 * 4 * 8, "rows of weights, gates, rows of the batch"
    assert sums.count("ld.shared.f32") == 32 and "bra" not in sums, "the loads do not wait for each other"
    written = 2 * len(("h", "c", "output"))  # in a row that goes on and in one that has ended
    assert item.count("st.global") == written and text.count("st.global") == written, (
        "no sum takes a way through memory"
    )
    assert item.count("ld.global.f32") == len(("h", "c")), "of the row that has ended: all else was on its way before"


def product_ptx(
    tile: product_tiles.ProductTile, transposed: bool, dtype: str, stored: str, capability: tuple[int, int]
) -> str:
    kernel = product.product(tile, transposed, dtype, False, stored)
    matrix, right = (array(2, REAL[dtype]), PAIR), (array(2, REAL.get(stored, types.uint16)), PAIR)
    return ptx(kernel, (*matrix, *right, *matrix, array(1, REAL[dtype]), *[INT] * 5), capability)


@pytest.mark.parametrize("tile", [0, pytest.param(1, marks=pytest.mark.full), 2])
@pytest.mark.parametrize("transposed", [False, pytest.param(True, marks=pytest.mark.full)])
def test_products_stay_in_registers_and_load_16_bytes(tile: int, transposed: bool) -> None:
    """Two blocks fit on a multiprocessor, so that one computes while the other waits."""
    for tiles, instruction in ((product_tiles._TILES, "fma.rn.f32"), (product_tiles._TENSOR_TILES, "mma.sync")):
        text = product_ptx(tiles[tile], transposed, "float32", "float32", (9, 0))
        assert ".local" not in text and instruction in text
        assert ("ld.shared.v4.f32" in text) == (tiles is product_tiles._TILES)
        assert ("cvt.rna.tf32.f32" in text) == (tiles is product_tiles._TENSOR_TILES)
        used = assembled(text)
        assert used["spilled"] == 0 and 2 * used["registers"] * tiles[tile].threads <= 65536


@pytest.mark.full
def test_tensor_cores_of_capability_8_are_compiled_for() -> None:
    for tile in product_tiles._TENSOR_TILES:
        assert "mma.sync" in product_ptx(tile, False, "float32", "float32", (8, 0))


@pytest.mark.full  # tests/test_numba_cuda_run.py runs them
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_the_step_kernels_compile(capability: tuple[int, int]) -> None:
    real, tile = types.float32, product_tiles.product_tile(8192, 2048, 512, False, "float32", False, plan.H200)
    for transposed, dtype, stored in (
        (True, "float32", "float32"), (False, "float32", "float16"), (False, "float32", "bfloat16"),
        (False, "float64", "float64"),
    ):  # fmt: skip
        text = product_ptx(
            tile if dtype == "float32" else product_tiles._TILES[1], transposed, dtype, stored, capability
        )
        assert ".local" not in text
        if capability == (9, 0):
            assert assembled(text)["spilled"] == 0
    for backward in (False, True):
        part = program(cells.find("gru"), True)
        kernel = moves.pointwise(part, backward, 0, "float32", False)
        ptx(kernel, (buffers(backward, real), types.NamedTuple([INT] * 5, Now), INT, INT), capability)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_the_small_kernels_compile(capability: tuple[int, int]) -> None:
    real = types.float64
    matrix = array(2, real)
    for states in (1, 2):
        several, widths = types.UniTuple(matrix, states), types.UniTuple(INT, states)
        ptx(moves.put_states(states), (several, INT, widths, matrix, INT, INT, INT), capability)
        ptx(moves.get_states(states), (matrix, INT, several, INT, widths, INT, INT), capability)
    ptx(moves.without_padding, (array(3, real), array(1, INT), array(3, real)), capability)
    ptx(moves.clear_unused_rows, (array(4, real), array(1, INT)), capability)
    ptx(moves.fill, (array(1, real), INT), capability)
    ptx(moves.add_row, (array(1, real), INT, array(1, real), INT, INT), capability)
    ptx(moves.add_slices, (matrix, INT, matrix, PAIR, types.boolean, INT, INT), capability)
    ptx(moves.column_sums("float64", moves.SUM_COLUMNS, moves.SUM_ROWS), (matrix, INT, matrix), capability)


@pytest.mark.full
@pytest.mark.parametrize("cell", cells.BUILT_IN)
@pytest.mark.parametrize("dtype", REAL)
def test_every_cells_pointwise_code_compiles(cell: str, dtype: str) -> None:
    part, here = program(cells.find(cell), True), types.NamedTuple([INT] * 5, Now)
    for backward, stages in ((False, part.forward), (True, part.backward)):
        for stage in range(len(stages)):
            text = ptx(
                moves.pointwise(part, backward, stage, dtype, False),
                (buffers(backward, REAL[dtype]), here, INT, INT),
                (9, 0),
            )
            if dtype == "float32":
                assert ".f64" not in text, "a constant without a type makes float64 of float32"


def test_fast_mathematics_are_the_approximate_instructions_and_precise_are_not() -> None:
    fast, precise = (
        persistent_ptx(("lstm", "float32", 8, 4, "block"), False, False, (9, 0), mode) for mode in (True, False)
    )
    assert "tanh.approx" in fast and "tanh.approx" not in precise
    assert ".f64" not in precise


@pytest.mark.full
@pytest.mark.parametrize("capability", [(7, 5), (8, 0)])
@pytest.mark.parametrize("kernel", ["block", "grid"])
@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
def test_older_devices_are_compiled_for(capability: tuple[int, int], stored: str, kernel: str) -> None:
    for backward in (False, True):
        persistent_ptx(("gru", stored, 64, 4, kernel), backward, True, capability)


def test_the_gate_sees_local_memory_and_spills() -> None:
    """A kernel whose array is indexed by what is known at run time only, and one that has too few registers."""

    @compiled.kernel()
    def indexed(values, at):
        kept = cuda.local.array(64, types.float32)
        for i in range(64):
            kept[i] = values[i]
        values[0] = kept[at]

    assert ".local" in ptx(indexed, (array(1, types.float32), INT), (9, 0))
    tight = Tile(rows=1, units=128, slices=4, itemsize=4, staged_bytes=4096)  # 128 weights for each of 512 threads
    kernel = persistent(program(cells.find("lstm"), True), True, tight, 128, "float32", False, "float32")
    text = ptx(kernel, (buffers(True, types.float32), array(2, types.float32), INT, types.boolean, INT), (9, 0))
    assert assembled(text)["spilled"] > MOST_SPILLED_BYTES.get(128, 0)
