"""A user's own file: cells that are not built in, each with something that the built-in ones do not have."""

from rnnbench import cell, exp, log, maximum, minimum, relu, sigmoid, sqrt, tanh, where


@cell
def slstm(x, R, h, c, n, m):
    """Four states; exponential gates held in range by a running maximum (Beck et al., arXiv:2405.04517)."""
    i = x.i + R.i @ h
    f = x.f + R.f @ h
    m_new = maximum(f + m, i)
    scale_i, scale_f = exp(i - m_new), exp(f + m - m_new)
    c = scale_f * c + scale_i * tanh(x.z + R.z @ h)
    n = scale_f * n + scale_i
    return sigmoid(x.o + R.o @ h) * c / n, c, n, m_new


@cell
def minimal_gated(x, R, h):
    """One gate for everything, and a product of a computed value (Zhou et al., arXiv:1603.09420)."""
    f = sigmoid(x.f + R.f @ h)
    n = tanh(x.n + R.n @ (f * h))
    return (1 - f) * h + f * n


@cell
def three_stages(x, R, p, h, c, *, slope=0.5, shift=0.0):
    """An operand made of states alone, a product without an input, one of a product, vectors, numbers, states that cross."""
    both = p.a * h + slope * c
    u = tanh(x.u + R.u @ both)
    v = sigmoid(R.v @ u + p.b + shift)
    w = tanh(x.w + R.w @ (u * v) + R.w @ both)
    return v * w + (1 - v) * c, slope * h + u


@cell
def no_product(x, R, p, h, c, d):
    """Every pointwise operation and no matrix; a state that stays as it is."""
    a = where(x.a < h, x.a, -h) + abs(x.b) * 0.25
    b = minimum(a, 0.5 * c) + maximum(-0.75, relu(x.b - 0.125)) / (2 + x.c * x.c)
    e = exp(0.25 * b) - log(1.5 + sigmoid(a)) + sqrt(1 + c * c)
    return tanh(e * p.s - 1), where(h <= b, 0.5 * h, c * 0.5), d
