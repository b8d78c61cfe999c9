"""Weights and models in and out: PyTorch, Keras, TensorFlow 1, ONNX and plain .npz. No framework is imported until it is used.

`layouts` says how each of them arranges the same matrices: permutations only, so that a round trip changes no bit. Anything
that the target format cannot express is rejected, with the reason (`InteropError`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .common import InteropError
    from .keras import from_keras, to_keras
    from .npz import load_npz, save_npz
    from .onnx import load_onnx, load_onnx_states, save_onnx
    from .tf1 import from_tf1, join_state, split_state, to_tf1
    from .torch import from_torch, to_torch

_ROOMS = {
    "InteropError": "common",
    "from_keras": "keras",
    "from_tf1": "tf1",
    "from_torch": "torch",
    "join_state": "tf1",
    "load_npz": "npz",
    "load_onnx": "onnx",
    "load_onnx_states": "onnx",
    "save_npz": "npz",
    "save_onnx": "onnx",
    "split_state": "tf1",
    "to_keras": "keras",
    "to_tf1": "tf1",
    "to_torch": "torch",
}

__all__ = [
    "InteropError",
    "from_keras",
    "from_tf1",
    "from_torch",
    "join_state",
    "load_npz",
    "load_onnx",
    "load_onnx_states",
    "save_npz",
    "save_onnx",
    "split_state",
    "to_keras",
    "to_tf1",
    "to_torch",
]


def __getattr__(name: str) -> Any:
    # on demand, because backends import `layouts`, and the other modules import `RNN`, which needs the backends
    if name in __all__:
        return getattr(importlib.import_module(f".{_ROOMS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
