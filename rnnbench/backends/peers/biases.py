"""The forget bias that our LSTM adds at run time, for libraries that know none."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from ...params import Spec


def with_forget_bias(spec: Spec, params: Mapping[str, np.ndarray]) -> tuple[Spec, dict[str, np.ndarray]]:
    """The same network with its forget_bias added to the biases, which a network without biases then has.

    Returns its spec, with a forget_bias of 0, and its params.
    """
    forget_bias, H = spec.numbers.get("forget_bias", 0.0), spec.hidden_size
    arrays = dict(params)
    if not forget_bias:
        return spec, arrays
    first = spec.cell.input_gates.index("f") * H
    for _, _, suffix in spec.suffixes():
        zero = np.zeros(len(spec.cell.input_gates) * H, spec.dtype)
        bias = arrays.get(f"bias_ih{suffix}", zero).copy()
        bias[first : first + H] += forget_bias
        arrays[f"bias_ih{suffix}"] = bias
        arrays.setdefault(f"bias_hh{suffix}", zero)
    return dataclasses.replace(spec, bias=True, numbers={**spec.numbers, "forget_bias": 0.0}), arrays
