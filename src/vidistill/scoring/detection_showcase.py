"""What people look at of a detection run: some frames, and a side-by-side video of truth, teacher and student."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from vidistill.data.clip import FrameSequence, Image
from vidistill.data.sequences.boxes import boxes_of
from vidistill.data.video.writer import VideoWriter
from vidistill.files import atomic_path
from vidistill.ops.draw import caption, palette_of
from vidistill.progress import track
from vidistill.scoring.detections import found_in
from vidistill.scoring.frames import Setting
from vidistill.scoring.results import longest
from vidistill.scoring.showcase import FPS, VIDEO_FRAMES, strip_indices
from vidistill.stream_outputs.looks import draw_detections
from vidistill.students.student import StatefulNetwork


def write_detection_showcase(
    folder: Path,
    student: StatefulNetwork,
    teacher: StatefulNetwork | None,
    sequences: Sequence[FrameSequence],
    setting: Setting,
) -> None:
    """Writes `detections.npz` and `side_by_side.mp4` of the longest sequence's first frames into the run folder.

    In the file: names (columns,), distances (rows,) to the key frame and pictures (rows, columns, h, w, 3).
    """
    assert student.card is not None
    sequence, interval = longest(sequences), student.card.key_frame_interval
    length = min(len(sequence), VIDEO_FRAMES)
    chosen = strip_indices(length, interval)
    names, palette = student.card.class_names, palette_of(setting.num_classes, student.card.palette)
    rows: list[dict[str, Image]] = []
    state = None
    with VideoWriter(folder / "side_by_side.mp4", fps=FPS) as writer:
        for index, image in enumerate(track(islice(sequence.images(), length), "drawing", total=length)):
            distance = index % interval
            with torch.inference_mode():
                found, state = found_in(student, image, setting, state if distance else None)
                others = {} if teacher is None else {"teacher": found_in(teacher, image, setting, None)[0]}
            truth = boxes_of(sequence, index)
            shown = ({} if truth is None else {"truth": truth}) | others | {"student": found}
            pictures = {name: draw_detections(image, boxes, names, palette) for name, boxes in shown.items()}
            what = "key frame" if distance == 0 else f"+{distance}"
            titles = {name: f"{name}, {what}" if name == "student" else name for name in pictures}
            writer.write(np.hstack([caption(picture, titles[name]) for name, picture in pictures.items()]))
            if index in chosen:
                rows.append(pictures)
    with atomic_path(folder / "detections.npz") as temporary:
        np.savez_compressed(
            temporary,
            names=np.array(list(rows[0])),
            distances=np.array([index % interval for index in sorted(chosen)]),
            pictures=np.stack([np.stack(list(pictures.values())) for pictures in rows]),
        )
