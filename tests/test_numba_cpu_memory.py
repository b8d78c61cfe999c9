"""No kernel reads or writes outside of its arrays, or reads what nobody wrote: any size, both directions, both dtypes."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import guards
import kernels
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnbench import RNN
from rnnbench.backends import stack
from rnnbench.backends.numba_cpu import plan
from rnnbench.backends.numba_cpu.backward import BACKWARD
from rnnbench.backends.numba_cpu.forward import FORWARD
from rnnbench.backends.threads import available_threads
from rnnbench.bench.cases import Case
from rnnbench.bench.data import make

# gates side by side, one gate, two stages with a computed operand, vectors; two of each dtype
NETWORKS = [
    ("lstm", "float32"),
    ("rnn_tanh", "float32"),
    ("gru_reset_before", "float64"),
    ("lstm_peephole", "float64"),
]
INFERENCE = [("lstm", "float32"), ("gru_reset_before", "float32"), ("lstm_peephole", "float64")]
SPLITS = [(1, True), *([(2, True), (2, False)] if available_threads() > 1 else [])]


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    kernels.compile_ahead()


def run(case: Case, allocate: guards.Allocate | None = None) -> dict[str, np.ndarray]:
    """Results of a network; with `allocate` its user's arrays lie there, and are the same afterwards."""
    data = make(case)
    rnn = RNN(
        case.cell, case.input_size, case.hidden_size, case.num_layers, case.bidirectional, dtype=case.dtype
    )  # fmt: skip
    rnn.load(data.params)
    given = [data.x, *data.state, data.doutput, *data.dstate]
    if data.lengths is not None:
        given.append(data.lengths)
    if allocate is not None:
        given = [guards.embed(array, allocate) for array in given]
    before = [array.copy() for array in given]
    states = len(data.state)
    x, state, doutput, dstate = (
        given[0],
        tuple(given[1 : 1 + states]),
        given[1 + states],
        tuple(given[2 + states :][:states]),
    )
    lengths = None if data.lengths is None else given[-1]
    if case.direction == "train":
        output, final, tape = rnn.forward(x, state, lengths)
        results = {"output": output, **dict(enumerate(final)), **rnn.backward(tape, doutput, dstate)}
    else:
        output, final = rnn(x, state, lengths)
        results = {"output": output, **dict(enumerate(final))}
    for array, kept in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, kept)
    return {str(name): np.array(value) for name, value in results.items()}


def differences(case: Case, allocate: guards.Allocate) -> list[str]:
    """Results that change when arrays come from `allocate`: all must be the same to the last bit."""
    plain = run(case)
    with pytest.MonkeyPatch.context() as patch:
        guards.install(patch, allocate)
        guarded = run(case, allocate)
    return [name for name in plain if not np.array_equal(plain[name], guarded[name])]


@st.composite
def cases(draw: st.DrawFn, networks: list[tuple[str, str]], direction: str) -> Case:
    cell, dtype = draw(st.sampled_from(networks))
    return Case(
        cell,
        "numba-cpu",
        dtype,
        direction,
        seq_len=draw(st.integers(1, 6)),
        batch_size=draw(st.integers(1, 20)),
        input_size=draw(st.integers(1, 70)),
        hidden_size=draw(st.sampled_from(kernels.narrow_sizes(cell, dtype))),
        num_layers=draw(st.integers(1, 2)),
        bidirectional=draw(st.booleans()),
        lengths=draw(st.sampled_from(["full", "ragged"])),
    )


def check_guarded(case: Case, split: tuple[int, bool]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan.Geometry, "divide", lambda *_: split)
        around = guards.Guards()
        assert differences(case, around.allocate) == []
    assert len(around) >= 8
    assert around.broken() == []


@given(case=cases(NETWORKS, "train"), split=st.sampled_from(SPLITS))
def test_training_stays_inside_its_arrays(case: Case, split: tuple[int, bool]) -> None:
    check_guarded(case, split)


@given(case=cases(INFERENCE, "forward"), split=st.sampled_from(SPLITS))
def test_inference_stays_inside_its_arrays(case: Case, split: tuple[int, bool]) -> None:
    check_guarded(case, split)


def test_wide_panels_stay_inside_their_arrays() -> None:
    for cell, dtype, hidden_size in sorted(kernels.WIDE):
        for split in SPLITS:
            check_guarded(Case(cell, "numba-cpu", dtype, "train", 3, 5, 70, hidden_size, 1, True, "ragged"), split)


def test_buffers_that_are_kept_between_calls_leak_nothing() -> None:
    """A small call after a large one, in buffers that hold the large one's numbers."""
    small, large = (Case("lstm", "numba-cpu", "float32", "train", T, B, 4, 33) for T, B in ((2, 3), (9, 11)))
    rnn = RNN("lstm", 4, 33)
    first, big = make(small), make(large)
    fresh = rnn.backward(rnn.forward(first.x)[2], first.doutput)
    fresh = {name: value.copy() for name, value in fresh.items()}
    rnn.backward(rnn.forward(big.x * np.nan)[2], big.doutput)
    again = rnn.backward(rnn.forward(first.x)[2], first.doutput)
    assert [name for name in fresh if not np.array_equal(fresh[name], again[name])] == []


# --- fences: a process that touches what it may not dies ------------------------------------------------------------------

FENCED = [
    Case("lstm", "numba-cpu", "float32", "train", 4, 7, 5, 33, 2, True, "ragged"),
    Case("lstm", "numba-cpu", "float32", "train", 1, 1, 1, 1),
    Case("lstm", "numba-cpu", "float32", "forward", 3, 2, 67, 16),
    Case("rnn_tanh", "numba-cpu", "float32", "train", 3, 9, 64, 7),
    Case("gru_reset_before", "numba-cpu", "float64", "train", 4, 13, 3, 5, 1, True, "ragged"),
    Case("lstm_peephole", "numba-cpu", "float64", "train", 2, 3, 33, 33),
    Case("lstm_peephole", "numba-cpu", "float64", "forward", 5, 3, 2, 8, 1, True, "ragged"),
]


def run_fenced(after: bool) -> None:
    for case in FENCED:
        for split in SPLITS:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(plan.Geometry, "divide", lambda *_, split=split: split)
                assert differences(case, guards.fenced(after)) == [], case
    print("unharmed")


@pytest.mark.parametrize("fence", ["after", "before"])
def test_no_kernel_touches_a_fence(fence: str) -> None:
    assert kernels.finish(kernels.start_python(str(Path(__file__)), fence)) == "unharmed\n"


@pytest.mark.parametrize("fence", ["after", "before"])
def test_a_fence_is_deadly(fence: str) -> None:
    index = "array.size" if fence == "after" else "-1"
    peek = f"ctypes.c_float.from_address(array.ctypes.data + 4 * {index}).value"
    code = f"import ctypes, guards; array = guards.fenced({fence == 'after'})(5, 'float32'); print(array.sum()); {peek}"
    child = kernels.start_python("-c", code)
    assert child.communicate(timeout=60)[0] == "nan\n"
    assert child.returncode in (-signal.SIGSEGV, -signal.SIGBUS)


# --- guards see what is wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [-1, -512, 7, 518])
def test_a_write_outside_is_seen(place: int) -> None:
    around = guards.Guards()
    array = around.allocate(7, np.dtype("float32"))
    array[:] = 1
    assert around.broken() == []
    whole = array.base.view("float32")
    start = (array.ctypes.data - whole.ctypes.data) // 4
    whole[start + place] = 0
    assert len(around.broken()) == 1


def test_reading_what_was_not_written_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("lstm", "numba-cpu", "float32", "train", 3, 2, 4, 5)
    assert differences(case, guards.Guards().allocate) == []
    rnn = RNN("lstm", 4, 5)
    around = guards.Guards()
    guards.install(monkeypatch, around.allocate)
    # initial states that nobody clears
    monkeypatch.setattr(
        stack.Stack, "_states", lambda *_: tuple(stack.np.empty((1, 2, 5), np.dtype("float32")) for _ in "hc")
    )
    assert np.isnan(rnn.forward(np.ones((3, 2, 4), np.float32))[0]).all()


def test_read_only_arrays_run_on_the_same_kernels() -> None:
    case = Case("lstm", "numba-cpu", "float32", "train", 3, 2, 4, 5)
    plain = run(case)
    compiled = [len(kernel.body.overloads) for kernel in (FORWARD, BACKWARD)]

    data = make(case)
    arrays = [data.x, *data.state, data.doutput, *data.dstate]
    for array in arrays:
        array.flags.writeable = False
    rnn = RNN("lstm", 4, 5)
    rnn.load(data.params)
    output, _, tape = rnn.forward(data.x, data.state)
    gradients = rnn.backward(tape, data.doutput, data.dstate)
    np.testing.assert_array_equal(output, plain["output"])
    assert all(np.array_equal(gradients[name], plain[name]) for name in gradients)
    assert [len(kernel.body.overloads) for kernel in (FORWARD, BACKWARD)] == compiled


if __name__ == "__main__":
    run_fenced(sys.argv[1] == "after")


def test_other_weights_take_over_plans_and_buffers() -> None:
    rnn, x = RNN("lstm", 3, 5), np.ones((4, 2, 3), np.float32)
    _, _, tape = rnn.forward(x)
    rnn.backward(tape, None)
    before = rnn.network
    rnn.load({name: 2 * array for name, array in rnn.params.items()})
    (mine,), (others,) = rnn.network.layers[0], before.layers[0]
    assert mine is not others and not np.shares_memory(mine._packed.array, others._packed.array)
    assert mine._plans and mine._plans is others._plans and mine._back_plans is others._back_plans
    assert mine._buffers and mine._buffers is others._buffers
    # and they compute with their own weights
    fresh = RNN("lstm", 3, 5)
    fresh.load(rnn.params)
    for name, gradient in _gradients(rnn, x).items():
        np.testing.assert_array_equal(gradient, _gradients(fresh, x)[name])
    np.testing.assert_array_equal(rnn(x)[0], fresh(x)[0])
    old = RNN("lstm", 3, 5)
    assert not np.array_equal(rnn(x)[0], old(x)[0])
    assert not np.array_equal(_gradients(rnn, x)["x"], _gradients(old, x)["x"])


def _gradients(rnn: RNN, x: np.ndarray) -> dict[str, np.ndarray]:
    output, _, tape = rnn.forward(x)
    return rnn.backward(tape, np.ones_like(output))
