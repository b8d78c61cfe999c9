"""Cells that are not built in, one for each thing that an equation may do, and what they are held to.

`evaluate` calls the equation itself on float64 arrays, a step at a time; nothing of it goes through a trace, a derivative or
emitted text. `gradient_problems` compares gradients with central differences of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from rnnbench import Cell, cell, exp, log, maximum, minimum, relu, sigmoid, sqrt, tanh, where
from rnnbench.params import Spec, shapes

Arrays = dict[str, np.ndarray]


@cell
def mgu(x, R, h):
    """Minimal gated unit (Zhou et al. 2016): two products of different stages."""
    f = sigmoid(x.f + R.f @ h)
    n = tanh(x.n + R.n @ (f * h))
    return (1 - f) * h + f * n


@cell
def slstm(x, R, h, c, n, m):
    """sLSTM (Beck et al. 2024): exponential gates, four states."""
    i = x.i + R.i @ h
    f = x.f + R.f @ h
    m_new = maximum(f + m, i)
    a, b = exp(i - m_new), exp(f + m - m_new)
    c = b * c + a * tanh(x.z + R.z @ h)
    n = b * n + a
    return sigmoid(x.o + R.o @ h) * c / (n + 3), c, n, m_new


@cell
def mingru(x, R, h):
    """No recurrent product (Feng et al. 2024)."""
    z = sigmoid(x.z)
    return (1 - z) * h + z * x.n


@cell
def from_states(x, R, h, c):
    """The operand comes from states alone, before any product."""
    v = tanh(h - c)
    h = tanh(x.h + R.h @ v)
    return h, 0.5 * c + v * h


@cell
def twice(x, R, h, c):
    """One matrix, two operands; x.g is used twice, so it meets no product in a sum."""
    a = R.g @ h + x.g
    return tanh(a - R.g @ c), sigmoid(x.g + c)


@cell
def late(x, R, h, c):
    """The last gate sees the new c through a matrix."""
    i = sigmoid(x.i + R.i @ h)
    c = (1 - i) * c + i * tanh(x.g + R.g @ h)
    o = sigmoid(x.o + R.o @ c)
    return o * c, c


@cell
def tuned(x, R, p, h, c, *, slope=0.5, shift=-0.25):
    """Vectors and numbers, also a vector alone in a function and one that only a comparison sees."""
    a = tanh(x.a + p.u * (R.a @ h) + shift)
    c = slope * c + where(p.t < c, a, -a) * sigmoid(p.v)
    return c / (1 + slope), c


@cell
def three_stages(x, R, h):
    """A product of a product of a product, and a gate that later stages use again."""
    a = sigmoid(R.a @ h)
    b = tanh(x.b + R.b @ (a * h))
    return tanh(x.c + R.c @ (a + b)) * a


@cell
def still(x, R, h, c, k):
    """States that stay, are exchanged, or become constant."""
    return x.g + R.g @ c, h, 0.75


@cell
def linear(x, R, h):
    """The output is the pre-activation itself."""
    return x.g + R.g @ h


@cell
def of_input(x, R, p, h):
    """Operands that are an input projection, a vector, and a number."""
    return tanh(x.a + R.a @ x.b + R.b @ p.w) * h


@cell
def of_number(x, R, h, *, level=0.5):
    """An operand that is the same for all units and rows."""
    return tanh(x.a + R.a @ sigmoid(level) + 0.25 * h)


@cell
def exposed(x, R, h, c, k):
    """Terms of pre-activations that are results themselves."""
    product = R.a @ c
    return tanh(x.a + product), product, x.b + (x.c + R.c @ h) * 0.5


@cell
def gapped(x, R, h, c):
    """A product without an input between two that have one."""
    return tanh(x.a + R.a @ h), sigmoid(x.b * (R.b @ c) + x.c)


@cell
def chosen(x, R, h, c):
    """Choices between two numbers: a result, an operand, and a factor."""
    a = x.a + R.a @ where(c < h, 1.0, -0.1)
    return tanh(a) * where(h < x.a, 0.3, -0.7), where(c < a, 1.0, -1.0)


@cell
def everything(x, R, p, h, c, *, n=1.5):
    """Every operation there is."""
    a, b = x.a + R.a @ h, x.b - R.b @ c
    s = sqrt(1 + a * a) + log(2 + exp(-abs(b)))
    t = maximum(minimum(a, n), -n) + relu(b) - where(a >= b, p.v, c / (2 + b * b))
    u = where(c > 0, sigmoid(s), where(h <= p.v, tanh(t), +x.a))
    return u - 0.5 * h, -(s - t) / (1 + abs(s) + abs(t))


CELLS: dict[str, Cell] = {c.name: c for c in list(globals().values()) if isinstance(c, Cell)}


class _Product:
    """`R.g` for arrays: `R.g @ v` is v R_g^T + b_g for rows v (B, H), or for what is the same for all of them."""

    def __init__(self, matrix: np.ndarray, bias: np.ndarray) -> None:
        self.matrix, self.bias = matrix, bias

    def __matmul__(self, rows: Any) -> np.ndarray:
        return np.broadcast_to(rows, (*np.shape(rows)[:-1], len(self.bias))) @ self.matrix.T + self.bias


def step(spec: Spec, params: Mapping[str, np.ndarray], suffix: str, x: np.ndarray, state: tuple) -> tuple:
    """The states (B, H) after one step with the input x (B, I)."""
    H, cell = spec.hidden_size, spec.cell

    def blocks(name: str, gates: tuple[str, ...]) -> Arrays:
        value = params.get(name + suffix)
        return {g: np.zeros(H) if value is None else value[i * H : (i + 1) * H] for i, g in enumerate(gates)}

    W, b = blocks("weight_ih", cell.input_gates), blocks("bias_ih", cell.input_gates)
    R, b_R = blocks("weight_hh", cell.recurrent_gates), blocks("bias_hh", cell.recurrent_gates)
    arguments = dict(zip(cell.states, state, strict=True)) | dict(spec.numbers)
    if cell.vectors:
        arguments["p"] = SimpleNamespace(**{v: params[f"p_{v}{suffix}"] for v in cell.vectors})
    new = cell.fn(
        SimpleNamespace(**{g: x @ W[g].T + b[g] for g in cell.input_gates}),
        SimpleNamespace(**{g: _Product(R[g], b_R[g]) for g in cell.recurrent_gates}),
        **arguments,
    )
    return tuple(np.broadcast_to(s, state[0].shape) for s in (new if isinstance(new, tuple) else (new,)))


def evaluate(spec: Spec, tensors: Mapping[str, np.ndarray], lengths: Any = None) -> tuple[np.ndarray, tuple]:
    """Output and final state of a network, row by row. tensors: the parameters, "x", and the states as "h_0", ..."""
    below = tensors["x"]
    T, B, _ = below.shape
    ends = [T] * B if lengths is None else lengths
    final = tuple(tensors[f"{s}_0"].astype(float) for s in spec.cell.states)
    H = spec.hidden_size
    for layer in range(spec.num_layers):
        output = np.zeros((T, B, spec.output_size))
        for direction in range(spec.num_directions):
            k = layer * spec.num_directions + direction
            suffix = spec.suffixes()[k][2]
            for row, end in enumerate(ends):
                state = tuple(s[k, row : row + 1].copy() for s in final)
                for t in reversed(range(end)) if direction else range(end):
                    state = step(spec, tensors, suffix, below[t, row : row + 1], state)
                    output[t, row, direction * H : (direction + 1) * H] = state[0]
                for whole, part in zip(final, state, strict=True):
                    whole[k, row] = part[0]
        below = output
    return below, final


def problem(spec: Spec, T: int, B: int, seed: int = 0) -> tuple[Arrays, np.ndarray, tuple]:
    """Random tensors as `evaluate` takes them, doutput, and dstate."""
    rng = np.random.default_rng([seed, T, B])
    state_shape = (spec.num_layers * spec.num_directions, B, spec.hidden_size)
    wanted = shapes(spec) | {"x": (T, B, spec.input_size)} | {f"{s}_0": state_shape for s in spec.cell.states}
    tensors = {name: rng.normal(size=shape) * (1 if len(shape) == 3 else 0.6) for name, shape in wanted.items()}
    dstate = tuple(rng.normal(size=state_shape) for _ in spec.cell.states)
    return tensors, rng.normal(size=(T, B, spec.output_size)), dstate


def gradient_problems(
    spec: Spec, tensors: Arrays, doutput: np.ndarray, dstate: tuple, gradients: Arrays, lengths: Any = None
) -> list[str]:
    """The tensors whose gradient is not what a central difference along a random direction says.

    The loss is sum(output * doutput) + sum(state * dstate). One wrong element among the gradients is seen: the direction
    has a part in every element.
    """

    def loss(name: str, value: np.ndarray) -> float:
        output, final = evaluate(spec, tensors | {name: value}, lengths)
        return float(np.sum(output * doutput) + sum(np.sum(s * d) for s, d in zip(final, dstate, strict=True)))

    rng, half, problems = np.random.default_rng(1), 2.0**-17, []
    for name, value in tensors.items():
        direction = rng.uniform(0.5, 1, value.shape) * rng.choice([-1, 1], value.shape)
        slope = (loss(name, value + half * direction) - loss(name, value - half * direction)) / (2 * half)
        got = float(np.sum(gradients[name] * direction))
        if gradients[name].shape != value.shape or not abs(got - slope) < 1e-8 * (1 + abs(slope)):
            problems.append(f"{name}: {got} instead of {slope}")
    return problems + [f"{name} is no tensor" for name in gradients if name not in tensors]
