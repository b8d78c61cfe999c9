"""Parameters of a network: names, shapes and initial values, for a cell and sizes.

Names, shapes and the order of the gates' blocks are PyTorch's: `weight_ih_l0 (G*H, I)`, `weight_hh_l0 (G*H, H)`, `bias_ih_l0`,
`bias_hh_l0 (G*H,)`, with the suffix `_reverse` for the second direction and `p_i_l0 (H,)` for the vector that a cell calls `p.i`.
With a projection h is P wide: `weight_hh_l0 (G*H, P)`, `weight_hr_l0 (P, H)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from . import memory
from .cells import Cell, projected
from .cells.graph import real
from .spelling import did_you_mean, unknown

DTYPES = ("float32", "float64")


class NotHeld(ValueError):
    """The computation's dtype cannot represent a number of the cell; another dtype may."""


@dataclass(frozen=True)
class Spec:
    """A network without its parameters: the cell, the sizes and the dtype. Raises ValueError for invalid values, and NotHeld, a
    ValueError, for a number that the dtype cannot represent.

    reverse: one direction, which reads each sequence from its end. proj_size: P, the width to which one more matrix projects the
    new h before it is output and passed on (Sak, Senior, Beaufays, arXiv:1402.1128); 0 for none.
    """

    cell: Cell
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    dtype: str = "float32"
    numbers: Mapping[str, float] = field(default_factory=dict)
    reverse: bool = False
    proj_size: int = 0

    def __post_init__(self) -> None:
        for name in ("input_size", "hidden_size", "num_layers"):
            object.__setattr__(self, name, whole(name, getattr(self, name), 1))
        dtype = getattr(self.dtype, "__name__", str(self.dtype))  # np.float32 and np.dtype("float32") are welcome
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be {' or '.join(DTYPES)}, not {dtype!r}")
        object.__setattr__(self, "dtype", dtype)
        if self.reverse and self.bidirectional:
            raise ValueError(
                "a bidirectional network reads both ways; reverse is for a network with a single direction"
            )
        self._check_projection()
        numbers = dict(self.cell.numbers)
        for name, value in self.numbers.items():
            if name not in numbers:
                hint, takes = did_you_mean(name, numbers), ", ".join(numbers) or "none"
                raise ValueError(f"the cell {self.cell.name} has no number {name!r}; {hint}it takes {takes}")
            number = real(value)
            if number is None or not math.isfinite(number):
                raise ValueError(f"{name} must be a finite number, not {value!r}")
            numbers[name] = number
        object.__setattr__(self, "numbers", numbers)  # in the cell's order, in which backends pass them to kernels
        for name, value in numbers.items():
            self._check_held(name, value)
        for node in self.cell.order:
            self._check_held(f"a constant of the cell {self.cell.name}", node.value or 0.0)

    def _check_held(self, what: str, value: float) -> None:
        """Raise NotHeld if the computation's dtype rounds `value` to infinity, or to 0 although it is not 0."""
        with np.errstate(over="ignore", under="ignore"):
            held = np.dtype(self.dtype).type(value)
        if np.isinf(held) or (held == 0 and value != 0):
            raise NotHeld(f"{what} is {value:g}, which {self.dtype} holds as {held:g}; use dtype float64, or scale it")

    def _check_projection(self) -> None:
        object.__setattr__(self, "proj_size", whole("proj_size", self.proj_size, 0))
        if self.proj_size > self.hidden_size:
            raise ValueError(f"proj_size {self.proj_size} must not be larger than hidden_size {self.hidden_size}")
        if self.proj_size:
            projected(self.cell)

    @cached_property
    def step(self) -> Cell:
        """The cell that a backend runs: with proj_size, one whose last recurrent product is the projection."""
        return projected(self.cell) if self.proj_size else self.cell

    @cached_property
    def state_sizes(self) -> tuple[int, ...]:
        """Width of each of the cell's states: hidden_size, or proj_size for a projected h."""
        h, *others = (self.hidden_size for _ in self.cell.states)
        return (self.proj_size or h, *others)

    def reads_backwards(self, reading: int) -> bool:
        """Whether reading 0 or 1 of a layer goes from each sequence's end to its start."""
        return self.reverse or reading == 1

    @property
    def num_directions(self) -> int:
        """D: 2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @cached_property
    def state_rows(self) -> int:
        """L*D: the rows of each state's array, one for each layer and direction."""
        return self.num_layers * self.num_directions

    @cached_property
    def output_size(self) -> int:
        """Width of the output: directions * (proj_size or hidden_size)."""
        return self.num_directions * self.state_sizes[0]

    def layer_input_size(self, layer: int) -> int:
        """Width of what a layer reads: the network's input, or the output of the layer below."""
        return self.input_size if layer == 0 else self.output_size

    def suffixes(self) -> list[tuple[int, int, str]]:
        """(layer, reading, suffix of the parameters' names) for each layer and reading, in order."""
        return [
            (layer, reading, f"_l{layer}{'_reverse' if reading else ''}")
            for layer in range(self.num_layers)
            for reading in range(self.num_directions)
        ]


def whole(name: str, value: Any, least: int) -> int:
    """`value` as an int of at least `least`; raises ValueError with the name otherwise."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return int(value)


def flag(name: str, value: Any) -> bool:
    """`value` as a bool; raises ValueError with the name for anything else, because bias="no" would count as True."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, not {value!r}")
    return bool(value)


def as_array(name: str, value: Any) -> np.ndarray:
    """`value` as an array; a tensor that records gradients is detached. Raises ValueError, with the name, for anything that is not
    an array, such as None or rows of different lengths, and for a masked array, whose mask would be ignored; TypeError for a tensor
    of a dtype that NumPy has not.
    """
    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ndarray) and hasattr(value, "mask"):
        raise ValueError(f"{name} is a masked array; fill it with .filled(0) (rows of x end at their lengths)")
    try:
        array = np.asarray(value.detach() if hasattr(value, "detach") else value)
    except (ValueError, TypeError, RuntimeError) as error:
        if "bfloat16" in str(getattr(value, "dtype", "")):
            raise TypeError(f"{name} holds {value.dtype}, which NumPy has not; convert it with .float()") from error
        raise ValueError(f"{name} is not an array of numbers: {error}") from error
    if array.dtype.kind == "O" and not array.shape:  # NumPy wraps any other object in an array without dimensions
        raise ValueError(f"{name} is not an array of numbers: {None if value is None else type(value).__name__}")
    return array


def converted(name: str, array: np.ndarray, dtype: str, copy: bool = False) -> np.ndarray:
    """The array, C-contiguous and in the dtype. Raises ValueError, with the name, for numbers out of range.

    copy: also if it is so already.
    """
    try:
        with np.errstate(over="raise"):
            return array.astype(dtype, order="C", copy=copy)
    except FloatingPointError as error:
        largest = np.nanmax(np.abs(array[np.isfinite(array)]))
        raise ValueError(
            f'{name} holds {largest:g}, beyond what the RNN\'s {dtype} can hold; use RNN(..., dtype="float64")'
        ) from error


def shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter, in PyTorch's order."""
    H, inputs, recurrents = spec.hidden_size, len(spec.cell.input_gates), len(spec.cell.recurrent_gates)
    result: dict[str, tuple[int, ...]] = {}
    for layer, _, suffix in spec.suffixes():
        result[f"weight_ih{suffix}"] = (inputs * H, spec.layer_input_size(layer))
        if recurrents:
            result[f"weight_hh{suffix}"] = (recurrents * H, spec.state_sizes[0])
        if spec.bias:
            result[f"bias_ih{suffix}"] = (inputs * H,)
            if recurrents:
                result[f"bias_hh{suffix}"] = (recurrents * H,)
        if spec.proj_size:
            result[f"weight_hr{suffix}"] = (spec.proj_size, H)
        for vector in spec.cell.vectors:
            result[f"p_{vector}{suffix}"] = (H,)
    return result


def initialise(spec: Spec, seed: int) -> dict[str, np.ndarray]:
    """Parameters drawn uniformly from +-1/sqrt(hidden_size), as in PyTorch, with `seed`. Raises MemoryError before it allocates."""
    seed = whole("seed", seed, 0)
    count, arrays = _count(spec)
    # twice: a backend packs a copy. NumPy takes about 200 bytes for an array besides its data. The float64 draws are not counted,
    # because only one tensor of them exists at a time.
    needed = 2 * (count * np.dtype(spec.dtype).itemsize + 200 * arrays)
    memory.require(needed, f"{count:,} parameters and their packed copy")
    rng, bound = np.random.default_rng(seed), 1 / math.sqrt(spec.hidden_size)
    return {name: rng.uniform(-bound, bound, shape).astype(spec.dtype) for name, shape in shapes(spec).items()}


def _count(spec: Spec) -> tuple[int, int]:
    """The number of parameters and the number of arrays that hold them, without listing the layers: there may be far too many."""
    one, two = (shapes(replace(spec, num_layers=layers)) for layers in (1, 2))
    first, both = (sum(math.prod(shape) for shape in s.values()) for s in (one, two))
    above = spec.num_layers - 1
    return first + above * (both - first), len(one) + above * (len(two) - len(one))


def validate(spec: Spec, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Copies of `params` in the network's dtype and order. Raises ValueError for a wrong name, shape or dtype."""
    if not isinstance(params, Mapping):
        raise TypeError(f"parameters must be a dict of names to arrays, not {type(params).__name__}")
    wanted = shapes(spec)
    for name in params:
        if name not in wanted:
            raise ValueError(unknown("parameter", name, wanted))
    result = {}
    for name, shape in wanted.items():
        if name not in params:
            raise ValueError(f"the parameter {name!r} {shape} is missing")
        array = as_array(f"the parameter {name!r}", params[name])
        if array.dtype.kind not in "fiu":
            raise ValueError(f"the parameter {name!r} holds {array.dtype}, not real numbers")
        if array.shape != shape:
            raise ValueError(f"the parameter {name!r} has shape {array.shape}, expected {shape}")
        result[name] = converted(f"the parameter {name!r}", array, spec.dtype, copy=True)
    return result
