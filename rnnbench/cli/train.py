"""`rnnbench train`."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import signal
import sys
from collections.abc import Callable
from typing import Any

from rnnbench.backends.threads import in_words
from rnnbench.bench.text import counted
from rnnbench.cli import train_files, values
from rnnbench.cli.terminal import Progress
from rnnbench.cli.train_options import EPOCHS, ORIGINAL_WORDS, RUN, SETTINGS
from rnnbench.cli.values import UsageError
from rnnbench.tasks import checkpoint, digits, metrics, text, words
from rnnbench.tasks.batches import DataError
from rnnbench.tasks.checkpoint import CheckpointError
from rnnbench.tasks.model import SequenceModel
from rnnbench.tasks.optimisers import SGD, Adam, Optimiser
from rnnbench.tasks.training import Data, Diverged, Interrupted, Row, Training

Settings = dict[str, Any]
ABSURD = 10  # a training has diverged if its loss is this many times that of a guess among all classes


def run(arguments: argparse.Namespace) -> int:
    """Train, print as it goes, and write the requested files. Returns 1 if the training diverged, 130 after Ctrl-C."""
    values.use_threads(arguments.threads)
    try:
        train_files.check(arguments)
        return _train(arguments)
    except (DataError, CheckpointError) as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        if error.filename is None:  # standard output's reader is gone or its disk is full, which `main` handles
            raise
        raise UsageError(f"{error.filename}: {error.strerror}") from error


def _train(arguments: argparse.Namespace) -> int:
    settings, kept = _settings(arguments)
    if arguments.epochs is None:
        arguments.epochs = kept.get("epochs", EPOCHS[arguments.task])
    data, model, about, finish = PROGRAMS[arguments.task](settings, arguments)
    equations = model.recurrent.rnn.spec.cell.digest
    training = Training(
        model,
        data,
        _optimiser(settings),
        clip=settings["clip"],
        patience=settings["patience"],
        every=arguments.every,
        path=arguments.save or arguments.resume,
        about={
            "task": arguments.task,
            "settings": settings,
            "digest": about["digest"],
            "equations": equations,
            "epochs": arguments.epochs,
        },
    )
    if arguments.resume is not None:
        if kept.get("digest") != about["digest"]:
            raise UsageError(
                f"{arguments.resume} was trained on data other than what is there now; train without --resume"
            )
        if kept.get("equations") != equations:
            raise UsageError(
                f"{arguments.resume} was trained when the cell {settings['cell']} had other equations; train without --resume"
            )
        training.restore(arguments.resume)
    print(f"{about['text']}; {about['model']}, {arguments.backend}, {in_words()}", flush=True)
    status = _run_training(training, arguments)
    if arguments.metrics is not None:
        metrics.write_rows(training.rows, arguments.metrics, training.columns)
    if arguments.plot is not None:
        metrics.plot_curves({about["model"]: training.rows}, arguments.plot)
    if status == 0:
        finish()
    return status


def _run_training(training: Training, arguments: argparse.Namespace) -> int:
    """Run a new or resumed training, with a line for each row and the progress below it. Returns the exit status."""
    if arguments.resume is not None and training.epoch >= arguments.epochs:
        print(
            f"{arguments.epochs} of {arguments.epochs} epochs are done; to train further, use --epochs {training.epoch + 1} or more"
        )
    steps = len(training.data.batches(0)) * max(0, arguments.epochs - training.epoch) - training.step
    progress = Progress(max(steps, 1))
    unit = UNITS[arguments.task]

    gone: list[OSError] = []

    def report(row: Row) -> None:
        progress.clear()
        try:
            print(_line(row, arguments.epochs, unit), flush=True)
        except OSError as error:  # nobody reads any more, or the disk is full: end as after Ctrl-C, with a checkpoint
            gone.append(error)
            signal.raise_signal(signal.SIGINT)

    def tick() -> None:
        progress.step()
        progress.show(f"steps, epoch {training.epoch + 1}")

    try:
        training.run(arguments.epochs, report, tick)
    except Diverged as error:
        progress.clear()
        print(f"rnnbench: {error}", file=sys.stderr)
        return 1
    except Interrupted:
        progress.clear()
        if training.path is None:
            training.path = train_files.free_name(arguments.task)
            training.save()
        resume = ["rnnbench", "train", arguments.task, "--resume", str(training.path), *_run_options(arguments)]
        what = "interrupted"
        if gone:
            what = "standard output was closed" if isinstance(gone[0], BrokenPipeError) else "standard output failed"
        print(f"rnnbench: {what} at step {training.total_steps}; continue with: {shlex.join(resume)}", file=sys.stderr)
        if gone:
            raise gone[0] from None
        return 130
    progress.clear()
    if (loss := _loss(training)) > ABSURD * (guess := math.log(len(training.model.params["output.bias"]))):
        print(
            f"rnnbench: the training has diverged: its loss is {loss:.3g}, and that of a guess is {guess:.3g}; "
            f"try a learning rate of {training.optimiser.learning_rate / 10:g} or less",
            file=sys.stderr,
        )
        return 1
    if training.stopped_early:
        epochs = counted(training.patience or 0, "epoch")
        print(f"stopped: the held-out loss has not fallen for {epochs}; the best parameters are restored")
    return 0


def _loss(training: Training) -> float:
    """The loss of the parameters that the training ends with, on the held-out data if there is any."""
    rows = [row for row in training.rows if row["kind"] == "epoch"]
    losses = [row["loss"] if row["held_out_loss"] is None else row["held_out_loss"] for row in rows]
    # an early stop restores the best parameters
    return 0.0 if not losses else min(losses) if training.stopped_early else float(losses[-1])


def _run_options(arguments: argparse.Namespace) -> list[str]:
    """The options chosen for this run that are not kept in the checkpoint."""
    chosen = {name: getattr(arguments, name) for name in RUN[arguments.task]}
    return [
        word
        for name, value in chosen.items()
        if value != RUN[arguments.task][name]
        for word in (f"--{name}", str(value))
    ]


def _line(row: Row, epochs: int, unit: str) -> str:
    """A row as text for people."""
    form: dict[str, Callable[[float], str]] = {
        # these may have 300 digits if the model has diverged or learnt nothing
        "loss": lambda value: f"{value:.4f}" if value < 1e6 else f"{value:.1e}",
        "accuracy": "{:.1%}".format,
        "perplexity": lambda value: f"{value:.1f}" if value < 1e6 else f"{value:.1e}",
    }
    named = [name for name in form if name in row]
    parts = [f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}"]
    if row["kind"] == "step":
        parts.append(f"step {row['step']:>5}")
    parts += [f"{name} {form[name](row[name])}" for name in named]
    if row["held_out_loss"] is not None:
        parts.append("held out: " + ", ".join(f"{name} {form[name](row[f'held_out_{name}'])}" for name in named))
    if row["kind"] == "epoch":
        rate = row["items_per_second"]
        parts += [f"learning rate {row['learning_rate']:g}", f"{rate:,.0f} {unit}/s" if rate else ""]
    return "  ".join(part for part in parts if part)


def _settings(arguments: argparse.Namespace) -> tuple[Settings, dict[str, Any]]:
    """The settings of the training, from the command line, the checkpoint to resume and the defaults; and what else the checkpoint
    says about itself.
    """
    known, given = SETTINGS[arguments.task], vars(arguments)
    chosen = {name: given[name] for name in known if given[name] is not None}
    # a training may be resumed from another folder
    chosen |= {name: os.path.abspath(chosen[name]) for name in _PATHS if _is_path(name, chosen)}
    if arguments.resume is None:
        original = arguments.task == "words" and arguments.optimiser == "sgd"
        settings = known | (ORIGINAL_WORDS if original else {}) | chosen
        return settings | {"exact": "dictionary" in chosen}, {}
    about = checkpoint.load(arguments.resume)[0].get("about", {})
    if about.get("task") != arguments.task:
        raise UsageError(f"{arguments.resume} is a checkpoint of {about.get('task')!r}, not of {arguments.task!r}")
    settings = about.get("settings", {})
    if settings.keys() != known.keys() | {"exact"}:
        raise UsageError(
            f"{arguments.resume} has not the settings that this version of rnnbench knows; train without --resume"
        )
    # the files may have moved since; whether they are the same ones, their contents decide
    moved = {name: chosen[name] for name in _PATHS if _is_path(name, chosen) and _is_path(name, settings)}
    settings |= moved
    for name, value in chosen.items():
        if settings.get(name) != value:
            flag, before = "--" + name.replace("_", "-"), settings.get(name)
            made = f"without {flag}, not with" if before is None else f"with {flag} {before}, not"
            raise UsageError(f"{arguments.resume} was made {made} {value}; leave out {flag} or --resume")
    for name in _PATHS:
        path = _file_of(name, settings)
        if path is not None and not os.path.exists(path):
            raise UsageError(
                f"{path}, which {arguments.resume} was trained with, is not there; name its new place with --{name}"
            )
    values.cell(settings["cell"])  # raises UsageError if the cell has another name now
    return settings, about


_PATHS = ("text", "mnist", "cell")  # settings that may be names of files


def _is_path(name: str, settings: Settings) -> bool:
    return _file_of(name, settings) is not None


def _file_of(name: str, settings: Settings) -> str | None:
    """The file or folder that a setting of _PATHS names, None if it names none."""
    value = settings.get(name)
    if name != "cell" or value is None:
        return value
    return value.rpartition(":")[0] if ".py" in value else None


def _optimiser(settings: Settings) -> Optimiser:
    if settings["optimiser"] == "sgd":
        return SGD(settings["learning_rate"], halve=True)
    return Adam(settings["learning_rate"])


Program = tuple[Data, SequenceModel, dict[str, str], Callable[[], None]]


def _digits(settings: Settings, arguments: argparse.Namespace) -> Program:
    dtype, seed = settings["dtype"], settings["seed"]
    if settings["mnist"] is None:
        train, test = digits.default_data(dtype, seed)
    else:
        train, test = digits.mnist(settings["mnist"], dtype, seed)
    data = digits.Digits(train, test, settings["batch_size"], seed)
    size = (settings["cell"], settings["hidden_size"])
    model = digits.classifier(train.images.shape[2], *size, arguments.backend, dtype, seed)
    rows, columns = train.images.shape[1:]
    about = {
        "text": f"{len(train.labels):,} pictures of {rows} rows of {columns}, {len(test.labels):,} held out",
        "model": f"{model.recurrent.rnn.spec.cell.name} {size[1]}",
        "digest": data.digest,
    }
    return data, model, about, lambda: None


def _words(settings: Settings, arguments: argparse.Namespace) -> Program:
    if settings["column"] is not None and settings["text"] is None:
        raise UsageError("--column names a column of a CSV file; give the file with --text")
    if settings["text"] is None:
        content = text.default_text()
    elif settings["column"] is None:
        if settings["text"].lower().endswith(".csv") and arguments.resume is None:
            print(
                f"rnnbench: note: all of {arguments.text} is read as plain text; --column NAME reads one column of it",
                file=sys.stderr,
            )
        content = text.read_text(settings["text"])
    else:
        content = text.read_column(settings["text"], settings["column"])
    sentences = text.sentences(content, settings["max_length"])
    corpus = words.Corpus(
        sentences, settings["dictionary"], settings["exact"], settings["batch_size"], seed=settings["seed"]
    )
    size = (settings["cell"], settings["hidden_size"])
    per = "row" if settings["optimiser"] == "sgd" else "prediction"
    known = len(corpus.dictionary)
    model = words.language_model(known, *size, arguments.backend, settings["dtype"], settings["seed"], per)

    def finish() -> None:
        for sentence in words.sample(
            model, corpus.dictionary, arguments.sample, settings["max_length"], arguments.temperature, settings["seed"]
        ):
            print(f"> {sentence}")

    about = {
        "text": f"{len(sentences):,} sentences, {corpus.tokens:,} words to learn from, a dictionary of {known:,}, "
        f"which lacks {corpus.unknown_share():.1%} of the held-out words",
        "model": f"{model.recurrent.rnn.spec.cell.name} {size[1]}",
        "digest": corpus.digest,
    }
    return corpus, model, about, finish


PROGRAMS: dict[str, Callable[[Settings, argparse.Namespace], Program]] = {"digits": _digits, "words": _words}
UNITS = {"digits": "pictures", "words": "words"}
