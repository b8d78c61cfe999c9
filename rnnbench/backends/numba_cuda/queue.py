"""Memory and launches on one stream of a device, in a dtype and a mode of mathematics."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import cuda

from . import device
from .compiled import launch
from .maths import SIMULATED
from .memory import Blocks
from .moves import SUM_COLUMNS, SUM_ROWS, THREADS, add_slices, column_sums, fill
from .plan import Device
from .product import ADD, FROM_ZERO, product
from .product_tiles import product_tile, slices

At = tuple[int, int]
_MOST_VIEWS = 8  # of a buffer: calls that alternate between this many shapes reuse their views

# Numba advises against grids of fewer than 128 blocks; ours are as large as the work, or as the plan has found best.
warnings.filterwarnings("ignore", message=r"Grid size \d+ will likely result in GPU under-utilization")


@dataclass(frozen=True)
class Queue:
    """Launches on `stream` (0 is the device's default stream). dtype, fast: of every kernel. stored: the dtype of recurrent
    weights. tensor_cores: whether these compute matrix products, in TensorFloat-32. waits: whether `finish` waits.
    """

    device: Device
    dtype: str
    fast: bool
    stored: str
    tensor_cores: bool = False
    stream: Any = 0
    waits: bool = True
    buffers: dict[str, Any] = field(default_factory=dict)
    full: dict[tuple[int, int], Any] = field(default_factory=dict)
    memory: Blocks = field(default_factory=Blocks)
    # views: name of a buffer -> shape -> the buffer as an array of that shape; shaped: id of such an array -> shape -> the array
    # reshaped
    views: dict[str, dict[tuple[int, ...], Any]] = field(default_factory=dict)
    shaped: dict[int, dict[tuple[int, ...], Any]] = field(default_factory=dict)

    def on(self, stream: Any) -> Queue:
        """The same for another stream, with its own buffers: work on two streams may run at the same time."""
        return Queue(self.device, self.dtype, self.fast, self.stored, self.tensor_cores, stream, waits=False)

    # ---- memory

    def empty(self, *shape: int) -> Any:
        """An uninitialised array on the device. Raises MemoryError, saying what was needed and available."""
        needed = math.prod(shape) * np.dtype(self.dtype).itemsize
        with device.memory_errors(f"arrays of shape {shape}", needed):
            return self.memory.empty(shape, self.dtype, self.waits)

    def zeros(self, *shape: int) -> Any:
        """Like `empty`, but filled with zeros."""
        array = self.empty(*shape)
        self.each(fill, array.size, array.reshape(array.size), 0)
        return array

    def buffer(self, name: str, *shape: int) -> Any:
        """An array in memory that is kept under a name for the next call and grows as needed, for data that no caller sees."""
        views = self.views.setdefault(name, {})
        if shape not in views:
            size = math.prod(shape)
            grows = name not in self.buffers or self.buffers[name].size < size
            if grows or len(views) == _MOST_VIEWS:
                for view in views.values():
                    self.shaped.pop(id(view), None)
                views.clear()
            if grows:
                self.buffers.pop(name, None)  # free the old one before allocating the new one
                self.buffers[name] = self.empty(size)
            views[shape] = self.buffers[name][:size].reshape(shape)
            self.shaped[id(views[shape])] = {}
        return views[shape]

    def reshaped(self, array: Any, *shape: int) -> Any:
        """`array.reshape(shape)`. For buffers the view is kept, because making one takes Numba as long as launching a kernel."""
        known = self.shaped.get(id(array))
        if known is None:
            return array.reshape(shape)
        if shape not in known:
            known[shape] = array.reshape(shape)
        return known[shape]

    def flat(self, array: Any) -> Any:
        """The array as one dimension, as kernels take it."""
        return array if array.ndim == 1 else self.reshaped(array, array.size)

    def upload(self, array: np.ndarray) -> Any:
        """A copy on the device, complete before what this queue runs next; never empty, as Numba has no empty device arrays."""
        return self._upload(array, kept=False)

    def upload_for_all(self, array: np.ndarray) -> Any:
        """Like `upload`, but to be kept, and complete before what any stream runs next; a copy is ordered in its stream only."""
        copy = self._upload(array, kept=True)
        cuda.synchronize()
        return copy

    def _upload(self, array: np.ndarray, kept: bool) -> Any:
        if array.size == 0:
            array = np.zeros([max(1, n) for n in array.shape], array.dtype)
        array = np.ascontiguousarray(array)
        with device.memory_errors(f"an array of shape {array.shape}", array.nbytes):
            # what is kept permanently needs no reusable block
            to = None if kept or SIMULATED else self.memory.empty(array.shape, array.dtype, self.waits)
            return cuda.to_device(array, stream=self.stream, to=to)

    def lengths(self, seq_len: int, batch_size: int) -> Any:
        """Full lengths: `batch_size` times the number `seq_len`, on the device; kept for the next call of these sizes."""
        if self.full.get((seq_len, batch_size)) is None:
            self.full.clear()
            self.full[seq_len, batch_size] = self.upload(np.full(batch_size, seq_len, np.int64))
        return self.full[seq_len, batch_size]

    # ---- launches

    def launch(
        self, kernel: Any, blocks: tuple[int, ...], threads: tuple[int, ...], *arguments: Any, cluster: int = 1
    ) -> None:
        """Enqueue a kernel. kernel, blocks, threads, arguments, cluster: see `compiled.launch`."""
        launch(kernel, blocks, threads, self.stream, self.dtype, arguments, cluster)

    def each(self, kernel: Any, count: int, *arguments: Any) -> None:
        """Enqueue a kernel with a thread for each of `count` elements."""
        threads = 4 if self.device.simulated else THREADS
        self.launch(kernel, (-(-count // threads),), (threads,), *arguments)

    def multiply(
        self, a: Any, b: Any, c: Any, rows: int, columns: int, depth: int, a_at: At = (0, 0), b_at: At = (0, 0),
        c_at: At = (0, 0), bias: Any = None, start: int = FROM_ZERO, transposed: bool = False, stored: str = "",
    ) -> None:  # fmt: skip
        """Enqueue a matrix product. The arguments are those of `product.product` and its kernel. stored: "" for the queue's dtype.
        transposed: cannot be combined with FROM_BIAS.
        """
        tile = product_tile(rows, columns, depth, transposed, self.dtype, self.tensor_cores, self.device)
        kernel = product(tile, transposed, self.dtype, self.fast, stored or self.dtype)
        across, down = -(-columns // tile.columns), -(-rows // tile.rows)
        if bias is None:
            bias = self.buffers.get("no bias")
        if bias is None:
            bias = self.buffers["no bias"] = self.empty(1)
        # transposed products are sums over all steps, for which a second launch costs nothing in comparison
        count = slices(across * down, depth, self.device) if transposed else 1
        part, target, target_at, begin = depth, c, c_at, start
        if count > 1:
            part, target, target_at, begin = (
                -(-depth // count),
                self.buffer("slices", count * rows, columns),
                (0, 0),
                FROM_ZERO,
            )
        self.launch(
            kernel, (down, across, count), (tile.threads,),  # a grid may be largest in its first dimension
            a, a_at, b, b_at, target, target_at, bias, begin, rows, columns, depth, part,
        )  # fmt: skip
        if count > 1:
            self.each(add_slices, rows * columns, target, count, c, c_at, start == ADD, rows, columns)

    def sum_rows(self, a: Any, out: Any) -> None:
        """Enqueue out[c] = the sum of column c of a."""
        columns, rows = (2, 2) if self.device.simulated else (SUM_COLUMNS, SUM_ROWS)
        kernel, blocks = column_sums(self.dtype, columns, rows), -(-a.shape[1] // columns)
        count = slices(blocks, a.shape[0], self.device)
        if count > 1:
            part = -(-a.shape[0] // count)
            partial = self.buffer("sums of rows", count, a.shape[1])
            self.launch(kernel, (blocks, count), (columns, rows), a, part, partial)
            a = partial
        self.launch(kernel, (blocks, 1), (columns, rows), a, a.shape[0], out.reshape(1, out.size))

    def finish(self) -> None:
        """Wait until all work is done, unless the caller has its own stream to wait for."""
        self.memory.finished()
        if not self.waits:
            return
        if self.stream == 0:
            cuda.synchronize()
        else:
            self.stream.synchronize()
