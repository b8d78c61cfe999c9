"""Gradients through whole models in float64, and one loss curve on all backends: ours, and PyTorch's."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from task_checks import dense_model, words_batch, words_model, worst_difference

from rnnbench import RNN
from rnnbench.backends import OWN
from rnnbench.tasks.layers import Dense, Embedding, dense
from rnnbench.tasks.model import Batch, SequenceModel
from rnnbench.tasks.optimisers import SGD, Adam, clip_by_global_norm

# central differences of a loss of about 10 in float64 at a step of 1e-5: 1e-10 of the step's cube, as much of rounding
TOLERANCE = 2e-9


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"per": "row"},
        {"num_layers": 2, "bidirectional": True},
        {"every_step": False},
        {"every_step": False, "num_layers": 2, "bidirectional": True},
    ],
    ids=str,
)
def test_gradients_through_the_whole_model(options: dict[str, Any]) -> None:
    every_step = options.get("every_step", True)
    model, batch = words_model(**options), words_batch(every_step)
    loss, gradients = model.gradients(batch)
    assert loss == model.loss(batch) and set(gradients) == set(model.params)
    count = 3 if options.get("per") == "row" else loss.count
    assert worst_difference(model, batch, gradients, 1 / count) < TOLERANCE
    # words that did not occur have no gradient at all
    assert not dense(gradients["embedding.weight"])[6:].any()


@pytest.mark.parametrize("loss", ["softmax", "squares"])
def test_gradients_through_a_dense_first_layer(loss: str) -> None:
    model, rng = dense_model(loss=loss), np.random.default_rng(0)
    targets = rng.integers(0, 4, 7) if loss == "softmax" else rng.standard_normal((7, 4))
    batch = Batch(rng.standard_normal((5, 7, 3)), targets)
    assert worst_difference(model, batch, model.gradients(batch)[1], 1 / 7) < TOLERANCE


def test_more_rows_than_the_output_layer_takes_at_a_time() -> None:
    rng = np.random.default_rng(0)
    model = words_model()
    batch = Batch(rng.integers(0, 11, (30, 20)), rng.integers(0, 7, (30, 20)), rng.integers(0, 31, 20))
    assert worst_difference(model, batch, model.gradients(batch)[1], 1 / model.loss(batch).count) < TOLERANCE


@pytest.mark.parametrize("backend", [name for name in OWN if name != "numpy"])
def test_other_backends_have_the_same_gradients(backend: str) -> None:
    model, right, batch = words_model(backend), words_model(), words_batch()
    loss, gradients = model.gradients(batch)
    expected_loss, expected = right.gradients(batch)
    assert loss.total == pytest.approx(expected_loss.total, rel=1e-13)
    for name, gradient in expected.items():
        np.testing.assert_allclose(dense(gradients[name]), dense(gradient), atol=1e-13)


@pytest.mark.parametrize("fault", ["rnn.weight_hh_l0", "rnn.bias_ih_l0", "embedding.weight", "output.weight"])
def test_the_check_by_differences_sees_a_fault(fault: str) -> None:
    model, batch = words_model(), words_batch()
    loss, gradients = model.gradients(batch)
    gradients[fault] = dense(gradients[fault]) * 1.001
    assert worst_difference(model, batch, gradients, 1 / loss.count) > TOLERANCE


def curve(model: SequenceModel, optimiser: Any, steps: int = 30) -> list[float]:
    losses = []
    for step in range(steps):
        loss, gradients = model.gradients(words_batch(seed=step % 5))
        clip_by_global_norm(gradients, 1.0)
        optimiser.step(model.params, gradients)
        model.changed()
        losses.append(loss.mean)
    return losses


@pytest.mark.parametrize("make", [lambda: Adam(0.02), lambda: SGD(0.3, momentum=0.5)], ids=["adam", "momentum"])
def test_every_backend_gives_the_same_loss_curve(make: Any) -> None:
    right = curve(words_model(), make())
    assert right[-1] < right[0] - 0.2
    for backend in OWN:
        np.testing.assert_allclose(curve(words_model(backend), make()), right, rtol=1e-9)


@pytest.mark.parametrize("first", [Embedding("first", 11, 5), Dense("first", 3, 5)], ids=["embedding", "dense"])
def test_parameters_that_became_float64_are_the_models_dtype_again(first: Any) -> None:
    """p - rate * g is float64 with a rate of np.float64, as most schedules give."""
    rng = np.random.default_rng(0)
    model = SequenceModel(RNN("lstm", 5, 6, backend="numpy"), 40, first, every_step=True)
    x = rng.integers(0, 11, (4, 3)) if isinstance(first, Embedding) else rng.standard_normal((4, 3, 3)).astype("f4")
    batch = Batch(x, rng.integers(0, 40, (4, 3)))
    loss = model.loss(batch)
    model.params["output.weight"] = model.params["output.weight"].astype(np.float64)
    with pytest.raises(ValueError, match="out must be float64 like output.weight, not float32"):
        model.loss(batch)  # nobody has called `changed`
    for name, array in model.params.items():
        model.params[name] = np.asfortranarray(array, np.float64)
    model.changed()
    assert {array.dtype.name for array in model.params.values()} == {"float32"}
    assert all(array.flags.c_contiguous for array in model.params.values())
    assert model.loss(batch) == loss and model.gradients(batch)[0] == loss
    kept = dict(model.params)
    model.changed()
    assert all(model.params[name] is array for name, array in kept.items())  # copied only if necessary
    model.params["output.bias"] = model.params["output.bias"] * 1j
    with pytest.raises(TypeError, match="complex64.*float32"):
        model.changed()


def test_a_curve_of_other_steps_is_another_curve() -> None:
    right = curve(words_model(), Adam(0.02))
    assert not np.allclose(curve(words_model(), Adam(0.0201)), right, rtol=1e-9)
    assert not np.allclose(curve(words_model(seed=1), Adam(0.02)), right, rtol=1e-9)


@pytest.mark.parametrize(("optimiser", "per", "clip"), [("adam", "prediction", 0.5), ("sgd", "row", None)])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_pytorch_takes_the_same_steps(cell: str, optimiser: str, per: str, clip: float | None) -> None:
    pytest.importorskip("torch")
    from rnnbench.tasks.torch_twin import TorchTwin

    rnn = RNN(cell, 5, 6, backend="numpy", dtype="float64")
    model = SequenceModel(rnn, 7, Embedding("embedding", 11, 5), every_step=True, per=per)
    batch = words_batch()
    twin = TorchTwin(model, optimiser, 0.05, clip)
    native = twin.put(batch)
    loss, gradients = model.gradients(batch)
    assert twin.gradients(native) == pytest.approx(loss.mean, rel=1e-13)
    for name, gradient in twin.named_gradients().items():
        np.testing.assert_allclose(dense(gradients[name]), gradient, atol=1e-14)
    ours: Any = Adam(0.05) if optimiser == "adam" else SGD(0.05)
    for _ in range(10):
        loss, gradients = model.gradients(batch)
        if clip is not None:
            clip_by_global_norm(gradients, clip)
        ours.step(model.params, gradients)
        model.changed()
        assert twin.step(native) == pytest.approx(loss.mean, rel=1e-5 if clip else 1e-12)


def test_the_twin_refuses_what_it_is_no_twin_of() -> None:
    pytest.importorskip("torch")
    from rnnbench.tasks.torch_twin import TorchTwin

    with pytest.raises(ValueError, match="no layer for lstm with {'forget_bias': 1.0}"):
        TorchTwin(words_model(forget_bias=1.0))
    with pytest.raises(ValueError, match="a prediction at every step"):
        TorchTwin(words_model(every_step=False))


def test_predictions() -> None:
    model, batch = words_model(), words_batch()
    predicted = model.predict(batch.x, batch.lengths)
    assert predicted.shape == (4, 3, 7) and not predicted[2:, 1].any() and predicted[0].all()
    last = words_model(every_step=False)
    assert last.predict(batch.x, batch.lengths).shape == (3, 7)
    # of the last valid step, whatever the padding holds
    other = batch.x.copy()
    other[2:, 1] = 10
    np.testing.assert_array_equal(last.predict(other, batch.lengths), last.predict(batch.x, batch.lengths))


@pytest.mark.parametrize("per", ["prediction", "row"])
def test_a_batch_without_a_prediction_has_no_gradients(per: str) -> None:
    batch = words_batch()._replace(lengths=np.zeros(3, int))
    model = words_model(per=per)
    with pytest.raises(ValueError, match="^every row of the batch has length 0, so there is nothing to predict"):
        model.gradients(batch)
    assert model.loss(batch).count == 0


def test_what_does_not_fit_is_refused() -> None:
    rnn = RNN("lstm", 5, 6, backend="numpy")
    with pytest.raises(ValueError, match="the first layer is 4 wide and the network reads 5"):
        SequenceModel(rnn, 7, Dense("input", 3, 4))
    with pytest.raises(ValueError, match="loss is softmax or squares"):
        SequenceModel(rnn, 7, loss="hinge")
    with pytest.raises(ValueError, match="per is prediction or row, not 'softmax' and 'batch'"):
        SequenceModel(rnn, 7, per="batch")
    assert dataclasses.asdict(SequenceModel(rnn, 7).loss(Batch(np.zeros((2, 1, 5)), np.array([0]))))["count"] == 1
