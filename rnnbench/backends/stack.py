"""Layers and directions over a backend that knows how to run one layer in one direction, on NumPy arrays.

`Stack` is the `Network` of our own backends. It owns the joins: the output of a layer is the input of the next, a reverse
direction runs from the end of each row, padding is cleared once so that nothing in it (not even NaN) is ever used.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .. import memory
from ..cells import program
from ..params import Spec
from . import threads
from .base import Arrays, LayerWeights, arrange, arrange_back


class Layer(Protocol):
    """One layer in one direction. Arrays are C-contiguous in the spec's dtype unless said otherwise.

    States are (B, H) each; with a projection h and a direction's columns of the output are proj_size wide.
    """

    def forward(
        self, x: np.ndarray, state: Arrays, lengths: np.ndarray | None, training: bool, output: np.ndarray, column: int
    ) -> tuple[Arrays, Any]:
        """Run x (T, B, I) from the states. Writes its columns of output (T, B, D*H), from `column` on, with zeros past a
        row's end. Returns the final states and the tape (None without `training`).
        """

    def backward(
        self, tape: Any, doutput: np.ndarray, column: int, dstate: Arrays, dx: np.ndarray
    ) -> tuple[LayerWeights, Arrays]:
        """BPTT. doutput (T, B, D*H) and `column` as in forward, dstate as the states. Adds to dx (T, B, I). Returns the
        weights' gradients and those of the initial states.
        """


@dataclass
class StackTape:
    """What each layer kept: its input and its layers' tapes."""

    lengths: np.ndarray | None
    inputs: list[np.ndarray]
    layers: list[list[Any]]
    nbytes: int


class Stack:
    """A network of layers[k][d], each made by the backend for layer k and direction d.

    spec: the network. params: its parameters, validated. make: a backend's layer from (spec, weights, reverse).
    """

    def __init__(
        self, spec: Spec, params: Mapping[str, np.ndarray], make: Callable[[Spec, LayerWeights, bool], Layer]
    ) -> None:
        threads.limit_blas()
        self.spec, self._program = spec, program(spec.step, False)
        self._dtype = np.dtype(spec.dtype)
        self.layers: list[list[Layer]] = [[] for _ in range(spec.num_layers)]
        for layer, direction, suffix in spec.suffixes():
            weights = arrange(self._program, spec, params, suffix)
            self.layers[layer].append(make(spec, weights, spec.reads_backwards(direction)))

    def put(self, array: np.ndarray) -> np.ndarray:
        """The array itself: RNN hands over C-contiguous arrays of the right dtype."""
        return array

    def get(self, native: np.ndarray) -> np.ndarray:
        """The array itself."""
        return native

    def forward(
        self, x: np.ndarray, state: Arrays | None, lengths: np.ndarray | None, training: bool
    ) -> tuple[np.ndarray, Arrays, StackTape | None]:
        """See `Network.forward`. Raises MemoryError before it starts where the arrays would not fit."""
        spec, (T, B, _) = self.spec, x.shape
        D = spec.num_directions
        self._require_memory(T, B, training)
        if state is None:
            state = self._states(np.zeros, B)
        final = self._states(np.empty, B)
        states = range(len(final))
        if lengths is not None:
            x = np.where(_valid(lengths, T), x, np.zeros((), spec.dtype))
        inputs: list[np.ndarray] = []
        tapes: list[list[Any]] = []
        for k, directions in enumerate(self.layers):
            inputs.append(x)
            output = np.empty((T, B, spec.output_size), self._dtype)
            tapes.append([])
            for d, layer in enumerate(directions):
                row = k * D + d
                before = tuple([state[s][row] for s in states])
                new, tape = layer.forward(x, before, lengths, training, output, self._column(d))
                tapes[-1].append(tape)
                for s in states:
                    final[s][row] = new[s]
            x = output
        if not training:
            return x, final, None
        # the network's input is the caller's and its output is returned: what lies between is kept for BPTT
        nbytes = sum(tape.nbytes for tape in itertools.chain(*tapes)) + sum(a.nbytes for a in inputs[1:])
        return x, final, StackTape(lengths, inputs, tapes, nbytes)

    def backward(self, tape: StackTape, doutput: np.ndarray | None, dstate: Arrays | None) -> dict[str, np.ndarray]:
        """See `Network.backward`."""
        spec, (T, B, _) = self.spec, tape.inputs[0].shape
        D = spec.num_directions
        if doutput is None:
            doutput = np.zeros((T, B, spec.output_size), spec.dtype)
        elif tape.lengths is not None:
            # the output past a row's end is the constant 0; what arrives for it has nowhere to go
            doutput = np.where(_valid(tape.lengths, T), doutput, np.zeros((), spec.dtype))
        if dstate is None:
            dstate = self._states(np.zeros, B)
        dinitial = self._states(np.empty, B)
        gradients: dict[str, np.ndarray] = {}
        for layer, d, suffix in reversed(spec.suffixes()):
            if d == D - 1:
                dx = np.zeros_like(tape.inputs[layer])
            row = layer * D + d
            weights, dbefore = self.layers[layer][d].backward(
                tape.layers[layer][d], doutput, self._column(d), tuple(s[row] for s in dstate), dx
            )
            gradients |= arrange_back(self._program, spec, weights, suffix)
            for whole, part in zip(dinitial, dbefore, strict=True):
                whole[row] = part
            if d == 0:
                doutput = dx
        gradients["x"] = doutput
        gradients |= {f"{name}_0": d for name, d in zip(spec.cell.states, dinitial, strict=True)}
        return gradients

    def _states(self, make: Callable[..., np.ndarray], B: int) -> Arrays:
        """One array (layers * D, B, width) for each state."""
        rows = self.spec.num_layers * self.spec.num_directions
        return tuple([make((rows, B, width), self._dtype) for width in self.spec.state_sizes])

    def _column(self, direction: int) -> int:
        """Where a direction's columns of the output start."""
        return direction * self.spec.state_sizes[0]

    def _require_memory(self, T: int, B: int, training: bool) -> None:
        spec = self.spec
        values = len(self._program.pre) + len(spec.cell.states) + (len(self._program.saved) if training else 0)
        per_layer = T * B * spec.output_size * (1 + (values if training else 0))
        needed = per_layer * (spec.num_layers if training else 1) * self._dtype.itemsize
        memory.require(needed, f"the arrays of seq_len {T}, batch_size {B}, hidden_size {spec.hidden_size}")


def _valid(lengths: np.ndarray, T: int) -> np.ndarray:
    """(T, B, 1): whether step t of row b lies within its length."""
    return (np.arange(T)[:, None] < lengths)[:, :, None]
