"""Optimisers against PyTorch's, step for step; halving, sparse rows, clipping, and state that goes on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from rnnbench.tasks.layers import Rows
from rnnbench.tasks.optimisers import SGD, Adam, clip_by_global_norm

SHAPES = {"weight": (3, 4), "bias": (4,)}


def made(seed: int, dtype: str = "float64") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}


def torch_steps(make: Any, steps: int, clip: float | None = None) -> dict[str, np.ndarray]:
    torch = pytest.importorskip("torch")
    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in made(0).items()}
    optimiser = make(torch.optim)(list(tensors.values()))
    for step in range(steps):
        for name, gradient in made(step + 1).items():
            tensors[name].grad = torch.tensor(gradient)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(list(tensors.values()), clip)
        optimiser.step()
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("ours", "torchs", "clip"),
    [
        (SGD(0.1), lambda optim: lambda p: optim.SGD(p, lr=0.1), None),
        (SGD(0.1, momentum=0.9), lambda optim: lambda p: optim.SGD(p, lr=0.1, momentum=0.9), None),
        (Adam(0.1), lambda optim: lambda p: optim.Adam(p, lr=0.1), None),
        (Adam(0.01, 0.8, 0.9, 1e-3), lambda optim: lambda p: optim.Adam(p, 0.01, (0.8, 0.9), 1e-3), None),
        (Adam(0.1), lambda optim: lambda p: optim.Adam(p, lr=0.1), 0.7),
        (SGD(0.1), lambda optim: lambda p: optim.SGD(p, lr=0.1), 100.0),
    ],
    ids=["sgd", "momentum", "adam", "adam's numbers", "clipped", "not clipped"],
)
def test_steps_are_pytorchs(ours: Any, torchs: Any, clip: float | None) -> None:
    right, params = torch_steps(torchs, 7, clip), made(0)
    for step in range(7):
        gradients = made(step + 1)
        if clip is not None:
            clip_by_global_norm(gradients, clip)
        ours.step(params, gradients)
    for name in SHAPES:
        # PyTorch adds 1e-6 to the norm that it divides by
        np.testing.assert_allclose(params[name], right[name], rtol=1e-12 if clip is None else 1e-5)


@pytest.mark.parametrize("make", [lambda: SGD(0.1), lambda: SGD(0.1, 0.9), lambda: Adam(0.1)])
def test_rows_are_a_dense_gradient_with_zeros(make: Any) -> None:
    one, other, a, b = make(), make(), made(0), made(0)
    for step in range(3):
        rows = Rows((3, 4), np.array([step, 2]) if step < 2 else np.array([2]), np.ones((2 if step < 2 else 1, 4)))
        one.step(a, {"weight": rows})
        other.step(b, {"weight": rows.dense()})
    np.testing.assert_allclose(a["weight"], b["weight"], rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", [lambda: SGD(0.1, 0.9), lambda: Adam(0.1)])
def test_a_restored_optimiser_goes_on_to_the_same_bits(make: Any, dtype: str) -> None:
    whole, params, first, halves = make(), made(0, dtype), make(), made(0, dtype)
    for step in range(6):
        whole.step(params, made(step + 1, dtype))
    for step in range(3):
        first.step(halves, made(step + 1, dtype))
    second = make()
    second.restore({name: np.array(value) for name, value in first.state().items()}, halves)
    for step in range(3, 6):
        second.step(halves, made(step + 1, dtype))
    for name in SHAPES:
        assert params[name].dtype == dtype
        np.testing.assert_array_equal(params[name], halves[name])


@pytest.mark.parametrize("make", [SGD, Adam])
@pytest.mark.parametrize("touched", [[0], [6], [0, 3, 6], [], list(range(7))], ids=str)
def test_threads_divide_a_step_without_changing_it(
    make: Any, touched: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    start = {"dense": rng.standard_normal((7, 5)), "rows": rng.standard_normal((7, 5))}
    rows = Rows((7, 5), np.array(touched, np.intp), rng.standard_normal((len(touched), 5)))
    gradients = {"dense": rng.standard_normal((7, 5)), "rows": rows}
    results = []
    for threads in (1, 2):
        monkeypatch.setattr("rnnbench.tasks.optimisers._WORTH_A_THREAD", 1)
        monkeypatch.setattr("rnnbench.tasks.kernels.team.get_threads", lambda threads=threads: threads)
        params, optimiser = {name: array.copy() for name, array in start.items()}, make(learning_rate=0.1)
        optimiser.step(params, gradients)
        optimiser.step(params, gradients)
        results.append(params)
    for name in start:
        np.testing.assert_array_equal(results[0][name], results[1][name])
        assert (results[0][name] != start[name]).any() or (name == "rows" and not touched)


@pytest.mark.parametrize("make", [SGD, lambda: SGD(0.1, 0.9), Adam])
def test_an_array_of_another_size_is_refused_before_a_kernel_sees_it(make: Any) -> None:
    optimiser, small = make(), {"weight": np.zeros((2, 3))}
    for wrong in (np.ones(3), np.ones((3, 2)), np.ones((20, 30)), Rows((20, 3), np.array([19]), np.ones((1, 3)))):
        with pytest.raises(ValueError, match=r"the parameter weight has the shape \(2, 3\), and its gradient \("):
            optimiser.step(small, {"weight": wrong})
    assert not small["weight"].any()
    if make is SGD:
        return  # it remembers nothing
    optimiser.step(small, {"weight": np.ones((2, 3))})
    large = {"weight": np.zeros((200, 300))}
    with pytest.raises(ValueError, match=r"shape \(200, 300\), and its .* \(2, 3\); an optimiser belongs to one model"):
        optimiser.step(large, {"weight": np.ones((200, 300))})
    with pytest.raises(ValueError, match=r"shape \(200, 300\), and its .* \(2, 3\)"):
        make().restore(optimiser.state(), large)
    with pytest.raises(ValueError, match=r"float32, and its .* float64"):
        make().restore(optimiser.state(), {"weight": np.zeros((2, 3), np.float32)})
    assert not large["weight"].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": np.asarray(-5)}, "the running means after -5 steps"),
        ({"square.weight": None}, "are not those of the same parameters"),
        ({"learning_rate": np.asarray(np.nan)}, "learning_rate must be a finite number above 0, not nan"),
    ],
)
def test_what_adam_cannot_have_remembered_is_refused(change: dict[str, Any], message: str) -> None:
    optimiser, params = Adam(), {"weight": np.zeros((2, 3))}
    optimiser.step(params, {"weight": np.ones((2, 3))})
    state = {name: array for name, array in {**optimiser.state(), **change}.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        Adam().restore(state, params)


@pytest.mark.parametrize(
    ("index", "rows", "message"),
    [
        ([-1, 1], 2, "rows -1 to 1 of a sparse gradient lie outside"),
        ([0, 3], 2, "rows 0 to 3 of a sparse gradient lie outside"),
        ([1, 0], 2, "ascending and unique"),
        ([1, 1], 2, "ascending and unique"),
        ([0.0, 1.0], 2, "must be whole numbers"),
        ([0, 1], 1, r"2 rows of an array of \(3, 4\) cannot have the shape \(1, 4\)"),
    ],
)
def test_rows_that_are_not_an_arrays_are_refused(index: list[float], rows: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rows((3, 4), np.array(index), np.ones((rows, 4)))


def test_large_arrays() -> None:
    big = np.random.default_rng(0).standard_normal((3, 50_000))
    params, right = {"weight": big.copy()}, big - 0.5 * np.cos(big)
    SGD(0.5).step(params, {"weight": np.cos(big)})
    np.testing.assert_allclose(params["weight"], right)
    norm = clip_by_global_norm({"weight": big.copy()}, 1.0)
    assert norm == pytest.approx(np.linalg.norm(big))


def test_the_rate_halves_when_the_loss_rises_and_only_then() -> None:
    optimiser, rates = SGD(0.8, halve=True), []
    for loss in (3.0, 2.0, 2.0, 2.5, 2.4, 2.6):
        optimiser.end_of_epoch(loss)
        rates.append(optimiser.learning_rate)
    assert rates == [0.8, 0.8, 0.8, 0.4, 0.4, 0.2]
    again = SGD(0.8, halve=True)
    again.restore(optimiser.state(), {})
    again.end_of_epoch(2.7)
    assert again.learning_rate == 0.1
    plain = SGD(0.8)
    for loss in (1.0, 2.0):
        plain.end_of_epoch(loss)
    assert plain.learning_rate == 0.8


def test_clipping_keeps_directions_and_brings_the_norm_down() -> None:
    gradients = {"a": np.array([3.0, 0.0]), "b": Rows((5, 2), np.array([1]), np.array([[0.0, 4.0]]))}
    assert clip_by_global_norm(gradients, 10.0) == 5.0
    np.testing.assert_array_equal(gradients["a"], [3, 0])
    assert clip_by_global_norm(gradients, 1.0) == 5.0
    np.testing.assert_allclose(gradients["a"], [0.6, 0])
    np.testing.assert_allclose(gradients["b"].values, [[0, 0.8]])
    assert clip_by_global_norm({"a": np.full(4, 1e30, np.float32)}, 1.0) == pytest.approx(2e30)
    assert math.isnan(clip_by_global_norm({"a": np.array([np.nan])}, 1.0))


@pytest.mark.parametrize("broken", [math.inf, -math.inf, math.nan])
def test_gradients_that_are_not_finite_stay_as_they_are(broken: float) -> None:
    gradients = {"a": np.array([broken, 3.0]), "b": np.array([4.0])}
    assert not math.isfinite(clip_by_global_norm(gradients, 1.0))
    np.testing.assert_array_equal(gradients["a"], [broken, 3])
    np.testing.assert_array_equal(gradients["b"], [4])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(0.0), "learning_rate must be a finite number above 0, not 0.0"),
        (lambda: Adam(math.nan), "learning_rate must be a finite number above 0, not nan"),
        (lambda: SGD(0.1, momentum=1.0), "momentum must lie from 0 to below 1, not 1.0"),
        (lambda: Adam(0.1, beta1=-0.1), "beta1 must lie from 0"),
        (lambda: Adam(0.1, epsilon=0.0), "epsilon must be"),
        (lambda: clip_by_global_norm({}, -1.0), "limit must be a finite number above 0, not -1.0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [SGD, Adam])
def test_whole_numbers_are_refused(make: Any) -> None:
    """A learning rate of 0.1 would be 0 to an int64, and the kernels would read the bits of whole numbers as floats."""
    with pytest.raises(TypeError, match="^the parameter a must be float32 or float64, not int64$"):
        make().step({"a": np.ones(40, np.int64)}, {"a": np.ones(40)})
    with pytest.raises(TypeError, match="^the gradient of a must be float32 or float64, not int64$"):
        clip_by_global_norm({"a": np.ones(40, np.int64)}, 1.0)
