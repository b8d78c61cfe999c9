"""A cell of your own in six lines: the minimal gated unit (Zhou et al., arXiv:1603.09420), one gate instead of a GRU's two.

python examples/your_own_cell.py

rnnbench show    examples/your_own_cell.py:minimal_gated_unit
rnnbench check   --cells examples/your_own_cell.py:minimal_gated_unit
rnnbench compare --cells examples/your_own_cell.py:minimal_gated_unit --backends numba-cpu,numpy --direction train
"""

import numpy as np

from rnnbench import RNN, cell, sigmoid, tanh


@cell
def minimal_gated_unit(x, R, h):
    f = sigmoid(x.f + R.f @ h)
    n = tanh(x.n + R.n @ (f * h))
    return (1 - f) * h + f * n


def main(backend="numba-cpu"):
    rnn = RNN(minimal_gated_unit, input_size=8, hidden_size=16, backend=backend, dtype="float64")
    print(rnn)
    for name, array in rnn.params.items():
        print(f"  {name} {array.shape}")

    x = np.random.default_rng(1).standard_normal((20, 4, 8))
    output, _, tape = rnn.forward(x)
    derived = rnn.backward(tape, doutput=2 * output)["weight_hh_l0"][0, 0]  # of the sum of all squares

    losses, step = [], 1e-5
    for sign in (1, -1):
        moved = {name: array.copy() for name, array in rnn.params.items()}
        moved["weight_hh_l0"][0, 0] += sign * step
        other = RNN(minimal_gated_unit, 8, 16, backend=backend, dtype="float64")
        other.load(moved)
        losses.append(np.square(other(x)[0]).sum())
    measured = (losses[0] - losses[1]) / (2 * step)
    print(f"the gradient of one weight: derived from the equation {derived:.9f}, by finite differences {measured:.9f}")


if __name__ == "__main__":
    main()
