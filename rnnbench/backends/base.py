"""What every backend promises, and when its clock runs.

A backend is a module with three functions, `describe`, `why_unsupported` and `prepare`. The contract of a measurement:

    prepare(spec, params)            untimed   packs weights, uploads them
    network.put(array)               untimed   an input in the backend's own form (a device array, a tensor)
    network.forward / .backward      TIMED     only the work, and the wait until it is done
    network.get(native)              untimed   a result as a NumPy array

So a measurement never contains a conversion, and never ends before the work has. Layouts at this border: x (T, B, I), output
(T, B, D*H), states and their gradients (layers*directions, B, H), lengths (B,) int64 on the host or None. With a projection
h and each direction of the output are proj_size wide in place of H.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..cells import PROJECTION, Program
from ..params import Spec

Arrays = tuple[Any, ...]


class Tape(Protocol):
    """What BPTT needs of a forward pass. `nbytes` counts what is kept for it besides the output."""

    nbytes: int


class Network(Protocol):
    """A network ready to run: weights packed once, kept until the next `prepare`."""

    def put(self, array: np.ndarray) -> Any:
        """`array` in the backend's own form."""

    def get(self, native: Any) -> np.ndarray:
        """A native array as a NumPy array."""

    def forward(
        self, x: Any, state: Arrays | None, lengths: np.ndarray | None, training: bool
    ) -> tuple[Any, Arrays, Tape | None]:
        """Output, final states and, with `training`, the tape. `state` None means zeros, `lengths` None means all of T."""

    def backward(self, tape: Any, doutput: Any, dstate: Arrays | None) -> dict[str, Any]:
        """Gradients under the parameters' names, "x" and "<state>_0". `dstate` None means zeros. Leaves the tape usable."""


class Backend(Protocol):
    """A backend's module, or one of several objects in it. One that needs more than its library, such as a device, also has
    `why_unavailable() -> str | None`.
    """

    def describe(self) -> str:
        """What runs, in a few words: library, version, path, threads, as in "numba 0.68.1, 512-bit vectors, 2 threads"."""

    def why_unsupported(self, spec: Spec, direction: str) -> str | None:
        """Why this network cannot run in this direction ("forward" or "train"), in a sentence; None if it can."""

    def prepare(self, spec: Spec, params: Mapping[str, np.ndarray]) -> Network:
        """The network with these parameters (validated, in the spec's dtype). Never timed."""


@dataclass(frozen=True)
class LayerWeights:
    """One layer and direction's weights, a block per pre-activation of the cell's program, in its order.

    input      (P, H, I)   zero where a pre-activation has no input gate
    recurrent  (P, H, H)   only the first blocks, those with a product: (number of products, H, H)
    bias       (P, H)      both biases' sum
    vector     (V, H)      per-unit parameters

    With a projection h has proj_size <= H elements, which stand in H columns: the others' weights are zero.
    """

    input: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray
    vector: np.ndarray


def arrange(program: Program, spec: Spec, params: Mapping[str, np.ndarray], suffix: str) -> LayerWeights:
    """The weights under `suffix`, rearranged from gates to pre-activations of `spec.step`'s program."""
    cell, H, width = spec.cell, spec.hidden_size, spec.state_sizes[0]
    weight_ih = params[f"weight_ih{suffix}"].reshape(len(cell.input_gates), H, -1)
    blocks = len(program.pre)
    products = sum(pre.recurrent is not None for pre in program.pre)
    result = LayerWeights(
        np.zeros((blocks, H, weight_ih.shape[2]), spec.dtype),
        np.zeros((products, H, H), spec.dtype),
        np.zeros((blocks, H), spec.dtype),
        np.array([params[f"p_{v}{suffix}"] for v in cell.vectors], spec.dtype).reshape(-1, H),
    )
    for block, pre in enumerate(program.pre):
        if pre.input is not None:
            gate = cell.input_gates.index(pre.input)
            result.input[block] = weight_ih[gate]
            if spec.bias:
                result.bias[block] += params[f"bias_ih{suffix}"].reshape(-1, H)[gate]
        if pre.recurrent is not None:
            if pre.recurrent == PROJECTION and spec.proj_size:
                result.recurrent[block, :width] = params[f"weight_hr{suffix}"]
                continue
            gate = cell.recurrent_gates.index(pre.recurrent)
            result.recurrent[block, :, :width] = params[f"weight_hh{suffix}"].reshape(-1, H, width)[gate]
            if spec.bias:
                result.bias[block] += params[f"bias_hh{suffix}"].reshape(-1, H)[gate]
    return result


def arrange_back(program: Program, spec: Spec, gradients: LayerWeights, suffix: str) -> dict[str, np.ndarray]:
    """The reverse of `arrange`, for gradients: blocks of pre-activations to the parameters' names."""
    cell, width = spec.cell, spec.state_sizes[0]
    inputs: list[list[int]] = [[] for _ in cell.input_gates]
    recurrents: list[list[int]] = [[] for _ in cell.recurrent_gates]
    projection: list[int] = []
    for block, pre in enumerate(program.pre):
        if pre.input is not None:
            inputs[cell.input_gates.index(pre.input)].append(block)
        if pre.recurrent == PROJECTION and spec.proj_size:
            projection.append(block)
        elif pre.recurrent is not None:
            recurrents[cell.recurrent_gates.index(pre.recurrent)].append(block)
    named = {f"weight_ih{suffix}": _gather(gradients.input, inputs)}
    if recurrents:
        named[f"weight_hh{suffix}"] = _gather(gradients.recurrent, recurrents)[:, :, :width]
    if spec.bias:
        named[f"bias_ih{suffix}"] = _gather(
            gradients.bias, inputs
        ).copy()  # the two may be the same numbers, in two arrays
        if recurrents:
            named[f"bias_hh{suffix}"] = _gather(gradients.bias, recurrents).copy()
    for block in projection:
        named[f"weight_hr{suffix}"] = gradients.recurrent[block, None, :width]
    result = {name: block.reshape(-1, *block.shape[2:]) for name, block in named.items()}
    result |= {f"p_{v}{suffix}": gradients.vector[i] for i, v in enumerate(cell.vectors)}
    return result


def _gather(blocks: np.ndarray, of_gates: list[list[int]]) -> np.ndarray:
    """(gates, ...): for each gate the sum of its blocks; the blocks themselves where each gate has one and they are in order.

    A recurrent gate may appear in several products, and its gradient is their sum.
    """
    if of_gates == [[gate] for gate in range(len(of_gates))]:
        return blocks[: len(of_gates)]
    return np.stack([blocks[its].sum(0) for its in of_gates])


def input_runs(program: Program) -> list[slice]:
    """The pre-activations that have an input gate, as runs of neighbours, each one matrix product."""
    runs: list[slice] = []
    for block, pre in enumerate(program.pre):
        if pre.input is not None:
            if runs and runs[-1].stop == block:
                runs[-1] = slice(runs[-1].start, block + 1)
            else:
                runs.append(slice(block, block + 1))
    return runs
