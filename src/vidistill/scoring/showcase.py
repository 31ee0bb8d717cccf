"""What people look at: a strip of frames and a side-by-side video of input, teacher, student and their difference."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from vidistill.data.clip import FrameSequence, Image
from vidistill.data.video.writer import VideoWriter
from vidistill.files import atomic_path
from vidistill.ops.draw import caption, difference, overlay, palette_of
from vidistill.progress import track
from vidistill.scoring.frames import Prediction, Setting, predict
from vidistill.students.student import StatefulNetwork

STRIP_FRAMES = 4
VIDEO_FRAMES = 150
VIDEO_WIDTH = 1280
FPS = 12.0


def write_showcase(
    folder: Path, student: StatefulNetwork, teacher: StatefulNetwork, sequence: FrameSequence, setting: Setting
) -> None:
    """Writes `strip.npz` and `side_by_side.mp4` of the sequence's first frames into the run folder."""
    card = student.card
    assert card is not None
    palette = palette_of(setting.num_classes, card.palette)
    strip: list[tuple[Image, Prediction, Prediction, int]] = []
    length = min(len(sequence), VIDEO_FRAMES)
    chosen = strip_indices(length, card.key_frame_interval)
    shown = islice(_predictions(student, teacher, sequence, setting, card.key_frame_interval), length)
    with VideoWriter(folder / "side_by_side.mp4", fps=FPS) as writer:
        for index, (image, theirs, ours, distance) in enumerate(track(shown, "drawing", total=length)):
            writer.write(_panel(image, theirs, ours, distance, palette))
            if index in chosen:
                strip.append((image, theirs, ours, distance))
    with atomic_path(folder / "strip.npz") as temporary:
        np.savez_compressed(
            temporary,
            frames=np.stack([s[0] for s in strip]),
            teacher=np.stack([s[1] for s in strip]),
            student=np.stack([s[2] for s in strip]),
            distances=np.array([s[3] for s in strip]),
            palette=palette[: setting.num_classes],
            class_names=np.array(card.class_names or [str(i) for i in range(setting.num_classes)]),
        )


def strip_indices(length: int, interval: int) -> set[int]:
    """Frames spread over the clip and over the distances to the key frame, the farthest included."""
    starts = np.linspace(0, max(0, length - interval), STRIP_FRAMES)
    distances = np.linspace(0, interval - 1, STRIP_FRAMES)
    return {min(length - 1, int(s) // interval * interval + round(d)) for s, d in zip(starts, distances, strict=True)}


def _predictions(
    student: StatefulNetwork, teacher: StatefulNetwork, sequence: FrameSequence, setting: Setting, interval: int
) -> Iterator[tuple[Image, Prediction, Prediction, int]]:
    state = None
    for index, image in enumerate(sequence.images()):
        distance = index % interval
        with torch.inference_mode():
            theirs, _ = predict(teacher, image, setting, None)
            ours, state = predict(student, image, setting, state if distance else None)
        yield image, theirs, ours, distance


def _panel(image: Image, theirs: Prediction, ours: Prediction, distance: int, palette: np.ndarray) -> Image:
    """Input and teacher above, student and difference below."""
    what = "key frame" if distance == 0 else f"+{distance}"
    agreement = f"disagree {np.mean(theirs != ours):.1%}"
    tiles = [
        caption(image, "input"),
        caption(overlay(image, theirs, palette), "teacher"),
        caption(overlay(image, ours, palette), f"student, {what}"),
        caption(difference(image, theirs, ours), agreement),
    ]
    return np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])
