"""The plot in docs/programs.md: the original word language model with its own gradients, and the same model with right ones.

python docs/loss_curves.py        # some minutes, nearly all of them the original's

Both start from the same weights and read the same sentences in the same order, one a step, at the same learning rate. The original
is the oracle of the tests (tests/original_words.py), the other one is rnnbench. Writes loss-curves.csv and loss-curves.png beside
this file, and prints how many words a second each of them learnt from.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rnnbench import RNN
from rnnbench.tasks.layers import Embedding
from rnnbench.tasks.losses import Loss
from rnnbench.tasks.metrics import plot_curves
from rnnbench.tasks.model import Batch, SequenceModel
from rnnbench.tasks.optimisers import SGD
from rnnbench.tasks.text import Dictionary, default_text, sentences

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
from original_words import ORIGINAL, OriginalWords  # noqa: E402

Pairs = Sequence[tuple[np.ndarray, np.ndarray]]
# The original has its word columns where a network has its input: one matrix less, and one bias for both of PyTorch's.
FROZEN = ("rnn.weight_ih_l0", "rnn.bias_hh_l0")


def corpus(count: int, words: int) -> tuple[Pairs, int]:
    """The first `count` sentences of the default text of up to 50 words, as (x, y), and the dictionary's size."""
    tokens = sentences(default_text(), longest=50)
    dictionary = Dictionary.of(tokens, words)
    encoded = [dictionary.encode(sentence) for sentence in tokens[:count]]
    return [(numbers[:-1], numbers[1:]) for numbers in encoded], len(dictionary)


def twin(original: OriginalWords, backend: str, dtype: str) -> SequenceModel:
    """The original's model with its weights: a word's column of the input weights is its embedding, which enters as it is."""
    p, H = original.params, original.hidden_size

    def blocks(letter: str) -> np.ndarray:  # PyTorch's order of the gates: i, f, g, o
        return np.concatenate([p[f"{letter}_{gate}"] for gate in "ifao"])

    rnn = RNN("lstm", 4 * H, H, backend=backend, dtype=dtype)
    model = SequenceModel(
        rnn, original.words, Embedding("embedding", original.words, 4 * H), every_step=True, per="row"
    )
    weights = {
        "embedding.weight": blocks("W").T,
        "rnn.weight_ih_l0": np.eye(4 * H),
        "rnn.weight_hh_l0": blocks("R"),
        "rnn.bias_ih_l0": blocks("b")[:, 0],
        "rnn.bias_hh_l0": np.zeros(4 * H),
        "output.weight": p["W_y"],
        "output.bias": p["b_y"][:, 0],
    }
    for name, array in weights.items():
        model.params[name][...] = array
    model.changed()
    return model


def train(model: SequenceModel, pairs: Pairs, epochs: int, learning_rate: float) -> Iterator[float]:
    """As the original trains: yields the mean loss before the first epoch and after each one."""
    batches, optimiser = [Batch(x[:, None], y[:, None]) for x, y in pairs], SGD(learning_rate, halve=True)
    yield sum((model.loss(batch) for batch in batches), Loss()).mean
    for _ in range(epochs):
        for batch in batches:
            _, gradients = model.gradients(batch)
            optimiser.step(model.params, {name: g for name, g in gradients.items() if name not in FROZEN})
            model.changed()
        loss = sum((model.loss(batch) for batch in batches), Loss()).mean
        yield loss
        optimiser.end_of_epoch(loss)


def frequencies_alone(pairs: Pairs) -> float:
    """The least mean loss of a model that looks at no context: the entropy of the words that are to be predicted, in nats."""
    counts = np.bincount(np.concatenate([y for _, y in pairs]))
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def main(arguments: Sequence[str] | None = None) -> dict[str, list[float]]:
    """Train both, write the files, and return the losses by label."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in (("sentences", 100), ("words", 2000), ("hidden-size", 100), ("epochs", 30)):
        parser.add_argument(f"--{option}", type=int, default=default, help=f"default: {default}")
    parser.add_argument("--learning-rate", type=float, default=0.005, help="default: 0.005")
    parser.add_argument("--backend", default="numba-cpu", help="of the right one; default: numba-cpu")
    parser.add_argument("--folder", type=Path, default=HERE, help="where the files go; default: beside this script")
    given = parser.parse_args(arguments)

    pairs, words = corpus(given.sentences, given.words)
    original = OriginalWords(words, given.hidden_size, faults=ORIGINAL)
    model = twin(original, given.backend, "float64")
    next(train(model, pairs[:1], 0, given.learning_rate))  # what is compiled is not timed
    runs = {
        "the original's gradients": original.train(pairs, given.epochs, given.learning_rate),
        "right gradients": train(model, pairs, given.epochs, given.learning_rate),
    }
    count, curves = sum(len(y) for _, y in pairs), {}
    print(f"{len(pairs)} sentences, {count} predictions an epoch, {words} words, {given.hidden_size} units")
    for label, losses in runs.items():
        start = time.perf_counter()
        curves[label] = []
        for epoch, loss in enumerate(losses):
            curves[label].append(loss)
            print(f"{label}, epoch {epoch}: loss {loss:.4f}", flush=True)
        rate = given.epochs * count / (time.perf_counter() - start)
        print(f"{label}: {rate:,.0f} words/s, the evaluations included")
    curves["the words' frequencies alone, at best"] = [frequencies_alone(pairs)] * (given.epochs + 1)
    with open(given.folder / "loss-curves.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["epoch", *curves])
        writer.writerows(
            [epoch, *(f"{loss:.6f}" for loss in row)]
            for epoch, *row in zip(range(given.epochs + 1), *curves.values(), strict=True)
        )
    plotted = {
        label: [{"kind": "epoch", "epoch": epoch, "loss": loss} for epoch, loss in enumerate(losses)]
        for label, losses in curves.items()
    }
    plot_curves(plotted, given.folder / "loss-curves.png")
    return curves


if __name__ == "__main__":
    main()
