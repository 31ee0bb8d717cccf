import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidistill.data.augment import RandomView, change_colour, warp_clip, warp_image, warp_labels
from vidistill.data.clip import IGNORED, Clip

SEEDS = st.integers(0, 2**32)
SIDES = st.integers(3, 40)


def noise(*shape: int, seed: int = 0, levels: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, levels, shape).astype(np.uint8)


def bilinear(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """The image at (x, y), pixel centres at whole numbers, mirrored about the outermost centres."""
    height, width = image.shape[:2]
    left, top = int(np.floor(x)), int(np.floor(y))
    total = np.zeros(image.shape[2])
    for row, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, weight_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            row_in = row if 0 <= row < height else (-row if row < 0 else 2 * (height - 1) - row)
            column_in = column if 0 <= column < width else (-column if column < 0 else 2 * (width - 1) - column)
            total += weight_x * weight_y * image[row_in, column_in]
    return total


@given(SIDES, SIDES, SEEDS)
def test_a_view_that_changes_nothing_is_the_identity(height: int, width: int, seed: int) -> None:
    matrix = RandomView(flip=False).draw((height, width), np.random.default_rng(seed))
    clip = Clip(noise(2, height, width, 3, seed=seed), noise(2, height, width, seed=seed))
    viewed = warp_clip(clip, [matrix] * 2, (height, width))
    assert (viewed.frames == clip.frames).all()
    assert (viewed.labels == clip.labels).all()


@given(SIDES, SIDES, SEEDS)
def test_flipping_turns_image_and_labels_alike(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrices = [RandomView().draw((height, width), rng) for _ in range(12)]
    image, labels = noise(height, width, 3, seed=seed), noise(height, width, seed=seed)
    flips = [matrix for matrix in matrices if matrix[0, 0] < 0]
    for matrix in flips[:1]:
        assert (warp_image(image, matrix, (height, width)) == image[:, ::-1]).all()
        assert (warp_labels(labels, matrix, (height, width)) == labels[:, ::-1]).all()


def test_half_of_the_views_are_flipped() -> None:
    rng = np.random.default_rng(0)
    assert 60 < sum(RandomView().draw((4, 6), rng)[0, 0] < 0 for _ in range(200)) < 140


@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES), st.booleans(), SEEDS)
def test_a_crop_that_is_not_scaled_copies_pixels(
    size: tuple[int, int], crop: tuple[int, int], flip: bool, seed: int
) -> None:
    crop = (min(size[0], crop[0]), min(size[1], crop[1]))
    view = RandomView(crop=crop, flip=flip)
    matrix = view.draw(size, np.random.default_rng(seed))
    image, labels = noise(*size, 3, seed=seed), noise(*size, seed=seed)
    (left, _), (_, top) = (matrix @ (0, 0, 1))[:2, None] * np.eye(2)
    left = left - (crop[1] - 1 if matrix[0, 0] < 0 else 0)
    rows, columns = (slice(int(start), int(start) + length) for start, length in zip((top, left), crop, strict=True))
    step = -1 if matrix[0, 0] < 0 else 1
    assert 0 <= top <= size[0] - crop[0]
    assert 0 <= left <= size[1] - crop[1]
    assert (warp_image(image, matrix, crop) == image[rows, columns][:, ::step]).all()
    assert (warp_labels(labels, matrix, crop) == labels[rows, columns][:, ::step]).all()


def test_crops_reach_every_place() -> None:
    rng = np.random.default_rng(0)
    lefts = {float(RandomView(crop=(4, 5), flip=False).draw((4, 8), rng)[0, 2]) for _ in range(100)}
    assert lefts == {0, 1, 2, 3}


@given(SEEDS)
def test_a_scaled_crop_samples_between_pixel_centres(seed: int) -> None:
    image, crop = noise(10, 12, 3, seed=seed), (8, 10)
    matrix = RandomView(crop=crop, scale=(2, 2), flip=False).draw((10, 12), np.random.default_rng(seed))
    left, top = matrix[:2, 2] + 0.25
    assert left == int(left)
    assert top == int(top)
    expected = np.array(
        [
            [bilinear(image, (x + 0.5) / 2 - 0.5 + left, (y + 0.5) / 2 - 0.5 + top) for x in range(crop[1])]
            for y in range(crop[0])
        ]
    )
    assert abs(warp_image(image, matrix, crop) - expected).max() <= 1


def test_a_whole_frame_at_twice_its_size() -> None:
    labels = noise(5, 7)
    matrix = RandomView(crop=(10, 14), scale=(2, 2), flip=False).draw((5, 7), np.random.default_rng(0))
    assert (warp_labels(labels, matrix, (10, 14)) == labels.repeat(2, axis=0).repeat(2, axis=1)).all()


@given(st.floats(0.5, 1), st.floats(1, 2), st.tuples(SIDES, SIDES), st.integers(0, 3), SEEDS)
def test_what_is_seen_lies_in_the_frame_where_it_fits(
    smallest: float, largest: float, crop: tuple[int, int], spare: int, seed: int
) -> None:
    height, width = (math.ceil(side / smallest) + spare for side in crop)
    matrix = RandomView(crop=crop, scale=(smallest, largest)).draw((height, width), np.random.default_rng(seed))
    edges = np.array([[-0.5, -0.5, 1], [crop[1] - 0.5, crop[0] - 0.5, 1]]) @ matrix.T
    assert edges[:, :2].min() >= -0.5 - 1e-9
    assert (edges[:, :2] <= (width - 0.5 + 1e-9, height - 0.5 + 1e-9)).all()
    assert 1 / largest - 1e-9 <= abs(matrix[0, 0]) <= 1 / smallest + 1e-9


@given(st.integers(1, 9), st.integers(1, 9))
def test_labels_beyond_the_frame_are_ignored(above: int, beside: int) -> None:
    labels = noise(6, 8, levels=5)
    crop = (6 + 2 * above, 8 + 2 * beside)
    matrix = RandomView(crop=crop, flip=False).draw((6, 8), np.random.default_rng(0))
    expected = np.pad(labels, ((above, above), (beside, beside)), constant_values=IGNORED)
    assert (warp_labels(labels, matrix, crop) == expected).all()


@given(SEEDS)
def test_one_draw_serves_all_frames(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame, labels = noise(12, 16, 3, seed=seed), noise(12, 16, seed=seed)
    view = RandomView(crop=(8, 8), scale=(0.6, 1.7), colour=0.5)
    matrix = view.draw((12, 16), rng)
    viewed = warp_clip(Clip(np.stack([frame] * 3), np.stack([labels] * 3)), [matrix] * 3, (8, 8))
    coloured = change_colour(viewed.frames, view.colour, rng)
    assert (coloured == coloured[:1]).all()
    assert (viewed.labels == viewed.labels[:1]).all()


@given(st.floats(0.01, 1), st.integers(0, 255), SEEDS)
def test_colour_of_a_plain_grey_changes_in_brightness_alone(strength: float, grey: int, seed: int) -> None:
    frames = np.full((2, 4, 4, 3), grey, dtype=np.uint8)
    changed = change_colour(frames, strength, np.random.default_rng(seed))
    brightness = 1 + strength * np.random.default_rng(seed).uniform(-1, 1)  # the first of the draws
    assert (changed == changed[0, 0, 0, 0]).all()
    assert changed[0, 0, 0, 0] == pytest.approx(min(255, grey * brightness), abs=0.51)


def test_colour_without_strength_is_left_alone() -> None:
    frames = noise(2, 4, 4, 3)
    assert change_colour(frames, 0, np.random.default_rng(0)) is frames
