"""The word model trained on the CUDA backend: the loss curve of the NumPy backend to rounding, and not of other steps."""

from __future__ import annotations

import numpy as np
from task_checks import words_batch, words_model

from rnnbench.tasks.optimisers import Adam


def curve(backend: str, learning_rate: float = 0.02) -> list[float]:
    """The losses of two steps."""
    model, optimiser, losses = words_model(backend), Adam(learning_rate), []
    for seed in range(2):
        loss, gradients = model.gradients(words_batch(seed=seed))
        optimiser.step(model.params, gradients)
        model.changed()
        losses.append(loss.mean)
    return losses


def test_training_gives_the_same_loss_curve() -> None:
    right = curve("numpy")
    np.testing.assert_allclose(curve("numba-cuda"), right, rtol=1e-9)
    assert not np.allclose(curve("numpy", 0.0201), right, rtol=1e-9)
