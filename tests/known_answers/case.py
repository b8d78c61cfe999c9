"""A known answer: networks to build, how to run them, and what must come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnnbench import RNN
from rnnbench.cells import find

Arrays = dict[str, np.ndarray]


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

    atol: how far each array, or all, may be from what is expected; rtol is 0.
    """

    nets: tuple[Net, ...]
    run: Callable[..., Arrays]
    expected: Arrays
    atol: float | dict[str, float]

    def answer(self, backend: str) -> Arrays:
        """What comes out on this backend."""
        return self.run(*(net.build(backend) for net in self.nets))

    def check(self, got: Arrays) -> None:
        """Raise AssertionError, with the array's name, unless everything expected came out."""
        for name, expected in self.expected.items():
            assert np.shape(got[name]) == np.shape(expected), name
            np.testing.assert_allclose(got[name], expected, rtol=0, atol=self.tolerance(name), err_msg=name)

    def tolerance(self, name: str) -> float:
        return self.atol[name] if isinstance(self.atol, dict) else self.atol
