"""Products over any number of rows, built on the register tile."""

from __future__ import annotations

from functools import lru_cache

from .inner import inner_njit, inner_njit_once, inner_overload, named
from .simd import SIMD_BYTES, lanes
from .tile import tile, tile_rows

# the slice of a packed panel that consecutive tiles reuse stays in half of a first-level cache
_REUSED_BYTES = 16 * 1024


@lru_cache(maxsize=64)
def product_over_rows(columns, once=False):
    """A function that runs `tile` over any number of rows, in tiles of nearly equal height.

    The rows form `groups` groups of `count`; *_group: elements from one group to the next; the other arguments are as in `tile`.
    Callers must not pass literal numbers: each literal is a type of its own, for which all tiles would be compiled again.
    If there is more than one tile, the depth is cut so that each slice of the panel is read from the first-level cache.
    If `far` is 1, panels come from beyond the second-level cache, and all tiles together prefetch the next slice while they compute
    with this one; the processor's own prefetcher does not, because it stops at page boundaries. Panels are stored in the order of
    use, so the next slice follows this one.

    once: it is the product of a time loop, and inlined there: with one group and an a_step of 1, a single row of 128 units takes a
    tenth less time.
    """
    most, reused = tile_rows(columns), max(16, _REUSED_BYTES // (columns * SIMD_BYTES))

    def product(
        groups, count, out, out_at, out_group, out_row, init, init_at, init_group, init_row,
        a, a_at, a_group, a_row, a_step, panel, panel_at, depth, far,
    ):  # fmt: skip
        step = depth if groups == 1 and count <= most else reused
        # a single division for all tiles: it takes as long as a third of a small tile
        tiles = max(1, (count + most - 1) // most)
        least = count // tiles
        higher = count - least * tiles  # tiles with one row more
        every = groups * tiles
        ahead_step = max(1, columns * lanes_of(panel) // every) if far and every > 1 else 0
        # the sums start from init, then continue from out; `tile` is called in one place only, because it is much code
        source, source_at, source_group, source_row = init, init_at, init_group, init_row
        for k in range(0, depth, step):
            slice_depth = min(step, depth - k)
            ahead = slice_depth * columns * lanes_of(panel) if ahead_step else 0
            for group in range(groups):
                first = 0
                for i in range(tiles):
                    rows = least + 1 if i < higher else least
                    tile(
                        rows, columns,
                        out, out_at + group * out_group + first * out_row, out_row,
                        source, source_at + group * source_group + first * source_row, source_row,
                        a, a_at + k * a_step + group * a_group + first * a_row, a_row, a_step,
                        panel, panel_at + k * columns * lanes_of(panel), slice_depth, ahead, ahead_step,
                    )  # fmt: skip
                    first += rows
                    ahead += slice_depth * ahead_step
            source, source_at, source_group, source_row = out, out_at, out_group, out_row

    return _jit(once)(named(product, columns, once))


def _jit(once):
    return inner_njit_once if once else inner_njit


@lru_cache(maxsize=64)
def product_of_two_widths(vectors, last):
    """`product_over_rows` for panels of `vectors` vectors, the last one of `last`. One more argument says whether it is that one.
    Like other products of a time loop it is inlined.
    """
    most, least = product_over_rows(vectors, once=True), product_over_rows(last, once=True)
    if vectors == last:
        return inner_njit_once(named(lambda is_last, *operands: most(*operands), vectors))

    def product(is_last, *operands):
        if is_last:
            least(*operands)
        else:
            most(*operands)

    return inner_njit_once(named(product, vectors, last))


@lru_cache(maxsize=64)
def product_of_panel(blocks, vectors, can_be_close, once=False):
    """`product_over_rows` for a panel of `blocks` pre-activations, each of `vectors` vectors. It has two more arguments: `d`, a
    `ForwardDims`, and which panel it is. can_be_close: whether the last one may be packed closely (see layout.py). once: as above.
    """
    wide, narrow = product_over_rows(blocks * vectors, once), product_over_rows(1)
    if not can_be_close or blocks * vectors == 1:

        def as_it_is(d, number, *operands):
            wide(*operands)

        return _jit(once)(named(as_it_is, blocks, vectors, once))

    def product(
        d, number, groups, count, out, out_at, out_group, out_row, init, init_at, init_group, init_row,
        a, a_at, a_group, a_row, a_step, panel, panel_at, depth, far,
    ):  # fmt: skip
        if number != d.close_panel:
            wide(
                groups, count, out, out_at, out_group, out_row, init, init_at, init_group, init_row,
                a, a_at, a_group, a_row, a_step, panel, panel_at, depth, far,
            )  # fmt: skip
        else:
            for lane in range(0, d.last_vectors * lanes_of(panel), lanes_of(panel)):
                narrow(
                    groups, count, out, out_at + lane, out_group, out_row, init, init_at + lane, init_group, init_row,
                    a, a_at, a_group, a_row, a_step, panel, panel_at + lane * depth, depth, far,
                )  # fmt: skip

    return _jit(once)(named(product, blocks, vectors, once))


def lanes_of(array):
    """The number of lanes in a SIMD vector of the array's dtype."""
    raise NotImplementedError("compiled only")


@inner_overload(lanes_of)
def _lanes_of_array(array):
    count = lanes(array.dtype)
    return lambda array: count
