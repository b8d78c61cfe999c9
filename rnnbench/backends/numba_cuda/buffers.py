"""What kernels read and write: one legend for all of them.

T steps, B rows, I inputs, H hidden units, W = proj_size or H; P pre-activations, S states, C computed operands, V vectors, N
saved values, O operands. `slots` of a state: in training T + 1, where slot t is before step t and slot t + 1 after it (reverse:
the other way round); in inference two in turn. `steps` of saved values: T, or 1.

Element (row, unit) of a step is an *item*. One thread owns it: it alone reads and writes the item's places in all buffers, and only
matrix products read what other threads wrote. So a barrier is needed before each product and nowhere else.

Kernels take every buffer as a one-dimensional array. A buffer of n places holds, for each step and row, n rows of H units: place p
of an item is at ((step * B + row) * n + p) * H + unit. The places of an item are a constant distance apart, so one address serves
all of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Forward(NamedTuple):
    """Buffers of the forward pass."""

    pre: Any  # (T, B, P, H)            input projections and biases, to which recurrent products are added
    values: Any  # (slots, B, S + C, H)   states, then computed operands, which are in the slot after their step
    saved: Any  # (steps, B, N, H)       what pointwise code keeps for later stages and for the backward pass
    output: Any  # (T, B, D*W)            h after each step, zero past a row's end; columns from `column` on
    vector: Any  # (V, H)                 per-unit parameters
    number: Any  # (numbers,)             run-time numbers
    lengths: Any  # (B,) int64             steps of each row
    output_row: int  # D*W
    column: int
    width: int  # W: how many units of h are output


class Backward(NamedTuple):
    """Buffers of the backward pass; `values` and `saved` are those of the forward pass, read-only."""

    dpre: Any  # (T, B, P, H)            adjoints of pre-activations, zero past a row's end
    values: Any
    saved: Any
    doutput: Any  # (T, B, D*W)            gradient of the output; not read past a row's end
    dstate: Any  # (2, B, S, H)           adjoints of the states: slot `turn` after the step, the other before it
    back: Any  # (B, O, H)              adjoints that products send to their operands
    dvector: Any  # (B, V, H)              adjoints of vectors, summed over time
    vector: Any
    number: Any
    lengths: Any
    output_row: int
    column: int
    width: int


class Now(NamedTuple):
    """A step's position in the sequence: its time t; the slots `prev` and `new` of the states before and after it; the slot `kept`
    of its saved values; and `turn`, the one of dstate's two slots that holds the adjoints of the states after it.
    """

    t: int
    prev: int
    new: int
    kept: int
    turn: int


# The `step`-th step, counted in the order in which steps run; reverse: whether the layer reads from the sequences' ends. Plain
# functions, which kernels compile too.


def in_inference(step: int, seq_len: int, reverse: bool) -> Now:
    """The forward pass with two slots for the states, used in turn."""
    t = seq_len - 1 - step if reverse else step
    return Now(t, step & 1, (step + 1) & 1, 0, 0)


def in_training(step: int, seq_len: int, reverse: bool) -> Now:
    """The forward pass with a slot for each step."""
    t = seq_len - 1 - step if reverse else step
    after = 0 if reverse else 1
    return Now(t, t + 1 - after, t + after, t, 0)


def in_backward(step: int, seq_len: int, reverse: bool) -> Now:
    """Backpropagation through time, from the step that ran last to the first."""
    t = step if reverse else seq_len - 1 - step
    after = 0 if reverse else 1
    return Now(t, t + 1 - after, t + after, t, step & 1)
