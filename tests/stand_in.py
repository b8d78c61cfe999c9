"""A backend made of a private copy of the reference, in which a test can break one thing at a time.

Unbroken it agrees with the reference to the last bit; so whatever a check finds is the fault that was put in.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from rnnbench import backends, reference
from rnnbench.params import Spec

NAME = "stand-in"


def copy_of_reference() -> ModuleType:
    """The reference's file as a second module, whose parts may be replaced without touching the oracle."""
    spec = importlib.util.spec_from_file_location("copy_of_reference", reference.__file__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Tape:
    x: np.ndarray
    state: tuple[np.ndarray, ...]
    lengths: np.ndarray | None
    nbytes: int = 0


class Network:
    """`faults` holds functions that change what goes in or comes out: params, lengths, forward, backward, dtype."""

    def __init__(self, module: ModuleType, spec: Spec, params: dict[str, np.ndarray], faults: dict[str, Any]) -> None:
        self.module, self.spec, self.faults = module, spec, faults
        self.params = faults.get("params", lambda spec, params: params)(spec, dict(params))
        self.options = {"num_layers": spec.num_layers, "bidirectional": spec.bidirectional, **spec.numbers}

    def put(self, array: np.ndarray) -> np.ndarray:
        return array

    def get(self, native: np.ndarray) -> np.ndarray:
        return native.astype(self.faults.get("dtype", lambda dtype: dtype)(str(self.spec.dtype)))

    def forward(self, x: Any, state: Any, lengths: Any, training: bool) -> Any:
        lengths = self.faults.get("lengths", lambda lengths: lengths)(lengths)
        output, final = self.module.forward(self.spec.cell.name, self.params, x, state, lengths, **self.options)
        output, final = self.faults.get("forward", lambda *results: results)(output, final)
        return output, final, Tape(x, state, lengths) if training else None

    def backward(self, tape: Any, doutput: Any, dstate: Any) -> dict[str, Any]:
        start = (self.spec.cell.name, self.params, tape.x, tape.state, tape.lengths, doutput, dstate)
        grads = self.module.backward(*start, **self.options)[2]
        return self.faults.get("backward", lambda grads: grads)(grads)


class StandIn:
    """The backend's module."""

    def __init__(self, **faults: Any) -> None:
        self.module, self.faults = copy_of_reference(), faults

    def describe(self) -> str:
        return "a copy of the reference"

    def why_unsupported(self, spec: Spec, direction: str) -> str | None:
        if spec.reverse or spec.proj_size:
            return "the reference reads forwards, and has no projection"
        return self.faults.get("why_unsupported")

    def prepare(self, spec: Spec, params: dict[str, np.ndarray]) -> Network:
        return Network(self.module, spec, params, self.faults)

    def replace(self, cell: str, **parts: Callable[..., Any]) -> StandIn:
        """Replace a cell's functions: step, or back."""
        self.module._CELLS[cell] = self.module._CELLS[cell]._replace(**parts)
        return self


def install(monkeypatch: pytest.MonkeyPatch, backend: StandIn) -> str:
    """Make the stand-in a backend like the others, until the test ends. Returns its name."""
    monkeypatch.setitem(backends._MODULES, NAME, backends._Entry("stand_in", ("numpy",)))
    monkeypatch.setattr(backends, "NAMES", (*backends.NAMES, NAME))
    monkeypatch.setitem(sys.modules, "rnnbench.backends.stand_in", backend)
    return NAME


# --- faults that real implementations have had ------------------------------------------------------------------------


def gates_swapped(spec: Spec, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The first two gates' blocks change places, as when weights of another framework are read in the wrong order."""
    H = spec.hidden_size
    return {
        name: np.concatenate([value[H : 2 * H], value[:H], value[2 * H :]]) if name[:1] in "wb" else value
        for name, value in params.items()
    }


def recurrent_transposed(spec: Spec, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Each recurrent matrix is read along its columns."""
    H = spec.hidden_size
    return {
        name: np.concatenate([block.T for block in value.reshape(-1, H, H)]) if name.startswith("weight_hh") else value
        for name, value in params.items()
    }


def without_forget_gate_in_dc() -> StandIn:
    """dc goes to the step before without its factor f."""
    backend = StandIn()
    right = backend.module.lstm_back

    def back(dstate: Any, w: Any, state: Any, saved: Any) -> Any:
        da, (dh, dc), dw = right(dstate, w, state, saved)
        return da, (dh, dc / saved[1]), dw

    return backend.replace("lstm", back=back)


def without_recurrent_part_in_dh(cell: str) -> StandIn:
    """dh at the step before lacks R^T da."""
    backend = StandIn()
    right = backend.module._CELLS[cell].back

    def back(dstate: Any, w: Any, state: Any, saved: Any) -> Any:
        da, before, dw = right(dstate, w, state, saved)
        _, cut, _ = right(dstate, w._replace(R=np.zeros_like(w.R)), state, saved)
        return da, (cut[0], *before[1:]), dw

    return backend.replace(cell, back=back)
