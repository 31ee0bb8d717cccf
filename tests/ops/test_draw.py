"""Predictions drawn over frames leave the frames as they are."""

import numpy as np
import pytest

from vidistill.ops.draw import caption, difference, draw_boxes, overlay, palette_of

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
LABELS = np.zeros((40, 60), np.uint8)


@pytest.mark.parametrize(
    "draw",
    [
        lambda image: caption(image, "a word"),
        lambda image: caption(image[:, ::-1], "a word"),
        lambda image: overlay(image, LABELS, palette_of(3)),
        lambda image: difference(image, LABELS, LABELS + 1),
        lambda image: draw_boxes(image, np.float32([[3, 3, 30, 30]]), ["a word"], palette_of(3)[:1]),
    ],
    ids=["caption", "caption of a view", "overlay", "difference", "boxes"],
)
def test_the_frame_stays_as_it_is(draw) -> None:
    image = IMAGE.copy()
    drawn = draw(image)
    assert np.array_equal(image, IMAGE)
    assert drawn.shape == IMAGE.shape
    assert (drawn != IMAGE).any()
