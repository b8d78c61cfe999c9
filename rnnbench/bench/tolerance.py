"""How far a correct backend can be from the reference. Derived from the arithmetic, not fitted to measurements.

Let u be the unit roundoff of the case's dtype (2^-24, 2^-53), T, B, I, H the sizes, L the number of layers, D the number
of directions, and all errors relative in the 2-norm of a tensor.

**One step forward.** A pre-activation is a sum of n = I + H + 2 products and biases. Each addition rounds a partial
sum by at most u of its size. Partial sums of terms with random signs grow like a random walk, and independent
rounding errors add in quadrature: sqrt(n) u in all, whatever the order of the sum (Higham and Mary, A new approach to
probabilistic rounding error analysis, 2019). The pointwise part of a cell is at most POINTWISE = 16 operations, each
off by 1 u or, for sigmoid and tanh, a few. One step is off by e1 = (sqrt(n) + 16) u.

**Many steps.** The state carries the error forward. `data.make` draws recurrent matrices for which the step contracts:
its Jacobian's norm is at most about 3/4 (1/2 from a unit's own memory, and less than 1/4 from the recurrent product
times the slopes of the gates, at most 1/4 each), so errors add up to a geometric series, at most GAIN = 1 / (1 - 3/4) = 4
times the error of one step whatever the length. A layer passes its error to the next one, which adds its own: forward =
4 L e1.

**Backward.** One step back multiplies by R^T: a sum of G H terms, e2 = (sqrt(G H) + 32) u with twice the pointwise
work. Its factors, f(1 - f) or 1 - n^2, are computed from values that are off by `forward`, and their slopes are at
most 2. The backward pass is the transpose of the forward pass and contracts likewise: adjoints are off by 4 L (e2 + 2
forward). A parameter's gradient sums T B of them, sqrt(T B) u more; that of x adds one product, which e2 covers.

**float64.** The reference rounds as well, independently: twice the tolerance (for float32 its error is negligible).

**One element.** Errors of N elements behave like normal deviates; the largest of them almost never exceeds
sqrt(2 ln N) + 3 standard deviations. So the largest absolute error is at most (sqrt(2 ln N) + 3) times the
tolerance times the root mean square of the tensor's elements (of those that are not exactly 0: padding has no error).

**Kinks.** relu, abs, minimum, maximum and where have a derivative that jumps. If rounding carries a value across the
jump, that element's adjoint is simply a different one, and no implementation is at fault. Of N values with a
density of about 1 at the kink, N * 2 * forward are near enough; let m be the 99% quantile of the Poisson distribution
with that mean. A flipped element changes its adjoint by about its own size, at most 3 times the usual size, so
gradients may be off by 4 sqrt(m / N) more, including 4/3 for the part that propagates further. In float64 m is 0, and
the check is as sharp as for smooth cells.

**Precision by name.** Some backends say in their names that they round more coarsely than their dtype, to a unit roundoff v in
a few places of a step (`COARSE`), while their sums are in float32. Those places replace the 16 operations: e1 =
sqrt(n) u + k v, and e2 = sqrt(G H) u + 2 k v. TF32 rounds both operands of a product, k = 2. numba-cuda-fast uses
CUDA's tanh.approx.f32, and a value passes through at most four activations in a step (a gate, the candidate,
their sum's tanh, the output's gate). torch-cuda-fp16 and -bf16 keep all that they store in 16 bits: both operands, gates,
candidate, memory and output, k = 6. With bfloat16, 2^-8, gradients of one layer may be off by a large fraction of themselves: that
still detects gradients that are zero or of the wrong sign, and more cannot be expected. Weights that are stored in fewer bits
do not need tolerance: the reference gets them too (`stored`).

A user's cell need not contract: `verify` measures how much its equation amplifies a small change of the data, in float64 and on
the oracle alone, and passes that as `gain`. Its units may also be near saturation, where 1 - y * y has few of the digits of
y = tanh(a): how much gradients amplify a small change of the values saved for the backward pass is their `sensitivity`, measured
likewise, and the saved values are off by 4 u. At most half of a gradient is allowed for that.

**Where a comparison tells nothing.** A result of zeros is off by 1, all of itself. On our data swapped gates, a transposed
matrix and ignored lengths move outputs by 0.13 to 1, half of them by more than 0.25. A tolerance beyond `MOST_OF_A_RESULT`
would let such faults pass, so nothing is compared then. Gradients repeat what outputs have shown, and may lose half of
themselves to saturation; they are compared as long as a gradient of zeros would be found. Beyond that the case is skipped, and
never timed. An equation that expands (a chaotic one) gets there after some steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rnnbench.bench.cases import Case

GAIN = 4.0
POINTWISE = 16.0
# of a gradient: one that is zero, or of the wrong sign, is detected however saturated its units are
MOST_SATURATED = 0.5
# tolerances from which on a comparison tells nothing, of outputs and final states, and of gradients
MOST_OF_A_RESULT = 0.25
MOST_OF_A_GRADIENT = 1.0


class Coarse(NamedTuple):
    """A unit roundoff that is coarser than the dtype's, and the number of places in a step that round so."""

    unit: float
    places: int


COARSE = {
    **dict.fromkeys(("torch-cuda-tf32", "numba-cuda-tf32"), Coarse(2.0**-11, 2)),
    "numba-cuda-fast": Coarse(2.0**-11, 4),
    "torch-cuda-fp16": Coarse(2.0**-11, 6),
    "torch-cuda-bf16": Coarse(2.0**-8, 6),
}
KINKS = frozenset({"relu", "abs", "minimum", "maximum", "where"})


@dataclass(frozen=True)
class Tolerances:
    """Largest normwise relative errors: `forward` of output and final states, `gradients` of all gradients.

    flips: how many elements may lie on the other side of a kink.
    """

    forward: float
    gradients: float
    flips: int = 0

    def relative(self, gradient: bool) -> float:
        """The tolerance of a tensor's normwise relative error."""
        return self.gradients if gradient else self.forward

    def why_untold(self, case: Case) -> str:
        """Why a comparison within these tolerances would tell nothing; empty if gross faults would be found."""
        for what, size, most in (
            ("outputs", self.forward, MOST_OF_A_RESULT),
            ("gradients", self.gradients if case.direction == "train" else 0.0, MOST_OF_A_GRADIENT),
        ):
            if size >= most:
                by = "beyond recognition" if math.isinf(size) else f"by {size:.2g} times their size"
                cure = "fewer steps" if case.dtype == "float64" else "float64 or fewer steps"
                where = case.dtype
                if _coarse(case):
                    where, cure = case.backend, "a finer backend"
                return (
                    f"rounding in {where} may change {what} {by} over {case.seq_len} steps, "
                    f"so a comparison tells nothing; use {cure}"
                )
        return ""

    def absolute(self, gradient: bool, expected: np.ndarray) -> float:
        """The tolerance of the largest absolute error of a tensor whose correct value is `expected`; infinite if an
        element may flip at a kink.
        """
        if gradient and self.flips:
            return math.inf
        values = expected[expected != 0]
        if values.size == 0:
            return 0.0
        rms = float(np.linalg.norm(values)) / math.sqrt(values.size)
        return self.relative(gradient) * (math.sqrt(2 * math.log(values.size)) + 3) * rms


def tolerances(case: Case, gain: float = GAIN, sensitivity: float = 0.0) -> Tolerances:
    """The tolerances of a case, as derived above. gain: how much errors grow over a sequence, GAIN for the built-in cells;
    infinity if beyond measure. sensitivity: of gradients to the values saved for them; for the built-in cells the derivation
    includes it.
    """
    if math.isinf(gain):
        return Tolerances(math.inf, math.inf)
    cell = case.spec.cell
    u = 2.0**-24 if case.dtype == "float32" else 2.0 * 2.0**-53
    coarse = _coarse(case)
    pointwise = coarse.unit * coarse.places if coarse else POINTWISE * u
    width = case.input_size if case.num_layers == 1 else max(case.input_size, case.num_directions * case.hidden_size)
    layers = case.num_layers
    forward = gain * layers * (math.sqrt(width + case.hidden_size + 2) * u + pointwise)
    step_back = math.sqrt(len(cell.input_gates) * case.hidden_size) * u + 2 * pointwise
    gradients = gain * layers * (step_back + 2 * forward) + math.sqrt(case.seq_len * case.batch_size) * u
    gradients += min(4 * sensitivity * u, MOST_SATURATED)
    flips = 0
    if any(node.op in KINKS for node in cell.order):
        units = case.seq_len * case.batch_size * case.hidden_size * layers * case.num_directions
        flips = _poisson_quantile(units * 2 * forward)
        gradients += 4 * math.sqrt(flips / units)
    return Tolerances(forward, gradients, flips)


def _coarse(case: Case) -> Coarse | None:
    """How a case rounds if that is more coarsely than its dtype."""
    return COARSE.get(case.backend) if case.dtype == "float32" else None


def _poisson_quantile(mean: float) -> int:
    """The smallest m with P(X <= m) >= 0.99; by the normal approximation if the sum would be long, which is off by 1 at most."""
    if mean > 500:
        return math.ceil(mean + 2.3263 * math.sqrt(mean))  # the 99% quantile of a normal deviate
    m, term = 0, math.exp(-mean)
    total = term
    while total < 0.99:
        m += 1
        term *= mean / m
        total += term
    return m
