"""One case made ready on its backend, with a clear border between what is timed and what is not.

session = Session(case, data)    untimed   loads the backend, packs weights, uploads inputs
native = session.run()           TIMED     one forward pass, or one forward and backward pass
session.result(native)           untimed   all results as NumPy arrays
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnbench import backends, memory
from rnnbench.backends.threads import limit_blas
from rnnbench.bench.cases import Case
from rnnbench.bench.data import Data, make


class Unsupported(RuntimeError):
    """The backend cannot run this case here; the message says why. Such a case is skipped, by name."""


class Session:
    """A network with its inputs, in the backend's own form. `runs` is the backend's description of itself; `verified` becomes
    True when `verify` has found it correct.

    Raises Unsupported with the reason, ValueError for an unknown cell or backend, MemoryError before running out of memory,
    and whatever a broken backend raises.
    """

    def __init__(self, case: Case, data: Data | None = None) -> None:
        self.case = case
        self.verified = False
        reason = backends.why_unavailable(case.backend)
        if reason:
            raise Unsupported(reason)
        backend = backends.load(case.backend)
        reason = backend.why_unsupported(case.spec, case.direction)
        if reason:
            raise Unsupported(reason)
        memory.require(case.memory_bytes, f"{case} and its reference")
        data = make(case) if data is None else data
        self.network = backend.prepare(case.spec, data.params)
        limit_blas()
        self.runs = backend.describe()
        put = self.network.put
        self.x, self.state = put(data.x), tuple(put(s) for s in data.state)
        self.lengths = data.lengths
        self.doutput, self.dstate = put(data.doutput), tuple(put(d) for d in data.dstate)
        self.run = self._train if case.direction == "train" else self._forward

    @property
    def flops(self) -> float:
        """The case's floating-point operations; for ragged rows only those of steps within their lengths."""
        if self.lengths is None:
            return self.case.flops
        return self.case.flops * float(self.lengths.mean()) / self.case.seq_len

    def _forward(self) -> tuple[Any, ...]:
        return self.network.forward(self.x, self.state, self.lengths, False)

    def _train(self) -> tuple[Any, ...]:
        output, state, tape = self.network.forward(self.x, self.state, self.lengths, True)
        return output, state, tape, self.network.backward(tape, self.doutput, self.dstate)

    def result(self, native: tuple[Any, ...]) -> dict[str, np.ndarray]:
        """What a run computed: "output", final states "h_n" and "c_n", and in training every gradient as "d" + name."""
        output, state = native[:2]
        arrays = {"output": self.network.get(output)}
        names = self.case.spec.cell.states
        if len(state) != len(names):
            raise RuntimeError(f"the backend returned {len(state)} final states; the cell has {', '.join(names)}")
        for name, value in zip(names, state, strict=True):
            arrays[f"{name}_n"] = self.network.get(value)
        if self.case.direction == "train":
            for name, value in native[3].items():
                arrays[f"d{name}"] = self.network.get(value)
        return arrays
