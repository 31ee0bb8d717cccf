"""DAVIS on a small tree: splits, masks, and what is listed as broken."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from tests.data.example_files import assert_problems, cut_short, groups, write_image, write_labels
from vidistill.data.datasets.davis import davis
from vidistill.errors import UserError


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
    with pytest.raises(UserError, match="sequences: unknown name 'dog-2'"):
        davis(davis_root, split="val", sequences=["dog-2"])


def test_davis_of_chosen_sequences(davis_root: Path) -> None:
    assert groups(davis(davis_root, sequences=["dog-10", "bear"])) == [("bear", 3), ("dog-10", 1)]
    with pytest.raises(UserError, match="sequences: unknown name 'beer'; did you mean bear"):
        davis(davis_root, sequences=["beer"])
    with pytest.raises(UserError, match="no sequences to take"):
        davis(davis_root, sequences=[])


def test_davis_lists_all_that_is_broken(davis_root: Path) -> None:
    frames, masks = (davis_root / kind / "480p" for kind in ("JPEGImages", "Annotations"))
    (masks / "bear" / "00001.png").unlink()
    cut_short(frames / "bear" / "00002.jpg")
    PillowImage.new("RGB", (8, 6), (9, 8, 7)).save(masks / "dog-2" / "00000.png")
    write_image(frames / "dog-2" / "00001.jpg", size=(6, 9))
    cut_short(masks / "dog-10" / "00000.png")
    dataset = davis(davis_root)
    assert list(dataset.sequences[0].labelled()) == [0, 2]
    assert_problems(
        dataset,
        (masks / "bear" / "00001.png", "label image not found"),
        (frames / "bear" / "00002.jpg", "cannot be read"),
        (masks / "dog-2" / "00000.png", "one channel"),
        (frames / "dog-2" / "00001.jpg", "is 9x6"),
        (masks / "dog-2" / "00001.png", "8x6, expected 9x6 as its frame"),
        (masks / "dog-10" / "00000.png", "cannot be read"),
    )


def test_davis_that_is_not_there(davis_root: Path) -> None:
    with pytest.raises(UserError, match="folder not found"):
        davis(davis_root / "nowhere")
    with pytest.raises(UserError, match="without ImageSets leave split out"):
        davis(davis_root, split="val")
    (davis_root / "JPEGImages" / "480p" / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: has no frames"):
        davis(davis_root)
