"""What is measured: the `Case`, and the grids of cases that the benchmark suites run. They are defined here and
nowhere else.

A suite names a `Grid` for each benchmark class in `benchmarks/`. For every combination in a grid, each of the class's benchmarks
starts a process, which costs 1 to 2 seconds besides the measurement: think of that before adding a value.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rnnbench import cells
from rnnbench.backends import OWN, PEERS
from rnnbench.params import DTYPES, Spec
from rnnbench.spelling import unknown

# inference; forward and backward. How a layer reads its sequences is something else, see Case.num_directions
DIRECTIONS = ("forward", "train")
LENGTHS = ("full", "ragged")


@dataclass(frozen=True)
class Case:
    """One network, one problem size, one backend: what is verified, then measured.

    cell: a built-in cell's name or "path/to/file.py:name". direction: "forward" is inference, "train" is forward and
    backward. lengths: "full", or "ragged" for sequences of different lengths, including an empty one. seed: of the
    parameters and the data.

    Raises ValueError for a size below 1 and an unknown dtype, direction or lengths.
    """

    cell: str
    backend: str
    dtype: str = "float32"
    direction: str = "forward"
    seq_len: int = 32
    batch_size: int = 16
    input_size: int = 128
    hidden_size: int = 128
    num_layers: int = 1
    bidirectional: bool = False
    lengths: str = "full"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("seq_len", "batch_size", "input_size", "hidden_size", "num_layers"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")
        for name, allowed in (("dtype", DTYPES), ("direction", DIRECTIONS), ("lengths", LENGTHS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be {' or '.join(allowed)}; got {getattr(self, name)!r}")

    @property
    def spec(self) -> Spec:
        """The network's `Spec`, as used by params and backends. Raises ValueError for an unknown cell."""
        return Spec(
            cells.find(self.cell),
            self.input_size,
            self.hidden_size,
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
            dtype=self.dtype,
        )

    @property
    def num_directions(self) -> int:
        """How many ways each layer reads the sequence: 2 for a bidirectional network, else 1. Unrelated to `direction`."""
        return 2 if self.bidirectional else 1

    @property
    def flops(self) -> int:
        """Floating-point operations of the matrix products of all layers, both ways if bidirectional."""
        cell, sizes = cells.find(self.cell), (self.seq_len, self.batch_size)
        total = 0
        for layer in range(self.num_layers):
            width = self.input_size if layer == 0 else self.num_directions * self.hidden_size
            total += self.num_directions * cells.flops(cell, *sizes, width, self.hidden_size, self.direction)
        return total

    @property
    def memory_bytes(self) -> int:
        """A generous estimate of the memory that verifying and running the case needs, for refusing cases that cannot fit.

        The float64 reference dominates: for each time step it keeps the gates, about as many values again that they
        were computed from, the states, and in training their adjoints. Packed weights, gradients and two copies of the
        parameters are added.
        """
        cell = cells.find(self.cell)
        per_unit = 2 * len(cell.input_gates) + 3 * len(cell.states) + 3
        steps = self.seq_len * self.batch_size
        width = max(self.input_size, self.num_directions * self.hidden_size)
        units = self.num_layers * self.num_directions * self.hidden_size
        weights = units * len(cell.input_gates) * (width + self.hidden_size)
        values = steps * (units * per_unit + 3 * width) + 4 * weights
        return 8 * values * (2 if self.direction == "train" else 1)

    def on(self, backend: str) -> Case:
        """The same case on another backend."""
        return dataclasses.replace(self, backend=backend)

    def __str__(self) -> str:
        sizes = f"T={self.seq_len} B={self.batch_size} I={self.input_size} H={self.hidden_size}"
        extra = (f" layers={self.num_layers}" if self.num_layers > 1 else "") + (" both ways" * self.bidirectional)
        extra += " ragged" if self.lengths == "ragged" else ""
        return f"{self.cell} {self.backend} {self.dtype} {self.direction} {sizes}{extra}"


@dataclass(frozen=True)
class Unusual(Case):
    """A case whose network has options besides. It is checked and never timed, so that `Case` has only the fields by which results
    are stored.

    options: pairs of a name and a value: bias, reverse or proj_size as in `Spec`, or a number of the cell.
    """

    options: tuple[tuple[str, float], ...] = ()

    @property
    def spec(self) -> Spec:
        """The network's `Spec`, options included. Raises ValueError for an option that the cell has not."""
        options: dict[str, Any] = dict(self.options)
        own = {name: options.pop(name) for name in ("bias", "reverse", "proj_size") if name in options}
        return dataclasses.replace(super().spec, **own, numbers=options)

    def __str__(self) -> str:
        return " ".join([super().__str__(), *(f"{name}={value}" for name, value in self.options)])


@dataclass(frozen=True)
class Grid:
    """The values of each parameter of a benchmark class; the cases are all their combinations, input_size =
    hidden_size.
    """

    cells: tuple[str, ...] = ("lstm", "gru", "rnn_tanh")
    dtypes: tuple[str, ...] = ("float32",)
    seq_lens: tuple[int, ...] = (64,)
    batch_sizes: tuple[int, ...] = (16,)
    hidden_sizes: tuple[int, ...] = (128,)
    backends: tuple[str, ...] = OWN

    def axes(self) -> list[list[Any]]:
        """The values in the order of PARAM_NAMES, as asv wants them."""
        axes = (self.cells, self.backends, self.dtypes, self.seq_lens, self.batch_sizes, self.hidden_sizes)
        return [list(values) for values in axes]


PARAM_NAMES = ["cell", "backend", "dtype", "seq_len", "batch_size", "hidden_size"]

_ALL = tuple(cells.BUILT_IN)
_SIDE_BY_SIDE = OWN + tuple(name for name in PEERS if "cuda" not in name)
_TINY = Grid(cells=("lstm",), seq_lens=(3,), batch_sizes=(2,), hidden_sizes=(17,))


def _with_peers(grids: dict[str, Grid]) -> dict[str, Grid]:
    return {name: dataclasses.replace(grid, backends=_SIDE_BY_SIDE) for name, grid in grids.items()}


# End-to-end training; the sizes are those of bench/training.py. PyTorch has a twin of the word model only.
_PROGRAMS = {
    "Words": Grid(cells=("lstm", "gru"), backends=(*OWN, "torch")),
    "WordsToPerplexity": Grid(cells=("lstm",)),
    "Digits": Grid(cells=("lstm", "gru", "rnn_tanh")),
    "Examples": Grid(cells=("lstm",)),
}
SUITES: dict[str, dict[str, Grid]] = {
    # Every benchmark once, tiny: for tests and continuous integration.
    "smoke": {
        "ForwardOverHiddenSize": _TINY,
        "ForwardOverSeqLen": _TINY,
        "TrainOverHiddenSize": _TINY,
        "TrainOverSeqLen": _TINY,
        "Throughput": _TINY,
        "Memory": _TINY,
        "Startup": Grid(cells=("rnn_tanh",)),
        "Words": Grid(cells=("lstm",)),
        "WordsToPerplexity": Grid(cells=("lstm",)),
        "Digits": Grid(cells=("lstm",)),
        "Examples": Grid(cells=("lstm",)),
    },
    # `make bench`: at most three minutes on two cores, compilation included. Hidden sizes from 64 share their kernels;
    # a smaller one would compile others, at several seconds each.
    "quick": {
        "ForwardOverHiddenSize": Grid(hidden_sizes=(64, 128, 512)),
        "ForwardOverSeqLen": Grid(cells=("lstm",), seq_lens=(16, 64, 256), batch_sizes=(1,)),
        "TrainOverHiddenSize": Grid(hidden_sizes=(64, 128)),
        "TrainOverSeqLen": Grid(cells=("lstm",), seq_lens=(16, 256), batch_sizes=(1,)),
        "Throughput": Grid(cells=("lstm",)),
        "Memory": Grid(cells=("lstm", "gru")),
        "Startup": Grid(cells=("lstm",)),
        "Words": Grid(cells=("lstm",)),
        "Digits": Grid(cells=("lstm",)),
    },
    # Half an hour of comparison with the peers: each gives one column of the head-to-head table.
    "standard": _with_peers(
        {
            "ForwardOverHiddenSize": Grid(batch_sizes=(1, 16), hidden_sizes=(32, 128, 512)),
            "ForwardOverSeqLen": Grid(cells=("lstm",), seq_lens=(16, 256), batch_sizes=(1,)),
            "TrainOverHiddenSize": Grid(hidden_sizes=(32, 128, 512)),
            "TrainOverSeqLen": Grid(cells=("lstm",), seq_lens=(16, 256), batch_sizes=(1,)),
            "Throughput": Grid(cells=("lstm",)),
            "Memory": Grid(cells=("lstm",), seq_lens=(16, 64, 256)),
            "Startup": Grid(cells=("lstm",)),
        }
    )
    | _PROGRAMS,
    # Both precisions, odd and large sizes: a day.
    "full": _with_peers(
        {
            "ForwardOverHiddenSize": Grid(
                _ALL, DTYPES, batch_sizes=(1, 16, 64), hidden_sizes=(16, 33, 64, 128, 256, 512, 1024)
            ),
            "ForwardOverSeqLen": Grid(_ALL, DTYPES, seq_lens=(1, 8, 32, 128, 512, 1024), batch_sizes=(1, 16)),
            "TrainOverHiddenSize": Grid(
                _ALL, DTYPES, batch_sizes=(1, 16, 64), hidden_sizes=(16, 33, 64, 128, 256, 512)
            ),
            "TrainOverSeqLen": Grid(_ALL, DTYPES, seq_lens=(1, 8, 32, 128, 512), batch_sizes=(1, 16)),
            "Throughput": Grid(_ALL, DTYPES, batch_sizes=(1, 16), hidden_sizes=(32, 128, 512)),
            "Memory": Grid(_ALL, DTYPES, seq_lens=(16, 64, 256), hidden_sizes=(32, 128, 512)),
            "Startup": Grid(_ALL),
        }
    )
    | _PROGRAMS,
}


def grid(benchmark: str, environ: Mapping[str, str] = os.environ) -> Grid:
    """The grid of a benchmark class in the suite that RNNBENCH_SUITE names ("quick" without it).

    RNNBENCH_CELLS and RNNBENCH_BACKENDS, comma-separated, replace the suite's own cells and backends.

    Raises ValueError for an unknown suite.
    """
    suite = environ.get("RNNBENCH_SUITE") or "quick"
    if suite not in SUITES:
        raise ValueError(unknown("suite", suite, SUITES))
    chosen = SUITES[suite][benchmark]
    cells_named, backends_named = (
        tuple(split_names(environ.get(variable, ""))) for variable in ("RNNBENCH_CELLS", "RNNBENCH_BACKENDS")
    )
    return dataclasses.replace(chosen, cells=cells_named or chosen.cells, backends=backends_named or chosen.backends)


def split_names(text: str) -> list[str]:
    """The names in a comma-separated list. Commas in brackets belong to a variant's name: lstm[clip=3,peepholes]."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()]
