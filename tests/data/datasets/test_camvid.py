"""CamVid on a small tree: grouping, labels, and what is listed as broken."""

from pathlib import Path

import pytest

from tests.data.example_files import assert_problems, cut_short, groups, write_image, write_labels
from vidistill.data.clip import IGNORED
from vidistill.data.datasets.camvid import camvid
from vidistill.errors import UserError


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
        (mask / "a_1.png", "label image not found"),
        (frame / "a_2.jpg", "cannot be read"),
        (mask / "a_3.png", "cannot be read"),
        (mask / "a_4.png", "9x6, expected 8x6 as its frame"),
        (mask / "a_5.png", "has ids [12], expected only"),
        (frame / "a_6.jpg", "cannot be read"),
        (mask / "a_6.png", "cannot be read"),
        (frame / "a_7.jpg", "is 8x7, expected 8x6 as the first frame"),
        (mask / "a_7.png", "8x6, expected 8x7 as its frame"),
    )


def test_camvid_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="folder not found"):
        camvid(tmp_path / "nowhere")
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="no frames"):
        camvid(tmp_path)
