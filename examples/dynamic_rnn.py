"""The variables of a TensorFlow 1 checkpoint, run as dynamic_rnn runs them, without TensorFlow.

python examples/dynamic_rnn.py

The numbers loaded here are made up; their names are those of a BasicLSTMCell's variables.
"""

import numpy as np

from rnnbench.interop import from_tf1
from rnnbench.tasks.dynamic_rnn import dynamic_rnn

B, T, I, H = 2, 5, 3, 4


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def one_step(kernel, bias, x, c, h):
    """BasicLSTMCell, as in its source: gates i, j, f, o of one product, and 1 added to the forget gate when it runs."""
    i, j, f, o = np.split(np.concatenate([x, h], axis=1) @ kernel + bias, 4, axis=1)
    c = c * sigmoid(f + 1.0) + sigmoid(i) * np.tanh(j)
    return c, np.tanh(c) * sigmoid(o)


def main(backend="numba-cpu"):
    rng = np.random.default_rng(0)
    checkpoint = {
        "rnn/basic_lstm_cell/kernel:0": rng.standard_normal((I + H, 4 * H)),
        "rnn/basic_lstm_cell/bias:0": rng.standard_normal(4 * H),
    }
    cell = from_tf1("BasicLSTMCell", checkpoint, backend=backend)
    inputs, lengths = rng.standard_normal((B, T, I)), [5, 3]

    outputs, state = dynamic_rnn(cell, inputs, lengths)
    print(f"outputs {outputs.shape}, c {state.c.shape}, h {state.h.shape}")
    print(f"row 2 ends after step 3: {outputs[1].any(axis=1)}")

    joined_outputs, joined = dynamic_rnn(cell, inputs.swapaxes(0, 1), lengths, time_major=True, state_is_tuple=False)
    print(f"time-major and joined: outputs {joined_outputs.shape}, state {joined.shape}")

    c = h = np.zeros((B, H))
    for t in range(3):
        c, h = one_step(*checkpoint.values(), inputs[:, t], c, h)
    print(f"largest difference from three steps by hand: {np.abs(outputs[:, 2] - h).max():.1e}")


if __name__ == "__main__":
    main()
