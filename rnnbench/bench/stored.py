"""Backends that store recurrent weights in fewer bits than they compute in, and the weights that they then have.

The rounding is what such a backend's name says, done once and specified to the bit. So whatever its results are compared with gets
the rounded weights, and it is held to the tolerance of the dtype that it computes in, like any other. (TensorFloat-32 rounds inside
every product, where no reference can follow: that is a matter of `tolerance`.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Format(NamedTuple):
    """Of numbers with `bits` significant bits; from 2**smallest on down they lie as far apart as just above it."""

    bits: int
    smallest: int


STORED = {"numba-cuda-fp16": Format(11, -14), "numba-cuda-bf16": Format(8, -126)}


def as_stored(params: Mapping[str, Array], stored: Format | None) -> dict[str, Array]:
    """Parameters with the recurrent weights, and the projection's, as they are after they were stored; None changes nothing.

    params: under PyTorch's names, of any dtype, which stays.
    """
    if stored is None:
        return dict(params)
    recurrent = ("weight_hh", "weight_hr")
    return {name: nearest(value, stored) if name.startswith(recurrent) else value for name, value in params.items()}


def nearest(value: Array, stored: Format) -> Array:
    """The nearest number of the format, ties to even; there is no largest one. value: finite. stored: the format."""
    # of a fraction from 1/2 on, so one more than that of its first bit
    _, exponent = np.frexp(value.astype(np.float64))
    apart = np.ldexp(1.0, np.maximum(exponent - 1, stored.smallest) - (stored.bits - 1))
    return (np.rint(value / apart) * apart).astype(value.dtype)
