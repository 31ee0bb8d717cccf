"""Small images, masks and videos, and what tests ask of the data sets made of them."""

from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from vidistill.data.clip import VideoDataset
from vidistill.data.video.writer import VideoWriter


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
