"""What people look at of a super-resolution run: crops, a frame before and after, and a side-by-side video."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from vidistill.data.clip import FrameSequence, Image
from vidistill.data.video.writer import VideoWriter
from vidistill.files import atomic_path
from vidistill.ops.draw import caption
from vidistill.progress import track
from vidistill.scoring.frames import Setting
from vidistill.scoring.results import longest
from vidistill.scoring.window_results import BICUBIC, bicubic_of
from vidistill.scoring.windows import TRUTH, restored
from vidistill.students.student import StatefulNetwork

VIDEO_FRAMES = 60
STRIP_FRAMES = 3
CROP = 128
FPS = 12.0


def write_super_resolution_showcase(
    folder: Path,
    student: StatefulNetwork,
    teacher: StatefulNetwork | None,
    sequences: Sequence[FrameSequence],
    setting: Setting,
) -> None:
    """Writes `crops.npz` and `side_by_side.mp4` of the longest video's first frames into the run folder.

    In the file: names (columns,), frames (rows,) and crops (rows, columns, h, w, 3), where bicubic enlargement is
    farthest from the truth; before and after, a whole frame by bicubic enlargement and by the student.
    """
    assert student.card is not None
    sequence, interval = longest(sequences), student.card.key_frame_interval
    models = {BICUBIC: bicubic_of(setting), "student": student} | ({"teacher": teacher} if teacher else {})
    length = min(len(sequence), VIDEO_FRAMES)
    chosen = set(np.linspace(0, length - 1, STRIP_FRAMES).astype(int).tolist())
    names = [*models, TRUTH]
    kept: list[dict[str, Image]] = []
    with VideoWriter(folder / "side_by_side.mp4", fps=FPS) as writer:
        shown = islice(restored(models, sequence, setting, interval=interval), length)
        for index, images in enumerate(track(shown, "drawing", total=length)):
            writer.write(_panel(images, names))
            if index in chosen:
                kept.append(images)
    middle = kept[len(kept) // 2]
    with atomic_path(folder / "crops.npz") as temporary:
        np.savez_compressed(
            temporary,
            names=np.array(names),
            frames=np.array(sorted(chosen)),
            crops=np.stack([_crops(images, names) for images in kept]),
            before=middle[BICUBIC],
            after=middle["student"],
        )


def _panel(images: dict[str, Image], names: Sequence[str]) -> Image:
    """Two above, the others below."""
    tiles = [caption(images[name], name) for name in names]
    tiles += [np.zeros_like(tiles[0])] * (len(tiles) % 2)
    return np.vstack([np.hstack(tiles[i : i + 2]) for i in range(0, len(tiles), 2)])


def _crops(images: dict[str, Image], names: Sequence[str]) -> np.ndarray:
    """(columns, h, w, 3) squares at one place: where bicubic enlargement errs most."""
    error = np.abs(images[BICUBIC].astype(np.float32) - images[TRUTH]).mean(axis=-1)
    height, width = (min(CROP, length) for length in error.shape)
    means = cv2.blur(error, (width, height), anchor=(0, 0))
    inside = means[: error.shape[0] - height + 1, : error.shape[1] - width + 1]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return np.stack([images[name][top : top + height, left : left + width] for name in names])
