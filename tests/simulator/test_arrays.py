"""Arrays on the device, streams, tapes and errors of the CUDA backend, in the simulator."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest
from numba import cuda

from rnnbench import RNN, backends
from rnnbench.backends.numba_cuda import VARIABLE, device, network, plan, queue
from rnnbench.backends.numba_cuda.queue import Queue
from rnnbench.bench.cases import Case
from rnnbench.bench.data import make
from rnnbench.bench.session import Session

CASE = Case("gru", "numba-cuda", "float32", "train", 3, 3, 2, 5)


def an_rnn(**options: Any) -> RNN:
    rnn = RNN("gru", 2, 5, backend="numba-cuda", **options)
    rnn.load(make(CASE).params)
    return rnn


def is_simulated(array: Any) -> bool:
    return bool(getattr(array, "__cuda_ndarray__", False))


def test_what_comes_on_the_device_stays_there() -> None:
    rnn, data = an_rnn(), make(CASE)
    output, state, tape = rnn.forward(data.x, data.state)
    gradients = rnn.backward(tape, data.doutput, data.dstate)
    x, given = cuda.to_device(data.x), tuple(cuda.to_device(s) for s in data.state)
    d_output, d_state, d_tape = rnn.forward(x, given, stream=cuda.stream())
    d_gradients = rnn.backward(d_tape, cuda.to_device(data.doutput), data.dstate)
    assert isinstance(output, np.ndarray) and all(isinstance(g, np.ndarray) for g in gradients.values())
    assert is_simulated(d_output) and is_simulated(d_state[0]) and all(is_simulated(g) for g in d_gradients.values())
    np.testing.assert_array_equal(d_output.copy_to_host(), output)
    for name, value in gradients.items():
        np.testing.assert_array_equal(d_gradients[name].copy_to_host(), value, err_msg=name)


def test_a_device_array_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = types.SimpleNamespace(__cuda_array_interface__={})
    seen = cuda.to_device(make(CASE).x)
    monkeypatch.setattr(network.cuda, "as_cuda_array", lambda array: seen, raising=False)
    assert an_rnn().network.put(foreign) is seen
    assert an_rnn().network.put(seen) is seen


@pytest.mark.parametrize(
    ("make_x", "message"),
    [
        (lambda: cuda.to_device(np.zeros((3, 3, 2))), "x: the device array holds float64, and the network computes in float32"),
        (
            lambda: cuda.to_device(np.zeros((2, 3, 3), np.float32)).transpose((1, 2, 0)),
            r"x: the device array of shape \(3, 3, 2\) is not C-contiguous",
        ),
    ],
)  # fmt: skip
def test_a_device_array_that_would_have_to_be_converted_is_refused(make_x: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        an_rnn()(make_x())


def test_a_device_array_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x must be \(T, B, I\) with I = 2, not \(3, 3, 4\)"):
        an_rnn()(cuda.to_device(np.zeros((3, 3, 4), np.float32)))


def test_batch_first_is_for_host_arrays() -> None:
    data = make(CASE)
    rnn = an_rnn(batch_first=True)
    output, _ = rnn(data.x.swapaxes(0, 1))
    np.testing.assert_array_equal(output.swapaxes(0, 1), an_rnn()(data.x)[0])
    with pytest.raises(TypeError, match="x is on a CUDA device, where arrays are time-major"):
        rnn(cuda.to_device(data.x))


def test_a_host_backend_takes_no_device_array_and_no_stream() -> None:
    rnn = RNN("gru", 2, 5, backend="numpy")
    with pytest.raises(TypeError, match="x is on a CUDA device, and the backend numpy computes on the host"):
        rnn(cuda.to_device(make(CASE).x))
    with pytest.raises(ValueError, match="stream is for backends on a CUDA device, which numpy is not"):
        rnn(make(CASE).x, stream=cuda.stream())


@pytest.mark.parametrize("stream", ["default", 1.5, True, None.__class__])
def test_what_is_no_stream_is_refused(stream: Any) -> None:
    with pytest.raises(TypeError, match="stream is a stream of Numba, PyTorch or CuPy"):
        an_rnn()(make(CASE).x, stream=stream)


def test_streams_of_other_libraries_are_known_by_their_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.cuda, "external_stream", lambda address: ("stream at", address), raising=False)
    for stream in (types.SimpleNamespace(cuda_stream=64), types.SimpleNamespace(ptr=64), 64):
        assert device.stream_of(stream) == (64, ("stream at", 64))


def test_a_stream_has_buffers_of_its_own_which_it_keeps() -> None:
    network_ = an_rnn().network
    first, second = cuda.stream(), cuda.stream()
    assert network_.on_stream(first)._queue is network_.on_stream(second).on_stream(first)._queue
    queues = [n._queue for n in (network_, network_.on_stream(first), network_.on_stream(second))]
    assert len({id(queue.buffers) for queue in queues}) == 3
    assert [queue.waits for queue in queues] == [True, False, False]


def test_the_way_back_is_on_the_stream_of_the_way_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is told another one. The default stream would not wait for a non-blocking one."""
    used: set[Any] = set()
    launch = queue.launch

    def noted(kernel: Any, blocks: Any, threads: Any, stream: Any, *rest: Any) -> None:
        used.add(stream)
        launch(kernel, blocks, threads, stream, *rest)

    monkeypatch.setattr(queue, "launch", noted)
    rnn, data, here, there = an_rnn(), make(CASE), cuda.stream(), cuda.stream()
    x, doutput = cuda.to_device(data.x), cuda.to_device(data.doutput)
    for of_forward, of_backward, expected in (
        (here, None, here),
        (here, there, there),
        (None, there, there),
        (None, None, 0),
    ):
        tape = rnn.forward(x, stream=of_forward)[2]
        used.clear()
        rnn.backward(tape, doutput, stream=of_backward)
        assert used == {expected}


def test_a_tape_is_used_again_and_counts_what_it_keeps() -> None:
    rnn, data = an_rnn(), make(CASE)
    output, _, tape = rnn.forward(data.x, data.state)
    first = rnn.backward(tape, data.doutput, None)
    rnn(data.x + 1)
    rnn.backward(rnn.forward(data.x * 2)[2], None)
    second = rnn.backward(tape, data.doutput, None)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    saved = 4 * 3 * 3 * 5 * 4  # r, z, n and the product of n: for each step, row and unit
    assert tape.nbytes == 4 * 4 * 3 * 5 + saved  # four slots of h


def test_what_lies_in_the_padding_has_no_effect() -> None:
    rnn, data = an_rnn(num_layers=1), make(CASE)
    lengths, past = [2, 3, 0], np.arange(3)[:, None] >= [2, 3, 0]
    dirty_x, dirty_d = data.x.copy(), data.doutput.copy()
    dirty_x[past], dirty_d[past] = np.nan, np.nan
    assert data.state is not None
    dirty_state = tuple(s.copy() for s in data.state)
    for state in dirty_state:
        state[:, 2] = np.nan  # of the row without a step
    clean, dirty = [
        rnn.backward(rnn.forward(x, state, lengths)[2], d, data.dstate)
        for x, state, d in ((data.x * ~past[:, :, None], data.state, data.doutput), (dirty_x, dirty_state, dirty_d))
    ]
    final = rnn.forward(dirty_x, dirty_state, lengths)[1]
    assert np.isnan(final[0][:, 2]).all() and np.isfinite(final[0][:, :2]).all()
    for name, value in clean.items():
        np.testing.assert_array_equal(dirty[name], value, err_msg=name)


def test_a_forced_kernel_that_does_not_suit_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "block")
    with pytest.raises(
        ValueError, match="the kernel 'block' cannot run gru with hidden_size 40, .*a block has 12 threads"
    ):
        RNN("gru", 2, 40, backend="numba-cuda")
    monkeypatch.setenv(VARIABLE, "blok")
    with pytest.raises(
        ValueError, match="unknown kernel 'blok'; did you mean .block.. choose from block, cluster, grid, step"
    ):
        RNN("gru", 2, 5, backend="numba-cuda")


def test_out_of_memory_says_how_much_was_needed_and_had(monkeypatch: pytest.MonkeyPatch) -> None:
    class Driver(Exception):
        code = 2

    def full(shape: Any, dtype: Any, **_: Any) -> Any:
        raise Driver("CUDA_ERROR_OUT_OF_MEMORY")

    rnn, data = an_rnn(), make(CASE)
    info = types.SimpleNamespace(get_memory_info=lambda: (3 * 2**20, 80 * 2**30))
    with monkeypatch.context() as patched:
        patched.setattr(cuda, "device_array", full)
        patched.setattr(device.cuda, "current_context", lambda: info)
        message = r"need 0.0 MiB on Numba's CUDA simulator, which has 3.0 MiB free of 81,920.0; choose smaller sizes"
        with pytest.raises(MemoryError, match=message):
            rnn(data.x)
    assert np.isfinite(rnn(data.x)[0]).all()


@pytest.mark.parametrize(
    "said",
    [
        "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE: too many blocks in cooperative launch",
        "The specified grid size (132 * 1 * 1) exceeds the limit (66)",
    ],
)
def test_a_grid_that_is_not_resident_says_what_would_work(said: str) -> None:
    message = "132 blocks that meet at a barrier are not all resident on .*; RNNBENCH_CUDA_KERNEL=step runs without"
    with pytest.raises(RuntimeError, match=message), device.residency_errors(132):
        raise ValueError(said)


def test_another_error_of_the_driver_passes() -> None:
    for translate in (device.memory_errors("arrays", 8), device.residency_errors(132)):
        with pytest.raises(RuntimeError, match="launch failed"), translate:
            raise RuntimeError("launch failed")


def test_the_mode_is_stated() -> None:
    assert backends.load("numba-cuda").describe().endswith("on Numba's CUDA simulator, precise mathematics")
    assert backends.load("numba-cuda-fast").describe().endswith("on Numba's CUDA simulator, fast mathematics")


def test_every_kernel_is_cut_into_several_blocks_here() -> None:
    """What makes the other tests cross borders."""
    case = Case("lstm", "numba-cuda", seq_len=3, batch_size=5, input_size=3, hidden_size=5)
    for kernel, blocks in (("block", (1, 2)), ("cluster", (2, 1)), ("grid", (2, 1))):
        made = plan.plan(case.spec, 5, device.SIMULATOR, "float32", kernel)
        assert made.tile is not None and made.blocks == blocks and made.tile.slices > 1
        assert made.rows > made.tile.rows
        assert made.tile.chunk(5) < 5
        assert made.back is not None and made.rows > made.back.rows and made.back.chunk(20) < 20
        assert made.back.across == (kernel == "grid")


def test_a_buffer_is_kept_in_the_shapes_that_were_asked_for() -> None:
    kept = Queue(device.SIMULATOR, "float32", False, "float32")
    first = kept.buffer("pre", 2, 3)
    assert kept.buffer("pre", 2, 3) is first and kept.flat(first) is kept.flat(first)
    assert kept.flat(kept.flat(first)) is kept.flat(first)
    kept.buffer("pre", 6)[4] = 7.0
    assert first.copy_to_host()[1, 1] == 7.0, "the shapes are of different memory"
    larger = kept.buffer("pre", 4, 3)
    assert kept.buffer("pre", 2, 3) is not first, "an array of the memory that was given back"
    assert larger.size == kept.buffers["pre"].size == 12
    assert len(kept.shaped) == len(kept.views["pre"]) == 2
    for rows in range(1, 13):
        kept.buffer("pre", rows, 1)
    assert len(kept.shaped) == len(kept.views["pre"]) <= 8
    assert kept.reshaped(cuda.to_device(np.ones((2, 2))), 4).shape == (4,)


def test_a_kernel_and_a_dtype_decide_the_types_of_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device they are asked for at the first launch alone: arguments of other types would be taken for those."""

    def kind(value: Any) -> Any:
        if isinstance(value, tuple):
            return type(value).__name__, *map(kind, value)
        return (str(value.dtype), value.ndim) if hasattr(value, "dtype") else type(value).__name__

    seen: dict[Any, set[Any]] = {}
    launch = queue.launch

    def noted(kernel: Any, blocks: Any, threads: Any, stream: Any, dtype: str, arguments: Any, cluster: int) -> None:
        seen.setdefault((id(kernel), dtype), set()).add(kind(arguments))
        launch(kernel, blocks, threads, stream, dtype, arguments, cluster)

    monkeypatch.setattr(queue, "launch", noted)
    for backend, cell, dtype, more in (
        ("numba-cuda", "lstm", "float32", {"num_layers": 2, "lengths": "ragged"}), ("numba-cuda", "gru", "float32", {}),
        ("numba-cuda", "lstm_peephole", "float64", {"bidirectional": True}), ("numba-cuda-bf16", "gru", "float32", {}),
        ("numba-cuda-tf32", "gru_reset_before", "float32", {"lengths": "ragged"}),
    ):  # fmt: skip
        for kernel in ("block", "grid", "step"):  # what `cluster` is given is what `grid` is
            monkeypatch.setenv(VARIABLE, kernel)
            for direction in ("forward", "train"):
                Session(Case(cell, backend, dtype, direction, 2, 3, 2, 3, **more)).run()
    assert len(seen) > 30
    assert not [kinds for kinds in seen.values() if len(kinds) > 1]
