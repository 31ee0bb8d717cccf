"""Training patches of low- and high-resolution clips. One draw serves all frames of both."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vidistill.data.clip import Image
from vidistill.errors import UserError

Frames = NDArray[np.uint8]  # (T, H, W, 3)
Turn = NDArray[np.bool_]  # whether upside down, left to right, transposed, backwards in time

MARGIN = 4  # low-resolution pixels: farther than any of our degradations' kernels reaches


def draw_patch(low: Frames, high: Frames, *, size: int, scale: int, rng: np.random.Generator) -> tuple[Frames, Frames]:
    """The same random place of both clips, turned alike: (T, size, size, 3) and (T', scale·size, scale·size, 3).

    low: (T, h, w, 3); high: (T', scale·h, scale·w, 3), T' being T, or 1 for the centre frame alone. One of the eight
    symmetries of the square, and half of the draws run backwards in time.
    Errors: UserError where the sizes do not match, or the frames are smaller than the patch.
    """
    height, width = low.shape[1:3]
    if high.shape[1:3] != (scale * height, scale * width):
        raise UserError(
            f"low-resolution frames are {width}×{height}, high-resolution ones {high.shape[2]}×{high.shape[1]}, "
            f"which is not {scale} times as large; check the scale and the low-resolution set"
        )
    top, left, turn = _draw(height, width, size, rng)
    return _patch(low, top, left, size, turn), _patch(high, scale * top, scale * left, scale * size, turn)


def draw_degraded_patch(
    high: Sequence[Image], degrade: Callable[[Frames], Frames], *, size: int, scale: int, rng: np.random.Generator
) -> tuple[Frames, Frames]:
    """As `draw_patch`, from high-resolution frames (scale·h, scale·w, 3) alone.

    degrade: makes frames `scale` times smaller. It is given turned frames, so that a shift of its own stays, and more
    than the patch where the frames have more, so that the patch equals that of whole frames.
    Errors: UserError where the frames are smaller than the patch.
    """
    height, width = (length // scale for length in high[0].shape[:2])
    top, left, turn = _draw(height, width, size, rng)
    above, before = min(MARGIN, top), min(MARGIN, left)
    below, after = min(MARGIN, height - top - size), min(MARGIN, width - left - size)
    rows = slice(scale * (top - above), scale * (top + size + below))
    columns = slice(scale * (left - before), scale * (left + size + after))
    turned = _turned(np.stack([image[rows, columns] for image in high]), turn)
    above, before = below if turn[0] else above, after if turn[1] else before
    above, before = (before, above) if turn[2] else (above, before)
    low = degrade(turned)[:, above : above + size, before : before + size]
    places = (slice(scale * start, scale * (start + size)) for start in (above, before))
    return np.ascontiguousarray(low), np.ascontiguousarray(turned[(slice(None), *places)])


def check_patch(size: int, height: int, width: int, *, where: str = "") -> None:
    """Errors: UserError, which begins with `where`, where low-resolution frames are smaller than a patch."""
    if min(height, width) < size:
        raise UserError(f"{where}a patch of {size} does not fit frames of {width}×{height}; take a smaller patch")


def _draw(height: int, width: int, size: int, rng: np.random.Generator) -> tuple[int, int, Turn]:
    """Top, left and turn of a patch."""
    check_patch(size, height, width)
    top, left = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
    return top, left, rng.integers(2, size=4).astype(bool)


def _patch(frames: Frames, top: int, left: int, size: int, turn: Turn) -> Frames:
    """A square of every frame, turned."""
    return _turned(frames[:, top : top + size, left : left + size], turn)


def _turned(frames: Frames, turn: Turn) -> Frames:
    upside_down, left_to_right, transposed, backwards = turn
    if upside_down:
        frames = frames[:, ::-1]
    if left_to_right:
        frames = frames[:, :, ::-1]
    if transposed:
        frames = frames.swapaxes(1, 2)
    if backwards:
        frames = frames[::-1]
    return np.ascontiguousarray(frames)
