"""Activation functions by name, for the gates, the candidate or the output of a variant.

They are ONNX's. Parameters follow the name after colons: `leaky_relu:0.2`. Those left out have the defaults of the ONNX operator of
the same name, as in ONNX Runtime, with three exceptions. ONNX Runtime takes 0 for alpha of `affine` and `thresholded_relu` and for
both parameters of `scaled_tanh`. Here `affine` is the identity and `scaled_tanh` is tanh, because ONNX has no operators of these
names, and `thresholded_relu` has the threshold 1 of ONNX's operator. At a kink the derivative is that of the side below, as in
PyTorch and TensorFlow.

Source: the operators RNN, GRU and LSTM of ONNX 22, https://onnx.ai/onnx/operators/onnx__RNN.html
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..spelling import unknown
from .graph import exp, log, maximum, minimum, relu, sigmoid, tanh, where


def affine(a, alpha, beta):
    """alpha a + beta; the identity by default."""
    return alpha * a + beta


def leaky_relu(a, alpha):
    """a above 0, alpha a below."""
    return where(a > 0, a, alpha * a)


def thresholded_relu(a, alpha):
    """a above alpha, 0 below."""
    return where(a > alpha, a, 0)


def scaled_tanh(a, alpha, beta):
    """alpha tanh(beta a)."""
    return alpha * tanh(beta * a)


def hard_sigmoid(a, alpha, beta):
    """alpha a + beta, clipped to the range from 0 to 1."""
    return minimum(maximum(alpha * a + beta, 0), 1)


def elu(a, alpha):
    """a above 0, alpha (e^a - 1) below."""
    return where(a > 0, a, alpha * (exp(minimum(a, 0)) - 1))


def softsign(a):
    """a / (1 + |a|)."""
    return a / (1 + abs(a))


def softplus(a):
    """log(1 + e^a), without overflow."""
    # maximum(-a, a) is |a| with the derivative -1 at 0; as relu's is 0 there, the derivative of the sum is 1/2
    return relu(a) + log(1 + exp(-maximum(-a, a)))


# name -> function, default parameters
ACTIVATIONS: dict[str, tuple[Callable, tuple[float, ...]]] = {
    "affine": (affine, (1.0, 0.0)),
    "elu": (elu, (1.0,)),
    "hard_sigmoid": (hard_sigmoid, (0.2, 0.5)),
    "leaky_relu": (leaky_relu, (0.01,)),
    "relu": (relu, ()),
    "scaled_tanh": (scaled_tanh, (1.0, 1.0)),
    "sigmoid": (sigmoid, ()),
    "softplus": (softplus, ()),
    "softsign": (softsign, ()),
    "tanh": (tanh, ()),
    "thresholded_relu": (thresholded_relu, (1.0,)),
}


def parse(text: str) -> tuple[str, tuple[float, ...]]:
    """Name and parameters, defaults included, of `name` or `name:parameter:...`. Raises ValueError for anything else."""
    name, *given = text.split(":")
    if name not in ACTIVATIONS:
        raise ValueError(unknown("activation", name, ACTIVATIONS))
    defaults = ACTIVATIONS[name][1]
    if len(given) > len(defaults):
        raise ValueError(f"the activation {name} takes {len(defaults)} parameter(s), not the {len(given)} of {text!r}")
    return name, tuple(number(f"the parameter of {name}", value) for value in given) + defaults[len(given) :]


def number(name: str, text: str) -> float:
    """Parse the finite number called `name`. Raises ValueError for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {text!r}")
    return value


def written(value: float) -> str:
    """A number as it is written in names: the shortest text that gives the same number again, 3 for 3.0."""
    return repr(value).removesuffix(".0")


def canonical(text: str) -> str:
    """The canonical name of an activation, with every parameter: `leaky_relu` becomes `leaky_relu:0.01`."""
    name, parameters = parse(text)
    return ":".join([name, *map(written, parameters)])


def activation(text: str) -> Callable:
    """The function of one argument that `text` names, for use in equations and on arrays."""
    name, parameters = parse(text)
    function = ACTIVATIONS[name][0]
    return lambda a: function(a, *parameters)
