"""A step of cross-resolution distillation beside its floor; with a teacher's cache, beside the student alone.

Usage: python benchmarks/overhead_clips.py
The floor is the teacher's forward at 224 px, the student's at 112, its backward and the optimiser's step; ours adds
views, losses, clipping, checks and logging. With the cache every clip is a hit, as in all epochs but the first ones;
the spot check of every fiftieth batch falls into the warm-up. Data are apart on all sides.
"""

from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate import Accelerator

from vidistill.data.clip import Batch, SampleKey
from vidistill.runs.build import build
from vidistill.runs.recipe import Recipe
from vidistill.runs.train import Learner, Training, _optimizer, _step
from vidistill.runtimes.measure import describe_device, median_milliseconds

CLIPS = 4
NETWORK = {"name": "tsn", "options": {"backbone": "resnet18"}}


def training_of(out: Path, *, is_taught: bool = True, cache: Path | None = None) -> Training:
    values: dict[str, Any] = {
        "task": {"name": "recognition", "num_classes": 4},
        "teacher": {**NETWORK, "cache": cache} if is_taught else None,
        "student": {**NETWORK, "view": {"size": 112}},
        "method": {"name": "cross_resolution", "teacher_norms": "stored"} if is_taught else {"name": "supervised"},
        "data": {
            "train": [{"name": "synthetic_actions", "num_videos": CLIPS}],
            "clip": {"num_frames": 4, "crop": 224, "draws": 1},
        },
        "optim": {"name": "adamw", "batch_size": CLIPS, "clip_norm": 20.0},
        "out": out,
    }
    return build(Recipe.model_validate(values)).training


def batch_of(training: Training) -> Batch:
    return training.clips.collate([training.clips[SampleKey(0, 0, sample)] for sample in range(CLIPS)])


def step_of(training: Training) -> Callable[[], Any]:
    accelerator = Accelerator()
    learner, optimizer = accelerator.prepare(Learner(training), _optimizer(training))
    batches = repeat(batch_of(training))

    def step() -> None:
        with torch.enable_grad(), torch.inference_mode(mode=False):
            _step(learner, accelerator, optimizer, batches, training, 0)

    return step


def floor_of(training: Training) -> Callable[[], Any]:
    optimizer = _optimizer(training)
    training.method.set_training(training.student)
    large = training.normalisation(batch_of(training).teacher)
    small = training.student.seen(large)

    def floor() -> None:
        with torch.enable_grad(), torch.inference_mode(mode=False):
            with torch.no_grad():
                training.teacher.network(large)
            training.student.network(small).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    return floor


def main() -> None:
    device = describe_device(torch.device("cpu"))
    print(f"{device}; TSN on ResNet-18, {CLIPS} clips of 4 frames, float32, eager; medians of 10\n")
    with TemporaryDirectory() as name:
        out = Path(name)
        times = median_milliseconds(
            {
                "floor": floor_of(training_of(out)),
                "ours": step_of(training_of(out)),
                "ours, teacher cached": step_of(training_of(out, cache=out / "cache")),
                "student alone": step_of(training_of(out, is_taught=False)),
            },
            repeats=10,
        )
    print("| training step | milliseconds | × floor | × student alone |\n|---|---|---|---|")
    for what, time in times.items():
        print(f"| {what} | {time:.0f} | {time / times['floor']:.2f} | {time / times['student alone']:.2f} |")


if __name__ == "__main__":
    main()
