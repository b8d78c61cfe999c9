"""The commands and their options. Nothing here imports what a command needs to run, because `--help` has to be quick.

The docstring of the function that adds a command's options is the command's help text.
"""

from __future__ import annotations

import argparse
import inspect
import shutil
import textwrap
from collections.abc import Callable
from typing import Any, NoReturn

import rnnbench
from rnnbench import backends, cells
from rnnbench.bench.cases import LENGTHS, SUITES
from rnnbench.cli import train_options, values
from rnnbench.cli.values import UsageError
from rnnbench.params import DTYPES

SHELLS = ("bash", "zsh", "tcsh")
CELL = "lstm, gru, ... or path/to/file.py:name for a cell of your own"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one sentence and do not end the process."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with `message` and how to get help."""
        raise UsageError(f"{message}; see {self.prog} --help")


def build() -> tuple[Parser, dict[str, Parser]]:
    """The whole parser, and the parser of each command by its name."""
    parser = Parser(
        prog="rnnbench",
        description="Recurrent cells written once as equations, verified, then timed on interchangeable backends.",
        epilog="Exit status: 0 all is well, 1 something disagrees or failed, 2 wrong usage, 3 or 4 a gate without a verdict.",
    )
    parser.add_argument("--version", action="version", version=f"rnnbench {rnnbench.__version__}")
    adder = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    listed = "\n".join(f"  {program:16} {shows}" for program, shows in EXAMPLES.items())
    for name, (help_, options) in COMMANDS.items():
        _add_command(adder, name, help_, options, programs=listed)
    return parser, dict(adder.choices)


def _add_command(adder: Any, name: str, help_: str, options: Callable[[Parser], None], **names: str) -> None:
    """A command or a command's task; its help is the docstring of `options`, with {name} replaced by what it stands for."""
    text = inspect.getdoc(options) or ""
    for key, value in names.items():
        text = text.replace(f"{{{key}}}", value)
    width = min(96, shutil.get_terminal_size().columns - 2)  # as argparse wraps the options below it
    filled = "\n\n".join(p if p.startswith("  ") else textwrap.fill(p, width) for p in text.split("\n\n"))
    raw = argparse.RawDescriptionHelpFormatter
    options(adder.add_parser(name, help=help_, description=filled, formatter_class=raw))


def _info(parser: Parser) -> None:
    """Print what determines how fast this machine computes: processor, memory, libraries and their versions, the measured
    matrix-product peak, and each backend, with the reason if it cannot be used.
    """
    parser.add_argument("--format", choices=("table", "json"), default="table", help="default: table")
    parser.add_argument("--no-peak", action="store_true", help="do not measure the peak (it takes two seconds)")
    _threads(parser)


def _check(parser: Parser) -> None:
    """Verify cells on backends: output, final states and every gradient against the float64 reference (a cell of your
    own: against its own equation), in every shape that has broken kernels before. The exit status is 1 if anything disagrees.

      rnnbench check
      rnnbench check --cells lstm,mine.py:my_cell --backends numba-cpu
      rnnbench check --against torch,onnxruntime

    With --against, other libraries take the reference's place: random networks run on our backends and on theirs.
    """
    _axes(parser, "all", "float32,float64")
    parser.add_argument(
        "--direction",
        choices=("forward", "train", "both"),
        default="both",
        help="inference, forward and backward, or both (default)",
    )
    parser.add_argument(
        "--seed", type=values.number("--seed", 0), default=0, metavar="N", help="data seed (default: 0)"
    )
    parser.add_argument(
        "--against",
        type=values.backend_list,
        metavar="PEERS",
        help=f"compare with these on random cases: {', '.join(backends.PEERS)} or any backend",
    )
    parser.add_argument(
        "--count", type=values.number("--count"), metavar="N", help="random cases of --against (default: 200)"
    )
    _threads(parser)


def _run(parser: Parser) -> None:
    """Verify, then measure a suite's cases, each in a process of its own, and keep the results under
    results/<machine>/, filed under the commit that is checked out. Every result is on disk before the next is measured:
    Ctrl-C loses none. Ends with the report's table and the path of its page. One machine's results all have the same number of
    threads: for another one, name another machine.

      rnnbench run --suite quick
      rnnbench run --suite standard --bench 'Forward.*lstm'
    """
    parser.add_argument(
        "--suite",
        type=values.name("suite", tuple(SUITES)),
        default="quick",
        help="smoke (a minute), quick (three minutes, default), standard (half an hour, with the peers) or full (a day)",
    )
    parser.add_argument("--cells", type=values.cell_list, metavar="CELLS", help=f"in place of the suite's: {CELL}")
    parser.add_argument("--backends", type=values.backend_list, metavar="NAMES", help="in place of the suite's")
    _measuring(parser)
    parser.add_argument("--dry-run", action="store_true", help="run everything once, quickly, and keep nothing")
    _threads(parser)


def _compare(parser: Parser) -> None:
    """Verify, then time one, two or more backends on the same cases in turn (A B B A ...), in one process. The ratio is a
    backend's time divided by the first one's: 1 for the first itself, below 1 is faster, above 1 slower. Its 99%
    interval is a confidence interval for the median over all possible turns, whatever their distribution, if they are independent.

      rnnbench compare --cells lstm,gru --backends numba-cpu,numpy --hidden-sizes 128 --batch-sizes 1,16
      rnnbench compare --task words --backends numba-cpu,torch

    With --task, whole training steps are compared, from the words to the new weights, including PyTorch's where it is
    installed; --input-sizes, --lengths, --layers, --bidirectional and --direction cannot be combined with it.
    """
    _axes(parser, "lstm", "float32")
    parser.add_argument("--task", choices=("words",), help="a whole training step of the word language model")
    for flag, default in (("--hidden-sizes", "128"), ("--batch-sizes", "16"), ("--seq-lens", "64")):
        of_task = {"--hidden-sizes": "100,512", "--batch-sizes": "32", "--seq-lens": "20"}[flag]
        help_ = f"default: {default}; with --task {of_task}"
        parser.add_argument(flag, type=values.numbers(flag), metavar="N,...", help=help_)
    parser.add_argument(
        "--input-sizes", type=values.numbers("--input-sizes"), metavar="N,...", help="default: the hidden size"
    )
    parser.add_argument(
        "--lengths",
        choices=LENGTHS,
        help="sequences all of the full length (default), or of any length up to it; libraries that can skip padding do",
    )
    parser.add_argument("--layers", type=values.number("--layers"), metavar="N", help="default: 1")
    parser.add_argument("--bidirectional", action="store_true", help="read each sequence both ways")
    parser.add_argument(
        "--direction",
        choices=("forward", "train"),
        help="inference (default), or forward and backward",
    )
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table", help="default: table")
    _threads(parser)


def _report(parser: Parser) -> None:
    """Show the results that `rnnbench run` saved, by default those of each machine's newest commit. The exit status is 1 if
    a result is wrong or failed.
    """
    formats = ("table", "markdown", "csv", "parquet", "html")
    parser.add_argument("--format", choices=formats, default="table", help="default: table")
    parser.add_argument(
        "--html",
        type=values.path,
        nargs="?",
        const=True,
        metavar="FILE",
        help="also write the page of tables and plots",
    )
    parser.add_argument(
        "--output", type=values.path, metavar="FILE", help="write the report to FILE instead of printing it"
    )
    parser.add_argument("--baseline", metavar="BACKEND", help="what speed-ups are relative to (default: numpy)")
    parser.add_argument("--machine", metavar="NAME", help="only this machine's results")
    parser.add_argument("--commit", metavar="HASH", help="only this commit's results, or all")
    parser.add_argument("--results", type=values.path, metavar="DIR", help="where results are (default: results/)")


def _backfill(parser: Parser) -> None:
    """Measure past commits, each with its own benchmarks in its own worktree, so that the history shows a line: every commit
    after a tag (or commit) up to HEAD along first parents, oldest first, but for those that a run of this suite has measured.

      rnnbench backfill --since HEAD~100 --every 10
    """
    parser.add_argument("--since", required=True, metavar="REV", help="the commit before the first one")
    parser.add_argument(
        "--every", type=values.number("--every"), default=1, metavar="N", help="only every Nth commit (default: 1)"
    )
    parser.add_argument("--suite", type=values.name("suite", tuple(SUITES)), default="quick", help="default: quick")
    _measuring(parser)
    parser.add_argument("--again", action="store_true", help="also measure commits that have been measured")
    parser.add_argument("--dry-run", action="store_true", help="only list the commits")


def _publish(parser: Parser) -> None:
    """Build airspeed velocity's static site, with every benchmark over the project's history and the steps detected in it, and
    check that it is complete: every graph exists and can be read, and the list of regressions names only what the site has.
    """
    parser.add_argument(
        "--results", type=values.path, metavar="DIR", help="where results are (default: results/ of the checkout)"
    )
    parser.add_argument(
        "--html-dir", type=values.path, metavar="DIR", help="where the site goes (default: as asv.conf.json says)"
    )


def _gate(parser: Parser) -> None:
    """Build two revisions of the checkout that contains this folder, and compare their kernels in pairs on one processor core:
    verified against the reference, base and head in turn, workers restarted, with an interval for the ratio. A change must recur;
    if a control kernel that neither side can change shifts, or the interval is too wide, the verdict is "inconclusive", not "pass".

      rnnbench gate --base main
      rnnbench gate --base HEAD~20 --head HEAD~1 --cases 'lstm B=1 H=128, gru train H=256' --markdown gate.md --json gate.json

    A case is a cell, followed by whatever differs from these defaults: a backend (numba-cpu), a dtype (float32), "train"
    (forward), T=32, B=16, H=128, I= (as H), layers=1, "ragged", "both ways", threads=1 (what only several do is not timed
    otherwise). Other projects name their cells, backends and cases in the table [tool.rnnbench] of pyproject.toml.

    Exit status: 0 pass, 1 a case is slower, wrong, gone or takes more memory, 2 wrong usage, 3 inconclusive, 4 unfinished.
    """
    parser.add_argument("--base", required=True, metavar="REV", help="the commit, branch or tag to compare with")
    parser.add_argument("--head", metavar="REV", help="what to judge (default: HEAD, without uncommitted changes)")
    parser.add_argument(
        "--cases", type=values.parts("case"), metavar="CASE,...", help="default: those of pyproject.toml, or twelve"
    )
    least, limit = "smallest change that counts (default: 0.03)", "minutes after which no new batch starts (default: 6)"
    parser.add_argument("--threshold", type=values.threshold, metavar="X", help=least)
    parser.add_argument("--budget", type=values.real("--budget", 6), metavar="MINUTES", help=limit)
    parser.add_argument("--format", choices=("table", "markdown", "json"), default="table", help="default: table")
    for flag in ("--markdown", "--json"):
        parser.add_argument(flag, type=values.path, metavar="FILE", help=f"also write the report as {flag[2:]} to FILE")


def _show(parser: Parser) -> None:
    """Show what is derived from a cell's equation: stages, gates, parameters, gradient, and a backend's code.

    rnnbench show gru --backend numpy
    """
    parser.add_argument("cell", type=values.cell, metavar="CELL", help=CELL)
    parser.add_argument(
        "--backend",
        type=values.name("backend", backends.OWN + backends.GPU),
        default="numpy",
        metavar="NAME",
        help=f"whose code to show: {', '.join(backends.OWN + backends.GPU)}",
    )
    parser.add_argument(
        "--batch-size",
        type=values.number("--batch-size"),
        metavar="B",
        help="with --hidden-size: which kernel a GPU would run, and why",
    )
    for flag, letter in (("--hidden-size", "H"), ("--input-size", "I")):
        parser.add_argument(flag, type=values.number(flag), metavar=letter, help="show shapes as numbers")


def _example(parser: Parser) -> None:
    """Run one of the small programs that recurrent networks are taught with, on any of our backends:

    {programs}

    The programs themselves are in rnnbench/tasks/, and under examples/ as a user would write them.
    """
    parser.add_argument("name", type=values.name("example", tuple(EXAMPLES)), metavar="NAME", help="one of the above")
    parser.add_argument(
        "--backend",
        type=values.own_backend,
        default="numba-cpu",
        metavar="NAME",
        help=f"one of {', '.join(backends.OWN + backends.GPU)}; default: numba-cpu",
    )
    _threads(parser)


def _train(parser: Parser) -> None:
    """Train one of the end-to-end programs. Ctrl-C writes a checkpoint, and --resume continues from it along the same curve.

    rnnbench train digits --help
    """
    adder = parser.add_subparsers(dest="task", metavar="TASK", required=True, parser_class=Parser)
    for name, (help_, options) in train_options.TASKS.items():
        _add_command(adder, name, help_, options)
        _threads(adder.choices[name])


def _gpu(parser: Parser) -> None:
    """Run everything that needs a GPU, into a folder: every CUDA kernel against the reference, races, the measured ceilings (copy,
    matrix products, the grid's barrier), and times next to PyTorch's cuDNN in IEEE float32, TF32, float16 and bfloat16.

      rnnbench gpu results/h200

    Exit status: 0 all is well, 1 there is no GPU, or something is wrong or failed.
    """
    parser.add_argument("folder", type=values.path, metavar="FOLDER", help="where the tables go; created if missing")
    parser.add_argument(
        "--minutes",
        type=values.number("--minutes"),
        default=8,
        metavar="N",
        help="minutes after which no new case starts (default: 8)",
    )


def _completion(parser: Parser) -> None:
    """Print a shell script that completes commands, options, files and the names of cells, backends and suites on Tab. How to
    use it in each shell:

      bash   eval "$(rnnbench completion bash)"    in ~/.bashrc
      zsh    rnnbench completion zsh > _rnnbench   in a folder of fpath
      tcsh   rnnbench completion tcsh > ~/.rnnbench.tcsh, sourced in ~/.tcshrc
    """
    parser.add_argument("shell", type=values.name("shell", SHELLS), metavar="SHELL", help=", ".join(SHELLS))


def _axes(parser: Parser, cells_default: str, dtypes_default: str) -> None:
    built_in = ", ".join(cells.BUILT_IN)
    parser.add_argument(
        "--cells",
        type=values.cell_list,
        default=cells_default,
        metavar="CELLS",
        help=f"default: {cells_default}; all means {built_in}; path/to/file.py:name is a cell of your own",
    )
    parser.add_argument(
        "--backends",
        type=values.backend_list,
        metavar="NAMES",
        help=f"from {', '.join(backends.NAMES)}; default: those of {', '.join(backends.OWN)} that run here",
    )
    parser.add_argument(
        "--dtypes",
        type=values.names("dtype", DTYPES),
        default=dtypes_default,
        metavar="NAMES",
        help=f"default: {dtypes_default}",
    )


def _measuring(parser: Parser) -> None:
    parser.add_argument(
        "--bench",
        type=values.regex,
        metavar="REGEX",
        action="append",
        default=[],
        help="only benchmarks whose name(parameters) match; may be repeated",
    )
    parser.add_argument(
        "--machine",
        type=values.machine,
        metavar="NAME",
        help="what to call this machine (default: the name asv knows, if only one, e.g. an earlier --machine; else the host name)",
    )
    parser.add_argument(
        "--results", type=values.path, metavar="DIR", help="where results go (default: results/ of the checkout)"
    )


def _threads(parser: Parser) -> None:
    parser.add_argument(
        "--threads",
        type=values.number("--threads"),
        metavar="N",
        help="threads for every backend in the run (default: all available, or the limit in OMP_NUM_THREADS or a similar variable)",
    )


# name -> what the program shows; the name is that of a module of rnnbench.tasks
EXAMPLES = {
    "by-hand": "two units, two steps, every number shown",
    "text-classifier": "an LSTM of four separate gates: which package of the standard library is a docstring from?",
    "dynamic-rnn": "TensorFlow 1's cells under dynamic_rnn: lengths, time- or batch-major, states as a tuple or joined",
    "unrolled": "an LSTM with a loss at every step, its state carried from chunk to chunk, against an exact floor",
}
# name -> (its line in the list of commands, the function that adds its options and whose docstring is its help)
COMMANDS: dict[str, tuple[str, Callable[[Parser], None]]] = {
    "info": ("the machine, the libraries, and which backends can run here", _info),
    "check": ("check backends against the reference", _check),
    "run": ("run a suite of benchmarks through airspeed velocity and show the report", _run),
    "compare": ("time backends in turn in one process, with intervals of their ratio", _compare),
    "gate": ("compare two revisions in pairs: is a kernel slower, wrong or larger than it was?", _gate),
    "report": ("show saved results as a table, a text format or one HTML page", _report),
    "backfill": ("measure past commits, so that the history shows a line", _backfill),
    "gpu": ("check and measure the CUDA kernels on a GPU, all in one run", _gpu),
    "publish": ("build airspeed velocity's site of all results over time", _publish),
    "show": ("a cell's equation, stages, gates, shapes, derived gradient and emitted code", _show),
    "example": ("run one of the programs that recurrent networks are taught with", _example),
    "train": ("train a digit classifier or a language model, end to end", _train),
    "completion": ("print a shell script that completes options on Tab", _completion),
}
