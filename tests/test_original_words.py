"""The original word language model: right without its faults, and each fault is seen by every check that should see it.

The cases are those that show them: at least five steps, two sentences, an initial state that is not zero, word numbers from 2.
"""

from __future__ import annotations

import numpy as np
import pytest
from original_words import FAULTS, GATES, ORIGINAL, OriginalWords, words_per_second
from task_checks import BACKENDS, backend_or_skip

from rnnbench import RNN, reference

V, H = 11, 6
X = [[2, 7, 3, 9, 2, 4], [8, 5, 2, 3, 6]]
Y = [[7, 3, 9, 2, 4, 5], [5, 2, 3, 6, 10]]
H_0, C_0 = np.random.default_rng(3).uniform(-1, 1, (2, 2, H))
OF_PYTORCH = dict(zip("ifgo", "ifao", strict=True))  # PyTorch's order of the gates and their names here


def joined(params: dict[str, np.ndarray], letter: str) -> np.ndarray:
    """The blocks of the four gates, in PyTorch's order."""
    return np.concatenate([params[f"{letter}_{gate}"] for gate in OF_PYTORCH.values()])


def network_params(original: OriginalWords) -> dict[str, np.ndarray]:
    p = original.params
    return {
        "weight_ih_l0": joined(p, "W"),
        "weight_hh_l0": joined(p, "R"),
        "bias_ih_l0": joined(p, "b")[:, 0],
        "bias_hh_l0": np.zeros(4 * H),
    }


def of_the_program(original: OriginalWords) -> dict[str, np.ndarray]:
    """Loss and gradients over both sentences, sums over them, and each sentence's own initial state's."""
    found = [original.gradients(*case, inputs=True) for case in zip(X, Y, H_0, C_0, strict=True)]
    dx = np.zeros((max(len(x) for x in X), len(X), V))
    for b, gradients in enumerate(found):
        dx[: len(X[b]), b] = gradients["x"]
    total = {
        "weight_ih_l0": sum(joined(g, "W") for g in found),
        "weight_hh_l0": sum(joined(g, "R") for g in found),
        "bias_ih_l0": sum(joined(g, "b")[:, 0] for g in found),
        "W_y": sum(g["W_y"] for g in found),
        "b_y": sum(g["b_y"][:, 0] for g in found),
        "loss": np.array(sum(original.loss(*case) for case in zip(X, Y, H_0, C_0, strict=True))),
        "x": dx,
    }
    return total | {name: np.stack([g[name] for g in found]) for name in ("h_0", "c_0")}


def of_the_network(original: OriginalWords, forward, backward) -> dict[str, np.ndarray]:
    """The same of an LSTM with the same weights over both sentences at once, padded, with the words one-hot."""
    lengths = np.array([len(x) for x in X])
    T, B = lengths.max(), len(X)
    ids, targets = np.zeros((2, T, B), int)
    for b in range(B):
        ids[: lengths[b], b], targets[: lengths[b], b] = X[b], Y[b]
    state = (H_0[None], C_0[None])
    output, tape = forward(np.eye(V)[ids], state, lengths)
    logits = output @ original.params["W_y"].T + original.params["b_y"][:, 0]
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    valid = (np.arange(T)[:, None] < lengths)[..., None]
    dlogits = valid * (np.exp(log_probabilities) - np.eye(V)[targets])
    grads = backward(tape, dlogits @ original.params["W_y"])
    loss = -np.sum(valid * np.eye(V)[targets] * log_probabilities)
    return {
        **{name: grads[name] for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "x")},
        "W_y": np.einsum("tbv,tbh->vh", dlogits, output),
        "b_y": dlogits.sum(axis=(0, 1)),
        "loss": np.array(loss),
        "h_0": grads["h_0"][0],
        "c_0": grads["c_0"][0],
    }


def of_rnnbench(original: OriginalWords, backend: str, used: bool = False) -> dict[str, np.ndarray]:
    """used: the network has been over something longer before, whose arrays it may have kept."""
    rnn = RNN("lstm", V, H, backend=backend, dtype="float64")
    rnn.load(network_params(original))
    if used:
        longer = np.random.default_rng(4).standard_normal((9, len(X), V))
        output, state, tape = rnn.forward(longer, (H_0[None], C_0[None]))
        rnn.backward(tape, output, state)

    def forward(x, state, lengths):
        output, _, tape = rnn.forward(x, state, lengths)
        return output, tape

    return of_the_network(original, forward, rnn.backward)


def of_the_reference(original: OriginalWords) -> dict[str, np.ndarray]:
    params = network_params(original)

    def forward(x, state, lengths):
        return reference.forward("lstm", params, x, state, lengths)[0], (x, state, lengths)

    def backward(given, doutput):
        return reference.backward("lstm", params, *given, doutput, None)[2]

    return of_the_network(original, forward, backward)


def differing(one: dict[str, np.ndarray], other: dict[str, np.ndarray], tolerance: float = 1e-12) -> set[str]:
    """The names under which two sets of gradients are not the same, by the norm of the difference."""
    assert one.keys() == other.keys()
    return {
        name
        for name in one
        if not np.linalg.norm(one[name] - other[name]) <= tolerance * (1 + np.linalg.norm(other[name]))
    }


@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_without_its_faults_the_program_and_the_network_agree(backend: str, used: bool) -> None:
    original = OriginalWords(V, H)
    assert not differing(of_the_program(original), of_rnnbench(original, backend_or_skip(backend), used))


def test_without_its_faults_the_program_and_the_reference_agree() -> None:
    original = OriginalWords(V, H)
    assert not differing(of_the_program(original), of_the_reference(original))


# Where each fault shows. What is not listed is right in spite of it.
SEEN = {
    "cell": {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "x", "h_0", "c_0"},
    "hidden": {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "x", "h_0", "c_0"},
    "column": {"weight_ih_l0"},
    "initial": {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "W_y", "b_y", "loss", "x", "h_0", "c_0"},
    "outer": {"weight_hh_l0"},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_caught(fault: str) -> None:
    faulty = OriginalWords(V, H, faults={fault})
    assert differing(of_the_program(faulty), of_rnnbench(faulty, "numpy")) == SEEN[fault]


def test_what_a_weaker_case_would_not_see() -> None:
    """After two steps from a zero state the gradient of the recurrent weights is right in spite of two faults."""
    x, y = [2, 3], [3, 4]
    right = OriginalWords(V, H).gradients(x, y)
    for fault in ("cell", "hidden"):
        wrong = OriginalWords(V, H, faults={fault}).gradients(x, y)
        assert all(np.array_equal(wrong[f"R_{gate}"], right[f"R_{gate}"]) for gate in GATES)
    wrong = OriginalWords(V, H, faults={"initial"}).gradients(x, y)
    assert all(np.array_equal(wrong[name], right[name]) for name in right)


def central_differences(model: OriginalWords, name: str) -> np.ndarray:
    """The gradient of the loss of the first sentence by a parameter, from the loss alone."""
    array, found = model.params[name], np.zeros(model.params[name].shape)
    for index in np.ndindex(array.shape):
        there, step = array[index], 1e-5
        array[index] = there + step
        above = model.loss(X[0], Y[0], H_0[0], C_0[0])
        array[index] = there - step
        found[index] = (above - model.loss(X[0], Y[0], H_0[0], C_0[0])) / (2 * step)
        array[index] = there
    return found


@pytest.mark.parametrize("fault", [None, "cell", "hidden", "column", "outer"])
def test_finite_differences_tell_right_from_wrong(fault: str | None) -> None:
    model = OriginalWords(V, H, faults={fault} - {None})
    grads = model.gradients(X[0], Y[0], H_0[0], C_0[0])
    wrong = {n for n in ("W_f", "R_f", "b_f", "W_y") if np.abs(central_differences(model, n) - grads[n]).max() > 1e-8}
    assert wrong == {None: set(), "column": {"W_f"}, "outer": {"R_f"}}.get(fault, {"W_f", "R_f", "b_f"})


def test_a_word_that_does_not_occur_has_no_gradient() -> None:
    absent = [0, 1, 10]
    right = of_the_program(OriginalWords(V, H))["weight_ih_l0"]
    assert not right[:, absent].any() and right[:, 2:10].any(axis=0).all()
    assert of_the_program(OriginalWords(V, H, faults={"column"}))["weight_ih_l0"][:, absent].all()


def test_a_second_call_on_reused_arrays() -> None:
    """A longer sentence leaves its state in the slot that a shorter one takes for its initial state."""
    for faults, same in (((), True), (("initial",), False)):
        fresh, reusing = OriginalWords(V, H, faults=faults), OriginalWords(V, H, faults=faults, reuse=True)
        reusing.loss(X[0], Y[0])
        assert (fresh.loss(X[1], Y[1]) == reusing.loss(X[1], Y[1])) is same


def test_the_rate_halves_when_the_loss_rises() -> None:
    """From a rate that overshoots: with the halving the loss ends lower than with the same rate throughout."""
    sentences = list(zip(X, Y, strict=True))
    losses = list(OriginalWords(V, H).train(sentences, 30, learning_rate=20.0))
    assert any(b > a for a, b in zip(losses, losses[1:], strict=False))
    constant = OriginalWords(V, H)
    for _ in range(30):
        for x, y in sentences:
            constant.step(x, y, 20.0)
    assert losses[-1] < constant.mean_loss(sentences)


def test_right_gradients_learn_more_than_the_originals() -> None:
    """Two sentences by heart. The original's word numbers saturate its gates."""
    sentences = list(zip(X, Y, strict=True))
    *_, right = OriginalWords(V, H).train(sentences, 200, learning_rate=0.1)
    *_, wrong = OriginalWords(V, H, faults=ORIGINAL).train(sentences, 200, learning_rate=0.1)
    assert right < 0.1 < wrong


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no faults \['cel'\]; known are cell, hidden"):
        OriginalWords(V, faults={"cel"})


def test_its_speed_can_be_measured() -> None:
    assert words_per_second(words=50, hidden_size=5, sentences=2, seq_len=3) > 0
