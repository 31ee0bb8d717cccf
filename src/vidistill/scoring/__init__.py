"""How students of each task are scored, measured and shown. The one place that tells tasks apart for that."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vidistill.data.clip import FrameSequence, VideoDataset
from vidistill.errors import UserError
from vidistill.ops.clip_view import View
from vidistill.runtimes.measure import Runtime
from vidistill.scoring.clip_results import compare_clips, profile_clip_models
from vidistill.scoring.clips import evaluate_clips
from vidistill.scoring.detection_showcase import write_detection_showcase
from vidistill.scoring.detections import evaluate_detections
from vidistill.scoring.frames import Setting, evaluate
from vidistill.scoring.results import compare, longest, profile_models
from vidistill.scoring.showcase import write_showcase
from vidistill.scoring.timeline import write_timeline
from vidistill.scoring.window_results import compare_super_resolution, profile_windows
from vidistill.scoring.window_showcase import write_super_resolution_showcase
from vidistill.scoring.windows import check_videos, evaluate_super_resolution, window_of
from vidistill.students.student import PerFrame, StatefulNetwork

Networks = dict[str, StatefulNetwork]
Metrics = dict[str, Any]


def _nothing_to_check(views: Sequence[View | None], datasets: Sequence[VideoDataset], setting: Setting) -> None:
    """Of a task whose videos may be of any size and length."""


@dataclass(frozen=True)
class Scoring:
    """evaluate: a student, and perhaps a teacher, over videos → metrics. compare: student and teacher over data sets →
    what `results.json` holds. show: pictures and a video of some videos into the run folder. profile: what networks
    cost on frames of a size, key frames coming at an interval; those of clips know their own size. check: networks of
    these views over data sets, before any training; UserError for what would end `compare` after it.
    """

    evaluate: Callable[[StatefulNetwork, StatefulNetwork | None, Sequence[FrameSequence], Setting, int], Metrics]
    compare: Callable[[StatefulNetwork, StatefulNetwork | None, Sequence[VideoDataset], Setting], dict[str, Any]]
    show: Callable[[Path, StatefulNetwork, StatefulNetwork | None, Sequence[FrameSequence], Setting], None]
    profile: Callable[["Networks", "Measuring"], dict[str, Metrics]]
    check: Callable[[Sequence[View | None], Sequence[VideoDataset], Setting], None] = _nothing_to_check


@dataclass(frozen=True)
class Measuring:
    """size: (height, width) of a frame that networks are given; interval: frames from one key frame to the next."""

    size: tuple[int, int]
    interval: int
    device: torch.device
    dtype: torch.dtype
    runtime: Runtime = "eager"

    def frames(self, *shape: int) -> torch.Tensor:
        """Noise, (*shape, 3, height, width)."""
        return torch.randn(*shape, 3, *self.size, device=self.device, dtype=self.dtype)


def _evaluate_frames(
    student: StatefulNetwork, teacher: StatefulNetwork | None, sequences: Sequence[FrameSequence], setting: Setting,
    interval: int,
) -> Metrics:  # fmt: skip
    return evaluate(student, sequences, setting, key_frame_interval=interval, teacher=teacher)


def _show_frames(
    folder: Path, student: StatefulNetwork, teacher: StatefulNetwork | None, sequences: Sequence[FrameSequence],
    setting: Setting,
) -> None:  # fmt: skip
    write_showcase(folder, student, teacher or PerFrame(student.network), longest(sequences), setting)


def _profile_frames(models: Networks, measuring: Measuring) -> dict[str, Metrics]:
    return profile_models(models, measuring.frames(4), interval=measuring.interval, runtime=measuring.runtime)


def _evaluate_detections(
    student: StatefulNetwork, teacher: StatefulNetwork | None, sequences: Sequence[FrameSequence], setting: Setting,
    interval: int,
) -> Metrics:  # fmt: skip
    return evaluate_detections(student, sequences, setting, key_frame_interval=interval, teacher=teacher)


def _evaluate_clips(
    student: StatefulNetwork, teacher: StatefulNetwork | None, sequences: Sequence[FrameSequence], setting: Setting,
    interval: int,
) -> Metrics:  # fmt: skip
    return evaluate_clips(student, sequences, setting, teacher=teacher)


def _profile_clips(models: Networks, measuring: Measuring) -> dict[str, Metrics]:
    if measuring.runtime != "eager":
        raise UserError(f"networks of clips are measured in eager torch alone, not with {measuring.runtime}")
    return profile_clip_models(models, interval=measuring.interval, device=measuring.device)


def _evaluate_windows(
    student: StatefulNetwork, teacher: StatefulNetwork | None, sequences: Sequence[FrameSequence], setting: Setting,
    interval: int,
) -> Metrics:  # fmt: skip
    models = {"student": student} | ({"teacher": teacher} if teacher else {})
    return evaluate_super_resolution(models, sequences, setting, interval=interval)["student"]


def _profile_windows(models: Networks, measuring: Measuring) -> dict[str, Metrics]:
    windows = measuring.frames(4, max(window_of(model) for model in models.values()))
    return profile_windows(models, windows, interval=measuring.interval, runtime=measuring.runtime)


SCORINGS: dict[str, Scoring] = {
    "segmentation": Scoring(_evaluate_frames, compare, _show_frames, _profile_frames),
    "recognition": Scoring(_evaluate_clips, compare_clips, write_timeline, _profile_clips),
    "super_resolution": Scoring(
        _evaluate_windows, compare_super_resolution, write_super_resolution_showcase, _profile_windows, check_videos
    ),
    "detection": Scoring(
        _evaluate_detections,
        partial(compare, evaluate=evaluate_detections),
        write_detection_showcase,
        _profile_frames,
    ),
}
