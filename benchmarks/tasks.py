"""End-to-end training of the two programs: rates, and the time to a stated accuracy or perplexity."""

from __future__ import annotations

import os

from rnnbench.bench import training
from rnnbench.bench.cases import SUITES, grid

from .common import Program

SUITE = os.environ.get("RNNBENCH_SUITE") or "quick"
SMOKE = SUITE == "smoke"
AT_ITS_SIZES = {"seq_len": 3, "batch_size": 2, "hidden_size": 17, "words": 50} if SMOKE else {}
WIDE = AT_ITS_SIZES if SMOKE else {"hidden_size": 512}
NARROW = {"hidden_size": 17} if SMOKE else {}  # the kernels that the other benchmarks have compiled
ONE_SENTENCE = AT_ITS_SIZES | {"batch_size": 1, "optimiser": "sgd"}


class Words(Program):
    """Training steps of the word model at its own sizes: 8,000 words, 100 units, 32 sentences a step."""

    params = [list(grid("Words").cells), list(grid("Words").backends)]

    def track_words_per_second(self, cell: str, backend: str) -> float:
        return training.words_per_second(training.WordCase(cell, backend, **AT_ITS_SIZES))

    track_words_per_second.pretty_name, track_words_per_second.unit = "training the word model", "words/s"


class Digits(Program):
    """Training of the digit classifier."""

    params = [list(grid("Digits").cells), list(grid("Digits").backends)]

    def track_pictures_per_second(self, cell: str, backend: str) -> float:
        return training.pictures_per_second(cell, backend, **NARROW)

    def track_seconds_to_accuracy(self, cell: str, backend: str) -> float:
        return training.seconds_to_accuracy(cell, backend, 0.3 if SMOKE else 0.97, **NARROW)

    track_pictures_per_second.pretty_name, track_pictures_per_second.unit = "training on digits", "pictures/s"
    track_seconds_to_accuracy.pretty_name, track_seconds_to_accuracy.unit = "training to 97% of digits", "seconds"


if "WordsToPerplexity" in SUITES[SUITE]:

    class WordsWide(Words):
        """The same at 512 units."""

        def track_words_per_second(self, cell: str, backend: str) -> float:
            return training.words_per_second(training.WordCase(cell, backend, **WIDE))

        track_words_per_second.pretty_name, track_words_per_second.unit = "training 512 units on words", "words/s"

    class WordsOneSentence(Words):
        """The original's steps: a sentence each, plain gradient descent."""

        def track_words_per_second(self, cell: str, backend: str) -> float:
            return training.words_per_second(training.WordCase(cell, backend, **ONE_SENTENCE))

        track_words_per_second.pretty_name, track_words_per_second.unit = "training by the sentence", "words/s"

    class WordsToPerplexity(Program):
        """How long it takes to learn the default text so far."""

        params = [list(grid("WordsToPerplexity").cells), list(grid("WordsToPerplexity").backends)]

        def track_seconds_to_perplexity(self, cell: str, backend: str) -> float:
            tiny = {"limit": 1e4, "first": 200} if SMOKE else {}
            return training.seconds_to_perplexity(cell, backend, **tiny, **NARROW)

        track_seconds_to_perplexity.pretty_name = "training to a perplexity of 70"
        track_seconds_to_perplexity.unit = "seconds"
