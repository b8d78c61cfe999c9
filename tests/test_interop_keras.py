"""Keras layers in and out: the same bits, and the same numbers computed. Runs on the back end that Keras is set to."""

from __future__ import annotations

import numpy as np
import pytest

from rnnbench import RNN
from rnnbench.interop import InteropError, from_keras, to_keras
from rnnbench.interop.keras import ACTIVATIONS

keras = pytest.importorskip("keras", reason="Keras is not installed")
layers = keras.layers
# Keras' own way from a PyTorch tensor to an array
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning:keras.src")
T, B, I, H = 4, 3, 2, 5
ZEROS = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}  # Keras cannot draw them in every dtype
LAYERS = {
    "LSTM": lambda **o: layers.LSTM(H, **o),
    "LSTM without bias": lambda **o: layers.LSTM(H, use_bias=False, **o),
    "LSTM with other activations": lambda **o: layers.LSTM(
        H, activation="softsign", recurrent_activation="hard_sigmoid", **o
    ),
    "GRU": lambda **o: layers.GRU(H, **o),
    "GRU without bias": lambda **o: layers.GRU(H, use_bias=False, **o),
    "GRU reset before": lambda **o: layers.GRU(H, reset_after=False, activation="relu", **o),
    "GRU backwards": lambda **o: layers.GRU(H, go_backwards=True, **o),
    "SimpleRNN": lambda **o: layers.SimpleRNN(H, **o),
    "Bidirectional LSTM": lambda **o: layers.Bidirectional(layers.LSTM(H, **o)),
    "Bidirectional SimpleRNN": lambda **o: layers.Bidirectional(layers.SimpleRNN(H, activation="linear", **o)),
}


def built(layer, input_size=I):
    """The layer with weights that are random also where Keras starts with zeros or ones."""
    layer.build((None, None, input_size))
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(rng.uniform(-0.5, 0.5, weight.shape).astype("float32"))
    return layer


def same_weights(got, expected):
    for one, other in zip(got.weights, expected.weights, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(w.value) for w in (one, other)))


def agree(rnn, stack):
    x = np.random.default_rng(2).standard_normal((B, T, I)).astype(rnn.spec.dtype)
    theirs = x
    for layer in stack:
        theirs = layer(theirs)
    theirs = keras.ops.convert_to_numpy(theirs)
    np.testing.assert_allclose(rnn(x)[0], theirs[:, ::-1] if rnn.spec.reverse else theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_in_and_out_again(make):
    layer = built(make(return_sequences=True, unroll=True))
    rnn = from_keras(layer, "numpy")
    assert rnn.batch_first
    (back,) = to_keras(rnn)
    assert type(back) is type(layer)
    same_weights(back, layer)
    agree(rnn, [layer])


def test_float64_stays():
    rnn = RNN("gru", I, H, backend="numpy", dtype="float64", batch_first=True)
    if keras.backend.backend() == "jax":
        pytest.skip("JAX has float64 only after jax_enable_x64, which is the whole process's")
    back = from_keras(to_keras(rnn), "numpy")
    assert back.spec == rnn.spec
    for name, array in rnn.params.items():
        np.testing.assert_array_equal(back.params[name], array)


@pytest.mark.parametrize("both", [False, True], ids=["forwards", "both ways"])
def test_several_layers_are_one_network(both):
    stack = []
    for k in range(3):
        layer = layers.LSTM(H, return_sequences=True, unroll=True)
        stack.append(built(layers.Bidirectional(layer) if both else layer, (H * (1 + both)) if k else I))
    rnn = from_keras(stack, "numpy")
    assert rnn.spec.num_layers == 3 and rnn.spec.bidirectional == both
    back = to_keras(rnn)
    for one, other in zip(back, stack, strict=True):
        same_weights(one, other)
    agree(rnn, stack)


@pytest.mark.parametrize(("theirs", "ours"), ACTIVATIONS.items())
def test_activations_are_the_same_functions(theirs, ours):
    from rnnbench.cells.activations import activation

    a = np.linspace(-4, 4, 33)
    expected = keras.ops.convert_to_numpy(keras.activations.get(theirs)(keras.ops.convert_to_tensor(a)))
    np.testing.assert_allclose(activation(ours)(a), expected, rtol=0, atol=1e-6)


def test_options_reach_the_layers_and_a_forget_bias_the_biases():
    rnn = RNN("lstm", I, H, backend="numpy", batch_first=True, forget_bias=1.5)
    (layer,) = to_keras(rnn, name="mine", unroll=True)
    assert layer.name == "mine"
    agree(rnn, [layer])


def test_weights_that_are_not_as_keras_makes_them_are_refused():
    class LSTM(layers.LSTM):
        weights = property(lambda self: [keras.Variable(np.ones(s, "f4")) for s in ((I, 20), (H, 20), (19,))])

    layer = LSTM(H, name="mine")
    layer.built = True
    with pytest.raises(
        InteropError, match=r"the layer mine does not convert: bias has shape \(19,\), expected \(20,\)"
    ):
        from_keras(layer, "numpy")


@pytest.mark.parametrize(
    ("convert", "sentence"),
    [
        (lambda: from_keras(layers.Dense(3)), "Dense is not a layer that rnnbench can convert"),
        (lambda: from_keras([]), "there is no layer to convert"),
        (lambda: from_keras(layers.LSTM(3)), "has no weights yet; call it, or layer.build"),
        (
            lambda: from_keras(built(layers.GRU(3, activation="gelu"))),
            "the activation 'gelu' of the layer .* is not among",
        ),
        (lambda: from_keras(built(layers.GRU(3, activation=keras.ops.sin))), "the activation .* is not among"),
        (lambda: from_keras(built(layers.GRU(3, recurrent_dropout=0.5))), "recurrent_dropout 0.5 acts in training"),
        (lambda: from_keras(built(layers.LSTM(3, dtype="float16", **ZEROS))), "the weights are float16; convert them"),
        (lambda: from_keras(built(layers.Bidirectional(layers.GRU(3), merge_mode="sum"))), "merge_mode 'sum' combines"),
        (
            lambda: from_keras(
                built(layers.Bidirectional(layers.GRU(3, go_backwards=True), backward_layer=layers.GRU(3)))
            ),
            "the first reading forwards, the second back",
        ),
        (lambda: from_keras([built(layers.GRU(3)), built(layers.GRU(4), 3)]), "the layers differ in more than"),
        (
            lambda: to_keras(RNN("lstm_peephole", I, H, backend="numpy")),
            "Keras has no equivalent of the cell's peepholes",
        ),
        (
            lambda: to_keras(RNN("lstm[clip=0.5]", I, H, backend="numpy")),
            "Keras has no equivalent of the cell's clip=0.5",
        ),
        (lambda: to_keras(RNN("lstm", I, H, proj_size=2, backend="numpy")), "Keras has no projection"),
        (lambda: to_keras(RNN("lstm[output=relu]", I, H, backend="numpy")), "Keras has no activation for output=relu"),
        (lambda: to_keras(RNN("rnn[activation=elu:2]", I, H, backend="numpy")), "no activation for activation=elu:2"),
        (lambda: to_keras(RNN("gru[clip=2]", I, H, backend="numpy")), "no equivalent of the cell's clip=2"),
    ],
)
def test_what_has_no_equal_is_refused(convert, sentence):
    with pytest.raises(InteropError, match=sentence):
        convert()
