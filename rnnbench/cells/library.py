"""The built-in cells, one short equation each, with its source.

`x.g` is the input projection W_g x + b_g, `R.g @ v` the recurrent product R_g v + b_g; everything else is elementwise. Gates are in
the order of their first use, which here is PyTorch's: i, f, g, o and r, z, n.
"""

from __future__ import annotations

from .graph import relu, sigmoid, tanh
from .trace import Cell, cell


@cell
def rnn_tanh(x, R, h):
    """Simple recurrent network. One gate, h.

    Source: Elman, Finding Structure in Time, Cognitive Science 14 (1990); torch.nn.RNN, TensorFlow 1's BasicRNNCell.
    """
    return tanh(x.h + R.h @ h)


@cell
def rnn_relu(x, R, h):
    """Simple recurrent network with a rectifier. One gate, h.

    Source: Le, Jaitly, Hinton, A Simple Way to Initialize Recurrent Networks of Rectified Linear Units, arXiv:1504.00941.
    """
    return relu(x.h + R.h @ h)


@cell
def lstm(x, R, h, c, *, forget_bias=0.0):
    """Long short-term memory with a forget gate. Gates i, f, g, o (g is the candidate, also written j or c).

    Source: Hochreiter and Schmidhuber 1997; forget gate: Gers, Schmidhuber, Cummins 2000; as in torch.nn.LSTM. `forget_bias` is
    added at run time, as TensorFlow 1's BasicLSTMCell does with 1.0.
    """
    i = sigmoid(x.i + R.i @ h)
    f = sigmoid(x.f + R.f @ h + forget_bias)
    g = tanh(x.g + R.g @ h)
    o = sigmoid(x.o + R.o @ h)
    c = f * c + i * g
    return o * tanh(c), c


@cell
def lstm_peephole(x, R, p, h, c, *, forget_bias=0.0):
    """LSTM whose gates see the cell: i and f the old one, o the new one. Gates i, f, g, o; vectors i, f, o.

    Source: Gers and Schmidhuber, Recurrent Nets that Time and Count, 2000; as in TensorFlow 1's LSTMCell(use_peepholes=True).
    """
    i = sigmoid(x.i + R.i @ h + p.i * c)
    f = sigmoid(x.f + R.f @ h + p.f * c + forget_bias)
    g = tanh(x.g + R.g @ h)
    c = f * c + i * g
    o = sigmoid(x.o + R.o @ h + p.o * c)
    return o * tanh(c), c


@cell
def gru(x, R, h):
    """Gated recurrent unit, reset after the recurrent product. Gates r, z, n.

    Source: Cho et al., arXiv:1406.1078, in the form of cuDNN, torch.nn.GRU and Keras' reset_after=True (its default).
    """
    r = sigmoid(x.r + R.r @ h)
    z = sigmoid(x.z + R.z @ h)
    n = tanh(x.n + r * (R.n @ h))
    return (1 - z) * n + z * h


@cell
def gru_reset_before(x, R, h):
    """Gated recurrent unit, reset before the recurrent product. Gates r, z, n.

    Source: Cho et al., arXiv:1406.1078; as in TensorFlow 1's GRUCell, ONNX's linear_before_reset=0, Keras' reset_after=False.
    """
    r = sigmoid(x.r + R.r @ h)
    z = sigmoid(x.z + R.z @ h)
    n = tanh(x.n + R.n @ (r * h))
    return (1 - z) * n + z * h


# every cell above, in this order
BUILT_IN: dict[str, Cell] = {name: value for name, value in list(globals().items()) if isinstance(value, Cell)}
