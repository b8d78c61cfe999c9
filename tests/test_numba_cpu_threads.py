"""Threads: any number and any way to divide the work gives the same results, callers may be many, and nobody hangs."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kernels
import numpy as np
import pytest

from rnnbench import RNN
from rnnbench.backends import threads
from rnnbench.backends.numba_cpu import plan
from rnnbench.backends.numba_cpu import threading as threading_of_kernels
from rnnbench.bench.cases import Case
from rnnbench.bench.data import make

SIZES: list[dict[str, Any]] = [{}, {"batch_size": 1}, {"batch_size": 2, "bidirectional": True}, {"hidden_size": 1}]
NETWORKS = [("lstm", "float32"), ("gru_reset_before", "float64"), ("rnn_tanh", "float32"), ("lstm_peephole", "float64")]
needs_two = pytest.mark.skipif(threads.available_threads() < 2, reason="this process may use one processor only")


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    kernels.compile_ahead()


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    chosen = threads._chosen
    yield
    threads._chosen = chosen
    threads.limit_blas()


def case_of(cell: str, dtype: str, **sizes: Any) -> Case:
    """Several panels of hidden units, and rows for several tiles."""
    usual = {"seq_len": 9, "batch_size": 29, "input_size": 5, "hidden_size": 33, "lengths": "ragged"}
    return Case(cell, "numba-cpu", dtype, "train", **{**usual, **sizes})


def train(case: Case, rnn: RNN | None = None) -> dict[str, np.ndarray]:
    """Output, final states and gradients of a network, copied."""
    data = make(case)
    if rnn is None:
        rnn = RNN(case.cell, case.input_size, case.hidden_size, dtype=case.dtype, bidirectional=case.bidirectional)
        rnn.load(data.params)
    output, final, tape = rnn.forward(data.x, data.state, data.lengths)
    gradients = rnn.backward(tape, data.doutput, data.dstate)
    results = {"output": output, **{f"final {i}": s for i, s in enumerate(final)}, **gradients}
    return {name: value.copy() for name, value in results.items()}


def different(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> list[str]:
    """Tensors that differ by more than sums taken in another order do: a thread has its own heights of tiles."""
    eps = np.finfo(a["output"].dtype).eps
    return [name for name in a if not np.abs(a[name] - b[name]).max() <= 64 * eps * max(1, np.abs(a[name]).max())]


@pytest.fixture
def divided(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets how a layer divides its work: threads, and whether they divide rows."""

    def divide(count: int, by_rows: bool) -> None:
        monkeypatch.setattr(plan.Geometry, "divide", lambda *_: (count, by_rows))

    return divide


@needs_two
@pytest.mark.parametrize(
    ("cell", "dtype", "sizes"),
    [
        *((*network, sizes) for network in NETWORKS for sizes in SIZES),
        # all transposed products are one panel, which one thread computes and the other waits for
        ("lstm", "float32", {"hidden_size": 32}),
    ],
)
def test_rows_and_panels_may_be_divided(divided: Any, cell: str, dtype: str, sizes: dict[str, Any]) -> None:
    case = case_of(cell, dtype, **sizes)
    divided(1, True)
    alone = train(case)
    for by_rows in (True, False):
        divided(2, by_rows)
        assert different(alone, train(case)) == []


@needs_two
def test_units_past_a_projection_do_not_touch_the_output(divided: Any) -> None:
    """One thread has units that are output, the other has only such as are not."""
    data = np.random.default_rng(0)
    x, doutput = data.standard_normal((20, 4, 3)).astype("float32"), data.standard_normal((20, 4, 5)).astype("float32")
    found = []
    for parts in ((1, True), *[(2, False)] * 10):
        divided(*parts)
        rnn = RNN("lstm", 3, 70, proj_size=5, backend="numba-cpu")
        output, final, tape = rnn.forward(x)
        found.append({"output": output, "h": final[0], **rnn.backward(tape, doutput)})
    assert [different(found[0], other) for other in found[1:]] == [[]] * 10


@needs_two
@pytest.mark.parametrize(("cell", "dtype"), NETWORKS[:2])
def test_one_and_two_threads_agree(cell: str, dtype: str) -> None:
    for sizes in ({"seq_len": 40, "batch_size": 64}, {"batch_size": 1, "seq_len": 400}):
        case = case_of(cell, dtype, **sizes)
        threads.set_threads(1)
        alone = train(case)
        threads.set_threads(2)
        assert different(alone, train(case)) == []


def test_no_product_is_made_of_a_row_that_has_ended() -> None:
    rnn, x = RNN("lstm", 3, 32), np.ones((4, 3, 3), np.float32)
    rnn(x)  # makes the buffer
    layer = rnn.network.layers[0][0]
    pre, width = layer._buffers["pre"], layer._geometry.panels
    pre[:] = np.nan
    rnn(x, lengths=np.array([4, 2, 0]))
    sums = pre.reshape(width, 4, 3, -1)  # panel, step, row
    at = layer._packed.at["bias"]
    bias = layer._packed.array[at : at + sums[:, 0, 0].size].reshape(width, -1)
    assert np.isnan(sums[:, :, 2]).all()
    for t in range(4):  # padding is zeros, so a projection of it is the bias; a recurrent product would be added
        assert np.isfinite(sums[:, t, :2]).all()
        assert [(sums[:, t, row] == bias).all() for row in range(2)] == [False, t >= 2]
    pre[:] = np.nan
    rnn(x, lengths=np.array([2, 1, 0]))  # nor of a step that no row has, though it is in the same chunk
    assert np.isnan(sums[:, 2:]).all() and np.isfinite(sums[:, :2, 0]).all()


def test_far_weights_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal((3, 29, 40)).astype(np.float32)
    results = []
    for near in (1 << 40, 0):
        monkeypatch.setattr(plan, "_NEAR_BYTES", near)
        rnn = RNN("lstm", 40, 100)
        output, _, tape = rnn.forward(x)
        plans = list(rnn.network.layers[0][0]._plans.values())
        assert (
            all(found.plan.dims.recurrent_far == found.plan.dims.input_far == (near == 0) for found in plans) and plans
        )
        results.append([output, *rnn.backward(tape, np.ones_like(output)).values()])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def crowd(leader_too: bool) -> None:
    """Put the pool's threads on the processor of the calling one (and bind that to it), call a kernel, and tell whether a thread
    left, and whether the leader may run where it might before.
    """
    rnn, x = RNN("lstm", 4, 128), np.ones((200, 16, 4), np.float32)
    rnn(x)
    leader, allowed = os.getpid(), os.sched_getaffinity(0)
    others = [int(task) for task in os.listdir("/proc/self/task") if int(task) != leader]
    for _ in range(100):  # the kernel may move either thread before they meet
        with open("/proc/self/stat", encoding="ascii") as stat:
            here = int(stat.read().rpartition(")")[2].split()[36])
        for task in [*others, *([leader] if leader_too else [])]:
            os.sched_setaffinity(task, {here})
        rnn(x)
        left = [task for task in others if os.sched_getaffinity(task) == allowed - {here}]
        if left or leader_too:
            break
    print(bool(left), os.sched_getaffinity(0) == ({here} if leader_too else allowed))


@needs_two
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a thread its processor")
@pytest.mark.parametrize(("leader_too", "printed"), [(False, "True True\n"), (True, "False True\n")])
def test_a_thread_leaves_the_processor_of_its_caller(leader_too: bool, printed: str) -> None:
    code = f"import test_numba_cpu_threads as tests; tests.crowd({leader_too})"
    assert kernels.finish(kernels.start_python("-c", code)) == printed


def forked(is_held: bool) -> None:
    """Compute with all threads, then in a forked child, at whose birth another thread of the parent holds the kernels' lock."""
    case = case_of("lstm", "float32", seq_len=40, batch_size=64)
    rnn = RNN(case.cell, case.input_size, case.hidden_size)
    expected = train(case, rnn)
    if is_held:
        threading.Thread(target=threading_of_kernels.one_call().acquire, daemon=True).start()
        while not threading_of_kernels.one_call().locked():
            pass
    child = os.fork()
    if child == 0:
        os._exit(7 if different(expected, train(case, rnn)) == [] else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no process forks here")
@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize("pool", ["omp", "workqueue"])
def test_a_forked_child_computes(is_held: bool, pool: str) -> None:
    code = f"import test_numba_cpu_threads as tests; tests.forked({is_held})"
    assert kernels.finish(kernels.start_python("-c", code, NUMBA_THREADING_LAYER=pool), timeout=120) == "7\n"


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP is Linux's")
def test_openmp_s_limit_of_threads_is_kept() -> None:
    """Asked for two threads, it would run the first alone, which would wait for the second forever."""
    code = (
        "import numpy as np; from rnnbench import RNN; from rnnbench.backends import threads\n"
        "print(threads.get_threads())\n"
        "threads.set_threads(threads.available_threads())\n"
        "for batch_size in (3, 64): print(RNN('lstm', 4, 33)(np.ones((400, batch_size, 4), np.float32))[0].shape[1])\n"
    )
    child = kernels.start_python("-c", code, OMP_THREAD_LIMIT="1", NUMBA_THREADING_LAYER="omp")
    assert kernels.finish(child).split() == ["1", "3", "64"]


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP is Linux's")
def test_openmp_may_not_start_fewer_threads_on_a_busy_machine() -> None:
    """With fewer than it was asked for, it would run the first alone, which would wait for the second forever."""
    code = (
        "import ctypes, threading; import numpy as np; from rnnbench import RNN; from numba.np.ufunc import omppool\n"
        "asks = ctypes.CDLL(omppool.__file__).omp_get_dynamic\n"
        "rnn = RNN('lstm', 4, 33)\n"
        "def call(): print(asks(), rnn(np.ones((400, 64, 4), np.float32))[0].shape[1], asks())\n"
        "call(); thread = threading.Thread(target=call); thread.start(); thread.join()\n"
    )
    child = kernels.start_python("-c", code, OMP_DYNAMIC="true", NUMBA_THREADING_LAYER="omp")
    assert kernels.finish(child) == "1 64 0\n1 64 0\n"


def in_threads(count: int, work: Any) -> None:
    """Call work(i) from `count` threads that start together; what one of them raises is raised here."""
    start, errors = threading.Barrier(count), []

    def run(i: int) -> None:
        start.wait()
        try:
            work(i)
        except BaseException as error:  # handed to the test below
            errors.append(error)

    running = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(count)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(120)
        assert not thread.is_alive(), "a call hangs"
    if errors:
        raise errors[0]


@pytest.mark.parametrize("split", [(2, True), (2, False)] if threads.available_threads() > 1 else [(1, True)])
def test_calls_from_several_threads_on_one_network(divided: Any, split: tuple[int, bool]) -> None:
    divided(*split)
    cases = [case_of("lstm", "float32", seq_len=3 + i, batch_size=1 + 3 * i) for i in range(4)]
    rnn = RNN("lstm", 5, 33)
    alone = [train(case, rnn) for case in cases]

    def work(i: int) -> None:
        for _ in range(20):
            assert different(alone[i], train(cases[i], rnn)) == []

    in_threads(4, work)


def test_calls_from_several_threads_on_several_networks() -> None:
    cases = [case_of(cell, dtype, seq_len=20, batch_size=16) for cell, dtype in NETWORKS]
    alone = [train(case) for case in cases]

    def work(i: int) -> None:
        for _ in range(10):
            assert different(alone[i], train(cases[i])) == []

    in_threads(4, work)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_thread_that_is_ahead_keeps_to_its_own_scratch(divided: Any, dtype: str) -> None:
    """Sums of weights and dx, whose rows of 5 need scratch, are one call: a thread may be at either."""
    divided(2, True)
    case = case_of("lstm", dtype, seq_len=20, batch_size=16)
    first = train(case)
    for _ in range(30):
        assert different(first, train(case)) == []


# --- a busy machine -------------------------------------------------------------------------------------------------------

STEPS = 300


def many_barriers() -> None:
    """A long sequence whose threads meet after every step, as one process of several that want all processors."""
    plan.Geometry.divide = lambda *_: (threads.available_threads(), False)  # type: ignore[method-assign]
    rnn = RNN("lstm", 2, 33)
    x = np.random.default_rng(0).normal(size=(STEPS, 1, 2)).astype(np.float32)
    output, _, tape = rnn.forward(x)
    gradients = rnn.backward(tape, output)
    print(np.isfinite(gradients["x"]).all() and np.isfinite(output).all())


def test_a_busy_machine_slows_it_down_and_no_more() -> None:
    """Twice as many spinning processes as processors, and two that compute: partners often wait without a processor."""
    count = 2 * threads.available_threads()
    spin = "import time; end = time.time() + 120\nwhile time.time() < end: pass"  # no longer, if this process is killed
    spinning = [kernels.start_python("-c", spin) for _ in range(count)]
    try:
        for child in [kernels.start_python(str(Path(__file__))) for _ in range(2)]:
            assert kernels.finish(child, timeout=120) == "True\n"
    finally:
        for process in spinning:
            process.kill()
            process.communicate()


def test_different_sees_a_difference() -> None:
    right = train(case_of("lstm", "float32"))
    for name in right:
        wrong = right | {name: right[name] + 1e-4 * np.abs(right[name]).max()}
        assert different(right, wrong) == [name] and different(wrong, right) == [name]
    assert different(right, right | {"x": right["x"] * np.nan}) == ["x"]


if __name__ == "__main__":
    assert len(sys.argv) == 1
    many_barriers()
