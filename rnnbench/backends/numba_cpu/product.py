"""Products over any number of rows, built on the register tile."""

from __future__ import annotations

from functools import lru_cache

from .inner import inner_njit, inner_overload, named
from .simd import SIMD_BYTES, lanes
from .tile import tile, tile_rows

# the slice of a packed panel that consecutive tiles reuse stays in half of a first-level cache
_REUSED_BYTES = 16 * 1024


@lru_cache(maxsize=64)
def product_over_rows(columns):
    """A function that runs `tile` over any number of rows, in tiles of nearly equal height.

    The rows form `groups` groups of `count`; *_group: elements from one group to the next; the other arguments are as in `tile`.
    Callers must not pass literal numbers: each literal is a type of its own, for which all tiles would be compiled again.
    If there is more than one tile, the depth is cut so that each slice of the panel is read from the first-level cache.
    far: 1 if panels come from beyond the second-level cache, else 0. With 1, all tiles together prefetch the next slice while they
    compute with this one; the processor's own prefetcher does not, because it stops at page boundaries. Panels are stored in the
    order of use, so the next slice follows this one.
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

    return inner_njit(named(product, columns))


def lanes_of(array):
    """The number of lanes in a SIMD vector of the array's dtype."""
    raise NotImplementedError("compiled only")


@inner_overload(lanes_of)
def _lanes_of_array(array):
    count = lanes(array.dtype)
    return lambda array: count
