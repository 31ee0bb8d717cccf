"""What a run found: quality and cost of the student beside the teacher's, as `results.json` keeps them."""

import importlib.metadata
import json
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from vidistill.data.clip import FrameSequence, VideoDataset
from vidistill.data.sequences.frame_files import unique_name
from vidistill.errors import UserError
from vidistill.files import atomic_path
from vidistill.runtimes.measure import (
    Forward,
    Runtime,
    compile_for_inference,
    count_parameters,
    describe_device,
    measure_latency,
    peak_memory_mb,
    stateful_gmacs,
)
from vidistill.runtimes.onnx import OnnxStudent, export_onnx
from vidistill.scoring.frames import Setting, evaluate
from vidistill.students.delta.plan import Plan
from vidistill.students.norms import channels_last, fused_copy
from vidistill.students.student import HeldOutput, StatefulNetwork

MEASURED_FRAMES = 10
PACKAGES = ("vidistill", "torch", "torchvision", "av", "accelerate", "numpy", "opencv-python-headless")


def compare(
    student: StatefulNetwork,
    teacher: StatefulNetwork | None,
    datasets: Sequence[VideoDataset],
    setting: Setting,
    *,
    evaluate: Callable[..., dict[str, Any]] = evaluate,
) -> dict[str, Any]:
    """Student and teacher, and for key-frame schemes the control that holds the key frame's output.

    evaluate: scores a network of single frames, with the signature of `frames.evaluate`.

    `metrics` are those of the first data set, `more_metrics` those of the others, see `by_name`; cost is measured on
    frames of the first. The student must have its card. Without data sets there are no figures but the plan's.
    """
    assert student.card is not None
    interval = student.card.key_frame_interval
    models: dict[str, StatefulNetwork] = {"student": student} | ({"teacher": teacher} if teacher else {})
    costs = {}
    if datasets:
        costs = profile_models(models, sample_frames(longest(datasets[0].sequences), setting), interval=interval)
    intervals = {"student": interval, "teacher": 1, "hold": interval}
    if teacher is not None and interval > 1:
        models["hold"] = HeldOutput(teacher.network)
    found: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        metrics = [
            evaluate(model, dataset.sequences, setting, key_frame_interval=intervals[name], teacher=teacher)
            for dataset in datasets
        ]
        more = by_name(datasets[1:], metrics[1:])
        found[name] = {"metrics": metrics[0] if metrics else None, "more_metrics": more, **costs.get(name, {})}
    return {
        "teacher": found.get("teacher"),
        "student": found["student"],
        "baselines": {"hold": found["hold"]} if "hold" in found else {},
        "plan": summarise(student.plan),
        "environment": environment(setting.device),
    }


def by_name(datasets: Sequence[VideoDataset], found: Sequence[Any]) -> dict[str, Any]:
    """What was found of each data set by its name; equal names are told apart by `unique_name`."""
    named: dict[str, Any] = {}
    for dataset, value in zip(datasets, found, strict=True):
        named[unique_name(dataset.name, named.keys())] = value
    return named


def sample_frames(sequence: FrameSequence, setting: Setting) -> torch.Tensor:
    """The sequence's first frames, (N, 3, H, W), normalised, on the device."""
    images = np.stack([sequence.image(i) for i in range(min(len(sequence), MEASURED_FRAMES))])
    return setting.normalisation(torch.from_numpy(images).permute(0, 3, 1, 2).to(setting.device))


def longest(sequences: Sequence[FrameSequence]) -> FrameSequence:
    """The sequence with the most frames."""
    return max(sequences, key=len)


def profile_models(
    models: dict[str, StatefulNetwork], frames: torch.Tensor, *, interval: int, runtime: Runtime = "eager"
) -> dict[str, dict[str, Any]]:
    """Parameters, GMACs, latency and peak memory of each model on (N, 3, H, W) frames, measured side by side.

    frames: or windows of them, (N, window, 3, H, W).

    In torch all run as a stream runs them, norms fused and channels last; ONNX Runtime gets what `export` writes.
    Errors: UserError for ONNX Runtime on other than float32 frames on the CPU.
    """
    size = frames.shape[1:] if frames.ndim == 5 else frames.shape[-2:]
    if frames.ndim == 4:
        frames = frames.contiguous(memory_format=torch.channels_last)
    fused = {name: channels_last(fused_copy(model, frames[:1])) for name, model in models.items()}
    with _running(fused, frames, runtime) as timed:
        latency = measure_latency(timed, frames, key_frame_interval=interval, warmup=2 if runtime == "eager" else 3)
    return {
        name: {
            "gmacs": stateful_gmacs(model, size, key_frame_interval=interval),
            "latency_ms": latency[name],
            "parameters": count_parameters(model),
            "peak_memory_mb": peak_memory_mb(fused[name], frames[:1]),
            "device": describe_device(frames.device) + f", {runtime}",
            "precision": str(frames.dtype).removeprefix("torch."),
            "size": list(size),
        }
        for name, model in models.items()
    }


@contextmanager
def _running(
    models: dict[str, StatefulNetwork], frames: torch.Tensor, runtime: Runtime
) -> Iterator[dict[str, Forward]]:
    """The models as they run in a runtime."""
    if runtime == "eager":
        yield dict(models)
    elif runtime == "compiled":
        yield {name: compile_for_inference(model) for name, model in models.items()}
    else:
        if frames.ndim != 4 or frames.dtype != torch.float32 or frames.device.type != "cpu":
            raise UserError("ONNX Runtime is measured on single float32 frames on the CPU; choose another runtime")
        with TemporaryDirectory() as folder:
            yield {name: _exported(model, Path(folder) / name, frames) for name, model in models.items()}


def _exported(model: StatefulNetwork, folder: Path, frames: torch.Tensor) -> OnnxStudent:
    folder.mkdir()
    exported = export_onnx(model, folder, size=(frames.shape[-2], frames.shape[-1]))
    return OnnxStudent(exported.key, exported.delta, threads=torch.get_num_threads())


def summarise(plan: Plan | None) -> dict[str, Any] | None:
    """A conversion plan in a few values."""
    if plan is None:
        return None
    left = [{"path": block.title, "reason": block.reason} for block in plan.left]
    students = Counter(str(block.student) for block in plan.converted)
    return {
        "converted": len(plan.converted),
        "blocks": len(plan.blocks),
        "share": plan.share,
        "students": dict(students.most_common()),
        "left": left,
    }


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine and decoder that the figures were made with."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"device": describe_device(device), "python": platform.python_version(), "decoder": "PyAV", **versions}


def write_results(results: dict[str, Any], path: str | Path) -> None:
    """Atomic JSON, floats in full."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(results, indent=2))
