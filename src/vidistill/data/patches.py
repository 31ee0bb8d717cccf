"""Training patches of low- and high-resolution clips. One draw serves all frames of both."""

import numpy as np
from numpy.typing import NDArray

from vidistill.errors import UserError

Frames = NDArray[np.uint8]  # (T, H, W, 3)


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
    if min(height, width) < size:
        raise UserError(f"a patch of {size} does not fit frames of {width}×{height}; take a smaller patch")
    top, left = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
    turn = rng.integers(2, size=4).astype(bool)
    return _patch(low, top, left, size, turn), _patch(high, scale * top, scale * left, scale * size, turn)


def _patch(frames: Frames, top: int, left: int, size: int, turn: NDArray[np.bool_]) -> Frames:
    """A square of every frame; turn: whether upside down, left to right, transposed, backwards in time."""
    patch = frames[:, top : top + size, left : left + size]
    upside_down, left_to_right, transposed, backwards = turn
    if upside_down:
        patch = patch[:, ::-1]
    if left_to_right:
        patch = patch[:, :, ::-1]
    if transposed:
        patch = patch.swapaxes(1, 2)
    if backwards:
        patch = patch[::-1]
    return np.ascontiguousarray(patch)
