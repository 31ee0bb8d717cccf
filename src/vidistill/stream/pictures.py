"""What people look at after a run: `side_by_side.mp4`, and what the page draws, of frames that the task chooses."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from vidistill.data.clip import FrameSequence
from vidistill.data.video.writer import VideoWriter
from vidistill.progress import track
from vidistill.stream.stream import Running, Stream, side_by_side
from vidistill.students.student import Student
from vidistill.tasks import Task

FPS = 12.0


def write_pictures(
    folder: Path,
    students: Mapping[str, Student],
    sequences: Sequence[FrameSequence],
    task: Task,
    *,
    running: Running | None = None,
) -> None:
    """Writes the pictures of one "student" beside other networks into the run folder; without a frame, none.

    students: by name; key frames come as each card says. Names and colours of classes are the student's.
    """
    card = students["student"].card
    length, shown = task.shown(sequences)
    first = next(shown, None)
    if first is None:
        return
    pictures = task.pictures(card.naming, interval=card.key_frame_interval, length=length)
    streams = {name: Stream(student, running=running, task=task) for name, student in students.items()}
    panels = side_by_side(streams, chain([first], shown))
    with VideoWriter(folder / "side_by_side.mp4", fps=FPS) as writer:
        for truth, outputs in track(panels, "drawing", total=length):
            writer.write(np.ascontiguousarray(pictures.panel(truth, outputs)))
    pictures.save(folder)
