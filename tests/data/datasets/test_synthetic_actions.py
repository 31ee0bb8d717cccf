"""The made videos keep what they promise: one property decides the class, and the others say nothing."""

import numpy as np
import pytest

from vidistill.data.datasets.synthetic_actions import synthetic_actions
from vidistill.data.sequences.classified import ClassifiedVideo, classes_of
from vidistill.errors import UserError


def middles(video: ClassifiedVideo) -> np.ndarray:
    """(T, 2) centre of the shape's pixels in each frame."""
    masks = [video.frames.labels(t) > 0 for t in range(len(video))]
    return np.array([np.argwhere(mask).mean(axis=0) for mask in masks])


def swings(video: ClassifiedVideo) -> int:
    """How often the shape goes to and fro, the strongest frequency of its place."""
    place = middles(video)
    spectrum = np.abs(np.fft.rfft(place - place.mean(axis=0), axis=0)).sum(axis=1)
    return int(spectrum.argmax())


def test_the_class_is_how_often_the_shape_swings() -> None:
    dataset = synthetic_actions(num_videos=12, num_frames=16, size=48, num_classes=4, seed=3)
    assert [swings(video) for video in dataset.sequences] == [1, 2, 3, 4] * 3
    assert [classes_of(video) for video in dataset.sequences] == [(0,), (1,), (2,), (3,)] * 3
    assert dataset.class_names == ("1 swings", "2 swings", "3 swings", "4 swings")


def test_the_class_is_the_stripes_and_not_the_swings() -> None:
    dataset = synthetic_actions(decides="detail", num_videos=16, num_frames=8, size=96, num_classes=4, seed=1)
    assert len({(classes_of(video), swings(video)) for video in dataset.sequences}) > 4
    for video in dataset.sequences[:8]:
        image, mask = video.image(0).astype(float).mean(axis=2), video.frames.labels(0) > 0
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        inside = np.where(mask, image - image[mask].mean(), 0)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        power = np.abs(np.fft.fft2(inside, (128, 128)))
        down, across = np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128), indexing="ij")
        power[np.hypot(down, across) < 0.6 / (96 / 14)] = 0
        peak = power.argmax()
        # stripes at an angle vary across it
        angle = np.degrees(np.arctan2(down.flat[peak], across.flat[peak]) - np.pi / 2) % 180
        wanted = 180 * classes_of(video)[0] / 4
        assert min(abs(angle - wanted), 180 - abs(angle - wanted)) < 22.5, video.name


def test_a_video_does_not_depend_on_how_many_there_are() -> None:
    few, many = (synthetic_actions(num_videos=n, num_frames=8, size=16, seed=5).sequences for n in (2, 6))
    for index in range(2):
        assert np.array_equal(few[index].image(3), many[index].image(3))
    other = synthetic_actions(num_videos=2, num_frames=8, size=16, seed=6).sequences
    assert not np.array_equal(few[0].image(3), other[0].image(3))
    assert few[0].image(0).shape == (16, 16, 3)
    assert len(few[0]) == 8


@pytest.mark.parametrize(
    "wrong", [{"num_videos": 0}, {"num_frames": 7}, {"size": 15}, {"num_classes": 1}, {"seed": -1}], ids=str
)
def test_what_cannot_be_made_is_refused(wrong) -> None:
    with pytest.raises(UserError, match="synthetic_actions: num_videos"):
        synthetic_actions(**wrong)
