"""Training clips of videos with classes: every draw a function of the key, and what each network sees of them."""

from dataclasses import replace

import numpy as np
import pydantic
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidistill.data.clip import SampleKey, VideoDataset
from vidistill.data.sequences.classified import ClassifiedVideo, classes_of
from vidistill.errors import UserError
from vidistill.ops.clip_view import ClipView
from vidistill.tasks.recognition.samples import ClassifiedClips, ClassifiedClipSettings


class Noise:
    """Frames of which no two are alike."""

    def __init__(self, number: int, num_frames: int = 12, size: tuple[int, int] = (16, 16)) -> None:
        self.name = f"noise_{number}"
        self.frames = np.random.default_rng(number).integers(0, 255, (num_frames, *size, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.frames)

    def image(self, index: int) -> np.ndarray:
        return self.frames[index]


DATA = VideoDataset("noise", [ClassifiedVideo(Noise(i), (i % 3,)) for i in range(6)], ("a", "b", "c"))
PLAIN = {"num_frames": 4, "crop": 16, "scale": (1.0, 1.0), "flip": False}  # whole frames as they are
VARIED = {"num_frames": 4, "crop": 8, "scale": (0.5, 0.9), "flip": True, "colour": 0.5}


def clips_of(data: VideoDataset = DATA, *, use_labels: bool = True, **options) -> ClassifiedClips:
    return ClassifiedClips([data], ClassifiedClipSettings(**options), use_labels=use_labels)


def places(clip: np.ndarray, sample: int) -> list[int]:
    """Which of the video's frames each of the clip's is."""
    every = DATA.sequences[sample].frames.frames
    return [int(np.flatnonzero((every == frame).all(axis=(1, 2, 3)))[0]) for frame in clip]


@given(epoch=st.integers(0, 50), sample=st.integers(0, 5), seed=st.integers(0, 99))
def test_segments_give_one_frame_of_each(epoch: int, sample: int, seed: int) -> None:
    _, frames, labels = clips_of(**PLAIN)[SampleKey(seed, epoch, sample)]
    assert [place // 3 for place in places(frames, sample)] == [0, 1, 2, 3]
    assert labels.tolist() == [float(c == sample % 3) for c in range(3)]


@given(epoch=st.integers(0, 50), sample=st.integers(0, 5), stride=st.integers(1, 5))
def test_dense_clips_have_their_stride(epoch: int, sample: int, stride: int) -> None:
    _, frames, _ = clips_of(**PLAIN, sampling="dense", stride=stride)[SampleKey(0, epoch, sample)]
    found = places(frames, sample)
    assert found == [min(11, found[0] + i * stride) for i in range(4)]


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=4))
def test_a_draw_is_a_function_of_its_key_alone(wanted) -> None:
    used, fresh = clips_of(**VARIED), clips_of(**VARIED)
    for key in [SampleKey(3, *place) for place in wanted]:
        first = used[key]
        torch.rand(3)
        np.random.rand(3)
        second = clips_of(**VARIED)[key] if len(wanted) < 2 else fresh[key]
        assert first[0] == key
        assert np.array_equal(first[1], second[1])
        assert np.array_equal(first[2], second[2])


def test_another_key_is_another_draw() -> None:
    clips = clips_of(**VARIED)
    drawn = [clips[SampleKey(*key)][1] for key in ((0, 0, 0), (0, 1, 0), (1, 0, 0))]
    assert not any(np.array_equal(drawn[i], drawn[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_half_of_the_clips_are_mirrored() -> None:
    clips = clips_of(**(PLAIN | {"flip": True}))
    mirrored = 0
    for epoch in range(60):
        _, frames, _ = clips[SampleKey(0, epoch, 0)]
        every = [DATA.sequences[0].image(t) for t in range(12)]
        as_it_is = any(np.array_equal(frames[0], image) for image in every)
        assert as_it_is or any(np.array_equal(frames[0], image[:, ::-1]) for image in every)
        mirrored += not as_it_is
    assert 15 <= mirrored <= 45


def test_a_batch_is_one_clip_for_both_networks() -> None:
    clips = clips_of(**VARIED)
    batch = clips.collate([clips[SampleKey(0, 0, i)] for i in (4, 2)])
    assert batch.student is batch.teacher
    assert batch.student.shape == (2, 4, 3, 8, 8)
    assert batch.student.dtype == torch.uint8
    assert batch.labels.tolist() == [[0, 1, 0], [0, 0, 1]]
    assert [key.sample for key in batch.keys] == [4, 2]
    assert np.array_equal(batch.student[0].permute(0, 2, 3, 1), clips[SampleKey(0, 0, 4)][1])
    assert clips.example().shape == (1, 4, 3, 8, 8)


def test_student_and_teacher_see_one_clip_each_in_its_own_way() -> None:
    clips = clips_of(**PLAIN)
    batch = clips.collate([clips[SampleKey(0, 0, 1)]])
    teacher, student = clips.view_of({}), clips.view_of({"num_frames": 2, "size": 8})
    seen = student(batch.student.float())
    assert torch.equal(teacher(batch.teacher.float()), batch.teacher.float())
    expected = batch.teacher[:, 1::2].float().unflatten(-1, (8, 2)).unflatten(-3, (8, 2)).mean(dim=(-1, -3))
    torch.testing.assert_close(seen, expected)


def test_views() -> None:
    dense = clips_of(**PLAIN, sampling="dense", stride=5)
    assert dense.view() == ClipView(4, "dense", 5, 16, 16)
    assert dense.view_of({"num_frames": 2, "size": 8}) == ClipView(2, "dense", 10, 16, 8)
    assert clips_of(**PLAIN).view() == ClipView(4, "segments", 3, 16, 16), "12 frames have 4 segments of 3"
    for num_frames in (3, 8):
        with pytest.raises(UserError, match=rf"view\.num_frames {num_frames} does not divide data\.clip\.num_frames 4"):
            dense.view_of({"num_frames": num_frames})


def test_without_labels_and_with_several() -> None:
    assert clips_of(use_labels=False, **PLAIN)[SampleKey(0, 0, 1)][2].tolist() == [0, 0, 0]
    both = replace(DATA, sequences=[ClassifiedVideo(DATA.sequences[0].frames, (0, 2))])
    assert clips_of(both, **PLAIN)[SampleKey(0, 0, 0)][2].tolist() == [1, 0, 1]
    plain = replace(DATA, sequences=[DATA.sequences[0].frames], class_names=())
    assert classes_of(plain.sequences[0]) == ()
    assert clips_of(plain, **PLAIN)[SampleKey(0, 0, 0)][2].tolist() == []


@pytest.mark.parametrize("sampling", ["segments", "dense"])
def test_one_frame_is_a_clip(sampling) -> None:
    data = replace(DATA, sequences=[ClassifiedVideo(Noise(9, num_frames=1), (1,))])
    _, frames, _ = clips_of(data, **PLAIN, sampling=sampling)[SampleKey(0, 0, 0)]
    assert frames.shape == (4, 16, 16, 3)
    assert all(np.array_equal(frame, data.sequences[0].image(0)) for frame in frames)
    assert clips_of(data, **PLAIN, sampling=sampling).view().stride >= 1


def test_nothing_to_train_on() -> None:
    with pytest.raises(UserError, match="the training data has no videos"):
        clips_of(replace(DATA, sequences=[]), **PLAIN)


@pytest.mark.parametrize("scale", [(0.0, 1.0), (0.8, 0.5), (0.5, 1.2)])
def test_a_scale_is_a_range_of_parts(scale) -> None:
    with pytest.raises(pydantic.ValidationError, match=r"least, most|less than or equal to 1"):
        ClassifiedClipSettings(scale=scale)


def test_a_few_fixed_draws_come_again_in_every_run() -> None:
    clips = clips_of(**VARIED, draws=3)
    drawn = [clips[SampleKey(seed, epoch, 2)][1] for seed, epoch in ((0, 0), (0, 1), (0, 2), (0, 3), (9, 4))]
    assert np.array_equal(drawn[3], drawn[0])
    assert np.array_equal(drawn[4], drawn[1])
    assert not any(np.array_equal(drawn[i], drawn[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("size", [(16, 40), (40, 16)])
def test_centred_squares_hold_nothing_of_the_sides(size: tuple[int, int]) -> None:
    video = Noise(0, 4, size)
    video.frames[:] = 0
    video.frames[:, (size[0] - 16) // 2 :, (size[1] - 16) // 2 :][:, :16, :16] = 200
    data = VideoDataset("sides", [ClassifiedVideo(video, (0,))], ("a",))
    for epoch in range(8):
        frames = clips_of(data, crop=8, scale=(0.5, 1.0), centred=True)[SampleKey(0, epoch, 0)][1]
        assert frames.min() == 200
    wide = [clips_of(data, crop=8, scale=(0.5, 1.0))[SampleKey(0, epoch, 0)][1].min() for epoch in range(8)]
    assert min(wide) == 0
