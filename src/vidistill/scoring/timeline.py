"""What a recognition run shows: classes over time on a video, as a stream says them."""

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from vidistill.data.clip import FrameSequence, Image
from vidistill.data.sequences.classified import classes_of
from vidistill.data.video.writer import VideoWriter
from vidistill.errors import UserError
from vidistill.files import atomic_path
from vidistill.ops.clip_view import cut_square
from vidistill.ops.draw import caption
from vidistill.progress import track
from vidistill.scoring.frames import Setting
from vidistill.stream.stream import Stream
from vidistill.stream_outputs.looks import name_of
from vidistill.students.student import StatefulNetwork

MOST_VIDEOS, MOST_FRAMES = 4, 90  # videos strung together, frames of each
SIDE = 288  # of the square that is shown of each frame, for videos may have several sizes
FPS = 12.0


def write_timeline(
    folder: Path,
    student: StatefulNetwork,
    teacher: StatefulNetwork | None,
    sequences: Sequence[FrameSequence],
    setting: Setting,
) -> None:
    """Writes `timeline.npz` and `side_by_side.mp4` of a few videos of different classes into the run folder.

    A video that breaks off is shown up to there; without a single frame nothing is written.

    In the file: student and teacher (frames, classes) probabilities, labels (frames,) with −1 where there is none, and
    class_names.
    """
    card = student.card
    assert card is not None
    shown = [(classes, image) for classes, images in _different(sequences).items() for image in images]
    if not shown:
        return
    streams = {"student": Stream(student, device=setting.device)}
    if teacher is not None:
        shown_teacher = copy.deepcopy(teacher)  # a stream fuses the norms of what it runs
        shown_teacher.card = replace(card, normalisation=teacher.normalisation or card.normalisation)
        streams["teacher"] = Stream(shown_teacher, device=setting.device)
    said: dict[str, list[np.ndarray]] = {name: [] for name in streams}
    truth: list[int] = []
    with VideoWriter(folder / "side_by_side.mp4", fps=FPS) as writer:
        for classes, image in track(shown, "drawing", total=len(shown)):
            truth.append(classes[0] if classes else -1)
            for name, stream in streams.items():
                said[name].append(stream.step(image).prediction)
            square = cut_square(image, share=1.0, place=(0.5, 0.5), size=SIDE)
            words = {name: f"{name}: {_best(card.class_names, found[-1])}" for name, found in said.items()}
            writer.write(np.hstack([caption(square.copy(), words[name]) for name in words]))
    with atomic_path(folder / "timeline.npz") as temporary:
        np.savez_compressed(
            temporary,
            labels=np.array(truth),
            class_names=np.array([name_of(card.class_names, i) for i in range(setting.num_classes)]),
            **{name: np.stack(found) for name, found in said.items()},  # type: ignore[arg-type]
        )


def _different(sequences: Sequence[FrameSequence]) -> dict[tuple[int, ...], list[Image]]:
    """The first frames of the first video of each class that has any, a few of them."""
    first: dict[tuple[int, ...], list[Image]] = {}
    for sequence in sequences:
        classes = classes_of(sequence)
        if classes not in first and len(first) < MOST_VIDEOS:
            images = _first_images(sequence)
            if images:
                first[classes] = images
    return first


def _first_images(sequence: FrameSequence) -> list[Image]:
    """The sequence's first frames, up to where it breaks off."""
    images: list[Image] = []
    with suppress(UserError):  # the evaluation decodes only the frames that it samples, and may have met none broken
        for image in islice(sequence.images(), MOST_FRAMES):
            images.append(image)
    return images


def _best(class_names: Sequence[str], probabilities: np.ndarray) -> str:
    best = int(probabilities.argmax())
    return f"{name_of(class_names, best)} {probabilities[best]:.0%}"
