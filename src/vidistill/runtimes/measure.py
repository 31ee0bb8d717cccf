"""What a network costs: parameters, MACs, measured latency of key and delta frames, peak memory."""

import os
import platform
import time
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vidistill.config import Values
from vidistill.ops.clip_view import ClipView, WindowView
from vidistill.ops.macs import count_macs, without_values
from vidistill.ops.modules import copied
from vidistill.progress import track
from vidistill.runtimes import RUNTIMES, Deployed, deploy
from vidistill.runtimes.eager import TorchStudent, as_frames
from vidistill.students.state import State, without_key_frame
from vidistill.students.student import Student

K = TypeVar("K")


def profile_students(
    students: dict[str, Student],
    pixels: Tensor,
    *,
    interval: int,
    runtime: str | None = None,
    precision: str | None = None,
    threads: int = 0,
) -> dict[str, Values]:
    """Parameters, GMACs, latency and peak memory of each student, measured side by side as they run in a runtime.

    Args:
        pixels: (N, H, W, 3) uint8, frames on the students' device; a network of clips takes its own squares.
        interval: frames from one key frame to the next; a network of clips that was exported has one of its own.
        runtime, precision, threads: see `deploy`.

    Returns:
        By name `gmacs`, `latency_ms`, `frames_per_second`, `parameters`, `peak_memory_mb`, `device`, `precision`,
        `size`; None for what is unknown of a student that was exported.
    """
    inputs = {name: _pixels_for(student, pixels) for name, student in students.items()}
    running = {
        name: deploy(student, inputs[name][:1], runtime=runtime, precision=precision, threads=threads)
        for name, student in students.items()
    }
    intervals = {
        name: model.view.stride if model.has_one_size and isinstance(model.view, ClipView) else interval
        for name, model in running.items()
    }
    warmup = max(RUNTIMES[model.runtime].warmup for model in running.values())
    latency = measure_latency(running, inputs, intervals=intervals, warmup=warmup)
    clips = {name: _clip(model, inputs[name]) for name, model in running.items() if isinstance(model.view, ClipView)}
    clip_times = time_side_by_side({name: partial(running[name], clip) for name, clip in clips.items()})
    profiles: dict[str, Values] = {}
    for name, student in students.items():
        profiles[name] = {
            **_costs(student, running[name], inputs[name], intervals[name]),
            "latency_ms": latency[name],
            "frames_per_second": 1000 / latency[name]["amortised"],
            "device": f"{describe_device(pixels.device)}, {running[name].runtime}",
            "precision": running[name].precision,
        }
        if name in clips:
            profiles[name]["latency_ms"] = {"clip": clip_times[name], "amortised": latency[name]["amortised"]}
    return profiles


def _pixels_for(student: Student, pixels: Tensor) -> Tensor:
    """Frames as a stream gives them to the student: those given, or squares of noise for a network of clips."""
    if not isinstance(student.view, ClipView):
        return pixels
    return noise_frames(2, (student.view.crop, student.view.crop)).to(pixels.device)


def noise_frames(num_frames: int, size: tuple[int, int]) -> Tensor:
    """(N, H, W, 3) uint8, the same in every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (num_frames, *size, 3), generator=generator).to(torch.uint8)


def _clip(model: Student, pixels: Tensor) -> Tensor:
    """(1, T, S, S, 3): a whole clip of what the network sees."""
    assert isinstance(model.view, ClipView)
    return pixels[:1, None].expand(-1, model.view.num_frames, -1, -1, -1).contiguous()


def _costs(student: Student, running: Deployed, pixels: Tensor, interval: int) -> Values:
    """What needs no clock. The GMACs are those of the student as it is, the memory that of the one that runs."""
    view, size = student.view, [pixels.shape[-3], pixels.shape[-2]]
    if isinstance(view, WindowView):
        size = [view.window, 3, *size]
    if isinstance(student, Deployed):
        return {"gmacs": None, "parameters": None, "peak_memory_mb": None, "size": size}
    is_in_torch = isinstance(running, TorchStudent)
    if isinstance(view, ClipView):
        clip = _clip(running, pixels)
        frames = as_frames(student, clip)
        return {
            "gmacs": clip_gmacs(student, frames, interval),
            "parameters": count_parameters(student),
            "peak_memory_mb": {"clip": peak_memory_mb(running, clip)["key"]} if is_in_torch else None,
            "size": list(frames.shape[1:]),
        }
    return {
        "gmacs": stateful_gmacs(student, (pixels.shape[-3], pixels.shape[-2]), key_frame_interval=interval),
        "parameters": count_parameters(student),
        "peak_memory_mb": peak_memory_mb(running, running.whole(pixels[:1])) if is_in_torch else None,
        "size": size,
    }


def count_parameters(module: nn.Module) -> int:
    """All parameters, each once."""
    return sum(parameter.numel() for parameter in module.parameters())


def stateful_gmacs(model: Student, size: tuple[int, int], *, key_frame_interval: int) -> dict[str, float]:
    """GMAC per frame of `size` (height, width).

    key, delta: of such a frame. amortised: the published count, (key + (K−1) delta) / K with K the interval, which
    leaves out the students' run on the key frame. amortised_deployed: with that run, which the folded form computes.
    """
    key, first, delta, has_state = without_values(partial(_frame_macs, size=size), model)
    interval = key_frame_interval if has_state else 1
    amortised = (key + (interval - 1) * delta) / interval
    folding = first - delta if interval > 1 else 0
    counts = {"key": key, "delta": delta, "amortised": amortised, "amortised_deployed": amortised + folding / interval}
    return {name: count / 1e9 for name, count in counts.items()}


def _frame_macs(model: Student, device: str, *, size: tuple[int, int]) -> tuple[int, int, int, bool]:
    """MACs of a key frame, the first delta frame and a settled one, and whether there is any state."""
    frame = model.whole(torch.zeros(1, 3, *size, dtype=model.dtype, device=device))
    with torch.no_grad():
        _, state = model(frame)
        key = count_macs(model, frame)
        if not state:
            return key, key, key, False
        first = count_macs(model, frame, state)
        _, state = model(frame, state)
        return key, first, count_macs(model, frame, state), True


def clip_gmacs(model: Student, clip: Tensor, interval: int) -> dict[str, float]:
    """GMAC of a network of clips: of a clip (1, T, 3, S, S), of one of its frames, and amortised on a stream whose key
    frames come `interval` frames apart. A causal network runs one frame on a key frame, any other its whole window.
    """

    def count(shadow: Student, device: str) -> tuple[int, int]:
        shadow.expect_key_frames(interval)
        with torch.inference_mode():
            _, state = shadow(clip[:, 0].to(device))
        key = count_macs(shadow, clip[:, 0].to(device), without_key_frame(state))
        return count_macs(shadow, clip.to(device)), key

    whole, key = without_values(count, copied(model))
    return {"clip": whole / 1e9, "frame": whole / 1e9 / clip.shape[1], "amortised": key / 1e9 / interval}


def measure_latency(
    models: Mapping[str, Student],
    pixels: Mapping[str, Tensor],
    *,
    intervals: Mapping[str, int],
    cycles: int = 10,
    warmup: int = 2,
) -> dict[str, Values]:
    """Wall-clock milliseconds per frame of each model, measured side by side: the models take turns, cycle by cycle.

    pixels: of each model (N, H, W, 3) uint8, on its device, shown in turn at batch 1. intervals: of each model's key
    frames. A cycle is a key frame and the delta frames up to the next one, of a stream that has begun.
    Returns by model `key`, `first_delta`, `delta`, each with p50, p95 and p99, and `amortised`, the median over cycles
    of a cycle's mean; delta entries are None for a model without key frames.
    """
    times: dict[str, list[list[float]]] = {name: [] for name in models}
    with torch.inference_mode():
        begun = {name: _begun(model, pixels[name][:1], intervals[name]) for name, model in models.items()}
        for cycle in range(warmup + cycles):
            for name, model in models.items():
                cycle_times = _time_cycle(model, pixels[name], begun[name], intervals[name])
                if cycle >= warmup:
                    times[name].append(cycle_times)
    return {name: _summary(np.array(measured) * 1e3) for name, measured in times.items()}


def _begun(model: Student, frame: Tensor, interval: int) -> State | None:
    """What a key frame of a running stream starts from: the recurrent entries of a state; None for most networks."""
    model.expect_key_frames(interval)
    state: State | None = None
    for _ in range(model.delay + 1):
        _, state = model(frame, state)
    return without_key_frame(state)


def _time_cycle(model: Student, pixels: Tensor, state: State | None, interval: int) -> list[float]:
    measured = []
    for t in range(interval if model.has_key_frames else 1):  # without key frames, one frame tells all
        frame = pixels[t % len(pixels)][None]
        synchronise()
        began = time.perf_counter()
        _, state = model(frame, state or None)
        synchronise()
        measured.append(time.perf_counter() - began)
    return measured


def _summary(milliseconds: np.ndarray) -> Values:
    """milliseconds: (cycles, frames of a cycle)."""
    frames = milliseconds.shape[1]
    return {
        "key": _percentiles(milliseconds[:, 0]),
        "first_delta": _percentiles(milliseconds[:, 1]) if frames > 1 else None,
        "delta": _percentiles(milliseconds[:, 2:]) if frames > 2 else None,
        "amortised": float(np.median(milliseconds.mean(axis=1))),
    }


def median_milliseconds(
    functions: dict[str, Callable[[], Any]], *, repeats: int = 12, warmup: int = 2, title: str = "measuring"
) -> dict[str, float]:
    """The median wall-clock time of each function, measured side by side."""
    timed = time_side_by_side(functions, repeats=repeats, warmup=warmup, title=title)
    return {name: percentiles["p50"] for name, percentiles in timed.items()}


def time_side_by_side(
    functions: dict[K, Callable[[], Any]], *, repeats: int = 12, warmup: int = 2, title: str = "measuring"
) -> dict[K, dict[str, float]]:
    """p50, p95 and p99 of each function's wall-clock milliseconds; they take turns."""
    times: dict[K, list[float]] = {name: [] for name in functions}
    with torch.inference_mode():
        for turn in track(range(warmup + repeats), title, total=warmup + repeats):
            for name, function in functions.items():
                synchronise()
                began = time.perf_counter()
                function()
                synchronise()
                if turn >= warmup:
                    times[name].append(time.perf_counter() - began)
    return {name: _percentiles(np.array(measured) * 1e3) for name, measured in times.items()}


def _percentiles(milliseconds: np.ndarray) -> dict[str, float]:
    return {f"p{p}": float(np.percentile(milliseconds, p)) for p in (50, 95, 99)}


def synchronise() -> None:
    """Waits for the accelerator, where there is one, to end what it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors alive that were made inside the block; `peak` is the most at any time.

    It sees what torch allocates for tensors, on any device, the same in every run; not a kernel's own workspace.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(outputs):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in given:
                self._watch(tensor.untyped_storage())
        return outputs

    def _watch(self, storage: torch.UntypedStorage) -> None:
        identity, size = storage._cdata, storage.nbytes()
        if identity in self._known:
            return
        self._known.add(identity)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._forget, identity, size)

    def _forget(self, identity: int, size: int) -> None:
        self._known.discard(identity)
        self.alive -= size


def peak_memory_mb(model: Student, pixels: Tensor) -> dict[str, float | None]:
    """Peak MB (10⁶ bytes) of tensors alive during a key and a settled delta frame, state included, weights not."""
    with torch.no_grad(), PeakMemory() as key:
        _, state = model(pixels)
    if not state:
        return {"key": key.peak / 1e6, "delta": None}
    with torch.no_grad(), PeakMemory() as delta:
        _, state = model(pixels, state)
        _, state = model(pixels, state)
    held = sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in state.values()}.values())
    return {"key": key.peak / 1e6, "delta": max(delta.peak, held) / 1e6}


def describe_device(device: torch.device) -> str:
    """The machine that measures: device, threads and runtime."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{_processor()}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, torch {torch.__version__}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
