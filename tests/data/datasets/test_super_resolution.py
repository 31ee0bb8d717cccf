"""Each layout of super-resolution on a small tree of it: grouping, counterparts, and what is listed as broken."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from vidistill.data.datasets.super_resolution import high_resolution, reds, vid4, vimeo90k
from vidistill.data.degradation import Degradation
from vidistill.data.sequences.high_resolution import HighResolutionSequence, as_high_resolution, check_length
from vidistill.data.sequences.images import ImageSequence
from vidistill.errors import UserError


def write(path: Path, *, size: tuple[int, int] = (8, 12), seed: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    PillowImage.fromarray(image).save(path)
    return image


def write_clips(folder: Path, *names: str, size: tuple[int, int] = (8, 12), num_frames: int = 2) -> None:
    for name in names:
        for index in range(num_frames):
            write(folder / name / f"{index:08d}.png", size=size)


def only(dataset) -> HighResolutionSequence:
    (sequence,) = dataset.sequences
    return sequence


def test_vimeo_septuplets_of_the_list(tmp_path: Path) -> None:
    for name in ("00001/0001", "00001/0002", "00002/0001"):
        for number in range(1, 8):
            write(tmp_path / "sequences" / name / f"im{number}.png", seed=number)
            write(tmp_path / "LRx4" / name / f"im{number}.png", size=(2, 3), seed=number)
    (tmp_path / "sep_trainlist.txt").write_text("00001/0001\n00002/0001\n\n")
    (tmp_path / "sep_testlist.txt").write_text("00001/0002\n")
    train, test = vimeo90k(tmp_path, low="LRx4"), vimeo90k(tmp_path, split="test")
    assert [(s.name, len(s)) for s in train.sequences] == [("00001/0001", 7), ("00002/0001", 7)]
    assert [s.name for s in test.sequences] == ["00001/0002"]
    assert [s.centre_only for s in (only(test), *train.sequences)] == [True, False, False]
    low, high = train.sequences[0].pair(6)
    assert (low == write(tmp_path / "x.png", size=(2, 3), seed=7)).all()
    assert (high == write(tmp_path / "x.png", seed=7)).all()
    assert test.sequences[0].pair(0)[0] is None
    assert train.problems() == test.problems() == []
    (tmp_path / "sequences" / "00001" / "0002" / "im4.png").unlink()
    (problem,) = vimeo90k(tmp_path, split="test").problems()
    assert "im4.png" in problem


def test_vimeo_lists_that_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sep_trainlist\.txt: list not found"):
        vimeo90k(tmp_path)
    for text in ("00001\n", "../../x\n", "\n"):
        (tmp_path / "sep_trainlist.txt").write_text(text)
        with pytest.raises(UserError, match="expected lines such as 00001/0001"):
            vimeo90k(tmp_path)


def test_reds_splits(tmp_path: Path) -> None:
    write_clips(tmp_path / "train_sharp", "000", "001", "011", "015", "020", "100")
    write_clips(tmp_path / "X4", "000", "011", "015", "020", size=(2, 3))
    root = tmp_path / "train_sharp"
    assert [s.name for s in reds(root).sequences] == ["000", "001", "011", "015", "020", "100"]
    assert [s.name for s in reds(root, split="train").sequences] == ["001", "100"]
    four = reds(root, split="reds4", low=tmp_path / "X4")
    assert [s.name for s in four.sequences] == ["000", "011", "015", "020"]
    assert four.problems() == []
    with pytest.raises(UserError, match=r"REDS has no 'red4'; did you mean reds4"):
        reds(root, split="red4")
    with pytest.raises(UserError, match=r"X4/001: has no frames"):
        reds(root, low=tmp_path / "X4")
    with pytest.raises(UserError, match="no clips"):
        reds(tmp_path / "nowhere")


def test_vid4_and_its_counterparts(tmp_path: Path) -> None:
    write_clips(tmp_path / "GT", "city", "calendar", size=(8, 12))
    write_clips(tmp_path / "BIx4", "city", "calendar", size=(2, 3))
    dataset = vid4(tmp_path, low="BIx4")
    assert [(s.name, len(s)) for s in dataset.sequences] == [("calendar", 2), ("city", 2)]
    assert dataset.problems() == []
    assert [s.name for s in vid4(tmp_path, clips=["city"]).sequences] == ["city"]
    with pytest.raises(UserError, match=r"unknown name 'citi'; did you mean city"):
        vid4(tmp_path, clips=["citi"])
    with pytest.raises(UserError, match=r"BDx4: folder of low-resolution frames not found"):
        vid4(tmp_path, low="BDx4")


def test_low_frames_of_the_wrong_size_are_an_error_and_listed(tmp_path: Path) -> None:
    write_clips(tmp_path / "GT", "city")
    write_clips(tmp_path / "BIx4", "city", size=(4, 6))
    dataset = vid4(tmp_path, low="BIx4")
    with pytest.raises(UserError, match=r"are 6x4 .* 12x8 after cropping, expected 4 times"):
        only(dataset).pair(0)
    (problem,) = dataset.problems()
    assert "expected 4 times" in problem
    assert vid4(tmp_path, low="BIx4", scale=2).problems() == []
    write(tmp_path / "BIx4" / "city" / "00000002.png", size=(4, 6))
    dataset = vid4(tmp_path, low="BIx4", scale=2)
    (problem,) = dataset.problems()
    assert "has 3 low-resolution frames, expected 2" in problem
    with pytest.raises(UserError, match="has 3 low-resolution frames, expected 2"):
        next(only(dataset).pairs(Degradation(2)))


@pytest.mark.parametrize(
    ("high", "low", "wrong"),
    [
        ("{:08d}", "{:08d}", None),  # REDS, and Vid4 as most have it
        ("im{}", "im{}", None),
        ("Frame {:03d}", "{:04d}x4", None),
        ("{:08d}", "x4_{}", None),
        ("clip_a", "clip_b", None),
        ("{:08d}", "{0:08d}+1", "00000000.png: is paired with .*BIx4/city/00000001.png"),
        ("{:08d}", "{0:08d}+1x4", "00000000.png: is paired with .*BIx4/city/00000001x4.png"),
    ],
)
def test_frames_that_are_numbered_otherwise_are_listed(tmp_path: Path, high: str, low: str, wrong: str | None) -> None:
    for index in range(6 if "{" in high else 1):
        later = index + ("+1" in low)
        write(tmp_path / "GT" / "city" / f"{high.format(index)}.png")
        write(tmp_path / "BIx4" / "city" / f"{low.replace('+1', '').format(later)}.png", size=(2, 3))
    problems = vid4(tmp_path, low="BIx4").problems()
    assert len(problems) == (wrong is not None)
    assert wrong is None or re.search(wrong, problems[0])


def test_frames_are_cropped_to_the_scale_from_the_corner(tmp_path: Path) -> None:
    image = write(tmp_path / "clip" / "0.png", size=(11, 14))
    sequence = only(high_resolution(tmp_path / "clip", scale=4))
    assert (sequence.image(0) == image[:8, :12]).all()
    assert all((frame == image[:8, :12]).all() for frame in sequence.images())
    assert only(high_resolution(tmp_path / "clip", scale=3)).image(0).shape == (9, 12, 3)
    assert sequence.labels(0) is None
    assert sequence.labelled() == ()


def test_halved_frames_are_means_of_four_pixels(tmp_path: Path) -> None:
    image = write(tmp_path / "clip" / "0.png", size=(11, 14)).astype(np.float64)
    means = (image[0:8:2, 0:8:2] + image[1:8:2, 0:8:2] + image[0:8:2, 1:8:2] + image[1:8:2, 1:8:2]) / 4
    halved = only(high_resolution(tmp_path / "clip", scale=4, halved=True)).image(0)
    assert halved.shape == (4, 4, 3)
    assert np.abs(halved - means).max() <= 0.5


@pytest.mark.parametrize(("size", "halved"), [((3, 9), False), ((6, 40), True), ((1, 1), True)])
def test_frames_smaller_than_the_scale(tmp_path: Path, size: tuple[int, int], halved: bool) -> None:
    write(tmp_path / "clip" / "0.png", size=size)
    dataset = high_resolution(tmp_path / "clip", halved=halved)
    with pytest.raises(UserError, match="must be at least 4x4 for scale 4"):
        only(dataset).image(0)
    assert len(dataset.problems()) == 1


def test_any_folder_with_counterparts(tmp_path: Path) -> None:
    write_clips(tmp_path / "high", "a", "b")
    write_clips(tmp_path / "low", "a", size=(2, 3))
    with pytest.raises(UserError, match="no low-resolution 'b'"):
        high_resolution(tmp_path / "high", low="../low")
    write_clips(tmp_path / "low", "b", size=(2, 3))
    dataset = high_resolution(tmp_path / "high", low="../low")
    assert [s.name for s in dataset.sequences] == ["a", "b"]
    assert dataset.problems() == []
    low, _ = dataset.sequences[0].pair(1)
    assert low is not None
    assert low.shape == (2, 3, 3)


def test_counterparts_inside_the_root_are_no_ground_truth(tmp_path: Path) -> None:
    write_clips(tmp_path / "high", "a", "lows")
    write_clips(tmp_path / "low", "high/a", "high/lows", size=(2, 3))
    dataset = high_resolution(tmp_path, low="low")
    assert [s.name for s in dataset.sequences] == ["high/a", "high/lows"]
    assert dataset.problems() == []
    with pytest.raises(UserError, match="has no videos except those of"):
        high_resolution(tmp_path / "low", low=".")


def test_too_short_and_read_for_another_scale(tmp_path) -> None:
    sequence = HighResolutionSequence(ImageSequence("a", [tmp_path / f"{i}.png" for i in range(4)]), 4)
    check_length(sequence, 4)
    with pytest.raises(UserError, match="a: has 4 frames, expected at least the window of 5"):
        check_length(sequence, 5)
    assert as_high_resolution(sequence, 4) is sequence
    with pytest.raises(UserError, match="give the data set scale: 2"):
        as_high_resolution(sequence, 2)
