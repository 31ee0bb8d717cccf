"""Each data set on a small tree of its layout: grouping, labels, and what is listed as broken."""

import contextlib
import os
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from vidistill.data.clip import IGNORED, FrameSequence, VideoDataset
from vidistill.data.datasets import DATASETS
from vidistill.data.datasets.camvid import camvid
from vidistill.data.datasets.cityscapes import CLASS_NAMES, PALETTE, cityscapes
from vidistill.data.datasets.davis import davis
from vidistill.data.dense_clips import ClipSettings, TrainingClips
from vidistill.data.sequences.images import consecutive_runs, ids, read_labels
from vidistill.data.sequences.videos import OpenReaders, videos
from vidistill.data.video.reader import VideoReader
from vidistill.data.video.writer import VideoWriter
from vidistill.errors import UserError


def write_image(path: Path, *, size: tuple[int, int] = (6, 8), level: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PillowImage.fromarray(np.full((*size, 3), level, dtype=np.uint8)).save(path)
    return path


def write_labels(path: Path, *values: int, size: tuple[int, int] = (6, 8)) -> Path:
    """A label image whose first pixels are `values`; the others have the last of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.full(size, values[-1], dtype=np.uint8)
    labels.flat[: len(values)] = values
    PillowImage.fromarray(labels).save(path)
    return path


def cut_short(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def write_video(path: Path, *, num_frames: int = 6) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, fps=25) as writer:
        for index in range(num_frames):
            writer.write(np.full((32, 48, 3), 20 * index % 256, dtype=np.uint8))
    return path


def groups(dataset: VideoDataset) -> list[tuple[str, int]]:
    return [(sequence.name, len(sequence)) for sequence in dataset.sequences]


def assert_problems(dataset: VideoDataset, *expected: tuple[Path, str]) -> None:
    """One problem for each path and phrase, and no other."""
    problems = dataset.problems()
    for path, phrase in expected:
        assert [phrase in problem for problem in problems if str(path) in problem] == [True], (path, problems)
    assert len(problems) == len(expected), problems


def test_the_door_names_every_data_set() -> None:
    frames = ["camvid", "cityscapes", "davis", "label_maps", "synthetic", "videos"]
    whole = ["labelled_videos", "synthetic_actions"]
    boxes = ["coco_video", "imagenet_det", "imagenet_vid", "mot", "pets"]
    pairs = ["high_resolution", "reds", "vid4", "vimeo90k"]
    assert sorted(DATASETS) == sorted(frames + whole + boxes + pairs)


# Label images


@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16"])
def test_label_images_of_every_kind(tmp_path: Path, mode: str) -> None:
    stored = np.zeros((4, 5), dtype=np.uint8)
    stored[1, 2] = 1
    image = PillowImage.fromarray(stored * 255).convert("1") if mode == "1" else PillowImage.fromarray(stored)
    if mode == "P":
        image.putpalette([0, 0, 0, 200, 10, 10])
    if mode == "I;16":
        image = PillowImage.fromarray(stored.astype(np.uint16) * 300)
    image.save(tmp_path / "mask.png")
    labels = read_labels(tmp_path / "mask.png", {0: 4, 1: 7, 300: 7})
    assert labels.dtype == np.uint8
    assert labels[1, 2] == 7
    assert (labels == 4).sum() == 19


def test_a_colour_image_is_no_label_image(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one channel"):
        read_labels(write_image(tmp_path / "colour.png"), ids(256))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_label_images_are_user_errors_or_readable(tmp_path: Path, damage: list[tuple[int, int]]) -> None:
    path = write_labels(tmp_path / "mask.png", 0, 1, 2, 3)
    contents = bytearray(path.read_bytes())
    for place, value in damage:
        contents[place % len(contents)] = value
    path.write_bytes(contents)
    with contextlib.suppress(UserError):
        assert read_labels(path, ids(256)).ndim == 2


def test_runs_of_consecutive_frames() -> None:
    names = ["a_1", "a_2", "a_4", "a_7", "b_8", "poster", "b_9", "b_10", "b_10x"]
    runs = consecutive_runs([Path(f"{name}.png") for name in names], r"(.+)_(\d+)", max_step=2)
    assert [[path.stem for path in run] for run in runs] == [
        ["a_1", "a_2", "a_4"], ["a_7"], ["b_8"], ["poster"], ["b_9", "b_10"], ["b_10x"],
    ]  # fmt: skip


# CamVid


def test_camvid_groups_drives_and_maps_void(tmp_path: Path) -> None:
    for name in (
        "0016E5_07959",
        "0016E5_07961",
        "0016E5_07965",
        "Seq05VD_f00000",
        "Seq05VD_f00002",
        "0001TP_9",
        "0001TP_10",
    ):
        write_image(tmp_path / "train" / f"{name}.png")
        write_labels(tmp_path / "trainannot" / f"{name}.png", 0, 10, 11, 255, 3)
    write_image(tmp_path / "train" / ".hidden.png")
    dataset = camvid(tmp_path)
    assert groups(dataset) == [("0001TP_9", 2), ("0016E5_07959", 2), ("0016E5_07965", 1), ("Seq05VD_f00000", 2)]
    labels = dataset.sequences[1].labels(1)
    assert labels is not None
    assert labels.flat[:5].tolist() == [0, 10, IGNORED, IGNORED, 3]
    assert dataset.num_classes == len(dataset.palette) == 11
    assert_problems(dataset)


def test_camvid_lists_all_that_is_broken(tmp_path: Path) -> None:
    frame, mask = tmp_path / "val", tmp_path / "valannot"
    for index in range(8):
        write_image(frame / f"a_{index}.jpg")
        write_labels(mask / f"a_{index}.png", 1)
    (mask / "a_1.png").unlink()
    cut_short(frame / "a_2.jpg")
    cut_short(mask / "a_3.png")
    write_labels(mask / "a_4.png", 1, size=(6, 9))
    write_labels(mask / "a_5.png", 12, 1)
    cut_short(frame / "a_6.jpg")
    (mask / "a_6.png").write_bytes(b"no picture")
    write_image(frame / "a_7.jpg", size=(7, 8))
    dataset = camvid(tmp_path, split="val")
    assert dataset.sequences[0].labels(1) is None
    assert list(dataset.sequences[0].labelled()) == [0, 2, 3, 4, 5, 6, 7]
    assert_problems(
        dataset,
        (mask / "a_1.png", "no such label image"),
        (frame / "a_2.jpg", "cannot be read"),
        (mask / "a_3.png", "cannot be read"),
        (mask / "a_4.png", "9×6, its frame 8×6"),
        (mask / "a_5.png", "unknown ids [12]"),
        (frame / "a_6.jpg", "cannot be read"),
        (mask / "a_6.png", "cannot be read"),
        (frame / "a_7.jpg", "is 8×7, the sequence began with 8×6"),
        (mask / "a_7.png", "8×6, its frame 8×7"),
    )


def test_camvid_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        camvid(tmp_path / "nowhere")
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="no frames"):
        camvid(tmp_path)


# DAVIS


@pytest.fixture
def davis_root(tmp_path: Path) -> Path:
    for name, num_frames in (("bear", 3), ("dog-2", 2), ("dog-10", 1)):
        for index in range(num_frames):
            write_image(tmp_path / "JPEGImages" / "480p" / name / f"{index:05d}.jpg")
            write_labels(tmp_path / "Annotations" / "480p" / name / f"{index:05d}.png", 0, 255)
    return tmp_path


def test_davis_of_2016_has_one_object(davis_root: Path) -> None:
    dataset = davis(davis_root)
    assert groups(dataset) == [("bear", 3), ("dog-2", 2), ("dog-10", 1)]
    assert dataset.class_names == ("background", "object")
    labels = dataset.sequences[0].labels(2)
    assert labels is not None
    assert labels.flat[:3].tolist() == [0, 1, 1]
    assert list(dataset.sequences[1].labelled()) == [0, 1]
    assert_problems(dataset)


def test_davis_of_2017_has_palette_masks_of_several(davis_root: Path) -> None:
    mask = PillowImage.fromarray(np.array([[0, 1, 2, 5]] * 6, dtype=np.uint8).repeat(2, axis=1))
    mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128, 128, 0, 128])
    mask.save(davis_root / "Annotations" / "480p" / "bear" / "00000.png")
    labels = davis(davis_root).sequences[0].labels(0)
    assert labels is not None
    assert labels[0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("folder", "lines"),
    [
        ("2017", "dog-10\nbear\n"),
        (
            "480p",
            "".join(f"/JPEGImages/480p/{n}/0.jpg /Annotations/480p/{n}/0.png\n" for n in ("bear", "bear", "dog-10")),
        ),
    ],
)
def test_davis_reads_the_splits_of_both_years(davis_root: Path, folder: str, lines: str) -> None:
    (davis_root / "ImageSets" / folder).mkdir(parents=True)
    (davis_root / "ImageSets" / folder / "val.txt").write_text(lines)
    assert [sequence.name for sequence in davis(davis_root, split="val").sequences] == ["bear", "dog-10"]
    assert groups(davis(davis_root, split="val", sequences=["bear"])) == [("bear", 3)]
    with pytest.raises(UserError, match=r"'trainval'.*val"):
        davis(davis_root, split="trainval")
    with pytest.raises(UserError, match="no sequence 'dog-2'"):
        davis(davis_root, split="val", sequences=["dog-2"])


def test_davis_of_chosen_sequences(davis_root: Path) -> None:
    assert groups(davis(davis_root, sequences=["dog-10", "bear"])) == [("bear", 3), ("dog-10", 1)]
    with pytest.raises(UserError, match="no sequence 'beer'; did you mean bear"):
        davis(davis_root, sequences=["beer"])
    with pytest.raises(UserError, match="no sequences to take"):
        davis(davis_root, sequences=[])


def test_davis_lists_all_that_is_broken(davis_root: Path) -> None:
    frames, masks = (davis_root / kind / "480p" for kind in ("JPEGImages", "Annotations"))
    (masks / "bear" / "00001.png").unlink()
    cut_short(frames / "bear" / "00002.jpg")
    write_image(masks / "dog-2" / "00000.png")
    write_image(frames / "dog-2" / "00001.jpg", size=(6, 9))
    cut_short(masks / "dog-10" / "00000.png")
    dataset = davis(davis_root)
    assert list(dataset.sequences[0].labelled()) == [0, 2]
    assert_problems(
        dataset,
        (masks / "bear" / "00001.png", "no such label image"),
        (frames / "bear" / "00002.jpg", "cannot be read"),
        (masks / "dog-2" / "00000.png", "one channel"),
        (frames / "dog-2" / "00001.jpg", "is 9×6"),
        (masks / "dog-2" / "00001.png", "8×6, its frame 9×6"),
        (masks / "dog-10" / "00000.png", "cannot be read"),
    )


def test_davis_that_is_not_there(davis_root: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        davis(davis_root / "nowhere")
    with pytest.raises(UserError, match="without ImageSets leave split out"):
        davis(davis_root, split="val")
    (davis_root / "JPEGImages" / "480p" / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: there are no frames"):
        davis(davis_root)


# Cityscapes


def city_frame(
    root: Path, sequence: int, frame: int, *, city: str = "ulm", folder: str = "leftImg8bit_sequence"
) -> Path:
    return root / folder / "train" / city / f"{city}_{sequence:06d}_{frame:06d}_leftImg8bit.png"


def city_labels(root: Path, sequence: int, frame: int, *, city: str = "ulm", kind: str = "labelIds") -> Path:
    return root / "gtFine" / "train" / city / f"{city}_{sequence:06d}_{frame:06d}_gtFine_{kind}.png"


def test_cityscapes_cuts_snippets_where_numbers_jump(tmp_path: Path) -> None:
    places = [(0, i) for i in range(30)] + [(1, i) for i in range(30)] + [(1, i) for i in range(294, 324)]
    for sequence, frame in places:
        write_image(city_frame(tmp_path, sequence, frame), size=(2, 3))
    write_image(city_frame(tmp_path, 0, 19, city="aachen"), size=(2, 3))
    for sequence, frame in ((0, 19), (1, 19), (1, 313)):
        write_labels(city_labels(tmp_path, sequence, frame), 7, size=(2, 3))
    dataset = cityscapes(tmp_path)
    assert groups(dataset) == [
        ("aachen_000000_000019", 1), ("ulm_000000_000000", 30), ("ulm_000001_000000", 30), ("ulm_000001_000294", 30),
    ]  # fmt: skip
    assert [list(sequence.labelled()) for sequence in dataset.sequences] == [[], [19], [19], [19]]
    assert dataset.sequences[1].labels(18) is None
    assert_problems(dataset)


def test_cityscapes_ids(tmp_path: Path) -> None:
    write_image(city_frame(tmp_path, 0, 0), size=(5, 8))
    write_labels(city_labels(tmp_path, 0, 0), *range(34), 255, size=(5, 8))
    labels = cityscapes(tmp_path).sequences[0].labels(0)
    assert labels is not None
    # worked from the table of cityscapesScripts: unlabeled … ground, road, sidewalk, parking, rail track, …
    x = IGNORED
    assert labels.flat[:35].tolist() == [
        x, x, x, x, x, x, x, 0, 1, x, x, 2, 3, 4, x, x, x, 5, x, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, x, x, 16, 17, 18,
        x,
    ]  # fmt: skip
    write_labels(city_labels(tmp_path, 0, 0, kind="labelTrainIds"), 18, 255, 0, size=(5, 8))
    train_ids = cityscapes(tmp_path).sequences[0].labels(0)
    assert train_ids is not None
    assert train_ids.flat[:3].tolist() == [18, IGNORED, 0]
    assert len(CLASS_NAMES) == len(PALETTE) == 19
    assert (CLASS_NAMES[13], PALETTE[13]) == ("car", (0, 0, 142))


def test_cityscapes_falls_back_to_stills(tmp_path: Path) -> None:
    for sequence in (0, 1):
        write_image(city_frame(tmp_path, sequence, 19, folder="leftImg8bit"))
    write_labels(city_labels(tmp_path, 0, 19), 26)
    dataset = cityscapes(tmp_path)
    assert groups(dataset) == [("ulm_000000_000019", 1), ("ulm_000001_000019", 1)]
    assert_problems(dataset, (city_labels(tmp_path, 1, 19), "no such label image"))


def test_cityscapes_lists_all_that_is_broken(tmp_path: Path) -> None:
    for sequence in range(4):
        for frame in range(21):
            write_image(city_frame(tmp_path, sequence, frame))
        write_labels(city_labels(tmp_path, sequence, 19), 7)
    city_labels(tmp_path, 0, 19).unlink()
    write_labels(city_labels(tmp_path, 1, 19), 34)
    cut_short(city_frame(tmp_path, 1, 3))
    write_labels(city_labels(tmp_path, 2, 19), 7, size=(3, 4))
    write_image(city_frame(tmp_path, 2, 20), size=(3, 4))
    cut_short(city_labels(tmp_path, 3, 19))
    assert_problems(
        cityscapes(tmp_path),
        (city_labels(tmp_path, 0, 19), "no such label image"),
        (city_labels(tmp_path, 1, 19), "unknown ids [34]"),
        (city_frame(tmp_path, 1, 3), "cannot be read"),
        (city_labels(tmp_path, 2, 19), "4×3, its frame 8×6"),
        (city_frame(tmp_path, 2, 20), "is 4×3"),
        (city_labels(tmp_path, 3, 19), "cannot be read"),
    )


def test_cityscapes_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder, nor .*leftImg8bit"):
        cityscapes(tmp_path)
    write_image(tmp_path / "leftImg8bit" / "val" / "ulm" / "other.png")
    with pytest.raises(UserError, match="no frames named"):
        cityscapes(tmp_path, split="val")


# Videos


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
    with pytest.raises(UserError, match=r"frames: has 2 frames and none of \(2, 4\)"):
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
        TrainingClips([dataset], ClipSettings())
    torn = next(sequence for sequence in dataset.sequences if sequence.name == "long.avi")
    with pytest.raises(UserError, match=r"long\.avi"):
        list(torn.images())


def test_a_range_that_a_video_does_not_reach(mixed: Path) -> None:
    dataset = videos(mixed / "more" / "far", frames=(6, 9))
    assert_problems(dataset, (mixed / "more" / "far" / "clip_1.mkv", "has 6 frames and none of (6, 9)"))
    with pytest.raises(UserError, match="none of"):
        TrainingClips([dataset], ClipSettings())


@pytest.mark.parametrize("frames", [(3, 3), (5, 2), (-2, 4)])
def test_ranges_without_frames(mixed: Path, frames: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="no range of frames"):
        videos(mixed, frames=frames)


def test_videos_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        videos(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no video")
    with pytest.raises(UserError, match="no videos in it"):
        videos(tmp_path)
