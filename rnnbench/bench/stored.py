"""Backends that store recurrent weights in fewer bits than they compute in, and how they round the weights.

Such a backend's name says how it rounds; this happens once and is specified to the bit. So the reference, or whatever it is
compared with, gets the rounded weights too, and the backend has to meet the tolerance of the dtype that it computes in, like any
other. (TensorFloat-32 rounds inside every product, which no reference can reproduce: `tolerance` allows for that.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Format(NamedTuple):
    """A floating-point format with `bits` significant bits. Below 2**smallest its numbers are spaced as just above it."""

    bits: int
    smallest: int


STORED = {"numba-cuda-fp16": Format(11, -14), "numba-cuda-bf16": Format(8, -126)}


def as_stored(params: Mapping[str, Array], stored: Format | None) -> dict[str, Array]:
    """The parameters, with the recurrent and projection weights rounded to `stored`; None changes nothing.

    params: under PyTorch's names, of any dtype, which is kept.
    """
    if stored is None:
        return dict(params)
    recurrent = ("weight_hh", "weight_hr")
    return {name: nearest(value, stored) if name.startswith(recurrent) else value for name, value in params.items()}


def nearest(value: Array, stored: Format) -> Array:
    """The nearest number of the format, ties to even; overflow is ignored. value: finite. stored: the format."""
    # frexp's fraction is in [1/2, 1), so this exponent is one more than that of the leading bit
    _, exponent = np.frexp(value.astype(np.float64))
    apart = np.ldexp(1.0, np.maximum(exponent - 1, stored.smallest) - (stored.bits - 1))
    return (np.rint(value / apart) * apart).astype(value.dtype)
