import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from vidistill.data.augment import CameraMotion
from vidistill.data.clip import IGNORED, Batch, Clip, Image, LabelForm, LabelMap, SampleKey, VideoDataset
from vidistill.data.datasets.synthetic import PALETTE, synthetic
from vidistill.data.datasets.videos import videos
from vidistill.data.dense_clips import DenseClips, DenseClipSettings
from vidistill.data.sampling import EpochSampler
from vidistill.data.video.writer import VideoWriter
from vidistill.errors import UserError


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames in memory: frame i is (i, i, i) everywhere where no images are given."""

    num_frames: int
    label_maps: dict[int, LabelMap]
    given: list[Image] | None = None
    name: str = "frames"

    def __len__(self) -> int:
        return self.num_frames

    def image(self, index: int) -> Image:
        return self.given[index] if self.given else np.full((6, 8, 3), index, dtype=np.uint8)

    def images(self) -> Iterator[Image]:
        return (self.image(index) for index in range(len(self)))

    def labels(self, index: int) -> LabelMap | None:
        return self.label_maps.get(index)

    def labelled(self) -> Sequence[int]:
        return sorted(self.label_maps)

    def problems(self) -> list[str]:
        return []


def frames(num_frames: int, *labelled: int) -> Frames:
    return Frames(num_frames, {index: np.full((6, 8), index, dtype=np.uint8) for index in labelled})


def clips_of(*sequences: Frames, use_labels: bool = True, **settings) -> DenseClips:
    return DenseClips([VideoDataset("frames", sequences)], DenseClipSettings(**settings), use_labels=use_labels)


def draw(clips: DenseClips, sample: int = 0, seed: int = 0) -> Clip:
    key = SampleKey(seed, 0, sample)
    returned, clip = clips[key]
    assert returned == key
    return clip


def anchors(clips: DenseClips) -> list[tuple[str, int]]:
    return [(sequence.name, index) for sequence, index in clips.anchors]


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [
        (1, [0, 1, 2, 3, 0, 1, 3, 0, 0]),
        (2, [1, 2, 3, 1, 3, 0, 0]),
        (3, [2, 3, 3, 0, 0]),
    ],
)
def test_clips_end_at_labelled_frames_or_at_all_of_an_unlabelled_video(num_frames: int, expected: list[int]) -> None:
    sequences = (frames(4), frames(5, 0, 1, 3), frames(1, 0), frames(1))
    clips = clips_of(*sequences, num_frames=num_frames)
    assert [index for _, index in clips.anchors] == expected
    assert len(clips) == len(expected)


def test_a_video_shorter_than_a_clip_is_used_as_stills() -> None:
    clips = clips_of(frames(2), num_frames=3)
    assert [index for _, index in clips.anchors] == [0, 1]
    assert draw(clips, 1).frames.shape == (3, 6, 8, 3)


def test_several_data_sets_follow_each_other() -> None:
    one, two = (VideoDataset(name, [Frames(2, {}, name=name)]) for name in ("one", "two"))
    assert anchors(DenseClips([one, two], DenseClipSettings())) == [("one", 1), ("two", 1)]


def test_a_clip_of_a_video_holds_its_frames_in_order_unchanged() -> None:
    clips = clips_of(frames(30, *range(30)), num_frames=3, max_gap=5, flip=False)
    for seed in range(20):
        clip = draw(clips, sample=25, seed=seed)  # ends at frame 27
        first, second, third = clip.frames[:, 0, 0, 0].tolist()
        assert third == 27
        assert 1 <= third - second == second - first <= 5
        assert (clip.frames == clip.frames[:, :1, :1, :1]).all()
        assert (clip.labels == clip.frames[..., 0]).all()


def test_a_still_gets_motion_that_ends_at_the_still() -> None:
    still = synthetic(num_sequences=1, num_frames=1).sequences[0]
    clips = DenseClips([VideoDataset("still", [still])], DenseClipSettings(num_frames=3, flip=False, noise=0))
    clip = draw(clips)
    assert (clip.frames[2] == still.image(0)).all()
    assert (clip.labels[2] == still.labels(0)).all()
    assert (clip.frames[0] != clip.frames[2]).any()
    assert (clip.frames[0] != clip.frames[1]).any()


class Pan(CameraMotion):
    """Four pixels of the picture to the right, up to the last frame."""

    def draw(self, size: tuple[int, int], times: list[float], rng: np.random.Generator) -> list[np.ndarray]:
        return [np.array([[1.0, 0, 4], [0, 1, 0], [0, 0, 1]]), np.eye(3)]


def test_the_camera_moves_over_the_picture_and_the_view_looks_at_what_it_sees() -> None:
    picture = synthetic(num_sequences=1, num_frames=1).sequences[0].image(0)
    clips = clips_of(Frames(1, {}, [picture]), crop=(32, 48), scale=(2, 2), flip=False, noise=0)
    clips.motion = Pan()
    earlier, last = draw(clips, seed=2).frames
    assert (earlier[:, :-8] == last[:, 8:]).all()  # enlarged twice


def test_noise_is_added_to_moved_stills_only() -> None:
    still = {"translation": 0, "rotation_degrees": 0, "zoom": 0}
    settings = {"num_frames": 2, "flip": False, "motion": still, "noise": 2}
    grey = [np.full((48, 64, 3), 100, dtype=np.uint8)]
    clip = draw(clips_of(Frames(1, {}, grey), **settings))
    assert clip.frames.std() == pytest.approx(2, abs=0.1)
    assert (clip.frames[0] != clip.frames[1]).any()
    assert draw(clips_of(Frames(2, {}, grey * 2), **settings)).frames.std() == 0


@pytest.mark.parametrize("seed", range(5))
def test_labels_of_a_moved_still_move_with_the_image(seed: int) -> None:
    labels = synthetic(num_sequences=1, num_frames=1, seed=seed).sequences[0].labels(0)
    colours = np.array(PALETTE, dtype=np.uint8)
    fast = {"translation": 0.02, "rotation_degrees": 1.0, "zoom": 0.02}
    still = Frames(1, {0: labels}, [colours[labels]])
    clip = draw(clips_of(still, num_frames=3, scale=(0.8, 1.3), motion=fast, noise=0), seed=seed)
    assert (clip.labels[0] != clip.labels[2]).mean() > 0.01
    # a pixel that has a class's very colour was not mixed from two classes
    shown = (clip.frames[..., None, :] == colours).all(axis=-1)
    compared = shown.any(axis=-1) & (clip.labels != IGNORED)
    assert compared.mean() > 0.6
    assert (shown.argmax(axis=-1)[compared] == clip.labels[compared]).all()


def test_frames_without_labels_are_ignored_everywhere() -> None:
    clips = clips_of(frames(10, 7), num_frames=2, flip=False)
    clip = draw(clips)
    assert (clip.labels[0] == IGNORED).all()
    assert (clip.labels[1] == 7).all()


VALUES = LabelForm(np.float32, -1.0)


def test_labels_may_be_values_with_an_unknown_one_of_their_own() -> None:
    values = np.linspace(300, 400, 48, dtype=np.float32).reshape(6, 8)  # beyond what a class id could hold
    data = VideoDataset("depth", [Frames(10, {7: values})])
    clips = DenseClips([data], DenseClipSettings(flip=False, scale=(0.5, 0.5)), form=VALUES)
    batch = clips.collate([clips[SampleKey(0, 0, 0)]])
    assert batch.labels.dtype == torch.float32
    before, last = batch.labels[0]
    assert (before == VALUES.unknown).all()
    inside = last != VALUES.unknown
    assert 0.15 < inside.float().mean() < 0.4, "half as large, the frame leaves the rest of the view unknown"
    assert set(last[inside].tolist()) <= set(values.flatten().tolist())
    without = DenseClips([data], DenseClipSettings(), form=VALUES, use_labels=False)
    assert (without[SampleKey(0, 0, 0)][1].labels == VALUES.unknown).all()


def test_labels_can_be_left_unread() -> None:
    torn = Frames(10, {7: np.zeros((3, 3), dtype=np.uint8)})
    clips = clips_of(torn, num_frames=2, use_labels=False)
    assert (draw(clips).labels == IGNORED).all()


def test_a_mask_of_another_size() -> None:
    clips = clips_of(Frames(10, {7: np.zeros((6, 7), dtype=np.uint8)}), num_frames=2)
    with pytest.raises(UserError, match=r"frames: the mask of frame 7 .*\(8, 6\)"):
        draw(clips)


def test_frames_of_several_sizes() -> None:
    images = [np.zeros((6, width, 3), dtype=np.uint8) for width in (8, 9)]
    with pytest.raises(UserError, match="several sizes"):
        draw(clips_of(Frames(2, {}, images), num_frames=2))


def test_nothing_to_train_on() -> None:
    with pytest.raises(UserError, match="no frame to end a clip with"):
        DenseClips([], DenseClipSettings())


def test_the_view_crops_frames_and_labels() -> None:
    clips = clips_of(frames(3, 2), crop=(4, 5))
    clip = draw(clips)
    assert clip.frames.shape == (2, 4, 5, 3)
    assert clip.labels.shape == (2, 4, 5)


def batches_of(clips: DenseClips, *, num_workers: int) -> list[Batch]:
    loader = DataLoader(
        clips,
        batch_sampler=EpochSampler(len(clips), batch_size=3, seed=5),
        num_workers=num_workers,
        collate_fn=clips.collate,
        multiprocessing_context="fork" if num_workers else None,
    )
    return list(islice(loader, 4))


@pytest.fixture(scope="module")
def two_videos(tmp_path_factory: pytest.TempPathFactory) -> VideoDataset:
    folder = tmp_path_factory.mktemp("videos")
    for number, sequence in enumerate(synthetic(num_sequences=2, size=(48, 64)).sequences):
        with VideoWriter(folder / f"{number}.mp4", fps=25) as writer:
            for image in sequence.images():
                writer.write(image)
    return videos(folder)


@pytest.mark.parametrize("source", ["synthetic", "videos"])
def test_workers_make_the_same_batches(source: str, two_videos: VideoDataset) -> None:
    dataset = two_videos if source == "videos" else synthetic(num_sequences=2, size=(48, 64))
    clips = DenseClips([dataset], DenseClipSettings(crop=(32, 32), scale=(0.8, 1.5), colour=0.3))
    draw(clips)  # opens a video here, which the workers must not go on reading
    alone = batches_of(clips, num_workers=0)
    for first, second in zip(alone, batches_of(clips, num_workers=2), strict=True):
        assert torch.equal(first.student, second.student)
        assert torch.equal(first.labels, second.labels)
        assert first.keys == second.keys


def test_a_pickled_copy_draws_the_same(two_videos: VideoDataset) -> None:
    clips = DenseClips([two_videos], DenseClipSettings())
    before = draw(clips, 5)
    copy = pickle.loads(pickle.dumps(clips))
    assert (draw(copy, 5).frames == before.frames).all()


def test_every_draw_depends_on_the_key_alone() -> None:
    still = partial(synthetic, num_sequences=2, num_frames=1, size=(32, 32))
    settings = DenseClipSettings(crop=(24, 24), scale=(0.8, 1.5), colour=0.3)
    clips = DenseClips([still()], settings)
    first = draw(clips, 1)
    draw(clips, 0)
    np.random.seed(1)
    torch.manual_seed(1)
    assert (draw(DenseClips([still()], settings), 1).frames == first.frames).all()
    assert (clips[SampleKey(0, 1, 1)][1].frames != first.frames).any()
