"""The text classifier: four separate gates unrolled by hand, and the network, are one and the same; and it learns."""

from __future__ import annotations

import random

import numpy as np
import pytest
from task_checks import BACKENDS, backend_or_skip, worst_difference

from rnnbench.cli import main
from rnnbench.tasks.batches import DataError, pad
from rnnbench.tasks.losses import Loss
from rnnbench.tasks.optimisers import Adam
from rnnbench.tasks.text_classifier import (
    GATES,
    PACKAGES,
    Gate,
    Texts,
    classifier,
    default_texts,
    four_gates,
    join_gates,
    unrolled_by_hand,
)
from rnnbench.tasks.training import Training

WORDS, CLASSES, H = 20, 3, 5
RNG = np.random.default_rng(1)
TEXTS = [RNG.integers(3, WORDS, size=length) for length in (7, 1, 4, 12)]


def model(backend: str = "numpy", seed: int = 2):
    return classifier(WORDS, CLASSES, H, backend=backend, dtype="float64", seed=seed)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_network_and_the_program_by_hand_agree(backend: str) -> None:
    """Over a padded batch of texts of different lengths, what comes after a text's end changes nothing."""
    network = model(backend_or_skip(backend))
    tokens, lengths = pad(TEXTS)
    by_hand = np.array([unrolled_by_hand(network.params, text) for text in TEXTS])
    np.testing.assert_allclose(network.predict(tokens, lengths), by_hand, rtol=0, atol=1e-14)
    tokens[np.arange(len(tokens))[:, None] >= lengths] = 19
    np.testing.assert_allclose(network.predict(tokens, lengths), by_hand, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda gates: gates | {"candidate": gates["output"], "output": gates["candidate"]},
        lambda gates: gates | {"input": gates["forget"], "forget": gates["input"]},
        lambda gates: gates | {"forget": gates["forget"]._replace(b=gates["forget"].b - 1)},
        lambda gates: {name: gate._replace(U=gate.U.T) for name, gate in gates.items()},
    ],
    ids=["candidate for output", "input for forget", "no forget bias", "transposed"],
)
def test_other_gates_give_other_numbers(wrong) -> None:
    network = model()
    changed = network.params | join_gates(wrong(four_gates(network.params)))
    for text in TEXTS[:1]:
        assert np.abs(unrolled_by_hand(changed, text) - unrolled_by_hand(network.params, text)).max() > 1e-3


def test_gates_taken_apart_and_joined_compute_the_same() -> None:
    network, other = model(), model(seed=3)
    gates = four_gates(network.params)
    assert tuple(gates) == GATES and all(gate.W.shape == gate.U.shape == (H, H) for gate in gates.values())
    joined = join_gates(dict(reversed(gates.items())))
    np.testing.assert_array_equal(joined["rnn.weight_hh_l0"], network.params["rnn.weight_hh_l0"])
    other.params.update({name: array.copy() for name, array in (network.params | joined).items()})
    other.changed()
    tokens, lengths = pad(TEXTS)
    np.testing.assert_allclose(other.predict(tokens, lengths), network.predict(tokens, lengths), rtol=0, atol=1e-14)


def test_gates_that_do_not_fit_are_refused() -> None:
    gates = four_gates(model().params)
    with pytest.raises(ValueError, match="an LSTM's gates are input, forget, candidate, output, not reset"):
        join_gates({"reset": gates["input"]})
    small = Gate(*(part[:-1] for part in gates["output"]))
    with pytest.raises(ValueError, match=r"the output gate's W, U and b have shapes \(\(4, 5\), \(4, 5\), \(4,\)\)"):
        join_gates(gates | {"output": small})


LABELLED = [(f"{a} {'and so on ' * k}{b}.", "ab"[a > b]) for k in range(3) for a in "pqr" for b in "pqr" if a != b]


def labelled(**options) -> Texts:
    texts, labels = zip(*LABELLED, strict=True)
    return Texts(texts, labels, **options)


def test_gradients_of_the_whole_model() -> None:
    data = labelled(batch_size=5)
    network = classifier(len(data.dictionary), 2, H, backend="numpy", dtype="float64")
    batch = max(data.batches(0), key=lambda b: np.ptp(b.lengths))
    assert np.ptp(batch.lengths) > 0
    _, gradients = network.gradients(batch)
    scale = 1 / len(batch.targets)
    assert worst_difference(network, batch, gradients, scale) < 1e-9
    gradients["rnn.weight_hh_l0"] *= 1.01
    assert worst_difference(network, batch, gradients, scale) > 1e-6


def test_texts_are_cut() -> None:
    data = labelled(longest=4)
    assert max(len(tokens) for batch in data.batches(0) for tokens in batch.x.T) == 6  # with both marks
    np.testing.assert_array_equal(data.encode("p and so on"), data.encode("p and so on and so on q"))
    assert not np.array_equal(data.encode("p and so on"), data.encode("p and so q"))


def test_every_text_is_learnt_from_once_an_epoch_or_held_out() -> None:
    data = labelled(batch_size=4)
    first, second = (data.batches(epoch) for epoch in (0, 1))
    assert sum(b.x.shape[1] for b in first) == sum(b.x.shape[1] for b in second) == 14
    assert sum(b.x.shape[1] for b in data.held_out()) == 4
    assert any(not np.array_equal(a.x, b.x) for a, b in zip(first, second, strict=True))
    again = data.batches(0)
    assert all(
        np.array_equal(a.x, b.x) and np.array_equal(a.targets, b.targets) for a, b in zip(first, again, strict=True)
    )
    label, share = data.most_frequent()
    held_out = np.concatenate([batch.targets for batch in data.held_out()])
    assert share == np.mean(held_out == data.names.index(label))


@pytest.mark.parametrize(
    ("texts", "labels", "sentence"),
    [
        (["a b"], ["x", "y"], "1 texts and 2 labels; each text needs one"),
        (["a b"] * 9, ["x"] * 9, "9 texts with 1 different labels are too few"),
        (["a b", "c d"], ["x", "y"], "2 texts with 2 different labels are too few to learn from with 20% held out"),
        (["a b", "--"] * 9, ["x", "y"] * 9, "there is no word in the text, which starts with '--'"),
    ],
)
def test_texts_that_cannot_be_learnt_from(texts: list[str], labels: list[str], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        Texts(texts, labels)


def order_matters(count: int) -> Texts:
    """Which of two words comes first decides: both classes have the same words, so counting words says nothing."""
    rng, texts, labels = random.Random(0), [], []
    for _ in range(count):
        words = rng.choices(["so", "then", "and", "but"], k=rng.randint(2, 8))
        red, blue = sorted(rng.sample(range(len(words) + 1), 2))
        first, second = rng.choice([("red", "blue"), ("blue", "red")])
        words.insert(red, first)
        words.insert(blue + 1, second)
        texts.append(" ".join(words))
        labels.append(first)
    return Texts(texts, labels)


def curve(data: Texts, backend: str, epochs: int, dtype: str = "float32") -> list[dict]:
    network = classifier(len(data.dictionary), len(data.names), 16, backend=backend, dtype=dtype)
    training = Training(network, data, Adam(1e-2), clip=1.0)
    training.run(epochs)
    return training.rows


def test_it_learns_what_only_the_order_of_words_tells() -> None:
    data = order_matters(500)
    untrained = classifier(len(data.dictionary), 2, 16, backend="numpy")
    assert 0.3 < sum((untrained.loss(batch) for batch in data.held_out()), Loss()).accuracy < 0.7
    assert curve(data, "numpy", epochs=8)[-1]["held_out_accuracy"] == 1.0


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_every_backend_has_the_same_curve(backend: str) -> None:
    data = order_matters(60)
    expected, got = (
        [row["loss"] for row in curve(data, name, 2, "float64")] for name in ("numpy", backend_or_skip(backend))
    )
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_default_texts() -> None:
    texts, labels = default_texts()
    assert len(texts) == len(set(texts)) == len(labels) > 1000 and set(labels) == set(PACKAGES)


def test_default_texts_that_are_not_there(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(DataError, match="comes without the sources of asyncio"):
        default_texts()


@pytest.mark.full
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_command_learns_the_default_texts(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["example", "text-classifier", "--backend", backend_or_skip(backend)]) == 0
    told = capsys.readouterr().out
    always = float(told.split("accuracy ")[1].split("%")[0])
    assert float(told.split("epoch 8:")[1].split("held out:")[1].split("accuracy ")[1].split("%")[0]) > 2 * always
    assert "in the mailbox.' is from email" in told and "report failures.' is from unittest" in told
