"""What a run of a network of clips found: quality and cost of the student beside the teacher's."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from vidistill.data.clip import VideoDataset
from vidistill.ops.clip_view import ClipView
from vidistill.ops.macs import count_macs, without_values
from vidistill.runtimes.measure import count_parameters, describe_device, peak_memory_mb, time_side_by_side
from vidistill.scoring.clips import clip_metrics, predict_videos
from vidistill.scoring.frames import Setting
from vidistill.scoring.results import by_name, environment, summarise
from vidistill.students.student import StatefulNetwork, without_key_frame


def compare_clips(
    student: StatefulNetwork, teacher: StatefulNetwork | None, datasets: Sequence[VideoDataset], setting: Setting
) -> dict[str, Any]:
    """As `results.compare`, of networks of clips. The student must have its card.

    A clip's cost is that of one run of the network on its own view; amortised, on a stream where it runs once in as
    many frames as the student's card says.
    """
    assert student.card is not None
    models = {"student": student} | ({"teacher": teacher} if teacher else {})
    costs = profile_clip_models(models, interval=student.card.key_frame_interval, device=setting.device)
    said = [{name: predict_videos(model, d.sequences, setting) for name, model in models.items()} for d in datasets]
    found: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        metrics = [clip_metrics(model, predictions[name], predictions.get("teacher"), setting) for predictions in said]
        more = by_name(datasets[1:], metrics[1:])
        found[name] = {"metrics": metrics[0] if metrics else None, "more_metrics": more, **costs[name]}
    return {
        "teacher": found.get("teacher"),
        "student": found["student"],
        "baselines": {},
        "plan": summarise(student.plan),
        "environment": environment(setting.device),
    }


def profile_clip_models(
    models: dict[str, StatefulNetwork], *, interval: int, device: torch.device
) -> dict[str, dict[str, Any]]:
    """Parameters, GMACs, latency and peak memory of each network on one clip of its view, measured side by side.

    The clip comes as it is cut from the video; resizing it to what the network sees is part of its time.
    amortised: of a stream whose key frames come `interval` frames apart, a key frame's cost divided by that; a causal
    network runs one frame on it, any other its whole window.
    """
    clips = {name: _clip(model).to(device, _precision(model)) for name, model in models.items()}
    runs: dict[tuple[str, str], Callable[[], Any]] = {
        (name, "clip"): _runner(models[name], clips[name]) for name in models
    }
    runs |= {(name, "key"): _key_frame(models[name], clips[name], interval) for name in models}
    times = time_side_by_side(runs)
    return {
        name: {
            "gmacs": _gmacs(model, clips[name], interval),
            "latency_ms": {"clip": times[name, "clip"], "amortised": times[name, "key"]["p50"] / interval},
            "parameters": count_parameters(model),
            "peak_memory_mb": {"clip": peak_memory_mb(model, clips[name])["key"]},
            "device": describe_device(device) + ", eager",
            "precision": str(clips[name].dtype).removeprefix("torch."),
            "size": list(clips[name].shape[1:]),
        }
        for name, model in models.items()
    }


def _clip(model: StatefulNetwork) -> torch.Tensor:
    view = model.view
    assert isinstance(view, ClipView)
    return torch.randn(1, view.num_frames, 3, view.crop, view.crop, generator=torch.Generator().manual_seed(0))


def _precision(model: StatefulNetwork) -> torch.dtype:
    return next((parameter.dtype for parameter in model.parameters()), torch.float32)


def _runner(model: StatefulNetwork, clip: torch.Tensor) -> Any:
    return lambda: model(clip)


def _key_frame(model: StatefulNetwork, clip: torch.Tensor, interval: int) -> Callable[[], Any]:
    """Runs one key frame of a stream that has begun."""
    model.expect_key_frames(interval)
    with torch.inference_mode():
        _, state = model(clip[:, 0])
    return lambda: model(clip[:, 0], without_key_frame(state))


def _gmacs(model: StatefulNetwork, clip: torch.Tensor, interval: int) -> dict[str, float]:
    whole, key = without_values(lambda shadow, device: _macs(shadow, clip.to(device), interval), model)
    return {"clip": whole / 1e9, "frame": whole / 1e9 / clip.shape[1], "amortised": key / 1e9 / interval}


def _macs(model: StatefulNetwork, clip: torch.Tensor, interval: int) -> tuple[int, int]:
    """Of a clip, and of a key frame of a stream."""
    return count_macs(model, clip), count_macs(_key_frame(model, clip, interval))
