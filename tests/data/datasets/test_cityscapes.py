"""Cityscapes on a small tree: snippets, label ids, and what is listed as broken."""

from pathlib import Path

import pytest

from tests.data.example_files import assert_problems, cut_short, groups, write_image, write_labels
from vidistill.data.clip import IGNORED
from vidistill.data.datasets.cityscapes import CLASS_NAMES, PALETTE, cityscapes
from vidistill.errors import UserError


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
    assert_problems(dataset, (city_labels(tmp_path, 1, 19), "label image not found"))


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
        (city_labels(tmp_path, 0, 19), "label image not found"),
        (city_labels(tmp_path, 1, 19), "has ids [34], expected only"),
        (city_frame(tmp_path, 1, 3), "cannot be read"),
        (city_labels(tmp_path, 2, 19), "4x3, expected 8x6 as its frame"),
        (city_frame(tmp_path, 2, 20), "is 4x3"),
        (city_labels(tmp_path, 3, 19), "cannot be read"),
    )


def test_cityscapes_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"folder not found, nor .*leftImg8bit"):
        cityscapes(tmp_path)
    write_image(tmp_path / "leftImg8bit" / "val" / "ulm" / "other.png")
    with pytest.raises(UserError, match="no frames named"):
        cityscapes(tmp_path, split="val")
