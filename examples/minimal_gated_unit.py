"""A cell of your own in six lines: the minimal gated unit (Zhou et al., arXiv:1603.09420), one gate instead of a GRU's two.

rnnbench show    examples/minimal_gated_unit.py:minimal_gated_unit
rnnbench check   --cells examples/minimal_gated_unit.py:minimal_gated_unit
rnnbench compare --cells examples/minimal_gated_unit.py:minimal_gated_unit --backends numba-cpu,numpy --direction train
"""

from rnnbench import cell, sigmoid, tanh


@cell
def minimal_gated_unit(x, R, h):
    f = sigmoid(x.f + R.f @ h)
    n = tanh(x.n + R.n @ (f * h))
    return (1 - f) * h + f * n
