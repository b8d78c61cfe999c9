"""The training loop: epochs of batches, rows of metrics, early stopping, and checkpoints that continue the same curve."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, NoReturn, Protocol

import numpy as np

from . import checkpoint
from .checkpoint import CheckpointError
from .layers import Params
from .losses import Loss
from .model import Model
from .optimisers import Optimiser, clip_by_global_norm, global_norm, positive

Row = dict[str, Any]


class Diverged(ArithmeticError):
    """The loss or a gradient is no longer finite; the message says when, at which learning rate, and what to try."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended a training between two steps. path: where it can be resumed from, or None."""

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        super().__init__()
        self.path = path


class Data(Protocol):
    """Training data.

    metrics: which of METRICS the rows contain.
    """

    metrics: tuple[str, ...]

    def batches(self, epoch: int) -> Sequence[Any]:
        """The batches of an epoch, counted from 0: always the same ones for the same epoch."""

    def held_out(self) -> Sequence[Any]:
        """Batches that are never trained on; may be empty."""


METRICS: dict[str, Callable[[Loss], float]] = {
    "loss": lambda loss: loss.mean,
    "accuracy": lambda loss: loss.accuracy,
    "perplexity": lambda loss: loss.perplexity,
}


class Training:
    """A training run: the model, its progress, the rows measured so far, and how to continue.

    data, optimiser: see their protocols. clip: limit of the gradients' global norm. patience: stop after this many epochs in which
    the held-out loss did not fall below its minimum, and restore the parameters at that minimum. every: measure a row every so many
    steps, besides those at the ends of epochs; 0 for none. path: where a checkpoint is written after each epoch, after Ctrl-C and
    at the end; None for nowhere. about: stored in the checkpoint, for rebuilding the model and the data.

    rows: dicts with "kind" ("step" or "epoch"), "epoch" (from 1), "step" (of the whole run), the data's metrics over the steps
    since the last row of that kind, "held_out_<metric>" (None in rows of steps), "learning_rate", "seconds" (spent in training
    steps so far) and "items_per_second" (predictions trained on per second since the last row of that kind).

    Raises ValueError for a clip not above 0.
    """

    def __init__(
        self,
        model: Model,
        data: Data,
        optimiser: Optimiser,
        clip: float | None = None,
        patience: int | None = None,
        every: int = 0,
        path: str | os.PathLike[str] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.data, self.optimiser = model, data, optimiser
        self.clip = None if clip is None else positive("clip", clip)
        self.patience, self.every = patience, every
        self.path, self.about = path, dict(about or {})
        self.rows: list[Row] = []
        self.epoch = self.step = 0  # epochs completed; steps completed in the current one
        self.total_steps, self.seconds = 0, 0.0
        self.stopped_early = False
        self._sums = {"step": (Loss(), 0.0), "epoch": (Loss(), 0.0)}  # losses and seconds since the last row
        self._lowest, self._since_lowest = math.inf, 0
        self._best: Params = {}

    @property
    def columns(self) -> list[str]:
        """The keys of a row, in order."""
        metrics = self.data.metrics
        told = [*metrics, *(f"held_out_{name}" for name in metrics)]
        return ["kind", "epoch", "step", *told, "learning_rate", "seconds", "items_per_second"]

    def run(
        self, epochs: int, report: Callable[[Row], None] | None = None, tick: Callable[[], None] | None = None
    ) -> None:
        """Continue until `epochs` epochs are done in total, or `patience` runs out.

        report: called with each new row. tick: called after each step, for a progress bar.

        Raises Diverged if the loss or a gradient is not finite, leaving the parameters as before that step, or if the held-out loss
        is not, leaving those at the end of that epoch; the checkpoint on disk stays. Raises Interrupted for Ctrl-C, after finishing
        the current step and writing the checkpoint; a second Ctrl-C interrupts at once.
        """
        with _noticed_interrupts() as asked:
            while self.epoch < epochs and not self.stopped_early:
                batches = self.data.batches(self.epoch)
                while self.step < len(batches):
                    self._one_step(batches[self.step])
                    if self.every and self.total_steps % self.every == 0:
                        self._measure("step", None, report)
                    if tick:
                        tick()
                    if asked:
                        self._leave()
                self._end_of_epoch(report)
                self.save()
                if asked:
                    raise Interrupted(self.path)
        if self.path is not None and not os.path.exists(self.path):  # there was nothing left to do
            self.save()

    @np.errstate(all="ignore")  # an overflow shows in the next loss
    def _one_step(self, batch: Any) -> None:
        start = perf_counter()
        loss, gradients = self.model.gradients(batch)
        norm = clip_by_global_norm(gradients, self.clip) if self.clip is not None else global_norm(gradients)
        if not math.isfinite(loss.total):
            self._diverged("loss is", loss.mean, self.total_steps + 1)
        if not math.isfinite(norm):
            self._diverged("norm of the gradients is", norm, self.total_steps + 1)
        self.optimiser.step(self.model.params, gradients)
        self.model.changed()
        seconds = perf_counter() - start
        self.step, self.total_steps, self.seconds = self.step + 1, self.total_steps + 1, self.seconds + seconds
        for kind, (sum_, spent) in self._sums.items():
            self._sums[kind] = (sum_ + loss, spent + seconds)

    def _diverged(self, what: str, value: float, step: int) -> NoReturn:
        rate = self.optimiser.learning_rate
        if step == 1 and what == "loss is":
            raise Diverged(
                f"the loss is {value} at step 1, before any update: the cell overflows, divides by zero, or takes the log or "
                "sqrt of a negative number, or the data are not finite"
            )
        clip = f"a smaller clip than {self.clip:g}" if self.clip is not None else "clipping gradients to a norm of 1"
        raise Diverged(
            f"the {what} {value} at step {step} (epoch {self.epoch + 1}) with the learning rate {rate:g}; "
            f"try the learning rate {rate / 10:g}, or {clip}"
        )

    def _measure(self, kind: str, held_out: Loss | None, report: Callable[[Row], None] | None) -> None:
        loss, seconds = self._sums[kind]
        self._sums[kind] = (Loss(), 0.0)
        row: Row = {"kind": kind, "epoch": self.epoch + 1, "step": self.total_steps}
        row |= {name: METRICS[name](loss) for name in self.data.metrics}
        row |= {f"held_out_{n}": None if held_out is None else METRICS[n](held_out) for n in self.data.metrics}
        row["learning_rate"], row["seconds"] = self.optimiser.learning_rate, self.seconds
        row["items_per_second"] = loss.count / seconds if seconds else None
        self.rows.append(row)
        if report:
            report(row)

    def _end_of_epoch(self, report: Callable[[Row], None] | None) -> None:
        trained = self._sums["epoch"][0].mean
        held_out = self.held_out()
        self._measure("epoch", held_out, report)
        if held_out is not None and not math.isfinite(held_out.total):  # the epoch's last step diverged
            self._diverged("held-out loss is", held_out.mean, self.total_steps)
        self.epoch, self.step = self.epoch + 1, 0
        self.optimiser.end_of_epoch(trained)
        if self.patience is None or held_out is None:
            return
        if held_out.mean < self._lowest:
            self._lowest, self._since_lowest = held_out.mean, 0
            self._best = {name: array.copy() for name, array in self.model.params.items()}
            return
        self._since_lowest += 1
        if self._since_lowest >= self.patience:
            self.stopped_early = True
            self._take(self._best)

    @np.errstate(all="ignore")
    def held_out(self) -> Loss | None:
        """The loss over the held-out data; None if there is none."""
        batches = self.data.held_out()
        return sum((self.model.loss(batch) for batch in batches), Loss()) if len(batches) else None

    def _leave(self) -> None:
        self.save()
        raise Interrupted(self.path)

    def save(self) -> None:
        """Write the checkpoint to `path`, if there is one: completely, or not at all."""
        if self.path is None:
            return
        progress = {
            "epoch": self.epoch,
            "step": self.step,
            "total_steps": self.total_steps,
            "seconds": self.seconds,
            "stopped_early": self.stopped_early,
            "lowest": self._lowest,
            "since_lowest": self._since_lowest,
            "sums": {kind: [s.total, s.count, s.correct, spent] for kind, (s, spent) in self._sums.items()},
            "rows": self.rows,
        }
        groups = {"params": self.model.params, "optimiser": self.optimiser.state(), "best": self._best}
        checkpoint.save(self.path, {"about": self.about, "progress": progress}, groups)

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Resume from a checkpoint of the same model, data and optimiser: later rows are those of an uninterrupted run.

        Raises CheckpointError for a file that is damaged or of another model, OSError for a missing one.
        """
        about, groups = checkpoint.load(path)
        try:
            progress, best = about["progress"], groups.get("best", {})
            self._check(groups["params"])
            if best:
                self._check(best)
            epoch, step, total_steps = (int(progress[name]) for name in ("epoch", "step", "total_steps"))
            if min(epoch, step, total_steps) < 0:
                raise ValueError(f"{epoch} epochs, {step} and {total_steps} steps")
            self.optimiser.restore(groups["optimiser"], self.model.params)
            self._take(groups["params"])
            self._best = best
            self.epoch, self.step, self.total_steps = epoch, step, total_steps
            self.seconds = float(progress["seconds"])
            self.stopped_early = bool(progress["stopped_early"])
            self._lowest, self._since_lowest = float(progress["lowest"]), int(progress["since_lowest"])
            self._sums = {kind: (Loss(*numbers[:3]), float(numbers[3])) for kind, numbers in progress["sums"].items()}
            self.rows = list(progress["rows"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{path} is not a checkpoint of this training: {error!r}") from error

    def _check(self, arrays: Mapping[str, Any]) -> None:
        """Refuse arrays that are not those of the model's parameters."""
        params = self.model.params
        if arrays.keys() != params.keys():
            names = ", ".join(sorted(arrays.keys() ^ params.keys()))
            raise CheckpointError(f"the checkpoint belongs to another model: {names} are in only one of them")
        for name, array in arrays.items():
            if array.shape != params[name].shape or array.dtype != params[name].dtype:
                raise CheckpointError(
                    f"the checkpoint belongs to another model: {name} is {array.dtype} {array.shape} there, "
                    f"{params[name].dtype} {params[name].shape} here"
                )

    def _take(self, arrays: Mapping[str, Any]) -> None:
        """Copy `arrays` into the model's parameters."""
        for name, array in arrays.items():
            self.model.params[name][...] = array
        self.model.changed()


@contextmanager
def _noticed_interrupts() -> Iterator[list[int]]:
    """A context in which the first Ctrl-C is recorded in the list, and a second one raises KeyboardInterrupt. On exit the previous
    handler is restored.

    An exception in the middle of an optimiser's step would leave half of the parameters changed. Only the main thread gets signals.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
