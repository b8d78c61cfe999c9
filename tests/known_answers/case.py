"""A known answer: networks to build, how to run them, and what must come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnnbench import RNN
from rnnbench.cells import find

Arrays = dict[str, np.ndarray]
Fault = Callable[[RNN], Any]


@dataclass(frozen=True)
class Net:
    """A cell and parameters under our names, which give the sizes; in `options` other arguments of RNN."""

    cell: str
    params: Arrays
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, backend: str) -> RNN:
        kernel = self.params["weight_ih_l0"]
        sizes = {"input_size": kernel.shape[1], "hidden_size": len(kernel) // len(find(self.cell).input_gates)}
        options = {"bias": "bias_ih_l0" in self.params} | sizes | dict(self.options)
        rnn = RNN(self.cell, backend=backend, dtype="float64", **options)
        rnn.load(self.params)
        return rnn


@dataclass(frozen=True)
class Case:
    """`run` takes one RNN for each of `nets` and returns arrays in the source's own layout and conventions.

    atol: how far each array, or all, may be from what is expected; rtol is 0. trains: whether `run` goes backward.
    """

    nets: tuple[Net, ...]
    run: Callable[..., Arrays]
    expected: Arrays
    atol: float | dict[str, float]
    trains: bool = False

    def check(self, backend: str, fault: Fault | None = None) -> None:
        """Raise AssertionError unless everything expected comes out; `fault` may spoil the networks first."""
        rnns = [net.build(backend) for net in self.nets]
        got = self.run(*(fault(rnn) if fault else rnn for rnn in rnns))
        for name, expected in self.expected.items():
            atol = self.atol[name] if isinstance(self.atol, dict) else self.atol
            np.testing.assert_allclose(got[name], expected, rtol=0, atol=atol, err_msg=name, strict=False)
            assert np.shape(got[name]) == np.shape(expected), name
