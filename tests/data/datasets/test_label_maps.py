"""Label images of class ids, masks of 0 and 255, and values that `classes.json` gives."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidistill.data.datasets.label_maps import label_maps
from vidistill.errors import UserError


def write(root: Path, classes: object, *masks: list[list[int]], mode: str | None = None) -> Path:
    """A folder of two videos that share the masks, frame by frame."""
    for index, values in enumerate(masks):
        video = root / f"video_{index % 2}"
        for part in ("frames", "labels"):
            (video / part).mkdir(parents=True, exist_ok=True)
        mask = Image.fromarray(np.array(values, np.uint8 if np.max(values) < 256 else np.uint16))
        Image.new("RGB", mask.size).save(video / "frames" / f"{index}.png")
        (mask.convert(mode) if mode else mask).save(video / "labels" / f"{index}.png")
    (root / "classes.json").write_text(json.dumps(classes))
    return root


def read(root: Path) -> list[list[list[int]]]:
    """Of all frames, those of the first video first."""
    sequences = label_maps(root).sequences
    return [sequence.labels(i).tolist() for sequence in sequences for i in range(len(sequence))]


NAMES = ["background", "person"]
EMPTY, IDS, MASK, MIXED = [[0, 0]], [[0, 1]], [[0, 255]], [[1, 255]]


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ([MASK, EMPTY], [[[0, 1]], [[0, 0]]]),
        ([EMPTY, MASK], [[[0, 0]], [[0, 1]]]),
        ([IDS, EMPTY], [[[0, 1]], [[0, 0]]]),
        ([IDS, MASK], [[[0, 1]], [[0, 255]]]),  # 255 is ignored where there is a 1 anywhere
        ([MASK, MIXED], [[[0, 255]], [[1, 255]]]),
        ([EMPTY, EMPTY], [[[0, 0]], [[0, 0]]]),
    ],
)
def test_what_255_is_follows_from_all_masks(tmp_path: Path, masks, expected) -> None:
    root = write(tmp_path, NAMES, *masks)
    assert read(root) == expected
    assert label_maps(root).class_names == tuple(NAMES)


def test_a_mask_of_one_bit(tmp_path: Path) -> None:
    assert read(write(tmp_path, NAMES, MASK, EMPTY, mode="1")) == [[[0, 1]], [[0, 0]]]


def test_of_three_classes_255_is_ignored(tmp_path: Path) -> None:
    assert read(write(tmp_path, [*NAMES, "car"], MASK)) == [[[0, 255]]]


def test_an_id_among_masks_is_refused(tmp_path: Path) -> None:
    masks = [MASK] * 2 * 40
    masks[3] = IDS  # which is not among those looked at
    with pytest.raises(UserError, match=r"video_1.*3\.png: the mask has ids \[1\], expected only \[0, 255\]"):
        read(write(tmp_path, NAMES, *masks))


def test_a_grey_edge_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path, NAMES, MASK, [[0, 128]])
    with pytest.raises(UserError, match=r"the mask has ids \[128\], expected only \[0, 1, 255\]"):
        read(root)
    assert len(label_maps(root).problems()) == 1


@pytest.mark.parametrize(
    ("classes", "mask", "expected"),
    [
        ({"background": 0, "person": 255}, [[0, 255]], [[0, 1]]),
        ({"background": 0, "person": 1}, [[0, 255]], [[0, 255]]),
        ({"person": 255, "background": 0}, [[0, 255]], [[0, 1]]),  # in the order of the values
        ({"road": 7, "person": 24, "car": 26}, [[26, 7, 255]], [[2, 0, 255]]),
        ({"a": 1000, "b": 2000}, [[1000, 2000]], [[0, 1]]),
    ],
)
def test_values_that_the_file_gives(tmp_path: Path, classes: dict[str, int], mask, expected) -> None:
    root = write(tmp_path, classes, mask)
    assert read(root) == [expected]
    assert label_maps(root).class_names == tuple(sorted(classes, key=classes.get))


@pytest.mark.parametrize("classes", [{"a": 0, "b": 0}, {"a": 0, "b": "1"}, {"a": 0, "b": -1}, {"a": 0, "b": True}])
def test_values_that_are_none(tmp_path: Path, classes: dict) -> None:
    with pytest.raises(UserError, match=r"classes\.json: must give each class a value of its own from 0 to 65535"):
        label_maps(write(tmp_path, classes, MASK))


@pytest.mark.parametrize("classes", [["person"], {"person": 255}, []])
def test_the_background_has_a_name(tmp_path: Path, classes) -> None:
    with pytest.raises(UserError, match=r"must name two classes or more.*name the background too"):
        label_maps(write(tmp_path, classes, MASK))
