"""PyTorch's recurrent layers: our names, shapes and order of gates are theirs, so arrays need no conversion.

Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html and its neighbours RNN, GRU and the cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import cells
from ..rnn import RNN
from .common import InteropError, network, spec_of, with_forget_bias
from .layouts import TORCH, why_not_in_torch

if TYPE_CHECKING:
    import torch

CELLS = {"LSTM": "lstm", "GRU": "gru"}


def from_torch(module: torch.nn.Module, backend: str = "numba-cpu") -> RNN:
    """An RNN with the parameters of `torch.nn.RNN`, `LSTM` or `GRU`, or of one of their cells.

    Layers, directions, biases, `batch_first`, `nonlinearity`, `proj_size` and the dtype are kept; backend: of the RNN.
    Raises InteropError for another module, for dropout that would act, for a parameter that is reparametrised or on the device
    "meta", and for dtypes other than float32 and float64.
    """
    from torch import nn

    kinds = (nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell)
    kind = next((k for k in kinds if isinstance(module, k)), None)
    if kind is None:
        raise InteropError(f"{type(module).__name__} is not an RNN, LSTM or GRU of torch.nn, nor one of their cells")
    single = kind.__name__.endswith("Cell")
    family = kind.__name__.removesuffix("Cell")
    if not single and module.dropout > 0 and module.training and module.num_layers > 1:
        raise InteropError(
            f"dropout {module.dropout} between the layers acts in training, which rnnbench's RNN does not support; call "
            "module.eval() to convert the module without it"
        )
    _refuse_reparametrised(module)
    cell = cells.find(CELLS.get(family) or f"rnn_{module.nonlinearity}")
    arrays = {
        f"{name}{'_l0' * single}": _array(parameter) for name, parameter in module.named_parameters(recurse=False)
    }
    if single:
        return network(cell, arrays, backend)
    return network(
        cell,
        arrays,
        backend,
        num_layers=module.num_layers,
        bidirectional=module.bidirectional,
        batch_first=module.batch_first,
    )


def to_torch(rnn: RNN) -> torch.nn.Module:
    """The `torch.nn.RNN`, `LSTM` or `GRU` that computes what `rnn` does, with copies of its parameters, on the CPU.

    A forget_bias is added to the biases. Raises InteropError for a cell that PyTorch lacks, for `reverse`, and for a projection
    of a cell other than the LSTM or to hidden_size units.
    """
    import torch

    spec = spec_of(rnn)
    reason = why_not_in_torch(spec)
    if reason:
        raise InteropError(reason)
    kind, options = TORCH[spec.cell.name]
    module = getattr(torch.nn, kind)(
        spec.input_size,
        spec.hidden_size,
        num_layers=spec.num_layers,
        bias=spec.bias,
        batch_first=rnn.batch_first,
        bidirectional=spec.bidirectional,
        dtype=getattr(torch, spec.dtype),
        device="cpu",  # whatever torch.set_default_device says
        **options,
        **({"proj_size": spec.proj_size} if spec.proj_size else {}),
    )
    arrays = with_forget_bias(rnn)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(np.array(arrays[name])))
    return module


def _refuse_reparametrised(module: torch.nn.Module) -> None:
    """Raise InteropError if the module computes a parameter from others, as after weight_norm, spectral_norm or pruning."""
    from torch.nn.utils import parametrize

    cures = {}
    if parametrize.is_parametrized(module):
        cures = {name: "parametrize.remove_parametrizations" for name in module.parametrizations}
    # PyTorch's older functions can only be recognised by the endings of the names
    for full, _ in module.named_parameters(recurse=False):
        name, _, ending = full.rpartition("_")
        if ending == "g":
            cures[name] = "remove_weight_norm"
        elif ending == "orig":
            cures[name] = "prune.remove" if hasattr(module, f"{name}_mask") else "remove_spectral_norm"
    for name, cure in cures.items():
        raise InteropError(
            f"the parameter {name!r} is reparametrised: the module computes it from others; make it a plain one first, with "
            f"torch.nn.utils.{cure}(module, {name!r})"
        )


def _array(parameter: torch.Tensor) -> np.ndarray:
    if parameter.is_meta:
        raise InteropError(
            'the module is on the device "meta", which holds no data; create it on the CPU, as with '
            'module.to_empty(device="cpu"), and load its weights'
        )
    if str(parameter.dtype) not in ("torch.float32", "torch.float64"):  # checked here: NumPy has no bfloat16
        raise InteropError(f"the module holds {parameter.dtype}; convert it with module.float() or module.double()")
    return parameter.detach().cpu().numpy()
