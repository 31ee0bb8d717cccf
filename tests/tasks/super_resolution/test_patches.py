"""Patches whose pixels say where they come from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidistill.errors import UserError
from vidistill.tasks.super_resolution.samples import draw_patch


def clip(num_frames: int, height: int, width: int, block: int) -> np.ndarray:
    """Every pixel is (frame, row, column) of its block of `block` × `block`."""
    places = np.stack(np.mgrid[:num_frames, :height, :width], axis=-1).astype(np.uint8)
    return places.repeat(block, axis=1).repeat(block, axis=2)


@given(st.integers(0, 999), st.integers(2, 4), st.integers(1, 7))
def test_low_and_high_show_the_same(seed: int, scale: int, size: int) -> None:
    low, high = clip(3, 7, 9, 1), clip(3, 7, 9, scale)
    rng = np.random.default_rng(seed)
    low_patch, high_patch = draw_patch(low, high, size=size, scale=scale, rng=rng)
    assert low_patch.shape == (3, size, size, 3)
    assert (high_patch == low_patch.repeat(scale, axis=1).repeat(scale, axis=2)).all()
    # all frames show one place, in order or backwards
    assert (low_patch[..., 1:] == low_patch[:1, ..., 1:]).all()
    assert low_patch[:, 0, 0, 0].tolist() in ([0, 1, 2], [2, 1, 0])


def test_every_turn_and_place_occurs() -> None:
    """Upper left and lower right corners tell the eight symmetries apart, with time sixteen views of each place."""
    low, high = clip(2, 3, 3, 1), clip(1, 3, 3, 2)
    views = set()
    for seed in range(1500):
        patch, _ = draw_patch(low, high, size=2, scale=2, rng=np.random.default_rng(seed))
        views.add(patch.tobytes())
    assert len(views) == 16 * 4


def test_the_same_draw_gives_the_same_patch() -> None:
    low, high = clip(2, 6, 6, 1), clip(2, 6, 6, 4)
    first, second = (draw_patch(low, high, size=3, scale=4, rng=np.random.default_rng(5)) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_what_does_not_fit() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match=r"6x5, .* 18x15, which is not 4 times"):
        draw_patch(clip(1, 5, 6, 1), clip(1, 5, 6, 3), size=2, scale=4, rng=rng)
    with pytest.raises(UserError, match="a patch of 6 does not fit frames of 6x5"):
        draw_patch(clip(1, 5, 6, 1), clip(1, 5, 6, 4), size=6, scale=4, rng=rng)
