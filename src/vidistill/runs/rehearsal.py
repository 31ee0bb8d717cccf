"""All that comes after training, tried before it on a few frames: a mistake found at the end costs the whole run."""

import copy
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from vidistill.data.clip import VideoDataset
from vidistill.errors import UserError, as_user_error
from vidistill.runs.build import Run
from vidistill.runtimes import RUNTIMES, Runtime
from vidistill.stream.evaluate import TEACHER, evaluate
from vidistill.students.student import Student

TRIED_FRAMES = 3  # a key frame, the delta frame that folds, and one that follows


def rehearse(run: Run, student: Student, datasets: Sequence[VideoDataset]) -> list[str]:
    """Streams, decodes and scores a student that is `finished`, and its teacher, on the first frames of each data set.

    Returns what was done, a sentence each.

    Raises:
        UserError: a network's outputs do not fit the task, or the frames do not fit a network.
    """
    networks = {"student": student} | ({TEACHER: run.teacher} if run.teacher is not None else {})
    return [sentence for dataset in datasets for sentence in _try_on(dataset, networks, run)]


def try_export(run: Run, student: Student) -> str:
    """Exports a student that is `finished` for the first runtime that has files, as all take the same trace.

    Returns what was done.
    """
    height, width = run.training.clips.example().shape[-2:]
    size = None if student.sees_clips else (height, width)
    name, runtime = next((n, r) for n, r in RUNTIMES.items() if type(r).export is not Runtime.export)
    try:
        with TemporaryDirectory() as folder, as_user_error("the student cannot be traced", "choose another runtime"):
            exported = runtime.export(student, Path(folder) / name, size=size)
    except UserError as error:
        return f"note: no export for {name}: {error}"
    return f"exported for {name}: outputs equal torch's within {exported.gap:.1e} of their scale"


def finished(run: Run) -> Student:
    """The student as it would be deployed now; the one that trains stays as it is."""
    method, student = copy.deepcopy((run.training.method, run.training.student))
    return method.finish(student)


def _try_on(dataset: VideoDataset, networks: dict[str, Student], run: Run) -> list[str]:
    sequences = sorted(dataset.sequences, key=lambda sequence: not run.task.has_labels(sequence))[:1]
    if not sequences:
        return []
    intervals = dict.fromkeys(networks, networks["student"].card.key_frame_interval) | {TEACHER: 1}
    with as_user_error(
        f"{sequences[0].name}: the networks' outputs on its frames do not fit the task {run.task.name}",
        "correct the network, its options or the task",
    ):
        evaluate(networks, sequences, run.task, intervals=intervals, most_frames=TRIED_FRAMES)
    return [f"streamed, decoded and scored the first frames of {sequences[0].name} ({dataset.name})"]
