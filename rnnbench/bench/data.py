"""A case's data: parameters, inputs, states, and the gradients from which the backward pass starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnbench import reference
from rnnbench.bench.cases import Case
from rnnbench.params import initialise

Array = NDArray[Any]


@dataclass(frozen=True)
class Data:
    """The data of one case, every array in the case's dtype.

    params: under PyTorch's names. x (T, B, I). state: one (layers * directions, B, H) for each of the cell's states; with a
    projection the first is P wide. lengths (B,) integers from 0 to T, or None. doutput (T, B, directions * H or P) and dstate
    (shaped as state): the gradients of the loss with respect to the output and the final state.
    """

    params: dict[str, Array]
    x: Array
    state: tuple[Array, ...]
    lengths: Array | None
    doutput: Array
    dstate: tuple[Array, ...]


def make(case: Case) -> Data:
    """A case's data: the same for every backend and, up to rounding, for every dtype.

    Errors must not grow with the length of the sequence, or results could not be compared after some time steps: the
    map from one state to the next has to contract. So the recurrent matrices are half of what PyTorch would draw,
    U(+-1/(2 sqrt H)), which bounds each gate's spectral norm near 2 sqrt(H) / (2 sqrt(3 H)) = 0.58, and states and
    inputs lie in [-1, 1]. A unit's own memory (f of the LSTM, z of the GRU) stays near 1/2. `tolerance.GAIN` builds
    on it.

    A user's cell's states, except the first, are drawn from [1/4, 3/4]: they may be divisors or arguments of a logarithm.
    """
    spec, rng = case.spec, np.random.default_rng([case.seed, 1])
    dtype = np.dtype(case.dtype)

    def uniform(*shape: int, low: float = -1.0, high: float = 1.0) -> Array:
        return rng.uniform(low, high, shape).astype(dtype)

    params = initialise(spec, case.seed)
    for name, value in params.items():
        if name.startswith("weight_hh"):
            params[name] = value * dtype.type(0.5)
    batch = (spec.state_rows, case.batch_size)
    positive = case.cell not in reference.CELLS
    x = uniform(case.seq_len, case.batch_size, case.input_size)
    state = tuple(
        uniform(*batch, width, low=0.25, high=0.75) if positive and k > 0 else uniform(*batch, width)
        for k, width in enumerate(spec.state_sizes)
    )
    lengths = _ragged(rng, case.seq_len, case.batch_size) if case.lengths == "ragged" else None
    doutput = rng.standard_normal((case.seq_len, case.batch_size, spec.output_size)).astype(dtype)
    dstate = tuple(rng.standard_normal((*batch, width)).astype(dtype) for width in spec.state_sizes)
    return Data(params, x, state, lengths, doutput, dstate)


def _ragged(rng: np.random.Generator, seq_len: int, batch_size: int) -> Array:
    """Lengths from 0 to T, unsorted: one full and, in a batch of at least two, one empty. A single sequence gets
    T // 2 + 1.
    """
    lengths = rng.integers(0, seq_len + 1, batch_size)
    if batch_size == 1:
        lengths[0] = min(seq_len, seq_len // 2 + 1)
    else:
        full, empty = rng.permutation(batch_size)[:2]
        lengths[full] = seq_len
        lengths[empty] = 0 if batch_size > 2 else (seq_len + 1) // 2
    return lengths
