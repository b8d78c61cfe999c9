"""The layout of the three arrays that a kernel takes, and how weights are packed.

T steps, B rows, I inputs, H hidden units, P pre-activations, S states, V vectors; W lanes in a SIMD vector, U vectors in a panel.
Hidden units are padded with zero weights to Hp, whole panels of U*W, so that every load and store is a full vector.

Forward:
    weights  bias      (panels, P, U, W)                      the sum of both biases
             vector    (V, Hp)
             input     per span of inputs (panels, I, n, U, W)         read front to back by a tile
             recurrent per operand (panels, H, n, U, W)
             number    (numbers,)
             If one product makes all pre-activations, the last panel of all but `vector` is packed closely where that saves
             vectors: its blocks are side by side without padding, in as many panels of one vector as they need. What is computed
             in the padding of pre and of states is then anything, even NaN, and only the same lanes ever read it.
    tape     state     (S, slots, B, Hp)     training: slot t is before step t, t + 1 after it (reverse: the other way round)
                                             inference: two slots in turn
             saved     (steps, B, Hp / W, saved, W)   training: T steps; inference: 1. The saved values of a vector of units are
                                             written and read together, so they are adjacent: hardware prefetches what follows
             operand   (computed, steps, B, Hp)
    work     pre       (panels, chunk, B, P, U, W)   input projections of a chunk of steps, to which products are added; in a
                                             panel that is packed closely, blocks are as close

Backward (weights packed again, transposed; the tape as above, read-only):
    weights  zero      (WIDE, W)             where every sum starts
             vector    (V, Hp)
             recurrent per operand (panels of H, n * H, 4, W); the last panel may have 2 vectors or 1
             input     per span of inputs (panels of I, n * H, 4 or 1, W)   for dx, in gradients.py
             number    (numbers,)
    work     dpre      (T, B, dpre_row)      (P, H) in a row, without padding: matrix products sum over it
             dstate    (S, 2, B, Hp)         two slots in turn; also dnew
             back      (operands, B, Hb)
             dvector   (V, B, Hp)            summed over time
             dbias     (threads, P, Hp)      dpre summed over time and the thread's rows
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...cells import Program
from ..base import LayerWeights, input_spans

ALIGNMENT = 64  # a cache line, and the widest vector
WIDE = 4  # vectors in a panel, where columns are not divided into gates


class ForwardDims(NamedTuple):
    """Sizes, and offsets in elements, of one call of the forward kernel."""

    seq_len: int
    batch_size: int
    input_size: int
    hidden_size: int
    output_size: (
        int  # of the hidden units' values, how many are output: fewer with a projection, and then some panels have none
    )
    padded: int  # Hp
    slots: int  # of a state: T + 1 in training, else 2
    steps: int  # of saved values and computed operands: T in training, else 1
    chunk: int  # steps whose input projections are computed at once
    training: bool
    reverse: bool
    ragged: bool
    output_row: int  # D * H
    output_column: int
    saved_at: int
    operand_at: int
    vector_at: int
    input_at: int
    recurrent_at: int
    number_at: int
    input_far: int  # 1 where a thread's input weights lie beyond the second-level cache, else 0
    recurrent_far: int  # likewise
    panel_vectors: int  # of a panel's pre-activations: P * U
    last_vectors: int  # of the last panel's
    close_panel: int  # the last panel if it is packed closely, else -1
    close_width: int  # elements from one block to the next in that panel


class BackwardDims(NamedTuple):
    """Sizes, and offsets in elements, of one call of the backward kernel."""

    seq_len: int
    batch_size: int
    hidden_size: int
    output_size: int  # of the hidden units' values, how many are output: fewer with a projection
    padded: int
    padded_back: int  # Hb, a row of back
    packed_back: int  # hidden units in the packed panels of back, with their padding
    dpre_row: int  # elements from one row of dpre to the next
    reverse: bool
    ragged: bool
    output_row: int
    output_column: int
    saved_at: int
    vector_at: int
    recurrent_at: int
    number_at: int
    dstate_at: int
    back_at: int
    dvector_at: int
    dbias_at: int
    work_size: int
    recurrent_far: int  # as in ForwardDims


class KernelArrays(NamedTuple):
    """The three arrays of a kernel."""

    weights: np.ndarray
    tape: np.ndarray
    work: np.ndarray


class Part(NamedTuple):
    """Thread `thread`'s share: a range of rows and one of panels. Of the first panel it has only the rows from `head` on, and of
    the last one only those before `tail`; `threading.rows_of` tells. `parties` threads share the rows and meet after each stage.
    """

    thread: int
    first_row: int
    end_row: int
    first_panel: int
    head: int
    end_panel: int
    tail: int
    parties: int


class Now(NamedTuple):
    """A kernel's position in the sequence."""

    t: int
    turn: int  # forward: the step's place in the chunk of input projections; backward: the slot of dnew
    prev: int  # slots of the states before and after the step
    new: int
    saved: int  # slot of saved values and computed operands


def aligned_empty(count: int, dtype: np.dtype) -> np.ndarray:
    """`count` elements, aligned to a cache line so that a vector load never crosses two lines."""
    raw = np.empty(count * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + count * dtype.itemsize].view(dtype)


def spread(count: int, dtype: np.dtype) -> int:
    """The smallest row length from `count` elements up whose rows start in all sets of a cache: an odd number of lines.

    If rows are 4 KiB apart, the elements of a column compete for a single set, and are read from memory again and again.
    """
    line = ALIGNMENT // dtype.itemsize
    lines = -(-count // line)
    return (lines + 1 - lines % 2) * line


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


def panel_vectors(program: Program, hidden_size: int, lanes: int) -> int:
    """U: the number of vectors of hidden units in a panel.

    A tile should have about four vectors per row: an LSTM's four gates give that with U = 1, a simple RNN's single gate with
    U = 4. The panel is narrower if it would mean too much padding.
    """
    widest = max((len(o.pre) for o in program.operands), default=len(program.pre))
    wish = max(1, 4 // widest)
    vectors = -(-hidden_size // lanes)
    while wish > 1 and round_up(vectors, wish) > vectors * 1.15:
        wish //= 2
    return wish


def is_one_product(program: Program) -> bool:
    """Whether one product of the input makes all pre-activations and one of an operand is added to all of them.

    Of two products, the first would write past its end in a panel that is packed closely, into what the second adds to.
    """
    whole = range(len(program.pre))
    return input_spans(program) == [slice(0, len(whole))] and [o.pre for o in program.operands] == [whole]


def last_vectors(program: Program, hidden_size: int, width: int, lanes: int) -> int:
    """Vectors that the last panel's pre-activations take."""
    count = len(program.pre)
    units = hidden_size - (hidden_size - 1) // width * width if is_one_product(program) else width
    return -(-count * units // lanes)


def panels_of(blocks: np.ndarray, width: int) -> np.ndarray:
    """(n, H, K) -> (panels, K, n, width): for each panel of hidden units and each k, the blocks side by side."""
    padded = _padded(blocks, width)
    n, Hp, K = padded.shape
    return padded.reshape(n, Hp // width, width, K).transpose(1, 3, 0, 2)


def pack_forward(
    program: Program, weights: LayerWeights, numbers: np.ndarray, width: int, lanes: int
) -> tuple[np.ndarray, dict[str, int]]:
    """The forward kernel's weights for panels of `width` units, in vectors of `lanes`, and their offsets."""
    P, H = weights.bias.shape
    is_close = last_vectors(program, H, width, lanes) < P * width // lanes
    spread_out = (H - 1) // width * width if is_close else H

    def panels(blocks: np.ndarray) -> list[np.ndarray]:
        closely = blocks[:, spread_out:].reshape(1, -1, blocks.shape[2])
        return [panels_of(blocks[:, :spread_out], width), panels_of(closely, lanes)]

    sections = {
        "bias": panels(weights.bias[:, :, None]),
        "vector": [panels_of(weights.vector[:, :, None], width).transpose(2, 0, 1, 3)],
        "input": [array for span in input_spans(program) for array in panels(weights.input[span])],
        "recurrent": [a for o in program.operands for a in panels(weights.recurrent[o.pre.start : o.pre.stop])],
        "number": [numbers],
    }
    return _concatenate(sections, weights.bias.dtype)


def pack_backward(
    program: Program, weights: LayerWeights, numbers: np.ndarray, width: int, lanes: int
) -> tuple[np.ndarray, dict[str, int]]:
    """The backward kernel's weights, for panels of `width` units in the time loop and vectors of `lanes`, and their offsets."""
    H, I = weights.recurrent.shape[2], weights.input.shape[2]
    most, last = back_panels(H, lanes)
    recurrent = [weights.recurrent[o.pre.start : o.pre.stop] for o in program.operands]
    inputs = [weights.input[span] for span in input_spans(program)]
    sections = {
        "zero": [np.zeros(WIDE * lanes, weights.bias.dtype)],
        "vector": [panels_of(weights.vector[:, :, None], width).transpose(2, 0, 1, 3)],
        "recurrent": [a for blocks in recurrent for a in _transpose(blocks, (most - 1) * WIDE * lanes, last, lanes)],
        "input": [a for blocks in inputs for a in _transpose(blocks, wide_columns(I, lanes), 1, lanes)],
        "number": [numbers],
    }
    return _concatenate(sections, weights.bias.dtype)


def _transpose(blocks: np.ndarray, wide: int, narrow: int, lanes: int) -> list[np.ndarray]:
    """(n, H, K) -> panels with depth n * H: of WIDE vectors for the first `wide` of the K, of `narrow` vectors for the others."""
    columns = blocks.reshape(1, -1, blocks.shape[2]).transpose(0, 2, 1)
    return [panels_of(columns[:, :wide], WIDE * lanes), panels_of(columns[:, wide:], narrow * lanes)]


def back_panels(hidden_size: int, lanes: int) -> tuple[int, int]:
    """(panels of the transposed product, vectors in the last one). Three vectors are not worth a kernel of their own."""
    vectors = -(-hidden_size // lanes)
    panels = -(-vectors // WIDE)
    last = vectors - (panels - 1) * WIDE
    return panels, WIDE if last == 3 else last


def wide_columns(columns: int, lanes: int) -> int:
    """How many of a matrix's columns are in panels of WIDE vectors, if the others are in panels of one."""
    rest = columns % (WIDE * lanes)
    return columns if rest > (WIDE - 1) * lanes else columns - rest


def _padded(blocks: np.ndarray, width: int) -> np.ndarray:
    """(n, H, K) with zeros up to whole panels of `width`; the array itself if nothing is missing."""
    n, H, K = blocks.shape
    if H % width == 0:
        return blocks
    padded = np.zeros((n, round_up(H, width), K), blocks.dtype)
    padded[:, :H] = blocks
    return padded


def _concatenate(sections: dict[str, list[np.ndarray]], dtype: np.dtype) -> tuple[np.ndarray, dict[str, int]]:
    total = sum(a.size for arrays in sections.values() for a in arrays)
    packed, offsets, at = aligned_empty(total, dtype), {}, 0
    for name, arrays in sections.items():
        offsets[name] = at
        for array in arrays:
            packed[at : at + array.size].reshape(array.shape)[...] = array
            at += array.size
    return packed, offsets
