"""Products over any number of rows, built on the register tile."""

from __future__ import annotations

from functools import lru_cache

from .inner import inner_njit, inner_overload, named
from .simd import SIMD_BYTES, lanes
from .tile import tile, tile_rows

# of a packed panel, what is used by one tile after the other stays in half of a first-level cache
_REUSED_BYTES = 16 * 1024


@lru_cache(maxsize=64)
def product_over_rows(columns):
    """A function that runs `tile` over any number of rows, in tiles of nearly equal height.

    The rows lie in `groups` groups of `count`; *_group: elements from one group to the next, else the names are those of `tile`.
    Callers hand it no literal numbers: each is a type of its own, and all tiles would be compiled once more for it.
    Where there is more than one tile, the depth is cut so that each slice of the panel is read from the first-level cache.
    far: 1 where panels come from beyond the second-level cache, else 0. Then all tiles together fetch the next slice while they
    compute with this one, which the processor does not do by itself: it looks no further than a page. Panels lie in the order in
    which they are used, so the next slice follows this one.
    """
    most, reused = tile_rows(columns), max(16, _REUSED_BYTES // (columns * SIMD_BYTES))

    def product(
        groups, count, out, out_at, out_group, out_row, init, init_at, init_group, init_row,
        a, a_at, a_group, a_row, a_step, panel, panel_at, depth, far,
    ):  # fmt: skip
        step = depth if groups == 1 and count <= most else reused
        # a division takes as long as a third of a small tile: one for all tiles
        tiles = max(1, (count + most - 1) // most)
        least = count // tiles
        higher = count - least * tiles  # tiles of one row more
        every = groups * tiles
        ahead_step = max(1, columns * lanes_of(panel) // every) if far and every > 1 else 0
        # the sums start from init, and go on from what is in out; one call of `tile`, which is much code
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
    """Lanes of a SIMD vector of the array's dtype."""
    raise NotImplementedError("compiled only")


@inner_overload(lanes_of)
def _lanes_of_array(array):
    count = lanes(array.dtype)
    return lambda array: count
