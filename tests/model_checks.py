"""Gradients of whole models from their losses alone, for tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rnnbench.tasks.layers import Gradients, Params, Rows


def wrong_gradients(
    params: Params, changed: Callable[[], None], loss: Callable[[], float], gradients: Gradients, each: int = 6
) -> dict[str, float]:
    """Name -> largest difference from central differences, for the gradients that are further away than these can be (float64).

    params: changed in place and back, `changed` called each time. loss: of the parameters as they are. each: elements to try of
    each array, the largest gradients and some others.
    """
    found = {}
    rng, step = np.random.default_rng(0), 1e-5
    for name, array in params.items():
        gradient = gradients[name]
        whole = gradient.dense() if isinstance(gradient, Rows) else gradient
        assert whole.shape == array.shape
        flat, view = whole.reshape(-1), array.reshape(-1)
        assert np.shares_memory(array, view)
        tried = {*np.argsort(-np.abs(flat))[: each // 2], *rng.integers(flat.size, size=each // 2)}
        worst = 0.0
        for k in tried:
            there, losses = view[k], []
            for sign in (1, -1):
                view[k] = there + sign * step
                changed()
                losses.append(loss())
            view[k] = there
            worst = max(worst, abs((losses[0] - losses[1]) / (2 * step) - flat[k]))
        if not worst < 1e-8:
            found[name] = worst
    changed()
    return found
