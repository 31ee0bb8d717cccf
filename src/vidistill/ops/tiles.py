"""Large frames through a network in overlapping tiles, at a memory that the tile decides."""

from collections.abc import Callable

import torch
from torch import Tensor


def run_in_tiles(
    network: Callable[[Tensor], Tensor], windows: Tensor, *, tile: int, overlap: int, scale: int = 1
) -> Tensor:
    """`network(windows)` put together from tiles: of (…, h, w), what it gives is (…, scale·h, scale·w).

    The frame is cut into squares of `tile`; each goes through with `overlap` pixels more on every side that has them,
    of which the results are dropped. Equal to the whole frame where `overlap` reaches as far as an output pixel sees,
    and the network treats a tile's corner as it treats the frame's: for one with strides or padding to a multiple,
    take multiples of it for both. What sees the whole frame, as global pooling does, differs.
    Errors: ValueError for a tile or an overlap that is no size.
    """
    if tile < 1 or overlap < 0:
        raise ValueError(f"tile is {tile} and overlap {overlap}; give a tile of 1 or more, an overlap of 0 or more")
    height, width = windows.shape[-2:]
    result: Tensor | None = None
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            rows, kept_rows, place_rows = _spans(top, height, tile, overlap, scale)
            columns, kept_columns, place_columns = _spans(left, width, tile, overlap, scale)
            part = network(windows[..., rows, columns])
            if result is None:
                result = torch.empty(
                    *part.shape[:-2], scale * height, scale * width, dtype=part.dtype, device=part.device
                )
            result[..., place_rows, place_columns] = part[..., kept_rows, kept_columns]
    if result is None:
        raise ValueError(f"windows of {tuple(windows.shape)} have no pixels")
    return result


def _spans(start: int, length: int, tile: int, overlap: int, scale: int) -> tuple[slice, slice, slice]:
    """Along one axis: what of the frame goes in, what of the tile's result is kept, where that goes."""
    end = min(start + tile, length)
    first, last = max(0, start - overlap), min(length, end + overlap)
    kept = slice(scale * (start - first), scale * (end - first))
    return slice(first, last), kept, slice(scale * start, scale * end)
