"""Depth maps as 16-bit PNG: what is written comes back, and what is wrong is said."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidistill.data.clip import SampleKey
from vidistill.data.dense_clips import DenseClipSettings
from vidistill.errors import UserError
from vidistill.tasks.depth.maps import DepthMapFolder, depth_maps, read_depth, to_png
from vidistill.tasks.depth.task import Depth

DEPTH = np.array([[0, 0.001, 0.004, 1.0], [79.998, 255.9, 300.0, 12.3456]], np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two frames with depth in a folder as `vidistill label` writes it."""
    rng = np.random.default_rng(0)
    with DepthMapFolder(tmp_path / "maps") as files:
        files.begin("somewhere/street.mp4")
        for _ in range(2):
            files.add(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8), rng.uniform(1, 40, (24, 32)))
    return files.path


def test_round_trip_within_half_a_step(tmp_path: Path) -> None:
    Image.fromarray(to_png(DEPTH)).save(tmp_path / "x.png")
    depth = read_depth(tmp_path / "x.png", 256.0)
    assert depth.dtype == np.float32
    assert depth[0, 0] == 0, "unknown stays unknown"
    assert depth[0, 1] == depth[0, 2] == 1 / 256, "and known known"
    assert depth[1, 2] == 65535 / 256, "what is too far is as far as can be"
    inside = (DEPTH > 1 / 256) & (DEPTH < 255)
    np.testing.assert_allclose(depth[inside], DEPTH[inside], atol=0.5 / 256)


def test_the_scale_is_of_the_files(tmp_path: Path) -> None:
    Image.fromarray(np.array([[1500, 0]], np.uint16)).save(tmp_path / "x.png")
    assert read_depth(tmp_path / "x.png", 1000.0).tolist() == [[1.5, 0.0]]


def test_what_label_writes_is_read_and_trains(folder: Path) -> None:
    dataset = depth_maps(folder)
    assert (dataset.name, dataset.num_classes, dataset.problems()) == ("maps", 0, [])
    [sequence] = dataset.sequences
    assert (sequence.name, len(sequence), list(sequence.labelled())) == ("0000_street", 2, [0, 1])
    clips = Depth().samples(DenseClipSettings(flip=False, max_gap=1), [dataset], use_labels=True)
    _, clip = clips[SampleKey(0, 0, 0)]
    assert clip.labels.dtype == np.float32
    np.testing.assert_array_equal(clip.labels[1], sequence.labels(1))
    batch = clips.collate([clips[SampleKey(0, 0, 0)]])
    assert batch.labels.is_floating_point()
    assert batch.labels.shape == (1, 2, 24, 32)


def test_resized_depth_keeps_its_metres(folder: Path) -> None:
    [small], [whole] = (depth_maps(folder, height=height).sequences for height in (12, None))
    assert small.labels(0).shape == (12, 16)
    assert small.labels(0).dtype == np.float32
    assert set(small.labels(0).flat) <= set(whole.labels(0).flat), "nearest: no depth between two things"


def test_an_enlarged_view_is_nearer(folder: Path) -> None:
    dataset = depth_maps(folder)
    depth = dataset.sequences[0].labels(1)
    settings = DenseClipSettings(num_frames=1, flip=False, scale=(2.0, 2.0), crop=(24, 32))
    clip = Depth().samples(settings, [dataset], use_labels=True)[SampleKey(0, 0, 1)][1]
    assert set(clip.labels.round(4).flat) <= set((depth / 2).round(4).flat)


@pytest.mark.parametrize(
    ("pixels", "got"),
    [
        (np.zeros((24, 32), np.uint8), "got one of uint8"),
        (np.zeros((24, 32), bool), "got one of bool"),
        (np.zeros((24, 32, 3), np.uint8), "got 3 channels"),
        (np.zeros((24, 32, 4), np.uint8), "got 4 channels"),
    ],
)
def test_other_images_are_refused(folder: Path, pixels: np.ndarray, got: str) -> None:
    path = folder / "0000_street" / "labels" / "000001.png"
    Image.fromarray(pixels).save(path)
    [problem] = depth_maps(folder).problems()
    assert problem.startswith(
        f"{path}: a depth map must be a PNG with one channel of 16 bits, {got}; store metres × 256"
    )
    with pytest.raises(UserError, match="16 bits"):
        depth_maps(folder).sequences[0].labels(1)


def test_every_problem_is_listed(folder: Path) -> None:
    labels = folder / "0000_street" / "labels"
    Image.fromarray(np.ones((12, 32), np.uint16)).save(labels / "000000.png")
    (labels / "000001.png").unlink()
    dataset = depth_maps(folder)
    assert list(dataset.sequences[0].labelled()) == [0]
    missing, size = dataset.problems()
    assert missing.startswith(f"{labels / '000001.png'}: label image not found")
    assert size.startswith(f"{labels / '000000.png'}:")
    assert "32x12, expected 32x24" in size
    (labels / "000000.png").write_bytes(b"no image")
    assert "cannot be read as a depth map" in dataset.problems()[1]


def test_bad_options(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no folders with frames/ and labels/"):
        depth_maps(tmp_path / "empty")
    with pytest.raises(UserError, match="scale must be above 0, got -1"):
        depth_maps(folder, scale=-1)
    with pytest.raises(UserError, match="height must be at least 1, got 0"):
        depth_maps(folder, height=0)
    with pytest.raises(UserError, match="already exists"):
        DepthMapFolder(folder)
