"""The programs of `rnnbench example`: rates, and the time to a source's entropy rate. In every suite but the quick one."""

from __future__ import annotations

import os

from rnnbench.bench import examples
from rnnbench.bench.cases import SUITES, grid

from .common import Program

SUITE = os.environ.get("RNNBENCH_SUITE") or "quick"
SMOKE = SUITE == "smoke"
SIZES = {"hidden_size": 17, "seq_len": 3, "batch_size": 2} if SMOKE else {}

if "Examples" in SUITES[SUITE]:
    LSTM = [["lstm"], list(grid("Examples").backends)]

    class ByHand(Program):
        """Two units, a call a step: what a call costs."""

        params = [["rnn_tanh"], list(grid("Examples").backends)]

        def track_steps_per_second(self, cell: str, backend: str) -> float:
            return examples.by_hand_program(backend).rate()

        track_steps_per_second.pretty_name, track_steps_per_second.unit = "two units by hand", "steps/s"

    class DynamicRnn(Program):
        """TensorFlow 1's cells over ragged batches, inference."""

        params = [["BasicLSTMCell"] if SMOKE else list(examples.TF1_CELLS), list(grid("Examples").backends)]

        def track_steps_per_second(self, cell: str, backend: str) -> float:
            return examples.dynamic_rnn_program(cell, backend, **SIZES).rate()

        track_steps_per_second.pretty_name, track_steps_per_second.unit = "dynamic_rnn", "steps/s"

    class TextClassifier(Program):
        """Training steps of the text classifier."""

        params = LSTM

        def track_words_per_second(self, cell: str, backend: str) -> float:
            return examples.text_classifier_program(backend, **SIZES).rate()

        track_words_per_second.pretty_name, track_words_per_second.unit = "training a text classifier", "words/s"

    class UnrolledLstm(Program):
        """Training steps with carried state, and how long they take to learn all there is."""

        params = LSTM

        def track_steps_per_second(self, cell: str, backend: str) -> float:
            return examples.unrolled_program(backend, **SIZES).rate()

        def track_seconds_to_perplexity(self, cell: str, backend: str) -> float:
            return examples.seconds_to_entropy_rate(backend, 1.0 if SMOKE else 0.02)

        track_steps_per_second.pretty_name, track_steps_per_second.unit = "training an unrolled LSTM", "steps/s"
        track_seconds_to_perplexity.pretty_name = "training to within 2% of the entropy rate"
        track_seconds_to_perplexity.unit = "seconds"
