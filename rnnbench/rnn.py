"""`RNN`, the one object that users work with: it validates input, hands the work to a backend and keeps the conventions."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np

from . import backends, cells, params
from .backends.base import Network
from .spelling import did_you_mean


class Tape:
    """What a forward pass kept for backpropagation through time. `nbytes` is its size, without input and output."""

    def __init__(
        self, owner: object, network: Network, native: Any, seq_len: int, batch_size: int, on_device: bool = False
    ) -> None:
        self._owner, self._network, self._native, self._on_device = owner, network, native, on_device
        self.seq_len, self.batch_size = seq_len, batch_size

    @property
    def nbytes(self) -> int:
        return int(self._native.nbytes)

    def __reduce__(self) -> NoReturn:
        # a tape refers to its RNN's kernels and buffers, and only that RNN can use it
        raise TypeError(
            "a tape cannot be pickled or copied; keep x and call forward again where its gradients are needed"
        )


class RNN:
    """A recurrent network: a cell, sizes, parameters and a backend.

    cell: the name of a built-in cell, "path/to/file.py:name", or a function made with `@cell`. input_size I, hidden_size H,
    num_layers, bidirectional (D = 2 directions, else 1). batch_first: x and output are (B, T, ...) instead of (T, B, ...).
    bias: whether the layers have biases. backend: "numpy", "numba-cpu" or, on a GPU, "numba-cuda". dtype: "float32" or "float64".
    seed: of the initial parameters, U(+-1/sqrt(H)). reverse: one direction, from each sequence's end to its start. proj_size: P,
    the width to which weight_hr (P, H) projects the new h, for cells that use h only in recurrent products; h and output are then
    P wide; 0 for none. numbers: the cell's run-time numbers, such as forget_bias=1.0.

    Raises ValueError for an unknown cell, backend or number and for an invalid size, BackendUnavailable if a library is missing,
    MemoryError if the parameters would not fit.
    """

    def __init__(
        self,
        cell: str | cells.Cell,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        batch_first: bool = False,
        bias: bool = True,
        backend: str = "numba-cpu",
        dtype: str = "float32",
        seed: int = 0,
        reverse: bool = False,
        proj_size: int = 0,
        **numbers: float,
    ) -> None:
        found = cells.find(cell)
        _check_keywords(found, numbers)
        self.spec = params.Spec(
            found,
            input_size,
            hidden_size,
            num_layers,
            params.flag("bidirectional", bidirectional),
            params.flag("bias", bias),
            dtype,
            numbers,
            params.flag("reverse", reverse),
            proj_size,
        )
        self.backend, self.batch_first = backend, params.flag("batch_first", batch_first)
        self._module = backends.load(backend)
        reason = self._module.why_unsupported(self.spec, "forward")
        if reason is not None:
            raise ValueError(f"the backend {backend} cannot run this network: {reason}")
        self._install(params.initialise(self.spec, seed))

    def __getstate__(self) -> dict[str, Any]:
        # what copies and pickles hold; everything else is made from it. The cell is held by its name, so its digest is held, too
        return {
            "spec": self.spec, "backend": self.backend, "batch_first": self.batch_first, "params": dict(self._params),
            "digest": self.spec.cell.digest,
        }  # fmt: skip

    def __setstate__(self, kept: dict[str, Any]) -> None:
        cell = kept["spec"].cell
        if cell.digest != kept["digest"]:
            raise cells.CellError(
                f"the equation of {cell.__module__}.{cell.__qualname__} has changed since this RNN was pickled"
            )
        self.spec, self.backend, self.batch_first = kept["spec"], kept["backend"], kept["batch_first"]
        self._module = backends.load(self.backend)
        self._install(kept["params"])

    @property
    def params(self) -> Mapping[str, np.ndarray]:
        """Name -> array, under PyTorch's names, shapes and gate order. Read-only, because weights are packed at `load`."""
        return self._params

    def load(self, new_params: Mapping[str, Any]) -> None:
        """Take copies of `new_params` as the parameters. Raises ValueError for a missing, unknown or misshapen one."""
        self._install(params.validate(self.spec, new_params), self.network)

    def _install(self, arrays: dict[str, np.ndarray], before: Network | None = None) -> None:
        """Use `arrays` as the parameters, in a network derived from `before` if that supports it; None for a new RNN."""
        if before is None:
            self._identity = object()  # tapes know their RNN by it; a copy is another RNN
        for array in arrays.values():
            array.flags.writeable = False
        self._params, self._dtype = MappingProxyType(arrays), np.dtype(self.spec.dtype)
        again = getattr(before, "with_params", None)
        self.network: Network = self._module.prepare(self.spec, arrays) if again is None else again(arrays)

    def __call__(
        self, x: Any, state: Any = None, lengths: Any = None, stream: Any = None
    ) -> tuple[Any, tuple[Any, ...]]:
        """Inference.

        x: (T, B, I), or (B, T, I) with batch_first; floating point. state: a tuple with one array (layers * D, B, H) per
        state of the cell, zeros if None. lengths: (B,) whole numbers from 0 to T, T if None. Returns output (T, B, D*H), zero
        past a row's end, and the final state, a tuple like `state`, of each row's last valid step.

        With backend="numba-cuda", x and state may be arrays on the device (CuPy's, PyTorch's or any other with
        `__cuda_array_interface__`), C-contiguous in the RNN's dtype; they are not copied, and if x is one, so are the results.
        stream: Numba's, CuPy's or PyTorch's; work on device arrays is enqueued there without waiting. None waits for the results.
        If another stream reads such a result, wait for that stream before dropping the result: the next call reuses its memory.

        Raises ValueError for wrong shapes and lengths, TypeError for wrong dtypes and for device arrays that cannot be used.
        """
        output, final, _ = self._run(self._on(stream, self.network), x, state, lengths, training=False)
        return output, final

    def forward(
        self, x: Any, state: Any = None, lengths: Any = None, stream: Any = None
    ) -> tuple[Any, tuple[Any, ...], Tape]:
        """Like `__call__`, but also returns the tape that `backward` needs. The tape may hold x itself, so do not change x until
        then. It remembers the stream.
        """
        reason = self._module.why_unsupported(self.spec, "train")
        if reason is not None:
            raise ValueError(f"the backend {self.backend} cannot train this network: {reason}")
        # `backward` uses the stream of this pass: any other, the default stream included, would not wait for this pass
        network = self._on(stream, self.network)
        output, final, native = self._run(network, x, state, lengths, training=True)
        steps, rows = (1, 0) if self.batch_first else (0, 1)
        T, B = output.shape[steps], output.shape[rows]
        return output, final, Tape(self._identity, network, native, T, B, _on_device(x))

    def backward(self, tape: Tape, doutput: Any, dstate: Any = None, stream: Any = None) -> dict[str, Any]:
        """Backpropagation through time.

        tape: from a `forward` of this RNN; its parameters are those of that pass even if others were loaded since. doutput: the
        gradient of the loss with respect to output, in its shape; None for zeros. dstate: likewise for the final state.
        stream: as in `__call__`; None for that of `forward`, if it had one. Returns gradients under the parameters' names, and
        "x", "h_0" (and "c_0", ...), shaped like what they belong to, on the device if x was there.
        """
        if not isinstance(tape, Tape):
            raise TypeError(f"tape must be what forward returned, not {type(tape).__name__}")
        if tape._owner is not self._identity:
            raise ValueError("the tape belongs to another RNN; call backward on the one whose forward returned it")
        spec, network = self.spec, self._on(stream, tape._network)
        T, B = tape.seq_len, tape.batch_size
        if doutput is not None:
            shape = (B, T, spec.output_size) if self.batch_first else (T, B, spec.output_size)
            doutput = network.put(self._time_major("doutput", self._array("doutput", doutput, network, shape)))
        native = network.backward(tape._native, doutput, self._state("dstate", dstate, B, network))
        gradients = native if tape._on_device else {name: network.get(value) for name, value in native.items()}
        gradients["x"] = self._user_layout(gradients["x"])
        return gradients

    def _run(self, network: Any, x: Any, state: Any, lengths: Any, training: bool) -> tuple[Any, tuple[Any, ...], Any]:
        array = self._array("x", x, network)
        shape = array.shape
        layout = "(B, T, I)" if self.batch_first else "(T, B, I)"
        if len(shape) != 3 or shape[2] != self.spec.input_size:
            raise ValueError(f"x must be {layout} with I = {self.spec.input_size}, not {shape}")
        if 0 in shape:
            raise ValueError(f"x is {shape}; {layout} needs at least one step and one row")
        array = self._time_major("x", array)
        T, B, _ = array.shape
        native_state = self._state("state", state, B, network)
        output, final, tape = network.forward(network.put(array), native_state, _lengths(lengths, T, B), training)
        if _on_device(x):
            return output, final, tape
        return self._user_layout(network.get(output)), tuple([network.get(s) for s in final]), tape

    def _on(self, stream: Any, network: Network) -> Any:
        """The network with its work on `stream`."""
        if stream is None:
            return network
        if not hasattr(network, "on_stream"):
            raise ValueError(f"stream is for backends on a CUDA device, which {self.backend} is not")
        return network.on_stream(stream)

    def _array(self, name: str, value: Any, network: Any, shape: tuple[int, ...] | None = None) -> Any:
        """`value` as an array of floating-point numbers, of this shape if one is given."""
        if _on_device(value):
            if not hasattr(network, "on_stream"):
                raise TypeError(f"{name} is on a CUDA device, and the backend {self.backend} computes on the host")
            if self.batch_first:
                raise TypeError(
                    f"{name} is on a CUDA device, where arrays are time-major; make the RNN without batch_first"
                )
            try:
                array = network.put(value)
            except TypeError as error:
                raise TypeError(f"{name}: {error}") from error
        else:
            array = params.as_array(name, value)
        if array.dtype.kind != "f":
            if array.dtype.kind not in "iubO":  # a conversion of complex numbers would drop their imaginary parts
                raise TypeError(f"{name} holds {array.dtype}, not real numbers")
            how = ".astype(" if _on_device(value) else "np.asarray(..., "
            raise TypeError(f"{name} holds {array.dtype}; convert it with {how}{self.spec.dtype!r})")
        if shape is not None and array.shape != shape:
            raise ValueError(f"{name} must have the shape {shape}, not {array.shape}")
        return array

    def _native(self, name: str, array: Any) -> Any:
        """The array, C-contiguous and in the RNN's dtype, copied only if necessary. Raises ValueError for numbers out of range."""
        if _on_device(array):
            return array
        if array.dtype == self._dtype:
            return np.ascontiguousarray(array)
        return params.converted(name, array, self.spec.dtype)

    def _state(self, name: str, value: Any, batch_size: int, network: Network) -> tuple[Any, ...] | None:
        if value is None:
            return None
        states = self.spec.cell.states
        if not isinstance(value, (tuple, list)) or len(value) != len(states):
            got = f"{len(value)}" if isinstance(value, (tuple, list)) else type(value).__name__
            raise ValueError(f"{name} must be a tuple of {len(states)} array(s) ({', '.join(states)}), not {got}")
        shapes = [(self.spec.state_rows, batch_size, width) for width in self.spec.state_sizes]
        names = [f"{name} {s}" for s in states]
        arrays = [self._array(n, v, network, w) for n, v, w in zip(names, value, shapes, strict=True)]
        return tuple(network.put(self._native(n, a)) for n, a in zip(names, arrays, strict=True))

    def _time_major(self, name: str, array: Any) -> Any:
        return self._native(name, array.swapaxes(0, 1) if self.batch_first else array)

    def _user_layout(self, array: Any) -> Any:
        return array.swapaxes(0, 1) if self.batch_first else array

    def __repr__(self) -> str:
        s = self.spec
        parts = [f"RNN {s.cell.name} {s.input_size}->{s.hidden_size}", f"layers {s.num_layers}"]
        parts.append(f"directions {s.num_directions}")
        unusual = {"proj_size": s.proj_size, "reverse": s.reverse, "batch_first": self.batch_first}
        parts += [f"{name}={value}" for name, value in unusual.items() if value]
        parts += [] if s.bias else ["bias=False"]
        parts += [f"{name}={value!r}" for name, value in s.numbers.items() if value != s.cell.numbers[name]]
        return f"<{', '.join([*parts, s.dtype, self.backend])}>"


def _on_device(array: Any) -> bool:
    """Whether it is an array on a CUDA device. `__cuda_ndarray__` marks Numba's own arrays, also in its simulator."""
    if type(array) is np.ndarray:  # a shortcut, because looking for missing attributes takes longer
        return False
    return hasattr(array, "__cuda_array_interface__") or bool(getattr(array, "__cuda_ndarray__", False))


def _check_keywords(cell: cells.Cell, numbers: Mapping[str, float]) -> None:
    """Refuse what **numbers would hide: a misspelt argument of RNN, and a cell's number with the name of an argument."""
    own = [name for name in inspect.signature(RNN).parameters if name != "numbers"]
    for name in cell.numbers:
        if name in own or name == "self":  # which Python gives to RNN itself
            raise ValueError(f"the number {name!r} of the cell {cell.name} is an argument of RNN; give it another name")
    for name in numbers:
        if name not in cell.numbers and (hint := did_you_mean(name, [*cell.numbers, *own])):
            raise ValueError(f"RNN with the cell {cell.name} has no argument {name!r}; {hint.strip()}")


def _lengths(lengths: Any, T: int, B: int) -> np.ndarray | None:
    if lengths is None:
        return None
    array = params.as_array("lengths", lengths)
    if array.shape != (B,):
        raise ValueError(f"lengths must have the shape ({B},), one for each row, not {array.shape}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths holds {array.dtype}, not whole numbers")
    if array.min() < 0 or array.max() > T:
        raise ValueError(f"lengths must lie between 0 and seq_len {T}; they span {array.min()} to {array.max()}")
    return np.array(array, np.int64)  # a copy, because the tape keeps it
