"""Large frames through a network in overlapping tiles, at a memory that the tile decides."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from vidistill.errors import UserError


def run_in_tiles(network: Callable[[Tensor], Tensor], windows: Tensor, *, tile: int, overlap: int) -> Tensor:
    """`network(windows)` put together from tiles: of (…, h, w), what it gives is (…, s·h, s·w), whatever s.

    The frame is cut into squares of `tile`; each goes through with `overlap` pixels more on every side that has them,
    of which the results are dropped. Equal to the whole frame where `overlap` reaches as far as an output pixel sees,
    and the network treats a tile's corner as it treats the frame's: for one with strides or padding to a multiple,
    take multiples of it for both. What sees the whole frame, as global pooling does, differs.
    Errors: ValueError for a tile or an overlap that is no size; UserError where s is no whole number.
    """
    if tile < 1 or overlap < 0:
        raise ValueError(f"tile is {tile} and overlap {overlap}; give a tile of 1 or more, an overlap of 0 or more")
    height, width = windows.shape[-2:]
    result: Tensor | None = None
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            rows, columns = _span(top, height, tile, overlap), _span(left, width, tile, overlap)
            seen = windows[..., rows.seen, columns.seen]
            part = network(seen)
            scale = _scale(seen, part)
            if result is None:
                result = part.new_empty(*part.shape[:-2], scale * height, scale * width)
            kept = part[..., rows.kept(scale), columns.kept(scale)]
            result[..., rows.place(scale), columns.place(scale)] = kept
    if result is None:
        raise ValueError(f"windows of {tuple(windows.shape)} have no pixels")
    return result


def _scale(seen: Tensor, part: Tensor) -> int:
    """How many times as large as what it was given the network's answer is."""
    height, width = seen.shape[-2:]
    scale = max(1, part.shape[-1] // width)
    if part.shape[-2:] != (scale * height, scale * width):
        raise UserError(
            f"of {width}×{height} pixels the network makes {part.shape[-1]}×{part.shape[-2]}, which is no whole "
            "multiple, as tiles need; leave --tile out"
        )
    return scale


@dataclass(frozen=True)
class _Span:
    """Of one axis, what a tile covers (`start` to `end`) and what the network is given of it (`first` to `last`)."""

    start: int
    end: int
    first: int
    last: int

    @property
    def seen(self) -> slice:
        return slice(self.first, self.last)

    def kept(self, scale: int) -> slice:
        """Of the network's answer."""
        return slice(scale * (self.start - self.first), scale * (self.end - self.first))

    def place(self, scale: int) -> slice:
        """In the whole frame."""
        return slice(scale * self.start, scale * self.end)


def _span(start: int, length: int, tile: int, overlap: int) -> _Span:
    end = min(start + tile, length)
    return _Span(start, end, max(0, start - overlap), min(length, end + overlap))
