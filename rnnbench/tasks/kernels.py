"""What training does to large arrays, compiled by Numba: one pass over memory, where NumPy takes one for each operation.

An optimiser's time is that of memory: Adam's twelve operations on 1.7 million parameters took 7 ms in NumPy, cache-blocked, and
2.5 ms here. A softmax's is that of its exponentials: 560 rows of 8,000 classes took 11 ms in NumPy, and 3.7 here. Models run
this code whatever their network's backend, so all of them go the same way.
"""

from __future__ import annotations

import math

from ..backends.numba_cpu.cache import cached_njit
from ..backends.numba_cpu.product import lanes_of
from ..backends.numba_cpu.simd import at_least, lane, load, store
from ..backends.numba_cpu.vector_math import exp


@cached_njit(nogil=True)
def descend(p, g, rate):
    """p -= rate * g, for one-dimensional arrays of one length and a number of their dtype."""
    for i in range(p.size):
        p[i] -= rate * g[i]


@cached_njit(nogil=True)
def descend_with_momentum(p, g, v, rate, momentum):
    """v = momentum * v + g, and p -= rate * v; as `descend`."""
    for i in range(p.size):
        v[i] = momentum * v[i] + g[i]
        p[i] -= rate * v[i]


@cached_njit(nogil=True)
def add_rows(sums, place, rows):
    """sums[place[n]] += rows[n] for each n, for sums (N, width), whole numbers below N, and rows of the same width."""
    for n in range(len(place)):
        for i in range(rows.shape[1]):
            sums[place[n], i] += rows[n, i]


@cached_njit(nogil=True)
def adam(p, g, m, v, rate, epsilon, fresh1, fresh2):
    """m += fresh1 * (g - m), v += fresh2 * (g * g - v), and p -= rate * m / (sqrt(v) + epsilon); as `descend`."""
    for i in range(p.size):
        m[i] += fresh1 * (g[i] - m[i])
        v[i] += fresh2 * (g[i] * g[i] - v[i])
        p[i] -= rate * m[i] / (math.sqrt(v[i]) + epsilon)


@cached_njit(nogil=True)
def adam_rows(p, g, index, none, m, v, rate, epsilon, fresh1, fresh2):
    """`adam` of p, m, v (rows, width) where the gradient is g[k] in row index[k], ascending, and `none`, zeros, elsewhere."""
    k = 0
    for row in range(len(p)):
        if k < len(index) and index[k] == row:
            adam(p[row], g[k], m[row], v[row], rate, epsilon, fresh1, fresh2)
            k += 1
        else:
            adam(p[row], none, m[row], v[row], rate, epsilon, fresh1, fresh2)


@cached_njit(nogil=True)
def softmax(logits, targets, scale, gradient, losses, is_first):
    """Each row's cross-entropy, `scale` times its gradient, and whether the target's logit is the first of the largest ones.

    logits, gradient (rows * classes,), which may be one array; targets (rows,), whole numbers below `classes`; losses (rows,) of
    the same dtype and is_first (rows,) are written. rows and classes are at least 1.
    """
    classes, lanes = logits.size // targets.size, lanes_of(logits)
    whole = classes - classes % lanes  # in vectors; the rest of a row goes number by number
    for r in range(targets.size):
        # slices, for loops that count from 0 become vectors
        row, out, target = (
            logits[r * classes : (r + 1) * classes],
            gradient[r * classes : (r + 1) * classes],
            targets[r],
        )
        largest = row[classes - 1]
        if whole:
            highest = load(row, 0)
            for i in range(lanes, whole, lanes):
                highest = at_least(load(row, i), highest)
            for k in range(lanes):
                largest = max(largest, lane(highest, k))
        for i in range(whole, classes):
            largest = max(largest, row[i])
        shifted, earlier = row[target] - largest, 0
        if row[target] == largest:
            for value in row[:target]:
                earlier += value == largest
        is_first[r] = row[target] == largest and not earlier

        total = largest - largest  # 0 of the dtype; NaN where the largest is infinite
        if whole:
            sums = exp(load(row, 0) - largest)
            store(out, 0, sums)
            for i in range(lanes, whole, lanes):
                power = exp(load(row, i) - largest)
                store(out, i, power)
                sums = sums + power
            for k in range(lanes):
                total += lane(sums, k)
        for i in range(whole, classes):
            out[i] = math.exp(row[i] - largest)
            total += out[i]
        share = scale / total
        for i in range(classes):
            out[i] *= share
        out[target] -= scale
        losses[r] = math.log(total) - shifted
