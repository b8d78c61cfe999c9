"""Fused operations: one pass over memory, where NumPy takes one for each operation.

Optimisers are limited by memory bandwidth: Adam's twelve operations on 1.7 million parameters took 7 ms in NumPy, cache-blocked,
and 2.5 ms here. Softmax is limited by its exponentials: 560 rows of 8,000 classes took 11 ms in NumPy, and 3.7 here.

Every function except `add_rows` runs on threads (`team.run`) and does its thread's share. threads, thread: how many there are, and
which of them this is.
"""

from __future__ import annotations

import math

from ...backends.numba_cpu.cache import cached_njit
from ...backends.numba_cpu.inner import inner_njit
from ...backends.numba_cpu.product import lanes_of
from ...backends.numba_cpu.simd import at_least, lane, load, store
from ...backends.numba_cpu.threading import share
from ...backends.numba_cpu.vector_math import exp
from .team import team_body

SQUARED = 32 * 1024  # elements whose squares are summed in their own dtype: few enough to keep rounding errors small


@cached_njit(nogil=True)
def add_rows(sums, place, rows):
    """sums[place[n]] += rows[n] for each n; sums is (N, width), place holds integers below N, and rows are `width` wide."""
    for n in range(len(place)):
        for i in range(rows.shape[1]):
            sums[place[n], i] += rows[n, i]


@team_body
def scale(a, factor, threads, thread):
    """a *= factor, for a one-dimensional array and a scalar of its dtype."""
    first, end = share(a.size, threads, thread)
    a = a[first:end]  # loops that count from 0 are vectorised
    for i in range(a.size):
        a[i] *= factor


@team_body
def squares(a, sums, threads, thread):
    """sums[k] = the sum of the squares in chunk k of the one-dimensional array a; a chunk has SQUARED elements.

    sums: float64, one element per chunk. threads, thread: see above.
    """
    first, end = share(sums.size, threads, thread)
    lanes = lanes_of(a)
    for part in range(first, end):
        here = a[part * SQUARED : (part + 1) * SQUARED]
        whole, total = here.size - here.size % (2 * lanes), 0.0
        if whole:
            one, other = load(here, 0) * load(here, 0), load(here, lanes) * load(here, lanes)
            for i in range(2 * lanes, whole, 2 * lanes):
                one = one + load(here, i) * load(here, i)
                other = other + load(here, i + lanes) * load(here, i + lanes)
            one = one + other
            for k in range(lanes):
                total += lane(one, k)
        for i in range(whole, here.size):
            total += here[i] * here[i]
        sums[part] = total


@team_body
def descend(p, g, rate, threads, thread):
    """p -= rate * g, for one-dimensional arrays of equal length and a scalar of their dtype."""
    first, end = share(p.size, threads, thread)
    p, g = p[first:end], g[first:end]
    for i in range(p.size):
        p[i] -= rate * g[i]


@team_body
def descend_with_momentum(p, g, v, rate, momentum, threads, thread):
    """v = momentum * v + g, and p -= rate * v; as `descend`."""
    first, end = share(p.size, threads, thread)
    p, g, v = p[first:end], g[first:end], v[first:end]
    for i in range(p.size):
        v[i] = momentum * v[i] + g[i]
        p[i] -= rate * v[i]


@inner_njit
def _adam(p, g, m, v, rate, epsilon, fresh1, fresh2):
    for i in range(p.size):
        m[i] += fresh1 * (g[i] - m[i])
        v[i] += fresh2 * (g[i] * g[i] - v[i])
        p[i] -= rate * m[i] / (math.sqrt(v[i]) + epsilon)


@team_body
def adam(p, g, m, v, rate, epsilon, fresh1, fresh2, threads, thread):
    """m += fresh1 * (g - m), v += fresh2 * (g * g - v), and p -= rate * m / (sqrt(v) + epsilon); as `descend`."""
    first, end = share(p.size, threads, thread)
    _adam(p[first:end], g[first:end], m[first:end], v[first:end], rate, epsilon, fresh1, fresh2)


@team_body
def adam_rows(p, g, index, none, m, v, rate, epsilon, fresh1, fresh2, threads, thread):
    """`adam` for p, m, v (rows, width) with a sparse gradient: g[k] in row index[k], ascending, and `none`, zeros, elsewhere."""
    first, end = share(len(p), threads, thread)
    k = 0
    while k < len(index) and index[k] < first:
        k += 1
    for row in range(first, end):
        if k < len(index) and index[k] == row:
            _adam(p[row], g[k], m[row], v[row], rate, epsilon, fresh1, fresh2)
            k += 1
        else:
            _adam(p[row], none, m[row], v[row], rate, epsilon, fresh1, fresh2)


@team_body
def softmax(logits, targets, scale, gradient, losses, is_first, threads, thread):
    """Each row's cross-entropy, `scale` times its gradient, and whether the target is the argmax (the first one in a tie).

    logits, gradient (rows * classes,), which may be the same array; targets (rows,), integers below `classes`; losses (rows,) of
    the same dtype and is_first (rows,) are written. rows and classes are at least 1.
    """
    classes, lanes = logits.size // targets.size, lanes_of(logits)
    whole = classes - classes % lanes  # in whole vectors; the rest of a row is done element by element
    first, end = share(targets.size, threads, thread)
    for r in range(first, end):
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
        share_ = scale / total
        for i in range(classes):
            out[i] *= share_
        out[target] -= scale
        losses[r] = math.log(total) - shifted
