"""A language model of words: an embedding, a recurrent network, and a softmax over the dictionary at each step."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from .. import cells
from ..rnn import RNN
from .batches import DataError, by_length, pad
from .layers import Embedding
from .model import Batch, SequenceModel
from .text import MARKS, Dictionary

_EVALUATED = 32  # sentences in an evaluation batch


class Corpus:
    """Sentences, for training and held out, as `training.Data`.

    sentences: lists of tokens. size: entries of the dictionary, marks included; it is built from the training sentences. exact:
    reject a size for which there are not enough different words. batch_size: sentences in a batch, of similar lengths. held_out:
    the share of sentences to hold out. seed: of the split and of the order of batches.

    Raises DataError for too few sentences to hold some out, and for a dictionary larger than the corpus.
    """

    metrics: tuple[str, ...] = ("loss", "perplexity")

    def __init__(
        self,
        sentences: Sequence[Sequence[str]],
        size: int = 8000,
        exact: bool = False,
        batch_size: int = 32,
        held_out: float = 0.1,
        seed: int = 0,
    ) -> None:
        if not 0 < held_out < 1:
            raise DataError(f"held_out must lie between 0 and 1, both excluded, not {held_out}")
        count = round(len(sentences) * held_out)
        if count < 1 or count >= len(sentences):
            found = f"{len(sentences)} sentence{'s' * (len(sentences) != 1)}"
            enough = int(0.5 / min(held_out, 1 - held_out)) + 1
            raise DataError(f"a text of {found} is too short to hold {held_out:.1%} of it out; {enough} are enough")
        order = np.random.default_rng(seed).permutation(len(sentences))
        learnt, kept = ([sentences[k] for k in part] for part in (order[count:], order[:count]))
        self.dictionary = Dictionary.of(learnt, size)
        if exact and len(self.dictionary) < size:
            raise DataError(
                f"a dictionary of {size} is larger than the corpus, which has {len(self.dictionary) - len(MARKS)} different "
                f"words to learn from; with the marks, {len(self.dictionary)} is the largest possible"
            )
        self._train, self._test = ([self.dictionary.encode(s) for s in part] for part in (learnt, kept))
        self.batch_size, self.seed = batch_size, seed

    @property
    def tokens(self) -> int:
        """Predictions in an epoch: the training words, and an end mark for each sentence."""
        return sum(len(sentence) - 1 for sentence in self._train)

    @property
    def digest(self) -> str:
        """A hash of the training and the held-out token ids."""
        return hashlib.sha256(b"/".join(s.tobytes() for s in (*self._train, *self._test))).hexdigest()[:16]

    def unknown_share(self) -> float:
        """The share of held-out words that are not in the dictionary."""
        words = np.concatenate([sentence[1:] for sentence in self._test])
        return float(np.mean(words == self.dictionary.unknown))

    def batches(self, epoch: int) -> list[Batch]:
        """See `training.Data`: all sentences, batched anew in each epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        groups = by_length([len(s) for s in self._train], self.batch_size, rng)
        return [_batch([self._train[k] for k in group]) for group in groups]

    def held_out(self) -> list[Batch]:
        """See `training.Data`: in order of length."""
        ordered = sorted(self._test, key=len)
        return [_batch(ordered[k : k + _EVALUATED]) for k in range(0, len(ordered), _EVALUATED)]


def _batch(sentences: Sequence[np.ndarray]) -> Batch:
    """Each word's target is the next word: targets are x, shifted by one step."""
    whole, lengths = pad(sentences)
    return Batch(whole[:-1], whole[1:], lengths - 1)


def language_model(
    words: int,
    cell: str | cells.Cell = "lstm",
    hidden_size: int = 100,
    backend: str = "numba-cpu",
    dtype: str = "float32",
    seed: int = 0,
    per: str = "prediction",
) -> SequenceModel:
    """The model for a dictionary of `words` entries; the embedding is as wide as the network.

    backend, dtype, seed: as for `RNN`. per: see `SequenceModel`.
    """
    rnn = RNN(cell, hidden_size, hidden_size, backend=backend, dtype=dtype, seed=seed)
    first = Embedding("embedding", words, hidden_size)
    return SequenceModel(rnn, words, first, every_step=True, per=per, seed=seed)


def sample(
    model: SequenceModel,
    dictionary: Dictionary,
    count: int,
    longest: int = 30,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[str]:
    """`count` sentences sampled from the model, word by word, from its softmax.

    model: of `language_model`, trained with this dictionary. longest: words after which a sentence is cut off. temperature: the
    logits are divided by it, so below 1 likely words become likelier. seed: of the draws. The start and unknown marks are never
    drawn.

    Raises ValueError for a temperature that is not above 0, and for a model of another kind.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature!r}")
    if not count:
        return []
    embedding = model.first
    if not isinstance(embedding, Embedding):
        raise ValueError("only a model with an embedding can make sentences, such as those of language_model")
    rng = np.random.default_rng(seed)
    tokens = np.full(count, dictionary.start)
    state, over = None, np.zeros(count, bool)
    drawn: list[np.ndarray] = []
    while len(drawn) < longest and not over.all():
        output, state = model.recurrent.infer(embedding.forward(model.params, tokens[None]), state)
        logits = model.output.forward(model.params, output[0]).astype(np.float64)
        with np.errstate(over="ignore"):  # as the temperature approaches 0, all logits but the largest go to -infinity
            logits = (logits - logits.max(1, keepdims=True)) / temperature
        logits[:, [dictionary.start, dictionary.unknown]] = -np.inf
        # the largest of logit + Gumbel noise is a draw from the softmax
        tokens = np.argmax(logits + rng.gumbel(size=logits.shape), 1)
        drawn.append(tokens)
        over |= tokens == dictionary.end
    rows = np.array(drawn).T
    ended = [np.argmax(row == dictionary.end) if (row == dictionary.end).any() else longest for row in rows]
    return [dictionary.decode(row[:end]) for row, end in zip(rows, ended, strict=True)]
