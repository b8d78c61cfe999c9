"""The loop: rows, early stop, a loss that is no number, Ctrl-C, and checkpoints that go on to the same bits."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from task_checks import words_batch, words_model

from rnnbench.tasks import checkpoint, metrics
from rnnbench.tasks.checkpoint import CheckpointError
from rnnbench.tasks.losses import Loss
from rnnbench.tasks.optimisers import SGD, Adam
from rnnbench.tasks.training import Diverged, Interrupted, Training


class Few:
    """Five batches an epoch, in an order of their own, and one held out. `before(step)` runs before a batch is handed out."""

    metrics = ("loss", "accuracy", "perplexity")

    def __init__(self, before: Callable[[int], None] = lambda step: None) -> None:
        self.before = before

    def batches(self, epoch: int) -> Any:
        order = np.random.default_rng([0, epoch]).permutation(5)
        data = self

        class Batches:
            def __len__(self) -> int:
                return 5

            def __getitem__(self, step: int) -> Any:
                data.before(5 * epoch + step)
                return words_batch(seed=int(order[step]))

        return Batches()

    def held_out(self) -> list[Any]:
        return [words_batch(seed=9)]


def training(data: Any = None, optimiser: Any = None, **options: Any) -> Training:
    dtype = options.pop("dtype", "float64")
    return Training(words_model(dtype=dtype), data or Few(), optimiser or Adam(0.02), **options)


def without_seconds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "items_per_second")} for row in rows]


def test_rows_tell_what_was_measured() -> None:
    run, seen = training(every=2, clip=1.0), []
    run.run(2, seen.append)
    assert seen == run.rows
    assert [(row["kind"], row["epoch"], row["step"]) for row in run.rows] == [
        ("step", 1, 2), ("step", 1, 4), ("epoch", 1, 5), ("step", 2, 6), ("step", 2, 8), ("step", 2, 10), ("epoch", 2, 10)
    ]  # fmt: skip
    epoch = run.rows[-1]
    assert epoch["perplexity"] == pytest.approx(np.exp(epoch["loss"])) and 0 <= epoch["accuracy"] <= 1
    assert epoch["held_out_loss"] == pytest.approx(run.model.loss(words_batch(seed=9)).mean)
    assert run.rows[0]["held_out_loss"] is None
    assert epoch["learning_rate"] == 0.02 and epoch["items_per_second"] > 0
    # the epoch's loss is the mean over its steps
    steps = [row["loss"] for row in run.rows if row["kind"] == "step"]
    assert min(steps[2:]) <= epoch["loss"] <= max(steps)
    assert epoch["loss"] < run.rows[2]["loss"]


@pytest.mark.parametrize("make", [lambda: Adam(0.02), lambda: SGD(2.0, momentum=0.5, halve=True)])
@pytest.mark.parametrize("stop_after", [5, 7])
def test_a_resumed_training_gives_the_same_bits(make: Any, stop_after: int, tmp_path: Path) -> None:
    whole = training(optimiser=make(), every=2, patience=9, dtype="float32")
    whole.run(4)

    def interrupt(step: int) -> None:
        if step == stop_after:
            os.kill(os.getpid(), signal.SIGINT)

    path = tmp_path / "run.npz"
    first = training(Few(interrupt), make(), every=2, patience=9, dtype="float32", path=path)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as caught:
        first.run(4)
    assert caught.value.path == path and signal.getsignal(signal.SIGINT) is handler
    assert first.total_steps == stop_after + 1  # the running step was finished
    second = training(optimiser=make(), every=2, patience=9, dtype="float32")
    second.restore(path)
    second.run(4)
    assert without_seconds(second.rows) == without_seconds(whole.rows)
    for name, array in whole.model.params.items():
        np.testing.assert_array_equal(second.model.params[name], array)


def test_a_resumed_training_stops_early_where_the_whole_one_does(tmp_path: Path) -> None:
    def patient() -> Training:
        run = training(patience=2, path=tmp_path / "run.npz")
        run.held_out = lambda: Loss([3.0, 2.0, 2.5, 2.0, 1.0][run.epoch], 1)  # type: ignore[method-assign]
        return run

    first, second, whole = patient(), patient(), patient()
    first.run(3)  # one epoch after the lowest loss, one before the stop
    second.restore(tmp_path / "run.npz")
    assert second.seconds == first.seconds > 0
    for run in (second, whole):
        run.run(5)
    assert second.stopped_early and second.epoch == whole.epoch == 4
    for name, array in whole.model.params.items():
        np.testing.assert_array_equal(second.model.params[name], array)


def test_items_per_second_are_those_since_the_last_row(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()  # each step takes a second
    monkeypatch.setattr("rnnbench.tasks.training.perf_counter", lambda: next(clock))
    run, items = training(every=2), int(words_batch().lengths.sum())
    run.run(2)
    assert [row["seconds"] for row in run.rows] == [2, 4, 5, 6, 8, 10, 10]
    assert [row["items_per_second"] for row in run.rows] == [items] * 7


def test_ctrl_c_twice_interrupts_at_once(tmp_path: Path) -> None:
    def twice(step: int) -> None:
        if step == 7:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)

    run = training(Few(twice), path=tmp_path / "run.npz")
    with pytest.raises(KeyboardInterrupt) as caught:
        run.run(3)
    assert not isinstance(caught.value, Interrupted)
    again = training()
    again.restore(tmp_path / "run.npz")  # of the end of the first epoch
    assert (again.epoch, again.step) == (1, 0)


def test_a_loss_that_is_no_number_stops_and_says_what_to_try(tmp_path: Path) -> None:
    run = training(path=tmp_path / "run.npz")
    run.run(1)
    kept = (tmp_path / "run.npz").read_bytes()
    run.model.params["output.bias"][0] = np.nan
    before = {name: array.copy() for name, array in run.model.params.items()}
    message = (
        r"the loss is nan at step 6 \(epoch 2\) with the learning rate 0.02; try the learning rate 0.002, or clipping"
    )
    with pytest.raises(Diverged, match=message):
        run.run(3)
    for name, array in before.items():
        np.testing.assert_array_equal(run.model.params[name], array)
    assert (tmp_path / "run.npz").read_bytes() == kept


def test_training_that_runs_away_is_stopped() -> None:
    with pytest.raises(
        Diverged, match=r"the loss is inf at step 2 .* learning rate 1e\+308; try the learning rate 1e\+307"
    ):
        training(optimiser=SGD(1e308)).run(50)


@pytest.mark.parametrize("clip", [0, 0.0, -1.0, np.nan])
def test_a_clip_that_makes_no_sense_is_refused(clip: float) -> None:
    with pytest.raises(ValueError, match="^clip must be a finite number above 0, not "):
        training(clip=clip)


@pytest.mark.parametrize(
    ("clip", "message"), [(0.5, "or a smaller clip than 0.5"), (None, "or clipping gradients to a norm of 1")]
)
def test_a_gradient_that_is_no_number_is_not_used(clip: float | None, message: str) -> None:
    run = training(clip=clip)
    gradients, before = run.model.gradients, {name: array.copy() for name, array in run.model.params.items()}

    def broken(batch: Any) -> Any:
        loss, found = gradients(batch)
        found["output.bias"][0] = np.inf
        return loss, found

    run.model.gradients = broken  # type: ignore[method-assign]
    with pytest.raises(Diverged, match=f"norm of the gradients is inf at step 1 .* {message}"):
        run.run(1)
    for name, array in before.items():
        np.testing.assert_array_equal(run.model.params[name], array)


@pytest.mark.parametrize("patience", [None, 1])
def test_a_held_out_loss_that_is_no_number_leaves_the_checkpoint_of_before(
    patience: int | None, tmp_path: Path
) -> None:
    run = training(patience=patience, path=tmp_path / "run.npz")
    run.run(1)
    kept = (tmp_path / "run.npz").read_bytes()
    run.held_out = lambda: Loss(np.nan, 1)  # type: ignore[method-assign]
    steps = len(run.data.batches(0))
    with pytest.raises(Diverged, match=rf"the held-out loss is nan at step {2 * steps} \(epoch 2\)"):
        run.run(3)
    assert (tmp_path / "run.npz").read_bytes() == kept


def test_a_training_without_an_epoch_is_written_too(tmp_path: Path) -> None:
    run = training(path=tmp_path / "run.npz")
    run.run(0)
    again = training()
    again.restore(tmp_path / "run.npz")
    assert (again.epoch, again.total_steps) == (0, 0)


def test_early_stop_brings_the_best_parameters_back(tmp_path: Path) -> None:
    run = training(patience=2, path=tmp_path / "run.npz")
    held_out, best = iter([3.0, 2.0, 2.5, 2.0, 1.0]), []

    def measured() -> Loss:
        value = next(held_out)
        if value == 2.0 and not best:
            best.append({name: array.copy() for name, array in run.model.params.items()})
        return Loss(value, 1)

    run.held_out = measured  # type: ignore[method-assign]
    run.run(10)
    assert run.stopped_early and run.epoch == 4
    for name, array in best[0].items():
        np.testing.assert_array_equal(run.model.params[name], array)
    again = training(patience=2)
    again.restore(tmp_path / "run.npz")
    assert again.stopped_early
    again.run(20)
    assert again.epoch == 4


def test_without_anything_held_out() -> None:
    data = Few()
    data.held_out = lambda: []  # type: ignore[method-assign]
    run = training(data, patience=1)
    run.run(2)
    assert run.rows[-1]["held_out_loss"] is None and not run.stopped_early


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "not an .npz file, or the end of it is missing"),
        (lambda path: path.write_bytes(b""), "not an .npz file"),
        (lambda path: path.write_text("epoch,loss\n"), "not an .npz file"),
        (lambda path: np.savez(path, weights=np.zeros(3)), "not a checkpoint of rnnbench train"),
        (lambda path: np.savez(path, **{checkpoint.ABOUT: np.array({"a": 1}, object)}), "more than plain arrays"),
        (lambda path: np.savez(path, **{checkpoint.ABOUT: np.array('{"version": 99}')}), "has version 99"),
        (lambda path: checkpoint.save(path, {"about": {}}, {}), "not a checkpoint of this training"),
        (lambda path: flip(path), "is damaged"),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_a_sentence(damage: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    run = training(path=path)
    run.run(1)
    damage(path)
    fresh = training()
    with pytest.raises(CheckpointError, match=message) as caught:
        fresh.restore(path)
    assert str(path) in str(caught.value)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)


def test_another_models_checkpoint_is_refused(tmp_path: Path) -> None:
    training(path=tmp_path / "run.npz").run(1)
    with pytest.raises(CheckpointError, match="embedding.weight is float64 .* there, float32"):
        training(dtype="float32").restore(tmp_path / "run.npz")
    other = Training(words_model(num_layers=2), Few(), Adam(0.02))
    with pytest.raises(CheckpointError, match="rnn.bias_hh_l1.* are in only one of them"):
        other.restore(tmp_path / "run.npz")
    with pytest.raises(CheckpointError, match="not a checkpoint of this training: KeyError"):
        training(optimiser=SGD(0.1)).restore(tmp_path / "run.npz")
    with pytest.raises(FileNotFoundError):
        training().restore(tmp_path / "missing.npz")


@pytest.mark.parametrize(
    ("group", "name"), [("optimiser", "mean.output.weight"), ("best", "output.weight"), ("params", "output.weight")]
)
def test_arrays_cut_short_are_refused_and_change_nothing(group: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    training(path=path, patience=2).run(1)
    about, groups = checkpoint.load(path)
    groups[group][name] = groups[group][name][:2]
    checkpoint.save(path, about, groups)
    fresh = training()
    before = {name: array.copy() for name, array in fresh.model.params.items()}
    with pytest.raises(CheckpointError, match=r"output.weight .*\(2, "):
        fresh.restore(path)
    for name, array in before.items():
        np.testing.assert_array_equal(fresh.model.params[name], array)


@pytest.mark.parametrize("change", [{"epoch": -1}, {"sums": {"epoch": [1]}}, {"rows": 5}, {"step": "x"}])
def test_progress_that_cannot_be_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    training(path=path).run(1)
    about, groups = checkpoint.load(path)
    about["progress"] |= change
    checkpoint.save(path, about, groups)
    with pytest.raises(CheckpointError, match="not a checkpoint of this training"):
        training().restore(path)


def test_a_full_disk_leaves_the_checkpoint_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.npz"
    run = training(path=path)
    run.run(1)
    kept = path.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        run.run(2)
    assert path.read_bytes() == kept and list(tmp_path.iterdir()) == [path]


def test_metrics_and_curves(tmp_path: Path) -> None:
    run = training(every=5)
    run.run(2)
    metrics.write_rows(run.rows, tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text()) == run.rows
    metrics.write_rows(run.rows, tmp_path / "m.csv")
    lines = (tmp_path / "m.csv").read_text().splitlines()
    assert len(lines) == 5 and lines[0].startswith("kind,epoch,step,loss,accuracy,perplexity,held_out_loss")
    with pytest.raises(ValueError, match="as .csv or .json, not to"):
        metrics.write_rows(run.rows, tmp_path / "m.txt")
    pytest.importorskip("matplotlib")
    metrics.plot_curves({"lstm": run.rows, "again": run.rows}, tmp_path / "c.svg")
    drawn = (tmp_path / "c.svg").read_text()
    assert drawn.count("<path") > 10 and "</svg>" in drawn
    with pytest.raises(ValueError, match="matplotlib cannot draw into .*; it can write"):
        metrics.plot_curves({"lstm": run.rows}, tmp_path / "c.docx")


def test_numbers_that_json_has_not_become_null(tmp_path: Path) -> None:
    metrics.write_rows([{"epoch": 1, "loss": float("nan"), "rate": float("inf"), "seconds": 2.0}], tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text(), parse_constant=pytest.fail) == [
        {"epoch": 1, "loss": None, "rate": None, "seconds": 2.0}
    ]


def test_metrics_of_no_epoch_have_their_columns_and_a_plot_without_curves(tmp_path: Path) -> None:
    run = training()
    run.run(0)
    metrics.write_rows(run.rows, tmp_path / "m.csv", run.columns)
    metrics.plot_curves({"lstm": run.rows}, tmp_path / "m.svg")
    assert (tmp_path / "m.csv").read_text().strip() == ",".join(run.columns)
    assert (tmp_path / "m.svg").stat().st_size
    run.run(1)
    assert list(run.rows[0]) == run.columns
