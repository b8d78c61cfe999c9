"""Memory that is handed out again, in numba-cuda's own arrays on a device that is pretended: see pretend_device.py.

A program, too: `python test_numba_cuda_memory.py` runs what is named `check_...` below on that device, and prints what failed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest

KIB = 256  # numbers of a KiB in float32


def address(array: Any) -> int:
    return int(array.device_ctypes_pointer.value)


def some(context: Any, **options: Any) -> Any:
    """Blocks on a device with nothing in it, and how often memory was taken and the device waited for counted anew."""
    from rnnbench.backends.numba_cuda.memory import Blocks

    context.taken = context.waited = 0
    context.room = 1 << 36
    return Blocks(**options)


def check_the_second_training_call_takes_no_memory(context: Any) -> None:
    from rnnbench import RNN

    for lengths in (None, [4, 2]):
        rnn = RNN("lstm_peephole", 3, 5, num_layers=2, bidirectional=True, backend="numba-cuda")
        x = np.ones((4, 2, 3), np.float32)

        def call(rnn: Any = rnn, x: Any = x, lengths: Any = lengths) -> Any:
            output, _, tape = rnn.forward(x, lengths=lengths)
            return rnn.backward(tape, np.ones_like(output))

        call()
        taken, kept = context.taken, rnn.network.workspace_bytes
        buffers = sum(buffer.nbytes for buffer in rnn.network._queue.buffers.values())
        assert kept > buffers + 13 * 512, "what is kept is not counted"
        for _ in range(3):
            call()
        assert context.taken == taken, f"{context.taken - taken} more with lengths {lengths}"
        assert rnn.network.workspace_bytes == kept


def check_a_call_on_a_stream_waits_for_nothing_but_the_first(context: Any) -> None:
    from numba import cuda

    from rnnbench import RNN

    rnn = RNN("lstm_peephole", 3, 5, num_layers=2, bidirectional=True, backend="numba-cuda")
    x, doutput = cuda.to_device(np.ones((4, 2, 3), np.float32)), cuda.to_device(np.ones((4, 2, 10), np.float32))
    counts = []
    for _ in range(3):
        tape = rnn.forward(x, stream=64)[2]
        rnn.backward(tape, doutput)
        del tape
        counts.append((context.taken, context.waited))
    assert counts[0] == counts[1] == counts[2], counts
    rnn(x)
    assert context.waited > counts[2][1], "without a stream it is not waited for"


def check_a_dropped_network_leaves_nothing(context: Any) -> None:
    """Not even until cyclic garbage is collected: what is large lies on the device, so Python would not see that it is time to."""
    from numba import cuda
    from pretend_device import MEMORY

    from rnnbench import RNN

    before = set(MEMORY)
    x = cuda.to_device(np.ones((4, 2, 3), np.float32))
    rnn = RNN("lstm", 3, 5, backend="numba-cuda")
    tape = rnn.forward(x, stream=64)[2]
    rnn.backward(tape, None, stream=65)
    rnn(x)
    assert len(MEMORY) > len(before) + 1
    del rnn, tape, x
    assert set(MEMORY) == before


def check_other_parameters_take_no_workspace(context: Any) -> None:
    from numba import cuda
    from pretend_device import MEMORY

    from rnnbench import RNN

    rnn = RNN("lstm", 3, 5, backend="numba-cuda")
    x, doutput = cuda.to_device(np.ones((4, 2, 3), np.float32)), cuda.to_device(np.ones((4, 2, 5), np.float32))
    for stream in (None, 64):
        kept = []
        for _ in range(4):
            rnn.backward(rnn.forward(x, stream=stream)[2], doutput)
            kept.append((sum(buffer.nbytes for buffer, _ in MEMORY.values()), context.taken))
            rnn.load(rnn.params)
        assert kept[1][0] == kept[2][0] == kept[3][0], kept
        weights = 6  # the bias, the vectors, and the matrices of the input and of the states, forward and backward
        assert kept[3][1] - kept[2][1] == weights, "a load took more than weights"


def check_an_array_of_another_stream_is_waited_for(context: Any) -> None:
    """Also where it is Numba's own: what fills it may still be under way there."""
    from unittest import mock

    from numba import cuda
    from numba.cuda.cudadrv import driver

    from rnnbench import RNN

    rnn, waited = RNN("lstm", 3, 5, backend="numba-cuda"), []
    on_stream, on_none = (
        cuda.to_device(np.ones((4, 2, 3), np.float32), stream=stream) for stream in (cuda.external_stream(0x1234), 0)
    )
    with mock.patch.object(driver.Stream, "synchronize", lambda self: waited.append(int(self))):
        for x, stream, expected in (
            (on_stream, None, {0x1234}), (on_stream, 0x1234, set()), (on_stream, 64, {0x1234}), (on_none, 64, set()),
        ):  # fmt: skip
            waited.clear()
            output, _, tape = rnn.forward(x, stream=stream)
            assert set(waited) == expected, (stream, waited)
            waited.clear()
            rnn.backward(tape, output.bind(on_stream.stream))
            assert set(waited) == ({0x1234} if stream != 0x1234 else set())


def check_what_is_held_is_not_handed_out(context: Any) -> None:
    blocks = some(context)
    held, dropped = blocks.empty((3, KIB), "float32", True), blocks.empty((3, KIB), "float32", True)
    of_dropped = address(dropped)
    assert held.shape == (3, KIB) and held.dtype == np.float32 and held.is_c_contiguous()
    del dropped
    again = blocks.empty((KIB, 3), "float32", True)
    more = blocks.empty((3, KIB), "float32", True)
    assert address(again) == of_dropped and len({address(array) for array in (held, again, more)}) == 3
    assert context.taken == 3


def check_views_hold_the_memory(context: Any) -> None:
    blocks = some(context)
    array = blocks.empty((KIB,), "float32", False)
    at, view, shaped = address(array), array[64:192], array.reshape(2, KIB // 2)
    row, of_view = shaped[1], view[1:3]
    assert address(of_view) == at + 65 * 4 and address(row) == at + 512
    others = []
    del array, shaped, view
    others.append(blocks.empty((KIB,), "float32", False))
    del row
    others.append(blocks.empty((KIB,), "float32", False))
    assert at not in [address(other) for other in others]
    del of_view
    assert address(blocks.empty((KIB,), "float32", False)) == at


def check_what_another_stream_may_read_is_waited_for_once_a_call(context: Any) -> None:
    blocks = some(context)
    first = [blocks.empty((KIB,), "float32", True) for _ in range(3)]
    assert (context.taken, context.waited) == (3, 0)
    del first
    second = [blocks.empty((KIB,), "float32", True) for _ in range(2)]
    assert (context.taken, context.waited) == (3, 1)
    del second
    third = [
        blocks.empty((KIB,), "float32", True) for _ in range(2)
    ]  # one is ready; for others the launches would stop
    assert (context.taken, context.waited) == (4, 1)
    blocks.finished()
    third += [blocks.empty((KIB,), "float32", True) for _ in range(2)]
    assert (context.taken, context.waited) == (4, 2)


def check_the_callers_stream_is_not_waited_for(context: Any) -> None:
    blocks = some(context)
    for _ in range(5):
        blocks.empty((KIB,), "float32", False)
    assert (context.taken, context.waited) == (1, 0)


def check_no_more_is_kept_than_may_be(context: Any) -> None:
    from pretend_device import MEMORY

    blocks, before = some(context, most=7 * 1024), len(MEMORY)
    arrays = {size: blocks.empty((size * KIB,), "float32", False) for size in (1, 2, 3, 4)}
    at = {size: address(array) for size, array in arrays.items()}
    for size in (1, 2, 3):
        del arrays[size]
    assert blocks.nbytes == 6 * 1024 and len(MEMORY) == before + 4
    arrays[1] = blocks.empty((KIB,), "float32", False)
    assert address(arrays[1]) == at[1]
    del arrays[1]
    del arrays[4]  # for which 2, which was not asked for longest, and 3 go
    assert blocks.nbytes == 5 * 1024 and set(at.values()) & set(MEMORY) == {at[1], at[4]}
    array = blocks.empty((8 * KIB,), "float32", False)
    large = address(array)
    del array
    assert blocks.nbytes == 0 and large not in MEMORY and len(MEMORY) == before
    unasked = some(context)
    context.room = 4096 * 1024
    unasked.empty((1025 * KIB,), "float32", False)
    assert unasked.nbytes == 0, "more than a quarter of the device was kept"
    unasked.empty((1024 * KIB,), "float32", False)
    assert unasked.nbytes == 1024 * 1024


def check_short_of_memory_all_that_is_kept_goes(context: Any) -> None:
    from rnnbench.backends.numba_cuda import device, plan
    from rnnbench.backends.numba_cuda.queue import Queue

    blocks, others = some(context), some(context)
    context.room = context.room - context.get_memory_info().free + 8 * 1024
    blocks._most = others._most = 1 << 30
    for kept, size in ((blocks, 3), (others, 2)):
        kept.empty((size * KIB,), "float32", False)
    assert blocks.nbytes == 3 * 1024 and others.nbytes == 2 * 1024
    held = [blocks.empty((size * KIB,), "float32", False) for size in (3, 1, 4)]
    assert blocks.nbytes == others.nbytes == 0
    queue = Queue(plan.H200, "float32", False, "float32")
    try:
        queue.empty(2, KIB)
    except MemoryError as error:
        assert "arrays of shape (2, 256) need 0.0 MiB on" in str(error)
    else:
        raise AssertionError("memory for more than there is")
    del held
    queue.empty(2, KIB)
    assert not device.is_out_of_memory(RuntimeError("launch failed"))
    assert device.is_out_of_memory(RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: the API call failed"))  # of cuda.core


def check_a_result_that_outlives_its_queue_is_freed(context: Any) -> None:
    from pretend_device import MEMORY

    blocks = some(context)
    array = blocks.empty((KIB,), "float32", True)
    at = address(array)
    del blocks
    assert at in MEMORY
    del array
    assert at not in MEMORY


def check_a_result_may_be_dropped_at_any_line(context: Any) -> None:
    """Where garbage collection finds it while the lock is held."""
    blocks = some(context, most=1024)
    kept, array = (blocks.empty((KIB,), "float32", True) for _ in range(2))
    del kept
    with blocks._lock:
        del array
    assert blocks.nbytes == 2048
    blocks.empty((2 * KIB,), "float32", True)
    assert blocks.nbytes <= 1024, "what was not given back then was not given back later"


def check_threads_share_no_memory(context: Any) -> None:
    blocks = some(context, most=6 * 1024)
    lent: dict[int, int] = {}
    wrong: list[Any] = []

    def work(seed: int) -> None:
        try:
            random, held = np.random.default_rng(seed), []
            for _ in range(500):
                array = blocks.empty((int(random.integers(1, 4)) * KIB,), "float32", bool(random.integers(2)))
                at = address(array)
                if lent.setdefault(at, seed) != seed or any(address(other) == at for other in held):
                    wrong.append(at)
                held.append(array)
                del array
                if len(held) == 3:
                    lent.pop(address(held[0]))
                    del held[0]
                    blocks.finished()
            for array in held:
                lent.pop(address(array))
        except Exception:
            wrong.append(traceback.format_exc())

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert not wrong, wrong[0]
    blocks.clear()
    assert blocks.nbytes == 0 and not any(blocks._ready.values())


CHECKS = {name: check for name, check in list(globals().items()) if name.startswith("check_")}


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    pytest.importorskip("numba_cuda", reason="the package numba-cuda is not installed")
    pytest.importorskip("cuda.bindings.nvjitlink", reason="the package cuda-bindings is not installed")
    environment = {**os.environ, "RNNBENCH_CACHE_DIR": str(tmp_path_factory.mktemp("kernels"))}
    command = [sys.executable, "-W", "error", str(Path(__file__).resolve())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", CHECKS)
def test_memory(failed: dict[str, str], name: str) -> None:
    assert failed[name] == ""


def main() -> None:
    """Print what each check failed with, "" where it did not."""
    from pretend_device import pretend

    context, found = pretend(), {}
    for name, check in CHECKS.items():
        try:
            check(context)
            found[name] = ""
        except Exception:
            found[name] = traceback.format_exc()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
