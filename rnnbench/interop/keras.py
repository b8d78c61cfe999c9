"""Keras 3's LSTM, GRU and SimpleRNN, alone, in `Bidirectional`, or several as layers of one network.

Keras' layers are batch-major, and so are the RNNs made from them (`batch_first`). Two properties of a layer are not converted: a
layer with `go_backwards` returns its outputs in the order in which it computes them, the last step's first, while an RNN with
`reverse` returns each at its own step; and `return_sequences` chooses among the outputs, all of which an RNN always returns.

Source: https://keras.io/api/layers/recurrent_layers/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..cells import Cell
from ..cells.variants import FAMILIES, make, options_of
from ..rnn import RNN
from .common import InteropError, network, refuse, spec_of, with_forget_bias
from .layouts import NamedArrays
from .layouts import from_keras as arrays_from
from .layouts import to_keras as arrays_to

if TYPE_CHECKING:
    from keras.layers import Layer

CLASSES = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "rnn"}
# Keras' name of an activation -> ours, with the parameters that Keras' name stands for
ACTIVATIONS = {
    "elu": "elu:1",
    "hard_sigmoid": f"hard_sigmoid:{1 / 6!r}:0.5",
    "leaky_relu": "leaky_relu:0.2",
    "linear": "affine:1:0",
    "relu": "relu",
    "sigmoid": "sigmoid",
    "softplus": "softplus",
    "softsign": "softsign",
    "tanh": "tanh",
}
# our option -> Keras' argument; an LSTM has one activation for the candidate and the output
ARGUMENTS = {
    "lstm": {"gate": "recurrent_activation", "candidate": "activation", "output": "activation"},
    "gru": {"gate": "recurrent_activation", "candidate": "activation"},
    "rnn": {"activation": "activation"},
}


def from_keras(layers: Layer | Sequence[Layer], backend: str = "numba-cpu") -> RNN:
    """An RNN with the parameters of a built Keras layer, or of several of one kind, the lowest first.

    Activations, `use_bias`, `reset_after`, `go_backwards`, `Bidirectional` and the dtype are kept; backend: of the RNN.
    Raises InteropError for other layers, activations that only Keras has, dropout, a merge_mode other than "concat", and weights
    whose shapes are not those that Keras makes.
    """
    convert_to_numpy = _keras().ops.convert_to_numpy
    stack: list[Any] = list(layers) if isinstance(layers, (list, tuple)) else [layers]
    if not stack:
        raise InteropError("there is no layer to convert")
    described = [_describe(layer) for layer in stack]
    if any(d != described[0] for d in described):
        raise InteropError(
            "the layers differ in more than their weights; those of one RNN must share kind, size and activation"
        )
    cell, _, bidirectional, reverse = described[0]
    arrays: NamedArrays = {}
    for k, layer in enumerate(stack):
        parts = [layer.forward_layer, layer.backward_layer] if bidirectional else [layer]
        for part, suffix in zip(parts, (f"_l{k}", f"_l{k}_reverse"), strict=False):
            weights = [convert_to_numpy(weight.value) for weight in part.weights]
            try:
                arrays |= arrays_from(cell, weights, suffix)
            except ValueError as error:  # the weights' shapes are not those that the layer's class makes
                raise InteropError(f"the layer {part.name} does not convert: {error}") from error
    options = {"num_layers": len(stack), "bidirectional": bidirectional, "reverse": reverse, "batch_first": True}
    return network(cell, arrays, backend, **options)


def _describe(layer: Layer) -> tuple[Cell, int, bool, bool]:
    """The cell of a layer, its units, whether it reads both ways, and whether it only reads backwards."""
    if type(layer).__name__ == "Bidirectional":
        if layer.merge_mode != "concat":
            raise InteropError(
                f"merge_mode {layer.merge_mode!r} combines the directions after the layer; rnnbench's RNN joins them ('concat')"
            )
        (cell, units, _, backwards), other = _describe(layer.forward_layer), _describe(layer.backward_layer)
        if other != (cell, units, False, not backwards) or backwards:
            raise InteropError(
                "the two layers of a Bidirectional must be alike, the first reading forwards, the second back"
            )
        return cell, units, True, False
    family = CLASSES.get(type(layer).__name__)
    if family is None:
        raise InteropError(
            f"{type(layer).__name__} is not a layer that rnnbench can convert; it must be one of {', '.join(CLASSES)}"
        )
    if not layer.built:
        raise InteropError(
            f"the layer {layer.name} has no weights yet; call it, or layer.build((None, None, input_size))"
        )
    config = layer.get_config()
    for name in ("dropout", "recurrent_dropout"):
        if config[name]:
            raise InteropError(
                f"{name} {config[name]} acts in training, which rnnbench's RNN does not support; set layer.cell.{name} = 0"
            )
    options: dict[str, Any] = {
        ours: _activation(layer.name, config[theirs]) for ours, theirs in ARGUMENTS[family].items()
    }
    if family == "gru":
        options["reset"] = "after" if config["reset_after"] else "before"
    return make(family, options), config["units"], False, config["go_backwards"]


def _activation(layer: str, name: Any) -> str:
    if not isinstance(name, str) or name not in ACTIVATIONS:
        what = repr(name) if isinstance(name, str) else "function"  # of the user's, which Keras tells in its bytecode
        raise InteropError(f"the activation {what} of the layer {layer} is not among {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def to_keras(rnn: RNN, **options: Any) -> list[Layer]:
    """The Keras layers that compute what `rnn` does, one for each of its layers, built, with copies of its parameters.

    options: further arguments of the layers, such as `stateful=True`; they return sequences. A forget_bias is added to the biases.
    Raises InteropError for peepholes, projections, clips, coupled gates, and for activations that Keras has no name for.
    """
    spec = spec_of(rnn)
    keras = _keras()
    try:
        family, chosen = options_of(spec.cell)
    except ValueError as error:
        raise InteropError(str(error)) from error
    refuse(chosen, FAMILIES[family][1], "Keras", [*ARGUMENTS[family], "reset"])
    if spec.proj_size:
        raise InteropError(
            f"Keras has no projection (proj_size {spec.proj_size}) within a layer; add a Dense layer after it"
        )
    names = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
    arguments: dict[str, Any] = {}
    for ours, theirs in ARGUMENTS[family].items():
        name = names.get(chosen[ours])
        if name is None or arguments.setdefault(theirs, name) != name:
            raise InteropError(f"Keras has no {theirs} for {ours}={chosen[ours]} of {spec.cell.name}")
    if family == "gru":
        arguments["reset_after"] = chosen["reset"] == "after"
    make_layer = getattr(keras.layers, {ours: theirs for theirs, ours in CLASSES.items()}[family])
    arrays, layers = with_forget_bias(rnn), []
    for k in range(spec.num_layers):
        layer = make_layer(
            spec.hidden_size,
            use_bias=spec.bias,
            dtype=spec.dtype,
            **{"return_sequences": True, "go_backwards": spec.reverse, **arguments, **options},
        )
        if spec.bidirectional:
            layer = keras.layers.Bidirectional(layer, dtype=spec.dtype)
        layer.build((None, None, spec.layer_input_size(k)))
        values = [w for j, _, s in spec.suffixes() if j == k for w in arrays_to(spec, arrays, s)]
        for weight, value in zip(layer.weights, values, strict=True):
            weight.assign(value)
        layers.append(layer)
    return layers


def _keras() -> Any:
    """Import Keras. Raises InteropError if the library it computes with is missing: TensorFlow, or what KERAS_BACKEND names."""
    try:
        import keras
    except ModuleNotFoundError as error:
        if error.name == "keras":
            raise
        raise InteropError(
            f"Keras computes with {error.name}, which is not installed; set KERAS_BACKEND to jax or torch before Python starts"
        ) from error
    return keras
