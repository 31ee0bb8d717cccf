"""Synthetic rooms: exact depth, so that a point is found again in every frame that shows it."""

import numpy as np
import pytest

from vidistill.errors import UserError
from vidistill.tasks.depth.synthetic import Block, CameraPath, DepthSequence, synthetic_depth


@pytest.fixture(scope="module")
def sequences():
    return synthetic_depth(num_sequences=3, num_frames=12, size=(96, 160), seed=3).sequences


def test_every_frame_has_its_depth(sequences) -> None:
    for sequence in sequences:
        image, depth = sequence.image(4), sequence.labels(4)
        assert (image.shape, image.dtype) == ((96, 160, 3), np.uint8)
        assert (depth.shape, depth.dtype) == ((96, 160), np.float32)
        assert 0.5 < depth.min() < depth.max() < 60
        assert sequence.problems() == []


def test_a_pixel_and_its_depth_are_the_same_point_in_another_frame(sequences) -> None:
    for sequence in sequences:
        points = sequence.points(0, sequence.labels(0).astype(np.float64))
        places, depth = sequence.project(0, points)
        ys, xs = np.mgrid[0:96, 0:160]
        np.testing.assert_allclose(places, np.stack([xs, ys], axis=-1), atol=1e-3)
        places, depth = sequence.project(10, points)
        columns, rows = np.rint(places).astype(int)[..., 0], np.rint(places).astype(int)[..., 1]
        inside = (columns >= 0) & (columns < 160) & (rows >= 0) & (rows < 96) & (depth > 0)
        seen = sequence.labels(10)[rows.clip(0, 95), columns.clip(0, 159)]
        gap = np.abs(seen - depth) / depth
        # what is nearer there hides it; else the nearest pixel shows what lies up to half a pixel beside the point
        visible = inside & (seen > 0.9 * depth)
        assert visible.mean() > 0.5
        assert np.median(gap[visible]) < 0.01
        assert np.quantile(gap[visible], 0.9) < 0.05


def test_a_point_has_the_same_colour_in_every_frame(sequences) -> None:
    compared = 0
    for sequence in sequences:
        first, second = sequence.image(0).astype(int), sequence.image(10).astype(int)
        points = sequence.points(0, sequence.labels(0).astype(np.float64))
        places, depth = sequence.project(10, points)
        nearest = np.rint(places).astype(int)
        on_pixel = np.abs(places - nearest).max(axis=-1) < 0.05  # so nearly a pixel's centre that its colour is it
        columns, rows = nearest[..., 0], nearest[..., 1]
        inside = (columns >= 0) & (columns < 160) & (rows >= 0) & (rows < 96)
        seen = sequence.labels(10)[rows.clip(0, 95), columns.clip(0, 159)]
        near = (depth < 12) & (np.abs(seen - depth) < 0.02 * depth)  # where a texture's waves are many pixels long
        chosen = on_pixel & inside & near
        compared += chosen.sum()
        gaps = np.abs(first[chosen] - second[rows[chosen], columns[chosen]]).max(axis=-1)
        assert np.quantile(gaps, 0.95) <= 4, "of 255 grey levels"
    assert compared > 100


def test_depth_by_hand() -> None:
    rest = CameraPath(np.zeros(6), np.zeros(6), np.zeros(6))
    room = Block(np.array([-8.0, -6, -6]), np.array([8.0, 0, 40]), [])
    block = Block(np.array([-1.0, -3, 10]), np.array([1.0, 0, 12]), [])
    sequence = DepthSequence("room", 1, (97, 161), room, [block], rest)
    depth = sequence.labels(0)
    # the camera is 2 m up and looks 5° down; the ray through the middle
    slope = np.tan(np.deg2rad(5))
    assert depth[48, 80] == pytest.approx(10 / np.cos(np.deg2rad(5)), rel=1e-5), "the box's front"
    assert slope * 10 < 2, "which the ray meets above the ground"
    # 40 rows further down: 2 m of height are left after t · (f·sin 5° + 40·cos 5°) / f
    f = sequence.focal
    down = np.sin(np.deg2rad(5)) + 40 / f * np.cos(np.deg2rad(5))
    assert depth[88, 80] == pytest.approx(2 / down, rel=1e-5)


def test_seed_decides_and_nothing_else() -> None:
    few = synthetic_depth(num_sequences=1, num_frames=2, size=(32, 48), seed=5).sequences[0]
    more = synthetic_depth(num_sequences=3, num_frames=9, size=(32, 48), seed=5).sequences[0]
    np.testing.assert_array_equal(few.image(1), more.image(1))
    np.testing.assert_array_equal(few.labels(1), more.labels(1))
    other = synthetic_depth(num_sequences=1, num_frames=2, size=(32, 48), seed=6).sequences[0]
    assert (few.image(1) != other.image(1)).any()
    assert (more.image(0) != more.image(8)).mean() > 0.3, "the camera moves"


def test_bad_options() -> None:
    with pytest.raises(UserError, match=r"size at least 16, seed at least 0, got 8, 12, \(8, 96\), 0"):
        synthetic_depth(size=(8, 96))
    with pytest.raises(IndexError, match="frame 12 is out of range"):
        synthetic_depth().sequences[0].labels(12)
