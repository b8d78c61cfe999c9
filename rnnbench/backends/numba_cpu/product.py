"""Products over any number of rows, built on the register tile."""

from __future__ import annotations

from functools import lru_cache

from numba import njit
from numba.extending import overload

from .naming import named
from .simd import lanes
from .threading import share
from .tile import tile, tile_rows


@lru_cache(maxsize=64)
def product_over_rows(columns):
    """A function that runs `tile` over any number of rows, in tiles of nearly equal height."""
    most = tile_rows(columns)

    def product(count, out, out_at, out_row, init, init_at, init_row, a, a_at, a_row, a_step, panel, panel_at, depth):
        tiles = (count + most - 1) // most
        for i in range(tiles):
            first, end = share(count, tiles, i)
            tile(
                end - first, columns,
                out, out_at + first * out_row, out_row,
                init, init_at + first * init_row, init_row,
                a, a_at + first * a_row, a_row, a_step,
                panel, panel_at, depth,
            )  # fmt: skip

    return njit(nogil=True)(named(product, columns))


def lanes_of(array):
    """Lanes of a SIMD vector of the array's dtype."""
    raise NotImplementedError("compiled only")


@overload(lanes_of)
def _lanes_of_array(array):
    count = lanes(array.dtype)
    return lambda array: count
