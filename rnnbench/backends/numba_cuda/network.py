"""Layers and directions on the device: their connections, arrays of other libraries, streams."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import cuda

from ...cells import program
from ...params import Spec
from ..base import Arrangement, States
from . import device
from .layer import DeviceLayer
from .layer import Tape as LayerTape
from .moves import clear_unused_rows, without_padding
from .queue import Queue


@dataclass
class Tape:
    """What each layer kept. `nbytes` does not count the caller's input, nor the output."""

    lengths: Any
    layers: list[list[LayerTape]]
    nbytes: int


class DeviceNetwork:
    """See `base.Network`. Native arrays are Numba's device arrays, which CuPy and PyTorch read without a copy through
    `__cuda_array_interface__`.

    spec, params: the network and its parameters. fast: the mode of mathematics. stored: the dtype that recurrent weights are stored
    in. tensor_cores: whether tensor cores compute tiled products. kernel: the kernel for every layer, "" for the plan's choice.
    """

    def __init__(
        self, spec: Spec, params: Mapping[str, np.ndarray], fast: bool, stored: str, tensor_cores: bool = False,
        kernel: str = "",
    ) -> None:  # fmt: skip
        self.spec, self._queue = spec, Queue(device.current(), spec.dtype, fast, stored, tensor_cores)
        # shared with `on_stream` and `with_params`: what works on a stream uses its one queue, and calls enqueue one after another
        self._lock = threading.Lock()
        self._queues: dict[int, Queue] = {}
        self._arrangement = arrangement = Arrangement(program(spec.step, False), spec)
        self.layers: list[list[DeviceLayer]] = [[] for _ in range(spec.num_layers)]
        for layer, d, suffix in spec.suffixes():
            weights, row = arrangement.weights(params, suffix), layer * spec.num_directions + d
            self.layers[layer].append(DeviceLayer(self._queue, spec, weights, spec.reads_backwards(d), row, kernel))

    def with_params(self, params: Mapping[str, np.ndarray]) -> DeviceNetwork:
        """See `base.Network`: queues keep their buffers and blocks, so that loads in a loop of training calls take none anew."""
        other = copy.copy(self)
        other.layers = [[] for _ in self.layers]
        for layer, d, suffix in self.spec.suffixes():
            weights = self._arrangement.weights(params, suffix)
            other.layers[layer].append(self.layers[layer][d].with_weights(self._queue, weights))
        return other

    def put(self, array: Any) -> Any:
        """A copy of a host array on the device. A device array is only wrapped, and waited for if it has another stream.

        Raises TypeError for a device array of another dtype or layout, because converting it would be a copy that nobody asked for.
        """
        if isinstance(array, np.ndarray):
            return self._queue.upload(array)
        wrapped = array if device.is_native(array) else cuda.as_cuda_array(array)
        if str(wrapped.dtype) != self.spec.dtype:
            raise TypeError(f"the device array holds {wrapped.dtype}, and the network computes in {self.spec.dtype}")
        if not wrapped.is_c_contiguous():
            raise TypeError(
                f"the device array of shape {tuple(wrapped.shape)} is not C-contiguous; copy it on the device first"
            )
        # `as_cuda_array` has waited for other libraries' streams; a Numba array may have one, too
        if wrapped.stream != 0 and not device.is_same_stream(wrapped.stream, self._queue.stream):
            wrapped.stream.synchronize()
        return wrapped

    def get(self, native: Any) -> np.ndarray:
        """A copy on the host, made after all earlier work is done."""
        if self._queue.stream != 0:
            self._queue.stream.synchronize()
        return native.copy_to_host()

    def on_stream(self, stream: Any) -> DeviceNetwork:
        """This network with its work on `stream`: Numba's, PyTorch's, CuPy's, or a stream's address.

        Calls enqueue their work without waiting for it, except for the first call of a size, which uploads weights and allocates
        memory. It is up to the caller to wait for the stream. When a result is dropped, the next call reuses its memory; if yet
        another stream reads the result, wait for that stream first.
        """
        name, own = device.stream_of(stream)
        if name not in self._queues:
            self._queues.setdefault(name, self._queue.on(own))
        # made anew in each call: networks that knew each other would be a cycle, and keep the device's memory until it is collected
        other = copy.copy(self)
        other._queue = self._queues[name]
        return other

    @property
    def workspace_bytes(self) -> int:
        """Bytes on the device that are kept for the next run: buffers and dropped blocks, but no weights, results and tapes."""
        return sum(int(buffer.nbytes) for buffer in self._queue.buffers.values()) + self._queue.memory.nbytes

    def forward(
        self, x: Any, state: States | None, lengths: np.ndarray | None, training: bool
    ) -> tuple[Any, States, Tape | None]:
        """See `Network.forward`. Raises MemoryError, saying what was needed and available; the network stays usable."""
        spec, queue, (T, B, I) = self.spec, self._queue, x.shape
        with self._lock:
            ends = queue.lengths(T, B) if lengths is None else queue.upload(lengths)
            if lengths is not None:
                clean = queue.empty(T, B, I) if training else queue.buffer("x", T, B, I)
                queue.each(without_padding, x.size, x, ends, clean)
                x = clean
            final = self._states(B)
            tapes: list[list[LayerTape]] = []
            between = 0
            for directions in self.layers:
                output = queue.empty(T, B, spec.output_size)
                kept = [layer.forward(queue, x, state, ends, training, output, final) for layer in directions]
                tapes.append([tape for tape in kept if tape is not None])
                if lengths is not None and not lengths.all():
                    for tape in tapes[-1]:
                        queue.each(clear_unused_rows, tape.values.size, tape.values, ends)
                x, between = output, between + output.nbytes
            queue.finish()
        if not training:
            return x, final, None
        nbytes = sum(tape.nbytes for layer in tapes for tape in layer) + between - x.nbytes
        return x, final, Tape(ends, tapes, nbytes + (clean.nbytes if lengths is not None else 0))

    def backward(self, tape: Tape, doutput: Any, dstate: States | None) -> dict[str, Any]:
        """See `Network.backward`."""
        spec, queue = self.spec, self._queue
        T, B, _ = tape.layers[0][0].x.shape
        with self._lock:
            if doutput is None:
                doutput = queue.zeros(T, B, spec.output_size)
            dinitial = self._states(B)
            gradients: dict[str, Any] = {}
            for layer, d, suffix in reversed(spec.suffixes()):
                kept = tape.layers[layer][d]
                if d == spec.num_directions - 1:
                    dx = queue.zeros(*kept.x.shape)
                gradients |= self.layers[layer][d].backward(queue, kept, doutput, dstate, dx, dinitial, suffix)
                if d == 0:
                    doutput = dx
            gradients["x"] = doutput
            gradients |= {f"{name}_0": d for name, d in zip(spec.cell.states, dinitial, strict=True)}
            queue.finish()
        return gradients

    def _states(self, B: int) -> States:
        """One array (L*D, B, width) for each state."""
        return tuple(self._queue.empty(self.spec.state_rows, B, width) for width in self.spec.state_sizes)
