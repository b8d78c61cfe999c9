"""The training loop: epochs of batches, a measured row now and then, early stop, checkpoints that continue the same curve."""

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
from .optimisers import Optimiser, clip_by_global_norm, global_norm

Row = dict[str, Any]


class Diverged(ArithmeticError):
    """The loss or a gradient is no longer finite; the message says when, with which rate, and what to try."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended a training between two steps. path: where it can be resumed from, or None."""

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        super().__init__()
        self.path = path


class Data(Protocol):
    """What is learnt from.

    metrics: what rows tell of a loss, among METRICS.
    """

    metrics: tuple[str, ...]

    def batches(self, epoch: int) -> Sequence[Any]:
        """The batches of an epoch, counted from 0: the same whenever asked for the same epoch."""

    def held_out(self) -> Sequence[Any]:
        """Batches that are never learnt from, or none."""


METRICS: dict[str, Callable[[Loss], float]] = {
    "loss": lambda loss: loss.mean,
    "accuracy": lambda loss: loss.accuracy,
    "perplexity": lambda loss: loss.perplexity,
}


class Training:
    """A model on its way: how far it has come, the rows measured so far, and how to go on.

    data, optimiser: see their protocols. clip: bring the gradients' global norm down to this. patience: stop after so many epochs
    in which the held-out loss did not fall below its lowest, and go back to the parameters that it was lowest with. every: measure
    a row each so many steps, besides those at the ends of epochs; 0 for none. path: where a checkpoint is written after each epoch,
    after Ctrl-C and at the end; None for nowhere. about: kept in the checkpoint, for whoever has to build model and data again.

    rows: dicts with "kind" ("step" or "epoch"), "epoch" (from 1), "step" (of the whole training), the data's metrics over the steps
    since the last row of that kind, "held_out_<metric>" (None in rows of steps), "learning_rate", "seconds" (spent in training
    steps so far) and "items_per_second" (predictions trained on per second since the last row of that kind).
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
        self.clip, self.patience, self.every = clip, patience, every
        self.path, self.about = path, dict(about or {})
        self.rows: list[Row] = []
        self.epoch = self.step = 0  # epochs that are done; steps of the running one
        self.total_steps, self.seconds = 0, 0.0
        self.stopped_early = False
        self._sums = {"step": (Loss(), 0.0), "epoch": (Loss(), 0.0)}  # losses and seconds since the last row
        self._lowest, self._since_lowest = math.inf, 0
        self._best: Params = {}

    @property
    def columns(self) -> list[str]:
        """What a row tells, in order."""
        metrics = self.data.metrics
        told = [*metrics, *(f"held_out_{name}" for name in metrics)]
        return ["kind", "epoch", "step", *told, "learning_rate", "seconds", "items_per_second"]

    def run(
        self, epochs: int, report: Callable[[Row], None] | None = None, tick: Callable[[], None] | None = None
    ) -> None:
        """Go on until `epochs` epochs are done in all, or `patience` is at its end.

        report: called with each new row. tick: called after each step, for a progress bar.

        Raises Diverged where the loss or a gradient is not finite, with the parameters of before that step, or where the held-out
        loss is not, with those of the end of that epoch; the checkpoint on disk stays. Raises Interrupted for Ctrl-C, when the
        running step is done and the checkpoint written; a second Ctrl-C interrupts at once.
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
        if self.path is not None and not os.path.exists(self.path):  # there was no epoch to do
            self.save()

    @np.errstate(all="ignore")  # a number that overflows shows in the next loss
    def _one_step(self, batch: Any) -> None:
        start = perf_counter()
        loss, gradients = self.model.gradients(batch)
        norm = clip_by_global_norm(gradients, self.clip) if self.clip else global_norm(gradients)
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
        clip = f"a smaller clip than {self.clip:g}" if self.clip else "clipping gradients to a norm of 1"
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
        if held_out is not None and not math.isfinite(held_out.total):  # the epoch's last step went too far
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
        """The loss over what was held out; None where nothing was."""
        batches = self.data.held_out()
        return sum((self.model.loss(batch) for batch in batches), Loss()) if len(batches) else None

    def _leave(self) -> None:
        self.save()
        raise Interrupted(self.path)

    def save(self) -> None:
        """Write the checkpoint to `path`, if there is one: whole, or not at all."""
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
        """Go on from a checkpoint of the same model, data and optimiser: later rows are those of a training never interrupted.

        Raises CheckpointError for a file that is damaged or of another model, OSError for none at all.
        """
        about, groups = checkpoint.load(path)
        try:
            progress = about["progress"]
            self._take(groups["params"])
            self.optimiser.restore(groups["optimiser"])
            self._best = groups.get("best", {})
            self.epoch, self.step = int(progress["epoch"]), int(progress["step"])
            self.total_steps, self.seconds = int(progress["total_steps"]), float(progress["seconds"])
            self.stopped_early = bool(progress["stopped_early"])
            self._lowest, self._since_lowest = float(progress["lowest"]), int(progress["since_lowest"])
            self._sums = {kind: (Loss(*numbers[:3]), float(numbers[3])) for kind, numbers in progress["sums"].items()}
            self.rows = list(progress["rows"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{path} is not a checkpoint of this training: {error!r}") from error

    def _take(self, arrays: Mapping[str, Any]) -> None:
        """Copy `arrays` into the model's parameters."""
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
        for name, array in arrays.items():
            params[name][...] = array
        self.model.changed()


@contextmanager
def _noticed_interrupts() -> Iterator[list[int]]:
    """Within it the first Ctrl-C is noted in the list, and a second one raises KeyboardInterrupt; the handler of before returns.

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
