"""Large frames through a network in overlapping tiles, so that the tile decides the memory."""

from collections.abc import Callable

from torch import Tensor

from vidistill.errors import UserError


def run_in_tiles(network: Callable[[Tensor], Tensor], windows: Tensor, *, tile: int, overlap: int) -> Tensor:
    """`network(windows)` put together from tiles: windows (…, h, w) give (…, s·h, s·w), whatever the whole number s.

    The frame is cut into squares of `tile` pixels. The network gets each with `overlap` more pixels on every side that
    has them; their results are dropped. Equal to the whole frame where `overlap` reaches as far as an output pixel
    sees, and the network treats a tile's corner as it treats the frame's: for one with strides or padding to a
    multiple, take multiples of it for both. What sees the whole frame, as global pooling does, differs.
    Errors: ValueError for a tile below 1 or a negative overlap; UserError where s is not a whole number.
    """
    if tile < 1 or overlap < 0:
        raise ValueError(f"tile must be at least 1 and overlap at least 0, got {tile} and {overlap}")
    height, width = windows.shape[-2:]
    result: Tensor | None = None
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            bottom, right = min(top + tile, height), min(left + tile, width)
            first_row, first_column = max(0, top - overlap), max(0, left - overlap)
            seen = windows[..., first_row : bottom + overlap, first_column : right + overlap]  # cut off at the frame
            part = network(seen)
            s = _enlargement(seen, part)
            if result is None:
                result = part.new_empty(*part.shape[:-2], s * height, s * width)
            rows = slice(s * (top - first_row), s * (bottom - first_row))
            columns = slice(s * (left - first_column), s * (right - first_column))
            result[..., s * top : s * bottom, s * left : s * right] = part[..., rows, columns]
    if result is None:
        raise ValueError(f"windows must have pixels, got {tuple(windows.shape)}")
    return result


def _enlargement(seen: Tensor, part: Tensor) -> int:
    """How many times as large as its input the network's output is. Errors: UserError for no whole number."""
    height, width = seen.shape[-2:]
    scale = max(1, part.shape[-1] // width)
    if part.shape[-2:] != (scale * height, scale * width):
        raise UserError(
            f"the network turns {width}x{height} pixels into {part.shape[-1]}x{part.shape[-2]}, which is not a whole "
            "multiple, so tiles do not fit together; leave --tile out"
        )
    return scale
