"""Label images, and runs of consecutive frames."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from tests.data.example_files import write_labels
from vidistill.data.sequences.images import consecutive_runs, read_labels, train_ids
from vidistill.errors import UserError


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


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_a_label_image_saved_with_equal_channels(tmp_path: Path, mode: str) -> None:
    stored = np.array([[0, 1], [2, 255]], np.uint8)
    PillowImage.fromarray(stored).convert(mode).save(tmp_path / "mask.png")
    assert read_labels(tmp_path / "mask.png", train_ids(3)).tolist() == stored.tolist()


def test_a_float_label_image_of_whole_numbers(tmp_path: Path) -> None:
    PillowImage.fromarray(np.array([[0, 1], [2, 2]], np.float32)).save(tmp_path / "mask.tiff")
    assert read_labels(tmp_path / "mask.tiff", train_ids(3)).tolist() == [[0, 1], [2, 2]]


@pytest.mark.parametrize(
    ("stored", "fault"),
    [
        (np.float32([[0, 0.5]]), "whole ids from 0 to 65535, got 0.5"),
        (np.float32([[0, np.nan]]), "whole ids from 0 to 65535, got nan"),
        (np.float32([[0, np.inf]]), "whole ids from 0 to 65535, got inf"),
        (np.int32([[0, -1]]), "whole ids from 0 to 65535, got -1"),
        (np.int32([[0, 2**31 - 1]]), "whole ids from 0 to 65535, got 2.1"),
        (np.uint16([[0, 1000]]), r"ids \[1000\], expected only \[0, 1, 2, 255\]"),
        (np.uint8([[[0, 1, 1], [2, 2, 2]]]), "must have one channel, got the colours"),
        (np.uint8([[[1, 1, 1, 0], [2, 2, 2, 255]]]), "must be opaque"),
    ],
)
def test_values_that_are_no_class_ids(tmp_path: Path, stored: np.ndarray, fault: str) -> None:
    PillowImage.fromarray(stored).save(tmp_path / "mask.tiff")
    with pytest.raises(UserError, match=fault):
        read_labels(tmp_path / "mask.tiff", train_ids(3))


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_formats_that_change_values_hold_no_class_ids(tmp_path: Path, suffix: str) -> None:
    PillowImage.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / f"mask{suffix}")
    with pytest.raises(UserError, match="does not keep values exactly; save a label image as PNG"):
        read_labels(tmp_path / f"mask{suffix}", train_ids(3))


def test_more_classes_than_a_label_map_has_ids() -> None:
    with pytest.raises(UserError, match="at most 255 classes, got 256"):
        train_ids(256)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_label_images_are_user_errors_or_readable(tmp_path: Path, damage: list[tuple[int, int]]) -> None:
    path = write_labels(tmp_path / "mask.png", 0, 1, 2, 3)
    contents = bytearray(path.read_bytes())
    for place, value in damage:
        contents[place % len(contents)] = value
    path.write_bytes(contents)
    with contextlib.suppress(UserError):
        assert read_labels(path, train_ids(255)).ndim == 2


def test_runs_of_consecutive_frames() -> None:
    names = ["a_1", "a_2", "a_4", "a_7", "b_8", "poster", "b_9", "b_10", "b_10x"]
    runs = consecutive_runs([Path(f"{name}.png") for name in names], r"(.+)_(\d+)", max_step=2)
    assert [[path.stem for path in run] for run in runs] == [
        ["a_1", "a_2", "a_4"], ["a_7"], ["b_8"], ["poster"], ["b_9", "b_10"], ["b_10x"],
    ]  # fmt: skip
