"""What a run measures: quality and cost of the student beside the teacher's, as `results.json` keeps them."""

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from vidistill.config import Values
from vidistill.data.clip import FrameSequence, VideoDataset
from vidistill.data.sequences.frame_files import unique_name
from vidistill.files import atomic_path, json_text
from vidistill.ops.clip_view import WindowView
from vidistill.runtimes.measure import describe_device, profile_students
from vidistill.stream.evaluate import TEACHER, evaluate
from vidistill.stream.stream import Running
from vidistill.students.card import Card
from vidistill.students.delta.plan import Plan
from vidistill.students.student import HeldOutput, Student
from vidistill.students.windows import as_student
from vidistill.tasks import Task

HOLD = "hold"
MEASURED_FRAMES = 10
PACKAGES = ("vidistill", "torch", "torchvision", "av", "accelerate", "numpy", "opencv-python-headless")


def compare(
    student: Student,
    teacher: Student | None,
    datasets: Sequence[VideoDataset],
    task: Task,
    *,
    running: Running | None = None,
) -> Values:
    """Student and teacher, the task's baselines, and for key-frame schemes the control that holds the key output.

    `metrics` are those of the first data set, `more_metrics` those of the others, see `by_name`. Costs are measured on
    frames of the first; without one only networks that bring frames of their own are timed.
    """
    running = running or Running()
    networks = {"student": student} | ({TEACHER: teacher} if teacher else {})
    baselines = baselines_of(task, student)
    measured = networks | baselines
    costs: dict[str, Values] = {}
    if datasets or student.sees_clips:
        pixels = sample_pixels(datasets[0].sequences if datasets else (), task, student)
        costs = profile_students(
            measured, pixels, interval=student.card.key_frame_interval, runtime=running.runtime,
            precision=running.precision, threads=running.threads,
        )  # fmt: skip
    scored = dict(measured)
    intervals = dict.fromkeys(measured, student.card.key_frame_interval) | {TEACHER: 1}
    if teacher is not None and student.card.key_frame_interval > 1 and student.view is None:
        scored[HOLD] = HeldOutput(teacher.network, teacher.card)
        intervals[HOLD] = student.card.key_frame_interval
    metrics = [evaluate(scored, d.sequences, task, intervals=intervals, running=running) for d in datasets]
    measured_by_name: dict[str, Values] = {}
    for name in scored:
        own = [by_network[name] for by_network in metrics]
        more = by_name(datasets[1:], own[1:])
        measured_by_name[name] = {"metrics": own[0] if own else None, "more_metrics": more, **costs.get(name, {})}
    return {
        "teacher": measured_by_name.get(TEACHER),
        "student": measured_by_name["student"],
        "baselines": {name: scores for name, scores in measured_by_name.items() if name not in networks},
        "plan": summarise(student.plan),
        "environment": environment(student.device),
    }


def baselines_of(task: Task, student: Student) -> dict[str, Student]:
    """The task's untrained networks on the student's device; their frames are as the task has them."""
    view = WindowView(1) if isinstance(student.view, WindowView) else None
    card = Card(task=task, view=view, normalisation=task.normalisation)
    return {name: as_student(net, card).eval().to(student.device) for name, net in task.baselines().items()}


def by_name(datasets: Sequence[VideoDataset], values: Sequence[Values]) -> Values:
    """A value of each data set by its name; equal names are told apart by `unique_name`."""
    named: Values = {}
    for dataset, value in zip(datasets, values, strict=True):
        named[unique_name(dataset.name, named.keys())] = value
    return named


def sample_pixels(sequences: Sequence[FrameSequence], task: Task, student: Student) -> torch.Tensor:
    """(N, H, W, 3) uint8: the longest sequence's first frames as the task gives them, on the student's device."""
    if student.sees_clips:
        return torch.zeros(1, 1, 1, 3, dtype=torch.uint8, device=student.device)
    images = [image for image, _ in islice(task.frames(max(sequences, key=len)), MEASURED_FRAMES)]
    return torch.from_numpy(np.stack(images)).to(student.device)


def summarise(plan: Plan | None) -> Values | None:
    """A conversion plan in a few values."""
    if plan is None:
        return None
    students = Counter(str(block.student) for block in plan.converted)
    return {
        "converted": len(plan.converted),
        "blocks": len(plan.blocks),
        "share": plan.share,
        "students": dict(students.most_common()),
        "left": [{"path": block.title, "reason": block.reason} for block in plan.left],
    }


def environment(device: torch.device) -> Values:
    """Versions, machine and decoder that the figures were made with."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"device": describe_device(device), "python": platform.python_version(), "decoder": "PyAV", **versions}


def write_results(results: Mapping[str, object], path: str | Path) -> None:
    """Atomic JSON, floats in full; null for what is not a finite number."""
    with atomic_path(path) as temporary:
        temporary.write_text(json_text(results, indent=2))
