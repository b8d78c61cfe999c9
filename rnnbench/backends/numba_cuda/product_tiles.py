"""Divides a matrix product over blocks and threads. Like plan.py it needs neither Numba nor a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from .plan import ITEMSIZE, Device

WARP = 32  # threads
_LEAST_DEPTH = 256  # terms per slice of a sum: computing them must take longer than adding up the slices


@dataclass(frozen=True)
class ProductTile:
    """A block's tile of a matrix product: rows x columns of the result, which it computes `depth` terms at a time.

    each: the rows x columns that one thread computes. by_warps: tensor cores are used, and `each` is what one warp computes.
    """

    rows: int
    columns: int
    depth: int
    each: tuple[int, int]
    by_warps: bool = False

    @property
    def threads(self) -> int:
        """Threads per block."""
        return self.rows // self.each[0] * (self.columns // self.each[1]) * (WARP if self.by_warps else 1)

    @property
    def sums(self) -> int:
        """Sums per thread."""
        return self.rows * self.columns // self.threads


# Large, usual, and for few rows. In float64 the large one would need more registers than there are.
_TILES = (
    ProductTile(128, 128, 8, (8, 8)), ProductTile(64, 64, 16, (4, 4)), ProductTile(16, 64, 16, (4, 4)),
)  # fmt: skip
_TENSOR_TILES = (
    ProductTile(128, 128, 16, (64, 32), True), ProductTile(64, 64, 16, (32, 32), True),
    ProductTile(16, 64, 16, (16, 16), True),
)  # fmt: skip
_TINY_TILES = ProductTile(4, 4, 4, (2, 2)), ProductTile(16, 8, 8, (16, 8), True)  # for the simulator
_FEW_ROWS = 16


def product_tile(
    rows: int, columns: int, depth: int, sliced: bool, dtype: str, tensor_cores: bool, device: Device
) -> ProductTile:
    """The tile for a product: the large one if that gives all multiprocessors work, otherwise by the number of rows.

    rows, columns: of the result. depth: terms of each sum. sliced: whether sums may be divided, see `slices`. tensor_cores: whether
    tensor cores compute the product. device: what it is planned for.
    """
    if device.simulated:
        return _TINY_TILES[tensor_cores]
    large, usual, flat = _TENSOR_TILES if tensor_cores else _TILES
    tiles = -(-rows // large.rows) * -(-columns // large.columns)
    enough = tiles * (max(1, depth // _LEAST_DEPTH) if sliced else 1) >= device.multiprocessors
    if enough and ITEMSIZE[dtype] == 4:
        return large
    return usual if rows > _FEW_ROWS else flat


def slices(blocks: int, depth: int, device: Device) -> int:
    """Into how many slices to divide sums of `depth` terms whose result takes `blocks` blocks, so that the device is busy.

    As many as give each multiprocessor two blocks: with one more slice a few blocks would run in a round of their own. Gradients
    of parameters need this: they are small results of long sums, over all steps of all rows. Those of an LSTM with H = 128 are 16
    tiles.
    """
    return max(1, min(depth // (3 if device.simulated else _LEAST_DEPTH), 2 * device.multiprocessors // blocks))
