"""Videos and folders of frames: order, ranges, shared decoders, and what is listed as broken."""

import os
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from tests.data.example_files import assert_problems, cut_short, groups, write_image, write_video
from vidistill.data.clip import FrameSequence
from vidistill.data.datasets.videos import videos
from vidistill.data.dense_clips import DenseClips, DenseClipSettings
from vidistill.data.sequences.videos import OpenReaders
from vidistill.data.video.reader import VideoReader
from vidistill.errors import UserError


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two videos, another two folders down, and a folder of frames."""
    write_video(tmp_path / "clip_10.mp4", num_frames=4)
    write_video(tmp_path / "clip_2.avi")
    write_video(tmp_path / "more" / "far" / "clip_1.mkv")
    for index in (9, 10):
        write_image(tmp_path / "frames" / f"{index}.png", level=index)
    write_image(tmp_path / "more" / "far" / "poster.jpg")
    (tmp_path / "notes.txt").write_text("no video")
    (tmp_path / ".clip.mp4").write_text("hidden")
    write_image(tmp_path / ".thumbnails" / "1.png")
    (tmp_path / "more" / "loop").symlink_to(tmp_path)
    return tmp_path


def assert_images_agree(sequence: FrameSequence, expected: list[np.ndarray]) -> None:
    """By number, in any order, and streaming."""
    for index in reversed(range(len(expected))):
        assert (sequence.image(index) == expected[index]).all()
    images = list(sequence.images())
    assert len(images) == len(expected) == len(sequence)
    assert all((image == other).all() for image, other in zip(images, expected, strict=True))


def test_videos_come_in_natural_order_from_everywhere(mixed: Path) -> None:
    dataset = videos(mixed)
    assert groups(dataset) == [("clip_2.avi", 6), ("clip_10.mp4", 4), ("frames", 2), ("more/far/clip_1.mkv", 6)]
    assert [image[0, 0, 0] for image in dataset.sequences[2].images()] == [9, 10]
    assert dataset.num_classes == 0
    assert [len(sequence.labelled()) for sequence in dataset.sequences] == [0] * 4
    assert dataset.sequences[0].labels(0) is None
    assert_problems(dataset)


def test_a_video_has_the_frames_of_its_file(mixed: Path) -> None:
    with VideoReader(mixed / "clip_2.avi") as reader:
        expected = [frame.image for frame in reader]
    assert_images_agree(videos(mixed).sequences[0], expected)
    assert_images_agree(videos(mixed / "clip_2.avi").sequences[0], expected)
    assert_images_agree(videos(mixed / "clip_2.avi", frames=(2, 5)).sequences[0], expected[2:5])
    assert_images_agree(videos(mixed / "clip_2.avi", frames=(4, 99)).sequences[0], expected[4:])


def test_a_range_of_a_folder_of_frames(mixed: Path) -> None:
    dataset = videos(mixed / "frames", frames=(1, 2))
    assert groups(dataset) == [("frames", 1)]
    assert dataset.sequences[0].image(0)[0, 0, 0] == 10
    with pytest.raises(UserError, match=r"frames: has 2 frames, frames \[2, 4\) selects none of them"):
        videos(mixed / "frames", frames=(2, 4))


def test_few_files_are_open_at_once(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("vidistill.data.sequences.videos"), "MAX_OPEN", 1)
    dataset = videos(mixed)
    first, _, _, last = dataset.sequences
    alone = [videos(mixed).sequences[place].image(3) for place in (0, 3)]
    for _ in range(2):
        assert (first.image(3) == alone[0]).all()
        assert (last.image(3) == alone[1]).all()
    assert len(first.readers._readers) == 1  # type: ignore[attr-defined]


def test_a_forked_process_opens_its_own_files(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readers, path = OpenReaders(), mixed / "clip_2.avi"
    ours = readers[path]
    assert readers[path] is ours
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert readers[path] is not ours


@pytest.mark.parametrize("index", [4, -5])
def test_frames_that_a_video_does_not_have(mixed: Path, index: int) -> None:
    with pytest.raises(IndexError):
        videos(mixed / "clip_10.mp4").sequences[0].image(index)
    with pytest.raises(IndexError):
        videos(mixed / "clip_2.avi", frames=(1, 5)).sequences[0].image(index)


def test_broken_videos_are_listed_and_raise_when_used(mixed: Path) -> None:
    cut_short(mixed / "clip_10.mp4")
    (mixed / "more" / "far" / "clip_1.mkv").write_bytes(b"")
    (mixed / "text.mp4").write_text("no video at all")
    cut_short(write_image(mixed / "frames" / "9.png"))
    cut_short(write_video(mixed / "long.avi", num_frames=40))
    dataset = videos(mixed)
    assert_problems(
        dataset,
        (mixed / "clip_10.mp4", "cannot be opened"),
        (mixed / "more" / "far" / "clip_1.mkv", "empty"),
        (mixed / "text.mp4", "cannot be opened"),
        (mixed / "frames" / "9.png", "cannot be read"),
        (mixed / "long.avi", "frames could be decoded"),
    )
    broken = next(sequence for sequence in dataset.sequences if sequence.name == "text.mp4")
    for use in (lambda: len(broken), lambda: broken.image(0), lambda: next(broken.images())):
        with pytest.raises(UserError, match=r"text\.mp4"):
            use()
    with pytest.raises(UserError, match=r"clip_10\.mp4"):
        DenseClips([dataset], DenseClipSettings())
    torn = next(sequence for sequence in dataset.sequences if sequence.name == "long.avi")
    with pytest.raises(UserError, match=r"long\.avi"):
        list(torn.images())


def test_a_range_that_a_video_does_not_reach(mixed: Path) -> None:
    dataset = videos(mixed / "more" / "far", frames=(6, 9))
    assert_problems(dataset, (mixed / "more" / "far" / "clip_1.mkv", "has 6 frames, frames [6, 9) selects none"))
    with pytest.raises(UserError, match="none of"):
        DenseClips([dataset], DenseClipSettings())


@pytest.mark.parametrize("frames", [(3, 3), (5, 2), (-2, 4)])
def test_ranges_without_frames(mixed: Path, frames: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="frames must be \[first, end\)"):
        videos(mixed, frames=frames)


def test_videos_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="file or folder not found"):
        videos(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no video")
    with pytest.raises(UserError, match="has no videos"):
        videos(tmp_path)
