"""What a run of a super-resolution network found: quality and cost beside the teacher's and bicubic enlargement's."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from vidistill.data.clip import FrameSequence, VideoDataset
from vidistill.data.sequences.high_resolution import as_high_resolution
from vidistill.models.upscaling import Bicubic
from vidistill.ops.clip_view import WindowView
from vidistill.runtimes.measure import Runtime
from vidistill.scoring.frames import Setting
from vidistill.scoring.results import by_name, environment, longest, profile_models, summarise
from vidistill.scoring.windows import evaluate_super_resolution, window_of
from vidistill.students.student import StatefulNetwork
from vidistill.students.windows import stateful
from vidistill.tasks.super_resolution.task import SuperResolution

BICUBIC = "bicubic"
MEASURED_WINDOWS = 3


def compare_super_resolution(
    student: StatefulNetwork, teacher: StatefulNetwork | None, datasets: Sequence[VideoDataset], setting: Setting
) -> dict[str, Any]:
    """As `results.compare`, with bicubic enlargement as baseline. The student must have its card.

    Costs are those of one frame of the first data set's longest video.
    """
    assert student.card is not None
    models = {"student": student} | ({"teacher": teacher} if teacher else {})
    models[BICUBIC] = bicubic_of(setting)
    interval = student.card.key_frame_interval
    costs: dict[str, dict[str, Any]] = {name: {} for name in models}
    if datasets:
        windows = _sample_windows(longest(datasets[0].sequences), setting, max(map(window_of, models.values())))
        costs = profile_windows(models, windows, interval=interval)
    metrics = [evaluate_super_resolution(models, d.sequences, setting, interval=interval) for d in datasets]
    found: dict[str, dict[str, Any]] = {}
    for name in models:
        more = by_name(datasets[1:], [scores[name] for scores in metrics[1:]])
        found[name] = {"metrics": metrics[0][name] if metrics else None, "more_metrics": more, **costs[name]}
    return {
        "teacher": found.get("teacher"),
        "student": found["student"],
        "baselines": {BICUBIC: found[BICUBIC]},
        "plan": summarise(student.plan),
        "environment": environment(setting.device),
    }


def bicubic_of(setting: Setting) -> StatefulNetwork:
    """Bicubic enlargement behind the contract, of values in 0…1 whatever the other networks see."""
    assert isinstance(setting.task, SuperResolution)
    model = stateful(Bicubic(scale=setting.task.scale), WindowView(1)).eval()
    model.normalisation = setting.task.normalisation
    return model


def profile_windows(
    models: dict[str, StatefulNetwork], windows: torch.Tensor, *, interval: int, runtime: Runtime = "eager"
) -> dict[str, dict[str, Any]]:
    """As `results.profile_models`, of windows (N, T, 3, h, w), with frames a second."""
    measured = profile_models(models, windows, interval=interval, runtime=runtime)
    return {
        name: {**costs, "frames_per_second": 1000 / costs["latency_ms"]["amortised"]}
        for name, costs in measured.items()
    }


def _sample_windows(sequence: FrameSequence, setting: Setting, window: int) -> torch.Tensor:
    """(N, window, 3, h, w) of the sequence's first low-resolution frames, normalised, on the device."""
    assert isinstance(setting.task, SuperResolution)
    pairs = as_high_resolution(sequence, setting.task.scale).pairs(setting.task.degradation)
    lows = np.stack([low for low, _ in islice(pairs, window + MEASURED_WINDOWS - 1)])
    frames = setting.normalisation(torch.from_numpy(lows).permute(0, 3, 1, 2).to(setting.device))
    return torch.stack([frames[i : i + window] for i in range(max(1, len(frames) - window + 1))])
