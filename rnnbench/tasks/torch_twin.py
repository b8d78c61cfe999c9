"""A `SequenceModel` in PyTorch, as a PyTorch programmer would write it: the yardstick for whole training steps.

`nn.Embedding` or `nn.Linear`, `nn.LSTM` (or RNN, GRU), `nn.Linear`, `cross_entropy`, `torch.optim`. It uses what makes PyTorch fast
on a CPU: padded rows go into the recurrent layer as they are, because oneDNN's LSTM does not support packed sequences (and no step
looks ahead, so padding does no harm); only the steps within a row's length reach the output layer, the widest; an embedding under
plain SGD has a sparse gradient; Adam is the fused one. `torch.compile`, which needs a C++ compiler, is not used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ..backends import threads
from ..interop.layouts import TORCH
from .layers import Embedding
from .losses import valid
from .model import Batch, SequenceModel


class TorchTwin:
    """PyTorch's modules with copies of a model's parameters, and the optimiser for them.

    model: unidirectional, with a prediction at every step, without run-time numbers such as a forget bias. optimiser: "adam" or
    "sgd". learning_rate: its rate. clip: limit of the gradients' global norm.

    Raises ValueError for a model that this class does not support.
    """

    def __init__(
        self, model: SequenceModel, optimiser: str = "adam", learning_rate: float = 1e-3, clip: float | None = None
    ) -> None:
        torch.set_num_threads(threads.get_threads())
        spec, first = model.recurrent.rnn.spec, model.first
        if spec.cell.name not in TORCH or any(spec.numbers.values()):
            raise ValueError(f"PyTorch has no layer for {spec.cell.name} with {dict(spec.numbers)}")
        if not model.every_step or not isinstance(first, Embedding) or spec.bidirectional or spec.reverse:
            raise ValueError(
                "the twin only supports models with an embedding, one direction and a prediction at every step"
            )
        sparse = optimiser == "sgd" and clip is None
        kind, options = TORCH[spec.cell.name]
        dtype = getattr(torch, spec.dtype)
        self.embedding = torch.nn.Embedding(first.words, first.width, sparse=sparse, dtype=dtype)
        make = getattr(torch.nn, kind)
        self.rnn = make(spec.input_size, spec.hidden_size, spec.num_layers, bias=spec.bias, dtype=dtype, **options)
        self.output = torch.nn.Linear(spec.output_size, model.output.outputs, dtype=dtype)
        self.modules = torch.nn.ModuleDict({"embedding": self.embedding, "rnn": self.rnn, "output": self.output})
        with torch.no_grad():
            for name, parameter in self.modules.named_parameters():
                parameter.copy_(torch.from_numpy(model.params[name]))
        self._per_row, self._clip = model.per == "row", clip
        parameters = self.modules.parameters()
        self._optimiser: Any = (
            torch.optim.SGD(parameters, lr=learning_rate)
            if optimiser == "sgd"
            else torch.optim.Adam(parameters, lr=learning_rate, fused=True)
        )

    def put(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """A batch as tensors: x, a mask of the steps within each row's length (omitted if all are), and their targets."""
        inside = np.ones(batch.x.shape, bool) if batch.lengths is None else valid(batch.lengths, len(batch.x))
        targets = torch.from_numpy(np.ascontiguousarray(batch.targets[inside]))
        return torch.from_numpy(np.ascontiguousarray(batch.x)), torch.from_numpy(inside), targets

    def gradients(self, native: tuple[torch.Tensor, ...]) -> float:
        """Backpropagate the loss of a batch from `put` into the parameters' `grad`; returns the mean loss."""
        x, inside, targets = native
        self._optimiser.zero_grad()
        output, _ = self.rnn(self.embedding(x))
        loss = functional.cross_entropy(self.output(output[inside]), targets, reduction="sum")
        (loss / (x.shape[1] if self._per_row else len(targets))).backward()
        return loss.item() / len(targets)

    def step(self, native: tuple[torch.Tensor, ...]) -> float:
        """One training step on a batch from `put`; returns its mean loss."""
        loss = self.gradients(native)
        if self._clip is not None:
            torch.nn.utils.clip_grad_norm_(self.modules.parameters(), self._clip)
        self._optimiser.step()
        return loss

    def named_gradients(self) -> dict[str, np.ndarray]:
        """The gradients of the last `gradients`, dense, under the model's names."""
        found = {}
        for name, parameter in self.modules.named_parameters():
            gradient = parameter.grad
            if gradient is None:
                raise RuntimeError(f"{name} has no gradient; call gradients first")
            found[name] = (gradient.to_dense() if gradient.is_sparse else gradient).numpy().copy()
        return found
