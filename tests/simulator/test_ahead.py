"""What is prefetched is what the next step reads, before it does, and lies inside its array."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

from rnnbench.backends.numba_cuda import VARIABLE, ahead
from rnnbench.backends.numba_cuda.buffers import in_backward, in_training
from rnnbench.backends.numba_cuda.layer import DeviceLayer
from rnnbench.bench.cases import Case
from rnnbench.bench.session import Session

T = 4
READ_ONCE = {False: ("pre",), True: ("saved", "values", "doutput")}  # backward: what comes from memory in each step


def watch(monkeypatch: pytest.MonkeyPatch, off: int = 0) -> list[str]:
    """A list that will hold what is wrong with the prefetches of each time loop. off: added to where they are."""
    events: list[tuple[str, int, int]] = []
    wrong: list[str] = []
    get, persist = FakeCUDAArray.__getitem__, DeviceLayer._persist

    def read(self: Any, at: Any) -> Any:
        if isinstance(at, (int, np.integer)):  # the rest is not of these kernels
            events.append(("read", id(self), int(at)))
        return get(self, at)

    def prefetch(array: Any, at: Any) -> None:
        events.append(("prefetch", id(array), int(at) + off))

    def watched(self: Any, queue: Any, made: Any, buffers: Any, part: Any, backward: bool, steps: int) -> None:
        events.clear()
        persist(self, queue, made, buffers, part, backward, steps)
        lengths = buffers.lengths._ary
        for name in READ_ONCE[backward]:
            array = getattr(buffers, name)
            mine = [(kind, at) for kind, array_id, at in events if array_id == id(array)]
            position = (in_backward if backward else in_training)(0, steps, self.reverse)
            slots, first = (steps + 1, {position.prev, position.new}) if name == "values" else (steps, {position.t})
            wrong.extend(f"{name}: {w}" for w in faults(mine, array.size, slots, first, bool((lengths == steps).all())))

    monkeypatch.setattr(FakeCUDAArray, "__getitem__", read)
    monkeypatch.setattr(ahead, "prefetch", prefetch)
    monkeypatch.setattr(DeviceLayer, "_persist", watched)
    return wrong


def faults(events: list[tuple[str, int]], size: int, slots: int, first: set[int], full: bool) -> list[str]:
    """What is wrong with the order of (kind, element) of an array whose elements belong to `slots` times, of which the first step
    reads those in `first`. full: whether no row is shorter, so that nothing of a later step may be read without a prefetch.
    """
    prefetched: dict[int, int] = {}
    was_read: dict[int, int] = {}
    for time, (kind, at) in enumerate(events):
        (prefetched if kind == "prefetch" else was_read).setdefault(at, time)
    later = {at for at in was_read if at // (size // slots) not in first}
    never = size + 1
    return [
        *(f"{at} is outside" for at in prefetched if not 0 <= at < size),
        *(
            f"{at} is not read after it"
            for at in prefetched
            if was_read.get(at, never) < prefetched[at] and at in later
        ),
        *(f"{at} is never read" for at in prefetched if at not in was_read),
        *(f"{at} is read without" for at in later if full and at not in prefetched),
        *(["nothing"] if not prefetched else []),
    ]


@pytest.mark.parametrize("lengths", [pytest.param("full", marks=pytest.mark.full), "ragged"])
@pytest.mark.parametrize("kernel", ["block", "grid"])
@pytest.mark.parametrize("cell", ["lstm_peephole", "gru_reset_before"])
def test_a_step_reads_what_was_prefetched(
    monkeypatch: pytest.MonkeyPatch, cell: str, kernel: str, lengths: str
) -> None:
    monkeypatch.setenv(VARIABLE, kernel)
    wrong = watch(monkeypatch)
    Session(Case(cell, "numba-cuda", "float32", "train", T, 5, 2, 5, bidirectional=True, lengths=lengths)).run()
    assert not wrong


@pytest.mark.parametrize(("off", "said"), [(-10_000, "is outside"), (1, "is never read"), (1, "is read without")])
def test_a_prefetch_of_something_else_is_seen(monkeypatch: pytest.MonkeyPatch, off: int, said: str) -> None:
    monkeypatch.setenv(VARIABLE, "block")
    wrong = watch(monkeypatch, off)
    Session(Case("lstm", "numba-cuda", "float32", "train", T, 1, 2, 1)).run()
    assert any(said in line for line in wrong), wrong
