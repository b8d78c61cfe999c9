"""The options of `rnnbench train`. Those that define a training have their defaults in SETTINGS and are kept in its checkpoint."""

from __future__ import annotations

import argparse
from typing import Any

from rnnbench import backends
from rnnbench.cli import values
from rnnbench.params import DTYPES

# the defaults of a task's options, for those that neither the command line nor a checkpoint gives
_COMMON: dict[str, Any] = {"cell": "lstm", "dtype": "float32", "seed": 0, "patience": None}
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": _COMMON
    | {"hidden_size": 128, "batch_size": 128, "optimiser": "adam", "learning_rate": 1e-3, "clip": 1.0, "mnist": None},
    "words": _COMMON
    | {"hidden_size": 100, "batch_size": 32, "optimiser": "adam", "learning_rate": 2e-3, "clip": 1.0}
    | {"text": None, "column": None, "dictionary": 8000, "max_length": 60},
}
# the language model's original steps: one sentence each, plain gradient descent
ORIGINAL_WORDS = {"batch_size": 1, "learning_rate": 0.005, "clip": None}
EPOCHS = {"digits": 60, "words": 10}
# options that may be chosen anew when a training is resumed, with their defaults; --epochs then defaults to the checkpoint's
_RUN: dict[str, Any] = {"backend": "numba-cpu", "threads": None, "metrics": None, "plot": None}
RUN: dict[str, dict[str, Any]] = {
    "digits": _RUN | {"every": 20},
    "words": _RUN | {"every": 0, "sample": 3, "temperature": 1.0},
}


def digits(parser: argparse.ArgumentParser) -> None:
    """Learn to read digits row by row: an input projection, a recurrent network, and a softmax on its last step. The
    default pictures, 1,797 of 8 rows of 8, come with the package; a fifth of them is held out.

      rnnbench train digits
      rnnbench train digits --cell gru --epochs 20 --plot digits.png
      rnnbench train digits --mnist ~/mnist --epochs 5

    By default LSTM, GRU and RNN all read more than 97% of the held-out default pictures correctly.
    """
    parser.add_argument(
        "--mnist",
        type=values.path,
        metavar="DIR",
        help="MNIST from its published idx files, plain or .gz, in this folder",
    )
    _common(parser, "digits", "every N steps, print the loss and the accuracy since the last time (default: 20)")


def words(parser: argparse.ArgumentParser) -> None:
    """Learn to predict the next word: an embedding, a recurrent network, and a softmax over the dictionary at each step; then
    make up some sentences. The default text is Python's own language reference, which comes with Python; a tenth of
    the sentences is held out.

      rnnbench train words --text novel.txt --save novel.npz
      rnnbench train words --text comments.csv --column body --dictionary 8000
      rnnbench train words --optimiser sgd
      rnnbench train words --resume novel.npz --sample 20

    With --optimiser sgd a step is one sentence at a learning rate of 0.005, which halves when the loss rises.
    """
    parser.add_argument("--text", type=values.path, metavar="FILE", help="UTF-8 text, or a CSV file with --column")
    parser.add_argument("--column", metavar="NAME", help="the column of the CSV file that holds the text")
    parser.add_argument(
        "--dictionary",
        type=values.number("--dictionary", 4),
        metavar="N",
        help="the N most frequent words, including the marks for start, end and unknown words (default: 8000, or all there are)",
    )
    parser.add_argument(
        "--max-length",
        type=values.number("--max-length"),
        metavar="N",
        help="words after which a sentence is split (default: 60)",
    )
    parser.add_argument(
        "--sample",
        type=values.number("--sample", 0),
        default=RUN["words"]["sample"],
        metavar="N",
        help="sentences to make up (default: 3)",
    )
    parser.add_argument(
        "--temperature",
        type=values.real("--temperature", 0.8),
        default=RUN["words"]["temperature"],
        help="below 1 picks likelier words (default: 1)",
    )
    _common(parser, "words", "also print a line every N steps (default: at the end of each epoch only)")


def _common(parser: argparse.ArgumentParser, task: str, every_help: str) -> None:
    known = SETTINGS[task]

    def add(flag: str, what: str, **options: Any) -> None:
        default = known.get(flag[2:].replace("-", "_"))
        parser.add_argument(flag, help=what + ("" if default is None else f" (default: {default})"), **options)

    add("--cell", "lstm, gru, rnn_tanh, ... or path/to/file.py:name", type=values.cell, metavar="CELL")
    add("--hidden-size", "units of the network", type=values.number("--hidden-size"), metavar="N")
    parser.add_argument(
        "--backend",
        type=values.own_backend,
        default=RUN[task]["backend"],
        metavar="NAME",
        help=f"what runs the network: {', '.join(backends.OWN + backends.GPU)} (default: numba-cpu)",
    )
    add("--dtype", "precision", type=values.name("dtype", DTYPES), metavar="NAME")
    parser.add_argument(
        "--epochs",
        type=values.number("--epochs", 0),
        metavar="N",
        help=f"in total, including those of a resumed training (default: {EPOCHS[task]}, or what that one was given)",
    )
    add("--batch-size", "rows per step", type=values.number("--batch-size"), metavar="N")
    add("--optimiser", "adam or sgd", type=values.name("optimiser", ("adam", "sgd")), metavar="NAME")
    add("--learning-rate", "step size", type=values.real("--learning-rate", 0.001), metavar="X")
    add("--clip", "largest global norm of the gradients", type=values.real("--clip", 1), metavar="X")
    add(
        "--patience",
        "stop after N epochs without a lower held-out loss, with the best parameters",
        type=values.number("--patience"),
        metavar="N",
    )
    add("--seed", "seed of the parameters, the split and the order", type=values.number("--seed", 0), metavar="N")
    parser.add_argument(
        "--every", type=values.number("--every", 0), default=RUN[task]["every"], metavar="N", help=every_help
    )
    parser.add_argument("--save", type=values.path, metavar="FILE", help="write a checkpoint (.npz) after each epoch")
    parser.add_argument(
        "--resume",
        type=values.path,
        metavar="FILE",
        help="continue from a checkpoint, with its settings, and keep it up to date",
    )
    parser.add_argument("--metrics", type=values.path, metavar="FILE", help="write what was measured, as .csv or .json")
    parser.add_argument(
        "--plot", type=values.path, metavar="FILE", help="draw the loss over the epochs, as .png, .svg or .pdf"
    )


TASKS = {
    "digits": ("a classifier that reads digits row by row", digits),
    "words": ("a language model of words", words),
}
