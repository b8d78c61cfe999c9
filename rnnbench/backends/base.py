"""What every backend promises, and when its clock runs.

A backend is a module with three functions, `describe`, `why_unsupported` and `prepare`. The contract of a measurement:

    prepare(spec, params)            untimed   packs weights, uploads them
    network.put(array)               untimed   an input in the backend's own form (a device array, a tensor)
    network.forward / .backward      TIMED     only the work, and the wait until it is done
    network.get(native)              untimed   a result as a NumPy array

So a measurement never contains a conversion, and never ends before the work has. Layouts at this interface: x (T, B, I), output
(T, B, D*H), states and their gradients (layers*directions, B, H), lengths (B,) int64 on the host or None. With a projection,
h and each direction's columns of the output are proj_size wide instead of H.

Beware of "direction": `layers*directions` and D count the ways in which a layer reads its sequences, 2 if bidirectional. The
argument `direction` says what a call computes: "forward" is inference, "train" a forward and a backward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..cells import PROJECTION, Program
from ..params import Spec

States = tuple[Any, ...]


class Tape(Protocol):
    """What BPTT needs of a forward pass. `nbytes` counts what is kept for it, besides the output."""

    nbytes: int


class Network(Protocol):
    """A network ready to run, with its weights packed once.

    A network with more than packed weights, such as plans and buffers, also has `with_params(params) -> Network`: the same network
    with other parameters, which reuses all the rest. The original network and its tapes stay as they are.
    """

    def put(self, array: np.ndarray) -> Any:
        """`array` in the backend's own form."""

    def get(self, native: Any) -> np.ndarray:
        """A native array as a NumPy array."""

    def forward(
        self, x: Any, state: States | None, lengths: np.ndarray | None, training: bool
    ) -> tuple[Any, States, Tape | None]:
        """Output, final states and, with `training`, the tape. `state` None means zeros, `lengths` None means T for each row."""

    def backward(self, tape: Any, doutput: Any, dstate: States | None) -> dict[str, Any]:
        """Gradients under the parameters' names, "x" and "<state>_0". `dstate` None means zeros. Leaves the tape usable."""


class Backend(Protocol):
    """A backend: a module, or one of several objects in it. A backend that needs more than its library, such as a device, also has
    `why_unavailable() -> str | None`.
    """

    def describe(self) -> str:
        """What runs, in a few words: library, version, path, threads, as in "numba 0.68.1, 512-bit vectors, 2 threads"."""

    def why_unsupported(self, spec: Spec, direction: str) -> str | None:
        """Why this network cannot run in inference ("forward") or training ("train"), in a sentence; None if it can."""

    def prepare(self, spec: Spec, params: Mapping[str, np.ndarray]) -> Network:
        """The network with these parameters (validated, in the spec's dtype, and not changed afterwards). Never timed."""


@dataclass(frozen=True)
class LayerWeights:
    """The weights of one layer and direction, a block per pre-activation of the cell's program, in its order.

    input      (P, H, I)   zero where a pre-activation has no input gate
    recurrent  (P, H, H)   only the first blocks, those with a product: (number of products, H, H)
    bias       (P, H)      the sum of both biases
    vector     (V, H)      per-unit parameters

    With a projection h has only proj_size <= H elements; the weights of the remaining columns are zero.
    """

    input: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray
    vector: np.ndarray


class Arrangement:
    """Converts a spec's parameters, one block per gate, into one block per pre-activation, and gradients back.

    program: of `spec.step`, whose pre-activations name their gates.
    """

    def __init__(self, program: Program, spec: Spec) -> None:
        self._spec, self._program = spec, program
        cell = spec.cell
        inputs: list[list[int]] = [[] for _ in cell.input_gates]
        recurrents: list[list[int]] = [[] for _ in cell.recurrent_gates]
        self._projection: int | None = None
        for block, pre in enumerate(program.pre):
            if pre.input is not None:
                inputs[cell.input_gates.index(pre.input)].append(block)
            if pre.recurrent == PROJECTION and spec.proj_size:
                self._projection = block
            elif pre.recurrent is not None:
                recurrents[cell.recurrent_gates.index(pre.recurrent)].append(block)
        self._inputs, self._recurrents = _Places(inputs), _Places(recurrents)

    def weights(self, params: Mapping[str, np.ndarray], suffix: str) -> LayerWeights:
        """The parameters under `suffix` as blocks."""
        spec, H, width = self._spec, self._spec.hidden_size, self._spec.state_sizes[0]
        pre = self._program.pre
        weight_ih = params[f"weight_ih{suffix}"].reshape(len(spec.cell.input_gates), H, -1)
        weight_hh = params.get(f"weight_hh{suffix}", np.zeros(0, spec.dtype)).reshape(-1, H, width)
        result = LayerWeights(
            self._inputs.scatter(weight_ih, len(pre), weight_ih.shape[2]),
            self._recurrents.scatter(weight_hh, sum(p.recurrent is not None for p in pre), H),
            np.zeros((len(pre), H), spec.dtype),
            np.array([params[f"p_{v}{suffix}"] for v in spec.cell.vectors], spec.dtype).reshape(-1, H),
        )
        if spec.bias:
            for which, places in (("ih", self._inputs), ("hh", self._recurrents)):
                for gate, its in enumerate(places.blocks):
                    result.bias[its] += params[f"bias_{which}{suffix}"].reshape(-1, H)[gate]
        if self._projection is not None:
            result.recurrent[self._projection, :width] = params[f"weight_hr{suffix}"]
        return result

    def gradients(self, blocks: LayerWeights, suffix: str) -> dict[str, np.ndarray]:
        """The reverse, for gradients: from those of blocks to those under the parameters' names."""
        width, columns = self._spec.state_sizes[0], blocks.input.shape[2]
        found: dict[str, np.ndarray] = {}
        found[f"weight_ih{suffix}"] = self._inputs.gather(blocks.input).reshape(-1, columns)
        if self._recurrents.blocks:
            recurrent = self._recurrents.gather(blocks.recurrent)
            found[f"weight_hh{suffix}"] = recurrent[:, :, :width].reshape(-1, width)
        if self._spec.bias:  # the two may be the same numbers, in two arrays
            found[f"bias_ih{suffix}"] = self._inputs.gather(blocks.bias).flatten()
            if self._recurrents.blocks:
                found[f"bias_hh{suffix}"] = self._recurrents.gather(blocks.bias).flatten()
        if self._projection is not None:
            found[f"weight_hr{suffix}"] = blocks.recurrent[self._projection, :width]
        for i, name in enumerate(self._spec.cell.vectors):
            found[f"p_{name}{suffix}"] = blocks.vector[i]
        return found


class _Places:
    """Gate -> the blocks in which it appears; a recurrent gate may appear in several products."""

    def __init__(self, blocks: list[list[int]]) -> None:
        self.blocks = blocks
        self._order = np.array([its[0] for its in blocks]) if all(len(its) == 1 for its in blocks) else None
        self._is_in_order = blocks == [[gate] for gate in range(len(blocks))]

    def scatter(self, gates: np.ndarray, blocks: int, columns: int) -> np.ndarray:
        """(gates, H, C) -> (blocks, H, columns), zeros elsewhere; `gates` itself if gates and blocks correspond one to one."""
        if self._is_in_order and gates.shape == (blocks, gates.shape[1], columns):
            return gates
        found = np.zeros((blocks, gates.shape[1], columns), gates.dtype)
        for gate, its in zip(gates, self.blocks, strict=True):
            found[its, :, : gates.shape[2]] = gate
        return found

    def gather(self, gradients: np.ndarray) -> np.ndarray:
        """(gates, ...): for each gate the sum of its blocks; the blocks themselves if each gate has one, in order."""
        if self._is_in_order:
            return gradients[: len(self.blocks)]
        if self._order is not None:
            return gradients[self._order]
        return np.stack([gradients[its].sum(0) for its in self.blocks])


def input_spans(program: Program) -> list[slice]:
    """The pre-activations that have an input gate, as spans of neighbours: each span is one matrix product."""
    spans: list[slice] = []
    for block, pre in enumerate(program.pre):
        if pre.input is not None:
            if spans and spans[-1].stop == block:
                spans[-1] = slice(spans[-1].start, block + 1)
            else:
                spans.append(slice(block, block + 1))
    return spans
