"""The expected results of a case: from the hand-written reference or, for a user's cell, from the user's own equation.

A built-in cell's oracle is `rnnbench.reference`. A user's cell has none, but its equation is an ordinary Python
function: called with NumPy arrays in place of symbols, once for each time step, it gives what the network computes
without any of the code that traces, derives and emits. Gradients come from the NumPy backend in float64,
after directional central differences of that direct evaluation have confirmed them for every tensor.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnnbench import cells, reference
from rnnbench.bench.cases import Case
from rnnbench.bench.data import Data, make
from rnnbench.bench.session import Session
from rnnbench.bench.stored import Format, as_stored
from rnnbench.bench.tolerance import GAIN
from rnnbench.params import Spec

Array = NDArray[Any]


class OracleError(RuntimeError):
    """There are no expected results to compare with; the message says why. Counts as a failure, never as a pass."""


def expected(case: Case, stored: Format | None = None) -> dict[str, Array]:
    """Every result of a case in float64, under the names of `Session.result`. case.backend does not matter.

    stored: what recurrent weights are rounded to, see `bench.stored`; None leaves them.

    Raises OracleError if a user's equation cannot be checked.
    """
    return _expected(case, stored, cells.find(case.cell))


def forget() -> None:
    """Clear the cached results, for tests that replace the NumPy backend."""
    _expected.cache_clear()
    _confirm_gradients.cache_clear()


# A case names its cell, and editing a user's file changes what that name means; so the cell itself is part of the cache keys
# below. Its digest would not do: it does not cover the defaults of numbers.


@lru_cache(maxsize=1)  # all backends are compared on one case before the next
def _expected(case: Case, stored: Format | None, cell: cells.Cell) -> dict[str, Array]:
    data = in_float64(make(case))
    data = dataclasses.replace(data, params=as_stored(data.params, stored))
    if not by_equation(case):
        results = _from_reference(case, data)
    else:
        results = direct(case, data)
        _require_finite(case, results)  # differences of infinite values mean nothing
        if case.direction == "train":
            confirm_gradients(_small(case))
            float64 = dataclasses.replace(case, backend="numpy", dtype="float64")
            session = Session(float64, data)
            answers = session.result(session.run())
            results |= {name: value for name, value in answers.items() if name not in results}
    _require_finite(case, results)
    return results


def by_equation(case: Case) -> bool:
    """Whether the equation itself is the oracle: of a user's cell, and of a projection, which the reference has not."""
    return case.cell not in reference.CELLS or case.spec.proj_size > 0


def _require_finite(case: Case, results: dict[str, Array]) -> None:
    for name, value in results.items():
        if not np.isfinite(value).all():
            raise OracleError(
                f"{name} is not finite in float64: the equation of {case.cell} overflows, divides by zero, or takes "
                "the log or sqrt of a negative number"
            )


def in_float64(data: Data) -> Data:
    """The same numbers, exactly: float32 is a subset of float64."""

    def wide(value: Array) -> Array:
        return value.astype(np.float64)

    return Data(
        {name: wide(value) for name, value in data.params.items()},
        wide(data.x),
        tuple(wide(s) for s in data.state),
        data.lengths,
        wide(data.doutput),
        tuple(wide(d) for d in data.dstate),
    )


def _from_reference(case: Case, data: Data) -> dict[str, Array]:
    spec = case.spec
    options: dict[str, Any] = {"num_layers": case.num_layers, "bidirectional": case.bidirectional, **spec.numbers}
    if spec.reverse:
        data = dataclasses.replace(data, x=_turned(data.x, data), doutput=_turned(data.doutput, data))
    start = (case.cell, data.params, data.x, data.state, data.lengths)
    gradients: dict[str, Array] = {}
    if case.direction == "forward":
        output, state = reference.forward(*start, **options)
    else:
        output, state, gradients = reference.backward(*start, data.doutput, data.dstate, **options)
    if spec.reverse:
        output = _turned(output, data)
        gradients |= {"x": _turned(gradients["x"], data)} if gradients else {}
    return _named(case, output, state) | {f"d{name}": value for name, value in gradients.items()}


def _turned(array: Array, data: Data) -> Array:
    """The array (T, B, ...) with each row's steps up to its length in the reverse order. It undoes itself."""
    steps, rows = np.indices(array.shape[:2])
    ends = len(array) if data.lengths is None else data.lengths
    return array[np.where(steps < ends, ends - 1 - steps, steps), rows]


def _named(case: Case, output: Array, state: tuple[Array, ...]) -> dict[str, Array]:
    return {"output": output} | {f"{n}_n": s for n, s in zip(case.spec.cell.states, state, strict=True)}


# --- a user's equation, evaluated directly ------------------------------------------------------------


class _Value(np.lib.mixins.NDArrayOperatorsMixin):
    """An array that equations cannot modify: `a += b` makes a new value, as it does when an equation is traced."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> _Value:
        return _Value(getattr(ufunc, method)(*map(_array, inputs), **options))

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> _Value:
        return _Value(function(*map(_array, arguments), **options))


def _array(value: Any) -> Any:
    return value.array if isinstance(value, _Value) else value


class _Product:
    """`R.g` for arrays: `R.g @ v` is v R_g^T + b_g for a batch of rows v (B, H)."""

    def __init__(self, matrix: Array, bias: Array) -> None:
        self.matrix, self.bias = matrix, bias

    def __matmul__(self, value: Any) -> _Value:
        # what depends on numbers alone is the same for every unit
        rows, width = _array(value), self.matrix.shape[1]
        rows = np.broadcast_to(rows, np.broadcast_shapes(np.shape(rows), (width,)))
        return _Value(rows @ self.matrix.T + self.bias)


class _Named:
    """x, R or p of an equation. A name that does not affect the result has no parameters; it gets `other` instead."""

    def __init__(self, other: Any, values: dict[str, Any]) -> None:
        self._other, self._values = other, values

    def __getattr__(self, name: str) -> Any:
        return self._values.get(name, self._other)


@np.errstate(all="ignore")  # `expected` reports what is not finite
def direct(case: Case, data: Data) -> dict[str, Array]:
    """Output and final states of a case by calling the cell's function on float64 arrays, step by step."""
    spec = case.spec
    T, B, width = case.seq_len, case.batch_size, spec.state_sizes[0]
    lengths = np.full(B, T) if data.lengths is None else data.lengths
    final = tuple(s.copy() for s in data.state)
    below = data.x
    for layer in range(case.num_layers):
        output = np.zeros((T, B, spec.output_size))
        for reading in range(case.num_directions):
            k = layer * case.num_directions + reading
            suffix = f"_l{layer}" + "_reverse" * reading
            columns = slice(reading * width, (reading + 1) * width)
            backwards = spec.reads_backwards(reading)
            for length in np.unique(lengths):  # sequences of equal length together: no padding to get wrong
                rows = np.flatnonzero(lengths == length)
                state = tuple(s[k, rows] for s in data.state)
                for t in range(length - 1, -1, -1) if backwards else range(length):
                    state = _step(spec, data.params, suffix, below[t, rows], state)
                    output[t, rows, columns] = state[0]
                for s_all, s in zip(final, state, strict=True):
                    s_all[k, rows] = s
        below = output
    return _named(case, below, final)


def _step(spec: Spec, params: dict[str, Array], suffix: str, x: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
    """The new states (B, H), and with a projection h (B, P), after one step with input x (B, I)."""
    cell, H = spec.cell, spec.hidden_size

    def blocks(name: str, gates: tuple[str, ...]) -> dict[str, Array]:
        value = params.get(name + suffix)
        return {g: np.zeros(H) if value is None else value[i * H : (i + 1) * H] for i, g in enumerate(gates)}

    W, b = blocks("weight_ih", cell.input_gates), blocks("bias_ih", cell.input_gates)
    R, b_R = blocks("weight_hh", cell.recurrent_gates), blocks("bias_hh", cell.recurrent_gates)
    nothing = np.zeros(H)
    inputs = _Named(_Value(nothing), {g: _Value(x @ W[g].T + b[g]) for g in cell.input_gates})
    products = _Named(_Product(np.zeros((H, H)), nothing), {g: _Product(R[g], b_R[g]) for g in cell.recurrent_gates})
    arguments: dict[str, Any] = dict(zip(cell.states, map(_Value, state), strict=True)) | dict(spec.numbers)
    if "p" not in arguments and "p" in inspect.signature(cell.fn).parameters:  # a number may be called p, too
        arguments["p"] = _Named(_Value(nothing), {v: _Value(params[f"p_{v}{suffix}"]) for v in cell.vectors})
    new = cell.fn(inputs, products, **arguments)
    values = [np.broadcast_to(_array(s), (len(x), H)) for s in (new if isinstance(new, (tuple, list)) else (new,))]
    if spec.proj_size:
        values[0] = values[0] @ params[f"weight_hr{suffix}"].T
    return tuple(values)


_LARGE = 0.1  # a relative change of results that is no longer proportional to the change of the data


@np.errstate(all="ignore")
def gain(case: Case) -> float:
    """How much a user's equation amplifies a small relative change of all its data, at least GAIN. In float64.

    Infinity if a change in the tenth digit ends as one of the size of the results, which has stopped its growth.
    """
    data, rng = in_float64(make(case)), np.random.default_rng(case.seed)
    small = 2.0**-30

    def near(value: Array) -> Array:
        return value * (1 + small * rng.uniform(-1, 1, value.shape))

    params = {name: near(value) for name, value in data.params.items()}
    moved = dataclasses.replace(data, params=params, x=near(data.x), state=tuple(near(s) for s in data.state))
    there, here = direct(case, moved), direct(case, data)
    changes = [float(np.linalg.norm(there[n] - here[n])) / max(float(np.linalg.norm(here[n])), 1e-300) for n in here]
    return math.inf if max(changes) > _LARGE else max(GAIN, 2 * max(changes) / small)


@np.errstate(all="ignore")
def sensitivity(case: Case) -> float:
    """How much a user's equation amplifies, in its gradients, a small relative change of the values saved for the backward pass. In
    float64, on the NumPy backend; 0 in inference.
    """
    if case.direction != "train":
        return 0.0
    session = Session(dataclasses.replace(case, backend="numpy", dtype="float64"), in_float64(make(case)))
    rng, small = np.random.default_rng(case.seed), 2.0**-30
    tape: Any = session.network.forward(session.x, session.state, session.lengths, True)[2]

    def gradients() -> dict[str, Array]:
        return {n: d.copy() for n, d in session.network.backward(tape, session.doutput, session.dstate).items()}

    here = gradients()
    parts = [part for layer in tape.layers for part in layer]
    for kept in (array for p in parts for array in (*itertools.chain(*p.saved), *p.states, *p.operands)):
        kept *= 1 + small * rng.uniform(-1, 1, kept.shape)
    there = gradients()
    changes = [float(np.linalg.norm(there[n] - here[n])) / max(float(np.linalg.norm(here[n])), 1e-300) for n in here]
    return max(changes) / small


# --- gradients by central differences ----------------------------------------------------------------


def _small(case: Case) -> Case:
    """The case in float64 on the NumPy backend, at sizes where differences are cheap, with the same structure."""
    return dataclasses.replace(
        case,
        backend="numpy",
        dtype="float64",
        seq_len=min(case.seq_len, 6),
        batch_size=min(case.batch_size, 3),
        input_size=min(case.input_size, 7),
        hidden_size=min(case.hidden_size, 17),
    )


# random ones for each tensor
_DIRECTIONS = 2
# The first is best for a smooth equation; the shorter ones cross fewer jumps if there are many, but round more.
_STEPS = (1e-4, 1e-4, 1e-5, 1e-6)


def confirm_gradients(case: Case) -> None:
    """Check the NumPy backend's float64 gradients against the equation itself, in random directions of every tensor.

    The loss is <doutput, output> + <dstate, final state>. Along a direction v its derivative is <gradient, v>, and
    (loss(+h v) - loss(-h v)) / 2h up to h^2; the same with h / 2 gives an error a quarter as large, so their
    difference bounds the error of their extrapolation; with a small jump the error is at most 7/3 of that. A direction
    that crosses a kink or a jump shows as a large difference; another one is drawn, later with shorter steps.

    case: in float64 on NumPy, of small sizes.

    Raises OracleError naming the first tensor whose gradient disagrees.
    """
    _confirm_gradients(case, cells.find(case.cell))


@lru_cache(maxsize=64)
@np.errstate(all="ignore")
def _confirm_gradients(case: Case, cell: cells.Cell) -> None:
    data, rng = make(case), np.random.default_rng([case.seed, 2])
    session = Session(case, data)
    answers = session.result(session.run())
    tensors = {
        **data.params,
        "x": data.x,
        **{f"{n}_0": s for n, s in zip(case.spec.cell.states, data.state, strict=True)},
    }
    rounding = 2.0**-53 * float(np.abs(data.doutput).sum() + sum(np.abs(d).sum() for d in data.dstate))
    for name, tensor in tensors.items():
        gradient = answers.get(f"d{name}")
        if gradient is None or gradient.shape != tensor.shape:
            raise OracleError(f"the NumPy backend gives no gradient of {name} with shape {tensor.shape}")
        confirmed = 0
        for h in np.repeat(_STEPS, _DIRECTIONS):
            v = rng.standard_normal(tensor.shape)
            found, error = slope(_loss(case, data, name, v), h, rounding)
            size = float(np.linalg.norm(gradient) * np.linalg.norm(v)) / max(1.0, np.sqrt(v.size))
            size = max(size, 1e-3)
            if error > 1e-5 * size:
                continue
            difference, allowed = abs(found - float(np.vdot(gradient, v))), 3 * error + 1e-9 * size
            if not difference <= allowed:  # NaN too
                raise OracleError(
                    f"the derived gradient of {name} disagrees with central differences of the equation of {case.cell} "
                    f"by {difference:.1e}; at most {allowed:.1e} comes from the differences"
                )
            confirmed += 1
            if confirmed == _DIRECTIONS:
                break
        if not confirmed:
            raise OracleError(
                f"the gradient of {name} cannot be confirmed: {case.cell} is not smooth, or bends too sharply, "
                "in every direction tried"
            )


def _loss(case: Case, data: Data, name: str, v: Array) -> Callable[[float], float]:
    """The loss as a function of the distance by which the tensor `name` is moved along v."""

    def loss(step: float) -> float:
        results = direct(case, _moved(case, data, name, step * v))
        total = float(np.vdot(data.doutput, results["output"]))
        for state, d in zip(case.spec.cell.states, data.dstate, strict=True):
            total += float(np.vdot(d, results[f"{state}_n"]))
        return total

    return loss


def slope(loss: Callable[[float], float], h: float, rounding: float) -> tuple[float, float]:
    """The derivative of `loss` at 0 from differences with step h, and a measure of its error.

    rounding: of the loss. A kink right at 0 affects both differences equally, so that they agree. It shows in the second difference
    divided by the step: when the step is halved this halves if the loss is smooth, and stays if it has a kink.
    """
    here, far, near = loss(0.0), (loss(h), loss(-h)), (loss(h / 2), loss(-h / 2))
    coarse, fine = (far[0] - far[1]) / (2 * h), (near[0] - near[1]) / h
    bend = 2 * (sum(near) - 2 * here) / (h / 2) - (sum(far) - 2 * here) / h
    return (4 * fine - coarse) / 3, abs(fine - coarse) + abs(bend) + rounding / h


def _moved(case: Case, data: Data, name: str, by: Array) -> Data:
    if name == "x":
        return dataclasses.replace(data, x=data.x + by)
    if name in data.params:
        return dataclasses.replace(data, params=data.params | {name: data.params[name] + by})
    k = case.spec.cell.states.index(name.removesuffix("_0"))
    return dataclasses.replace(data, state=(*data.state[:k], data.state[k] + by, *data.state[k + 1 :]))
