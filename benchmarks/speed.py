"""Steady-state time of inference and of training steps, over cells, backends and sizes."""

from __future__ import annotations

from rnnbench.backends.threads import get_threads
from rnnbench.bench.cases import grid
from rnnbench.bench.machine import peak_gflops
from rnnbench.bench.measure import in_turn
from rnnbench.bench.stats import median_interval

from .common import QUICK, PerCase, this_run


class Timed(PerCase):
    """How a time is sampled: single calls for a quarter of a second, in one process for quick suites and two for
    others.
    """

    rounds = 1 if QUICK else 2
    warmup_time = 0.05
    repeat = (8, 1000, 0.25)
    number = 1


class ForwardOverHiddenSize(Timed):
    """Seconds of one inference, over the hidden size."""

    params = grid("ForwardOverHiddenSize").axes()

    def time_forward(self, *params: object) -> None:
        self.session.run()

    time_forward.pretty_name = "inference over hidden size"


class ForwardOverSeqLen(Timed):
    """Seconds of one inference, over the sequence length."""

    params = grid("ForwardOverSeqLen").axes()

    def time_forward(self, *params: object) -> None:
        self.session.run()

    time_forward.pretty_name = "inference over sequence length"


class TrainOverHiddenSize(Timed):
    """Seconds of one training step (forward and backward), over the hidden size."""

    params = grid("TrainOverHiddenSize").axes()
    direction = "train"

    def time_train(self, *params: object) -> None:
        self.session.run()

    time_train.pretty_name = "training step over hidden size"


class TrainOverSeqLen(Timed):
    """Seconds of one training step (forward and backward), over the sequence length."""

    params = grid("TrainOverSeqLen").axes()
    direction = "train"

    def time_train(self, *params: object) -> None:
        self.session.run()

    time_train.pretty_name = "training step over sequence length"


class Throughput(PerCase):
    """Rates of inference: time steps times batch a second, floating-point operations, and those beside the machine's
    peak.
    """

    params = grid("Throughput").axes()

    def track_steps_per_second(self, *params: object) -> float:
        return self.session.case.seq_len * self.session.case.batch_size / self._seconds()

    def track_gflops(self, *params: object) -> float:
        return self.session.case.flops / self._seconds() / 1e9

    def track_percent_of_peak(self, *params: object) -> float:
        return 100 * self.track_gflops() / self._peak()

    track_steps_per_second.pretty_name, track_steps_per_second.unit = "inference, steps a second", "steps/s"
    track_gflops.pretty_name, track_gflops.unit = "inference, GFLOP/s", "GFLOP/s"
    track_percent_of_peak.pretty_name, track_percent_of_peak.unit = "inference, per cent of peak", "percent"

    def _seconds(self) -> float:
        return median_interval(in_turn([self.session], budget_seconds=0.5)[:, 0]).median

    def _peak(self) -> float:
        """What the run measured once at its start, else measured here."""
        dtype, threads = self.session.case.dtype, get_threads()
        for line in this_run():
            if line["record"] == "machine" and line.get("threads") == threads:
                return line["peak_gflops"][dtype]
        return peak_gflops(dtype, threads)
