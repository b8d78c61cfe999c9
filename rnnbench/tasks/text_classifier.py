"""A text classifier: embedded tokens, an LSTM of four separate gates, and a dense layer on its last h.

Textbooks write the LSTM with separate matrices for each gate and unroll it by hand. `four_gates` splits the network's matrices in
that way, `join_gates` joins them again, and `unrolled_by_hand` is that program; the network computes the same.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..rnn import RNN
from .batches import DataError, by_length, pad
from .layers import Embedding, Params
from .model import Batch, SequenceModel
from .optimisers import Adam
from .text import Dictionary, sentences
from .training import Training

LONGEST = 50  # tokens after which a text is cut
GATES = ("input", "forget", "candidate", "output")  # PyTorch's order
PACKAGES = ("asyncio", "email", "importlib", "logging", "multiprocessing", "unittest", "xml")
_EVALUATED = 128  # texts in an evaluation batch


class Gate(NamedTuple):
    """One gate's matrices: W (H, I) for the input, U (H, H) for h, b (H,)."""

    W: np.ndarray
    U: np.ndarray
    b: np.ndarray


class Texts:
    """Labelled texts, for training and held out, as `training.Data`.

    texts, labels: one label per text. size: entries of the dictionary, built from the training texts. longest: tokens after which
    a text is truncated. batch_size: texts in a batch, of similar lengths. held_out: the share that is held out. seed: of the split
    and of the order of batches.

    dictionary: of the training texts. names: the distinct labels in alphabetical order; a label's index is its class.
    Raises DataError for fewer than two labels, too few texts to hold some out, and a text without a word.
    """

    metrics: tuple[str, ...] = ("loss", "accuracy")

    def __init__(
        self,
        texts: Sequence[str],
        labels: Sequence[str],
        size: int = 4000,
        longest: int = LONGEST,
        batch_size: int = 32,
        held_out: float = 0.2,
        seed: int = 0,
    ) -> None:
        if len(texts) != len(labels):
            raise DataError(f"there are {len(texts)} texts and {len(labels)} labels; each text needs one")
        self.names = tuple(sorted(set(labels)))
        count = round(len(texts) * held_out)
        if len(self.names) < 2 or not 0 < count < len(texts):
            raise DataError(
                f"{len(texts)} texts with {len(self.names)} different labels are too few to learn from with {held_out:.0%} held out"
            )
        self.longest, self.batch_size, self.seed = longest, batch_size, seed
        tokens = [_tokens(text, longest) for text in texts]
        order = np.random.default_rng(seed).permutation(len(texts))
        self.dictionary = Dictionary.of([tokens[k] for k in order[count:]], size)
        encoded = [self.dictionary.encode(t) for t in tokens]
        classes = np.array([self.names.index(label) for label in labels])
        self._train, self._test = ([(encoded[k], classes[k]) for k in part] for part in (order[count:], order[:count]))

    def encode(self, text: str) -> np.ndarray:
        """The ids of a text's tokens, truncated to `longest`, between the start and end marks."""
        return self.dictionary.encode(_tokens(text, self.longest))

    def batches(self, epoch: int) -> list[Batch]:
        """See `training.Data`: all texts, batched anew in each epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        groups = by_length([len(text) for text, _ in self._train], self.batch_size, rng)
        return [_batch([self._train[k] for k in group]) for group in groups]

    def held_out(self) -> list[Batch]:
        """See `training.Data`: in order of length."""
        ordered = sorted(self._test, key=lambda pair: len(pair[0]))
        return [_batch(ordered[k : k + _EVALUATED]) for k in range(0, len(ordered), _EVALUATED)]

    def most_frequent(self) -> tuple[str, float]:
        """The most frequent training label, and its share of the held-out texts: the accuracy of always predicting it."""
        label = np.bincount([label for _, label in self._train]).argmax()
        return self.names[label], float(np.mean([other == label for _, other in self._test]))


def _tokens(text: str, longest: int) -> list[str]:
    return [token for sentence in sentences(text) for token in sentence][:longest]


def _batch(pairs: Sequence[tuple[np.ndarray, int]]) -> Batch:
    tokens, lengths = pad([text for text, _ in pairs])
    return Batch(tokens, np.array([label for _, label in pairs]), lengths)


def default_texts() -> tuple[list[str], list[str]]:
    """Docstrings of Python's standard library, each with the package of PACKAGES that it is from.

    They are read from the sources of the running Python, so they differ slightly between versions; duplicates are dropped. Raises
    DataError if this Python was installed without its sources.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, str] = {}
    for package in PACKAGES:
        files = sorted((root / package).rglob("*.py"))
        if not files:
            raise DataError(f"this Python comes without the sources of {package}, of which the default texts are made")
        for path in files:
            for docstring in _docstrings(path.read_text(encoding="utf-8")):
                if len(docstring.split()) > 3 and any(letter.isalpha() for letter in docstring):
                    found.setdefault(docstring, package)
    return list(found), list(found.values())


def _docstrings(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring


def classifier(
    words: int, classes: int, hidden_size: int = 64, backend: str = "numba-cpu", dtype: str = "float32", seed: int = 0
) -> SequenceModel:
    """The model for a dictionary of `words` entries and for `classes` classes; the embedding is as wide as the network.

    backend, dtype, seed: as for `RNN`.
    """
    rnn = RNN("lstm", hidden_size, hidden_size, backend=backend, dtype=dtype, seed=seed, forget_bias=1.0)
    return SequenceModel(rnn, classes, Embedding("embedding", words, hidden_size), seed=seed)


def four_gates(params: Mapping[str, np.ndarray]) -> dict[str, Gate]:
    """A classifier's LSTM as four gates by name, each with its own matrices. The two biases are summed.

    params: of `classifier`, whose forget bias of 1 is added to the forget gate's b.
    """
    W, U, b_x, b_h = (
        np.split(params[f"rnn.{name}_l0"], 4) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    forget = dict.fromkeys(GATES, 0) | {"forget": 1}
    return {name: Gate(W[k], U[k], b_x[k] + b_h[k] + forget[name]) for k, name in enumerate(GATES)}


def join_gates(gates: Mapping[str, Gate]) -> Params:
    """The inverse of `four_gates`: the network's parameters from four separate gates, with all of the bias in bias_ih.

    Raises ValueError for gates other than GATES, or matrices whose shapes disagree.
    """
    if set(gates) != set(GATES):
        raise ValueError(f"an LSTM's gates are {', '.join(GATES)}, not {', '.join(gates)}")
    H, I = np.shape(gates["input"].W)
    for name in GATES:
        shapes = tuple(np.shape(part) for part in gates[name])
        if shapes != ((H, I), (H, H), (H,)):
            raise ValueError(f"the {name} gate's W, U and b have shapes {shapes}, expected {((H, I), (H, H), (H,))}")
    W, U, b = (np.concatenate([gates[name][part] for name in GATES]) for part in range(3))
    b[H : 2 * H] -= 1
    return {"rnn.weight_ih_l0": W, "rnn.weight_hh_l0": U, "rnn.bias_ih_l0": b, "rnn.bias_hh_l0": np.zeros_like(b)}


def unrolled_by_hand(params: Mapping[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """What `classifier` computes for one text, written out: one step per token, one line per gate. Returns logits (classes,).

    params: the model's. tokens: (T,) ids, from `Texts.encode`.
    """
    gates = four_gates(params)
    h = c = np.zeros_like(gates["input"].b)
    for x in params["embedding.weight"][tokens]:
        before = {name: gate.W @ x + gate.U @ h + gate.b for name, gate in gates.items()}
        i = _sigmoid(before["input"])
        f = _sigmoid(before["forget"])
        o = _sigmoid(before["output"])
        c = f * c + i * np.tanh(before["candidate"])
        h = o * np.tanh(c)
    return params["output.weight"] @ h + params["output.bias"]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    # in this form nothing overflows
    return 0.5 * np.tanh(0.5 * x) + 0.5


def lines(backend: str) -> Iterator[str]:
    """Learns to tell which package of the standard library a docstring is from, and shows its answers for some unseen ones."""
    texts, labels = default_texts()
    data = Texts(texts, labels)
    label, share = data.most_frequent()
    yield f"{len(texts)} docstrings of {', '.join(data.names)}, a fifth of them held out, cut at {data.longest} tokens"
    yield f"always saying {label}: accuracy {share:.1%}"
    model = classifier(len(data.dictionary), len(data.names), backend=backend)
    training = Training(model, data, Adam(3e-3), clip=1.0)
    for epoch in range(1, 9):
        training.run(epoch)
        row = training.rows[-1]
        yield (
            f"epoch {epoch}: loss {row['loss']:.3f}, accuracy {row['accuracy']:.1%}; "
            f"held out: loss {row['held_out_loss']:.3f}, accuracy {row['held_out_accuracy']:.1%}"
        )
    for text in ("Return the next message in the mailbox.", "Run all test cases and report failures."):
        tokens = data.encode(text)
        logits = model.predict(tokens[:, None])[0]
        difference = np.abs(logits - unrolled_by_hand(model.params, tokens)).max()
        yield f"{text!r} is from {data.names[logits.argmax()]}; by hand, gate by gate, the logits differ by {difference:.1e}"
