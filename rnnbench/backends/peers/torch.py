"""PyTorch: `nn.RNN`, `nn.LSTM` and `nn.GRU`, on the CPU and on CUDA.

Our names, shapes and orders are PyTorch's, so nothing is rearranged. Inference runs under `torch.inference_mode`, training by
autograd. Sequences of different lengths are packed, which is PyTorch's way, and rows of length 0, which it refuses, are taken out
and put back.

On a CPU it is fast thanks to oneDNN, which runs the LSTM in float32, forward and backward, if all sequences have the same length.
This is PyTorch's default; without it an LSTM of 128 units took 3 times as long, and its training 4 to 6 times (two cores). The
other layers, float64 and packed sequences run as a loop over ATen's operations. `torch.no_grad` instead of
`torch.inference_mode`, a traced and frozen module, or freeing the graph in `backward` made no difference that could be told from
noise.

On CUDA there are four backends, which differ in how they round. By default cuDNN multiplies in TensorFloat-32, which rounds to
2^-11 instead of 2^-24: `CUDA_TF32` allows it, `CUDA` does not. In `CUDA_FP16` and `CUDA_BF16` everything that has a dtype has 16
bits: parameters, inputs, states, results and gradients. They are converted as arrays go in and come out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ...interop.layouts import TORCH, forget_bias_in_biases, why_not_in_torch
from ...params import Spec
from .. import threads
from ..base import States


class _Precision(NamedTuple):
    """The end of a backend's name, its description in words, and the dtype of its tensors if that is not the spec's."""

    suffix: str
    words: str
    narrow: torch.dtype | None = None


_PRECISIONS = {
    "": _Precision("", "IEEE float32"),
    "tf32": _Precision("-tf32", "TF32"),
    "float16": _Precision("-fp16", "float16", torch.float16),
    "bfloat16": _Precision("-bf16", "bfloat16", torch.bfloat16),
}


@dataclass(frozen=True)
class TorchBackend:
    """PyTorch on a device. precision: "" for the spec's dtype as it is, or a key of `_PRECISIONS`, for float32 networks."""

    device: str
    precision: str = ""

    @property
    def tf32(self) -> bool:
        """Whether CUDA's float32 products may be TensorFloat-32."""
        return self.precision == "tf32"

    def dtype(self, spec: Spec) -> torch.dtype:
        """The dtype of all tensors of a network."""
        return _PRECISIONS[self.precision].narrow or getattr(torch, spec.dtype)

    def describe(self) -> str:
        """Library, version, what computes, and threads or device."""
        if self.device == "cpu":
            onednn = ", oneDNN" if torch.backends.mkldnn.is_available() else ""
            return f"torch {torch.__version__.partition('+')[0]}{onednn}, {threads.in_words()}"
        return f"torch {torch.__version__}, cuDNN, {_PRECISIONS[self.precision].words}, {torch.cuda.get_device_name()}"

    def why_unavailable(self) -> str | None:
        """Why PyTorch cannot use the device, in a sentence, or None if it can."""
        if self.device == "cuda" and not torch.cuda.is_available():
            name = f"torch-cuda{_PRECISIONS[self.precision].suffix}"
            return f"the backend {name} needs a CUDA device, and PyTorch {torch.__version__} finds none"
        return None

    def why_unsupported(self, spec: Spec, direction: str) -> str | None:
        """None, or which of a network's features PyTorch lacks; see `base.Backend.why_unsupported`."""
        if _PRECISIONS[self.precision].narrow and spec.dtype != "float32":
            return f"only float32 networks are computed in {self.precision} here, but the dtype is {spec.dtype}"
        return why_not_in_torch(spec)

    def prepare(self, spec: Spec, params: Mapping[str, np.ndarray]) -> TorchNetwork:
        """The layers with these parameters; see `base.Backend.prepare`. Sets PyTorch's number of threads."""
        if self.device == "cpu":
            torch.set_num_threads(threads.get_threads())
        return TorchNetwork(self, spec, params)


CPU, CUDA = TorchBackend("cpu"), TorchBackend("cuda")
CUDA_TF32, CUDA_FP16, CUDA_BF16 = (TorchBackend("cuda", precision) for precision in ("tf32", "float16", "bfloat16"))


@dataclass
class TorchTape:
    """The autograd graph of a forward pass: its leaves x and state, its results output and final. spent: whether it was used."""

    network: TorchNetwork
    x: torch.Tensor
    state: tuple[torch.Tensor, ...]
    lengths: np.ndarray | None
    output: torch.Tensor
    final: tuple[torch.Tensor, ...]
    spent: bool = False

    def results(self) -> tuple[torch.Tensor, States]:
        """Output and final states with a graph for one backward pass. Autograd frees the graph during that pass, as in training,
        because keeping it costs cuDNN a copy. So each further backward pass waits for another forward pass.
        """
        if self.spent:
            return self.network.record(self.x, self.state, self.lengths)
        self.spent = True
        return self.output, self.final

    @property
    def nbytes(self) -> int:
        """Bytes that autograd saves besides parameters, inputs and results; counted on demand, in a second forward pass."""
        saved: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            results = self.network.record(self.x, self.state, self.lengths)
        known = [self.x, *self.state, *self.network.parameters.values(), results[0], *results[1]]
        others = saved.keys() - {tensor.untyped_storage().data_ptr() for tensor in known}
        return sum(saved[address].nbytes() for address in others)


class TorchNetwork:
    """See `base.Network`. Native arrays are tensors on the backend's device."""

    def __init__(self, backend: TorchBackend, spec: Spec, params: Mapping[str, np.ndarray]) -> None:
        self.spec, self._backend = spec, backend
        kind, options = TORCH[spec.cell.name]
        whole, arrays = forget_bias_in_biases(spec, params)
        self.module = getattr(torch.nn, kind)(
            spec.input_size,
            spec.hidden_size,
            num_layers=spec.num_layers,
            bias=whole.bias,
            bidirectional=spec.bidirectional,
            device=backend.device,
            dtype=backend.dtype(spec),
            **options,
            **({"proj_size": spec.proj_size} if spec.proj_size else {}),
        )
        self.parameters = dict(self.module.named_parameters())
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(torch.tensor(arrays[name]))
        self._trained = {name: parameter for name, parameter in self.parameters.items() if name in params}

    def put(self, array: np.ndarray) -> torch.Tensor:
        """A copy as a tensor on the device, in the backend's precision."""
        return torch.tensor(array, device=self._backend.device, dtype=self._backend.dtype(self.spec))

    def get(self, native: torch.Tensor) -> np.ndarray:
        """The tensor as an array of the spec's dtype; shares the tensor's memory if that is on the host and of the same dtype."""
        return native.detach().cpu().to(getattr(torch, self.spec.dtype)).numpy()

    def forward(
        self, x: torch.Tensor, state: States | None, lengths: np.ndarray | None, training: bool
    ) -> tuple[torch.Tensor, States, TorchTape | None]:
        """See `Network.forward`. Waits for CUDA."""
        if state is None:
            state = tuple(x.new_zeros((self.spec.state_rows, x.shape[1], size)) for size in self.spec.state_sizes)
        if not training:
            self._set_training(False)
            with self._settings(), torch.inference_mode():
                output, final = self.run(x, state, lengths)
            return output, final, None
        x = x.detach().requires_grad_()
        state = tuple(s.detach().requires_grad_() for s in state)
        output, final = self.record(x, state, lengths)
        return output, final, TorchTape(self, x, state, lengths, output, final)

    def record(self, x: torch.Tensor, state: States, lengths: np.ndarray | None) -> tuple[torch.Tensor, States]:
        """Output and final states of the leaves x and state, with an autograd graph. Waits for CUDA."""
        self._set_training(True)  # cuDNN keeps what its backward pass reads only in this mode
        with self._settings():
            return self.run(x, state, lengths)

    def _set_training(self, on: bool) -> None:
        if self.module.training != on:  # setting it takes as long as a small part of a step
            self.module.train(on)

    def run(self, x: torch.Tensor, state: States, lengths: np.ndarray | None) -> tuple[torch.Tensor, States]:
        """Output and final states, with or without a graph, as the caller has decided."""
        if lengths is None:
            output, final = self._layers(x, state)
            return output, final
        rows = np.flatnonzero(lengths)
        if rows.size == lengths.size:
            return self._packed(x, state, lengths)
        output = x.new_zeros((*x.shape[:2], self.spec.output_size))
        if rows.size == 0:
            return output, tuple(s.clone() for s in state)
        index = torch.from_numpy(rows).to(x.device)
        some, new = self._packed(
            x.index_select(1, index), tuple(s.index_select(1, index) for s in state), lengths[rows]
        )
        return output.index_copy(1, index, some), tuple(
            s.index_copy(1, index, n) for s, n in zip(state, new, strict=True)
        )

    def _packed(self, x: torch.Tensor, state: States, lengths: np.ndarray) -> tuple[torch.Tensor, States]:
        packed = pack_padded_sequence(x, torch.from_numpy(lengths), enforce_sorted=False)
        output, final = self._layers(packed, state)
        return pad_packed_sequence(output, total_length=x.shape[0])[0], final

    def _layers(self, x: Any, state: States) -> tuple[Any, States]:
        """nn.LSTM takes and returns a tuple of states, the others one tensor."""
        if len(state) == 1:
            output, final = self.module(x, state[0])
            return output, (final,)
        return self.module(x, state)

    def backward(self, tape: TorchTape, doutput: torch.Tensor | None, dstate: States | None) -> dict[str, Any]:
        """See `Network.backward`."""
        if doutput is None:
            doutput = torch.zeros_like(tape.output)
        output, final = tape.results()
        results, seeds = (output, *final), (doutput, *(dstate or ()))
        # without any valid step the output is a constant, which autograd refuses
        pairs = [(result, seed) for result, seed in zip(results, seeds, strict=False) if result.requires_grad]
        leaves = dict(self._trained) | {"x": tape.x}
        leaves |= {f"{name}_0": leaf for name, leaf in zip(self.spec.cell.states, tape.state, strict=True)}
        if not pairs:
            return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        with self._settings():
            gradients = torch.autograd.grad(
                [result for result, _ in pairs],
                list(leaves.values()),
                [seed for _, seed in pairs],
                allow_unused=True,
                materialize_grads=True,
            )
        return dict(zip(leaves, gradients, strict=True))

    @contextlib.contextmanager
    def _settings(self) -> Iterator[None]:
        """On CUDA, a context with the backend's precision that waits for the device at its end; does nothing on the CPU."""
        if self._backend.device == "cpu":
            yield
            return
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        before = matmul.allow_tf32, cudnn.allow_tf32
        matmul.allow_tf32 = cudnn.allow_tf32 = self._backend.tf32
        try:
            yield
            torch.cuda.synchronize()
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before
