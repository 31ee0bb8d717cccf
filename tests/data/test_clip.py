import numpy as np
import pytest
import torch

from vidistill.data.clip import Batch, Clip, SampleKey, VideoDataset
from vidistill.data.datasets.synthetic import synthetic
from vidistill.data.dense_clips import DenseClips, DenseClipSettings
from vidistill.data.sequences.images import ImageSequence
from vidistill.errors import UserError


def clip(height: int = 4, width: int = 6, *, value: int = 0) -> Clip:
    frames = np.arange(2 * height * width * 3, dtype=np.uint8).reshape(2, height, width, 3) + np.uint8(value)
    return Clip(frames, np.full((2, height, width), value, dtype=np.uint8))


@pytest.fixture
def clips() -> DenseClips:
    return DenseClips([synthetic(num_sequences=1, num_frames=1)], DenseClipSettings())


def test_a_key_decides_its_draws() -> None:
    draws = [
        SampleKey(*key).generator().integers(2**32) for key in ((1, 2, 3), (1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 3))
    ]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 4


def test_collate_puts_channels_first_and_keeps_the_order(clips: DenseClips) -> None:
    keys = [SampleKey(0, 0, 5), SampleKey(0, 0, 2)]
    batch = clips.collate([(keys[0], clip(value=1)), (keys[1], clip(value=255))])
    assert batch.student.shape == (2, 2, 3, 4, 6)
    assert batch.student.dtype == torch.uint8
    assert batch.student[0, 1, 2, 3, 4] == clip(value=1).frames[1, 3, 4, 2]
    assert batch.labels.dtype == torch.int64
    assert batch.labels[:, 0, 0, 0].tolist() == [1, 255]
    assert batch.keys == keys


def test_clips_of_several_sizes_make_no_batch(clips: DenseClips) -> None:
    key = SampleKey(0, 0, 0)
    with pytest.raises(UserError, match=r"several sizes.*data\.clip\.crop"):
        clips.collate([(key, clip()), (key, clip(5, 6))])


@pytest.mark.parametrize("same", [True, False])
def test_moving_a_batch_keeps_what_its_views_share(same: bool) -> None:
    frames = torch.zeros(1, 2, 3, 4, 6, dtype=torch.uint8)
    batch = Batch(frames, frames if same else frames.clone(), torch.zeros(1, 2, 4, 6, dtype=torch.int64))
    moved = batch.to(torch.device("meta"))
    assert (moved.teacher is moved.student) == same
    assert moved.teacher.device.type == "meta"


def test_a_data_set_lists_the_problems_of_all_its_sequences(tmp_path) -> None:
    sequences = [ImageSequence(name, [tmp_path / f"{name}.png"]) for name in "ab"]
    problems = VideoDataset("two", sequences).problems()
    assert [name in problem for name, problem in zip(("a.png", "b.png"), problems, strict=True)] == [True, True]
    assert VideoDataset("two", sequences).num_classes == 0
