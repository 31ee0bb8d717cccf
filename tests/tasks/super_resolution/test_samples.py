"""Training windows against whole frames that are degraded first, and cut by hand."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidistill.config import validate
from vidistill.data.clip import SampleKey, VideoDataset
from vidistill.data.degradation import Degradation
from vidistill.data.sequences.high_resolution import MOST_LOOKED_AT, HighResolutionSequence
from vidistill.errors import UserError
from vidistill.tasks.super_resolution.samples import (
    SuperResolutionClips,
    SuperResolutionClipSettings,
    draw_degraded_patch,
)


@dataclass(frozen=True)
class Frames:
    """Frames in memory; `image` says nothing of the file."""

    frames: np.ndarray = field(repr=False)
    name: str = "a"

    def __len__(self) -> int:
        return len(self.frames)

    def image(self, index: int) -> np.ndarray:
        return self.frames[index]

    def images(self):
        return iter(self.frames)

    def labels(self, index: int) -> None:
        return None

    def labelled(self) -> tuple[int, ...]:
        return ()

    def problems(self) -> list[str]:
        return []


def numbered(num_frames: int, size: tuple[int, int] = (16, 20)) -> VideoDataset:
    """Every frame of one grey, 10 times its number."""
    frames = np.stack([np.full((*size, 3), 10 * i, np.uint8) for i in range(num_frames)])
    return VideoDataset("numbered", [Frames(frames)])


def clips_of(dataset: VideoDataset, *, use_labels: bool = True, **options) -> SuperResolutionClips:
    settings = SuperResolutionClipSettings(**{"patch": 4} | options)
    return SuperResolutionClips([dataset], settings, degradation=Degradation(2), use_labels=use_labels)


@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([2, 3, 4]),
    kind=st.sampled_from([("bicubic", False), ("blur", False), ("blur", True)]),
    shape=st.tuples(st.integers(6, 14), st.integers(6, 14)),
)
def test_a_patch_is_that_of_whole_turned_frames(seed: int, scale: int, kind, shape) -> None:
    size, degradation = 5, Degradation(scale, *kind)
    noise = np.random.default_rng(seed)
    high = noise.integers(0, 256, (2, scale * shape[0], scale * shape[1], 3), dtype=np.uint8)
    low, truth = draw_degraded_patch(high, degradation, size=size, scale=scale, rng=np.random.default_rng(seed))
    rng = np.random.default_rng(seed)  # the same draws again
    top, left = int(rng.integers(shape[0] - size + 1)), int(rng.integers(shape[1] - size + 1))
    down, right, transposed, backwards = rng.integers(2, size=4).astype(bool)
    whole = high[:: -1 if backwards else 1, :: -1 if down else 1, :: -1 if right else 1]
    top, left = shape[0] - top - size if down else top, shape[1] - left - size if right else left
    if transposed:
        whole, top, left = whole.swapaxes(1, 2), left, top
    expected = degradation(whole)[:, top : top + size, left : left + size]
    # sums of floating-point numbers in another order may round to another level
    assert np.abs(low.astype(int) - expected).max() <= 1
    assert np.mean(low != expected) < 0.01
    places = (slice(scale * start, scale * (start + size)) for start in (top, left))
    assert np.array_equal(truth, whole[(slice(None), *places)])


@pytest.mark.parametrize("window", [1, 3, 5])
def test_windows_are_the_frames_around_each_restored_one(window: int) -> None:
    clips = clips_of(numbered(6), num_frames=2, window=window)
    assert len(clips) == 5
    batch = clips.collate([clips[SampleKey(0, epoch, sample)] for epoch in range(3) for sample in range(5)])
    assert batch.student.shape == (15, 2, window, 3, 4, 4)
    assert batch.labels.shape == (15, 2, 3, 8, 8)
    for i in range(15):
        shown = batch.labels[i, :, 0, 0, 0].div(10, rounding_mode="floor").tolist()
        start = i % 5
        assert sorted(shown) == [start, start + 1]
        step = 1 if shown[0] < shown[1] else -1
        for t, frame in enumerate(shown):
            expected = [min(max(frame + step * k, 0), 5) * 10 for k in range(-(window // 2), window // 2 + 1)]
            assert batch.student[i, t, :, 0, 1, 1].tolist() == expected


def test_both_directions_of_time_are_drawn_and_a_key_says_all() -> None:
    clips = clips_of(numbered(6), num_frames=2, window=3)
    found = {tuple(clips[SampleKey(0, epoch, 2)][2][:, 0, 0, 0].tolist()) for epoch in range(12)}
    assert found == {(20, 30), (30, 20)}
    for first, second in zip(clips[SampleKey(3, 1, 2)][1:], clips[SampleKey(3, 1, 2)][1:], strict=True):
        assert np.array_equal(first, second)


def test_without_labels_there_is_nothing_to_supervise() -> None:
    clips = clips_of(numbered(4), window=3, use_labels=False)
    batch = clips.collate([clips[SampleKey(0, 0, 0)]])
    assert batch.labels.shape == (1, 1, 3, 0, 0)
    assert batch.student.shape == (1, 1, 3, 3, 4, 4)


def test_stored_low_resolution_frames_are_used_and_must_match() -> None:
    high = numbered(4).sequences[0]
    low = Frames(np.full((4, 8, 10, 3), 77, np.uint8))
    clips = clips_of(VideoDataset("stored", [HighResolutionSequence(high, 2, low)]), window=3)
    assert (clips[SampleKey(0, 0, 1)][1] == 77).all()
    fine, wrong = (HighResolutionSequence(high, 2, low), HighResolutionSequence(high, 2, Frames(low.frames[:, :, 1:])))
    with pytest.raises(UserError, match="a: low-resolution frames are 9x8"):
        clips_of(VideoDataset("stored", [fine, wrong]), window=3)
    clips = clips_of(VideoDataset("stored", [fine] * MOST_LOOKED_AT + [wrong]), window=3)
    with pytest.raises(UserError, match="a: low-resolution frames are 9x8"):
        clips[SampleKey(0, 0, len(clips) - 1)]
    short = Frames(np.full((3, 8, 10, 3), 77, np.uint8))
    with pytest.raises(UserError, match="a: has 3 low-resolution frames, expected 4, one for each"):
        clips_of(VideoDataset("stored", [HighResolutionSequence(high, 2, short)]), window=3)


def test_what_cannot_be_drawn_is_said_before_training() -> None:
    with pytest.raises(UserError, match="a: has 4 frames, expected at least the window of 5"):
        clips_of(numbered(4), window=5)
    with pytest.raises(UserError, match="the training data has no videos"):
        clips_of(VideoDataset("none", []))
    with pytest.raises(UserError, match="a: a patch of 9 does not fit frames of 10x8; take a smaller patch"):
        clips_of(numbered(6), patch=9)
    clips_of(numbered(6), patch=8)
    with pytest.raises(UserError, match=r"data\.clip: 'window'.*odd number of frames"):
        validate(SuperResolutionClipSettings, {"window": 4}, where="data.clip")


@dataclass(frozen=True)
class Mixed(Frames):
    """From frame 3 on, two columns are missing."""

    def image(self, index: int) -> np.ndarray:
        return self.frames[index][:, : -2 if index >= 3 else None]

    def images(self):
        return (self.image(index) for index in range(len(self)))


def test_frames_of_several_sizes_are_named() -> None:
    """Without the check, patches of the two sizes would not show one place, or numpy would end the worker."""
    high, low = np.zeros((6, 16, 20, 3), np.uint8), np.zeros((6, 8, 10, 3), np.uint8)
    sentence = "a: frame 3 is {}, expected {} as those before it; put each size into a video or folder of its own"
    for sequence, sizes in (
        (HighResolutionSequence(Mixed(high), 2), ("18x16", "20x16")),
        (HighResolutionSequence(Mixed(high), 2, Frames(low)), ("18x16", "20x16")),
        (HighResolutionSequence(Frames(high), 2, Mixed(low)), ("8x8", "10x8")),
    ):
        clips = clips_of(VideoDataset("mixed", [sequence]), window=3)
        assert clips[SampleKey(0, 0, 1)][1].shape == (3, 4, 4, 3)
        with pytest.raises(UserError, match=sentence.format(*sizes)):
            clips[SampleKey(0, 0, 2)]
    with pytest.raises(UserError, match=sentence.format("18x16", "20x16")):
        list(HighResolutionSequence(Mixed(high), 2).pairs(Degradation(2)))
    pairs = HighResolutionSequence(Mixed(high), 2, Mixed(low)).pairs(Degradation(2))
    with pytest.raises(UserError, match=sentence.format("18x16", "20x16")):
        list(pairs)


def test_a_network_says_how_long_its_window_is() -> None:
    clips = clips_of(numbered(6), window=5)
    assert clips.view_of({"window": 3})(torch.zeros(1, 5, 3, 2, 2)).shape == (1, 3, 3, 2, 2)
    with pytest.raises(UserError, match=r"looks at 7 frames and data\.clip\.window is 5"):
        clips.view_of({"window": 7})
    for window in (0, 4):
        with pytest.raises(UserError, match=rf"a network's attribute window must be an odd number .* got {window}"):
            clips.view_of({"window": window})
    with pytest.raises(UserError, match="by an attribute `window`"):
        clips.view_of({})
