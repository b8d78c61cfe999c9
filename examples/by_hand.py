"""Two units and two steps by hand, and the same numbers from an RNN. `rnnbench example by-hand` prints them on any backend.

python examples/by_hand.py
"""

import numpy as np

from rnnbench import RNN

X = [1.0, 2.0]
STATE_WEIGHTS = np.array([[0.1, 0.2], [0.3, 0.4]])  # a row vector times a matrix, as textbooks write it
INPUT_WEIGHTS = np.array([0.5, 0.6])
BIAS = np.array([0.1, -0.1])
OUTPUT_WEIGHTS = np.array([[1.0], [2.0]])
OUTPUT_BIAS = 0.1


def by_hand():
    state, states = np.zeros(2), []
    for x in X:
        before_activation = state @ STATE_WEIGHTS + x * INPUT_WEIGHTS + BIAS
        state = np.tanh(before_activation)
        print("before activation:", before_activation)
        print("state:", state)
        print("output:", state @ OUTPUT_WEIGHTS + OUTPUT_BIAS)
        states.append(state)
    return np.array(states)


def main(backend="numba-cpu"):
    states = by_hand()

    rnn = RNN("rnn_tanh", input_size=1, hidden_size=2, backend=backend, dtype="float64")
    rnn.load(
        {
            "weight_ih_l0": INPUT_WEIGHTS[:, None],  # a matrix times a column vector, as PyTorch has it: (H, I)
            "weight_hh_l0": STATE_WEIGHTS.T,
            "bias_ih_l0": BIAS,
            "bias_hh_l0": np.zeros(2),
        }
    )
    output, _ = rnn(np.array(X)[:, None, None])  # (seq_len, batch_size, input_size)
    print(f"largest difference from the states of {rnn}: {np.abs(output[:, 0] - states).max():.1e}")


if __name__ == "__main__":
    main()
