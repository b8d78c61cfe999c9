"""Losses against their definition written out in float64, at the edges of what numbers can be, and by differences."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rnnbench.tasks.losses import Loss, mean_squared_error, softmax_cross_entropy, valid

RNG = np.random.default_rng(0)


def by_definition(logits: np.ndarray, targets: np.ndarray) -> float:
    """-log softmax, one row after the other."""
    total = 0.0
    for row, target in zip(logits.reshape(-1, logits.shape[-1]).astype(float), targets.reshape(-1), strict=True):
        total -= row[target] - math.log(sum(math.exp(v) for v in row))
    return total


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_cross_entropy_is_its_definition(dtype: str) -> None:
    logits = RNG.standard_normal((4, 3, 5)).astype(dtype)
    targets = RNG.integers(0, 5, (4, 3))
    loss, gradient = softmax_cross_entropy(logits, targets)
    assert loss.total == pytest.approx(by_definition(logits, targets), rel=20 * float(np.finfo(dtype).eps))
    assert loss.count == 12 and loss.correct == np.count_nonzero(logits.argmax(2) == targets)
    assert loss.mean == loss.total / 12 and loss.perplexity == pytest.approx(math.exp(loss.mean))
    assert loss.accuracy == loss.correct / 12
    assert gradient.shape == logits.shape and gradient.dtype == dtype
    np.testing.assert_allclose(gradient.sum(-1), 0, atol=10 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("classes", [1, 7, 8, 15, 16, 17, 40, 131])
def test_rows_of_any_length_whole_vectors_and_rests(classes: int, dtype: str) -> None:
    logits = 30 * RNG.standard_normal((9, classes)).astype(dtype)
    targets = RNG.integers(0, classes, 9)
    kept, eps = logits.copy(), float(np.finfo(dtype).eps)
    loss, gradient = softmax_cross_entropy(logits, targets)
    exact = logits.astype(np.longdouble) - logits.max(1, keepdims=True)
    soft = np.exp(exact) / np.exp(exact).sum(1, keepdims=True)
    right = soft.copy()
    right[np.arange(9), targets] -= 1
    # an exponent of up to 200 was rounded before its power was taken
    np.testing.assert_allclose(gradient, right.astype(float), rtol=200 * eps, atol=4 * eps)
    assert loss.total == pytest.approx(-float(np.log(soft[np.arange(9), targets]).sum()), rel=200 * eps, abs=20 * eps)
    np.testing.assert_array_equal(logits, kept)


def test_a_target_is_right_when_its_logit_is_the_first_of_the_largest() -> None:
    logits = np.zeros((4, 40), np.float32)
    logits[2, [20, 35]], logits[3, 39] = 1, -1
    found = [
        softmax_cross_entropy(logits, np.array(t))[0].correct for t in ([0, 1, 20, 0], [1, 0, 35, 39], [39, 38, 2, 1])
    ]
    assert found == [3, 1, 0]
    # a class that is impossible takes no part
    logits[0, 0] = -np.inf
    loss, gradient = softmax_cross_entropy(logits[:1], np.array([1]))
    assert loss.correct == 1 and loss.total == pytest.approx(math.log(39)) and gradient[0, 0] == 0


def differences(logits: np.ndarray, targets: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    found, step = np.zeros_like(logits), 1e-5
    for place in np.ndindex(*logits.shape):
        moved = logits.copy()
        moved[place] += step
        up = softmax_cross_entropy(moved, targets, lengths)[0].total
        moved[place] -= 2 * step
        found[place] = (up - softmax_cross_entropy(moved, targets, lengths)[0].total) / (2 * step)
    return found


@pytest.mark.parametrize("lengths", [None, np.array([4, 0, 2])])
def test_the_gradient_is_the_derivative(lengths: np.ndarray | None) -> None:
    logits, targets = RNG.standard_normal((4, 3, 5)), RNG.integers(0, 5, (4, 3))
    right = differences(logits, targets, lengths)
    np.testing.assert_allclose(softmax_cross_entropy(logits, targets, lengths)[1], right, atol=1e-9)
    np.testing.assert_allclose(softmax_cross_entropy(logits, targets, lengths, scale=0.25)[1], right / 4, atol=1e-9)
    # and the check sees a gradient whose target was forgotten, and one of the padding
    soft = softmax_cross_entropy(logits, targets, lengths)[1]
    np.put_along_axis(soft, targets[..., None], np.take_along_axis(soft, targets[..., None], 2) + 1, 2)
    assert not np.allclose(soft, right, atol=1e-9)


def test_what_lies_past_a_rows_end_does_not_count() -> None:
    logits, targets, lengths = RNG.standard_normal((4, 3, 5)), RNG.integers(0, 5, (4, 3)), np.array([4, 0, 2])
    inside = valid(lengths, 4)
    right = softmax_cross_entropy(logits[inside], targets[inside])[0]
    logits[~inside], targets[~inside] = np.nan, -1
    loss, gradient = softmax_cross_entropy(logits, targets, lengths)
    assert (loss.count, loss.correct) == (6, right.correct) and loss.total == pytest.approx(right.total)
    assert not gradient[~inside].any()


@pytest.mark.parametrize("size", [1e2, 1e4, 3e38])
def test_large_logits_overflow_nowhere(size: float) -> None:
    logits = np.array([[size, 0, -size], [-size, 0, size]], np.float32)
    loss, gradient = softmax_cross_entropy(logits, np.array([0, 1]))
    assert loss.total == pytest.approx(size, rel=1e-6) and np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient, [[0, 0, 0], [0, -1, 1]], atol=1e-30)


def test_a_loss_of_what_is_not_finite_is_not_finite() -> None:
    for bad in (np.nan, np.inf):
        logits = np.zeros((2, 3), np.float32)
        logits[0, 1] = bad
        assert math.isnan(softmax_cross_entropy(logits, np.array([0, 0]))[0].total)


def test_the_gradient_may_take_the_place_of_the_logits() -> None:
    logits, targets = RNG.standard_normal((6, 5)), RNG.integers(0, 5, 6)
    loss, right = softmax_cross_entropy(logits, targets)
    again, gradient = softmax_cross_entropy(logits, targets, out=logits)
    assert gradient is logits and again == loss
    np.testing.assert_array_equal(gradient, right)


@pytest.mark.parametrize(
    ("targets", "lengths", "message"),
    [
        (np.zeros((4, 3)), None, "whole numbers, not float64"),
        (np.zeros((4, 2), int), None, r"must have shape \(4, 3\), not \(4, 2\)"),
        (np.full((4, 3), 5), None, "between 0 and 4; they span 5 to 5"),
        (np.full((4, 3), -1), None, "they span -1 to -1"),
        (np.zeros((4, 3), int), np.array([4, 4]), r"these are \(2,\)"),
        (np.zeros((4, 3), int), np.array([1.5, 2, 4]), "lengths must be whole numbers, not float64"),
        (np.zeros((4, 3), int), np.array([True, False, True]), "lengths must be whole numbers, not bool"),
        (np.zeros((4, 3), int), np.array([4, -1, 9]), "lengths must lie between 0 and 4; they span -1 to 9"),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets: np.ndarray, lengths: np.ndarray | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        softmax_cross_entropy(np.zeros((4, 3, 5)), targets, lengths)


def test_logits_and_places_that_do_not_fit_are_refused() -> None:
    logits, targets = np.zeros((4, 5), np.float32), np.zeros(4, int)
    with pytest.raises(TypeError, match="float32 or float64, not float16"):
        softmax_cross_entropy(logits.astype(np.float16), targets)
    for out in (np.zeros((5, 4), np.float32), np.zeros((4, 5)), np.zeros((4, 10), np.float32)[:, ::2]):
        with pytest.raises(ValueError, match="out must be C-contiguous"):
            softmax_cross_entropy(logits, targets, out=out)
    # logits themselves may lie anywhere
    wide = RNG.standard_normal((4, 80)).astype(np.float32)
    assert softmax_cross_entropy(wide[:, ::2], targets)[0] == softmax_cross_entropy(wide[:, ::2].copy(), targets)[0]
    assert softmax_cross_entropy(logits[:0], targets[:0])[0] == Loss()


def test_squared_errors() -> None:
    outputs, targets = RNG.standard_normal((4, 2)), RNG.standard_normal((4, 2))
    loss, gradient = mean_squared_error(outputs, targets, scale=0.5)
    assert loss.total == pytest.approx(((outputs - targets) ** 2).sum()) and loss.count == 4
    np.testing.assert_allclose(gradient, outputs - targets)
    with pytest.raises(ValueError, match="same shape"):
        mean_squared_error(outputs, targets[0])
    # 2 * 0.25 would be 0 in their dtype, and 200 - 250 overflows
    with pytest.raises(TypeError, match="outputs must be float32 or float64, not uint8"):
        mean_squared_error(np.full((4, 2), 200, np.uint8), np.full((4, 2), 250, np.uint8), scale=0.25)


def test_losses_add_up_and_no_loss_has_no_mean() -> None:
    assert Loss(1.0, 2, 1) + Loss(3.0, 2, 0) == Loss(4.0, 4, 1)
    assert math.isnan(Loss().mean) and math.isnan(Loss().accuracy) and math.isnan(Loss().perplexity)
    assert Loss(16.0, 2).perplexity == math.exp(8) and Loss(1e6, 1).perplexity < math.inf


def test_many_classes_are_worked_on_in_blocks() -> None:
    logits, targets = RNG.standard_normal((40, 5000)), RNG.integers(0, 5000, 40)
    loss, gradient = softmax_cross_entropy(logits, targets)
    assert loss.total == pytest.approx(by_definition(logits, targets), rel=1e-13)
    soft = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    soft[np.arange(40), targets] -= 1
    np.testing.assert_allclose(gradient, soft, atol=1e-15)
