"""What a network costs: parameters, MACs, measured latency of key and delta frames, peak memory."""

import os
import platform
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vidistill.ops.macs import count_macs, without_values
from vidistill.progress import track

K = TypeVar("K")


Forward = Callable[..., Any]  # frame, state → outputs, state


def count_parameters(module: nn.Module) -> int:
    """All parameters, each once."""
    return sum(parameter.numel() for parameter in module.parameters())


def stateful_gmacs(model: nn.Module, size: Sequence[int], *, key_frame_interval: int) -> dict[str, float]:
    """GMAC per frame of `size` (height, width) of a model that obeys `outputs, state = model(frame, state)`.

    size: or (frames, 3, height, width) of a window, for a model that is given windows.

    key, delta: of such a frame. amortised: the published count, (key + (K−1) delta) / K with K the interval, which
    leaves out the students' run on the key frame. amortised_deployed: with that run, which the folded form computes.
    """
    key, first, delta, has_state = without_values(partial(_frame_macs, size=size), model)
    interval = key_frame_interval if has_state else 1
    amortised = (key + (interval - 1) * delta) / interval
    folding = first - delta if interval > 1 else 0
    counts = {"key": key, "delta": delta, "amortised": amortised, "amortised_deployed": amortised + folding / interval}
    return {name: count / 1e9 for name, count in counts.items()}


def _frame_macs(model: nn.Module, device: str, *, size: Sequence[int]) -> tuple[int, int, int, bool]:
    """MACs of a key frame, the first delta frame and a settled one, and whether there is any state."""
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    frame = torch.zeros(1, *(size if len(size) == 4 else (3, *size)), dtype=dtype, device=device)
    with torch.no_grad():
        _, state = model(frame)
        key = count_macs(model, frame)
        if not state:
            return key, key, key, False
        first = count_macs(model, frame, state)
        _, state = model(frame, state)
        return key, first, count_macs(model, frame, state), True


Runtime = Literal["eager", "compiled", "onnx"]  # torch as it is, torch.compile with frozen weights, ONNX Runtime


def compile_for_inference(model: nn.Module) -> Forward:
    """torch.compile with the weights frozen, which lets it lay them out for the machine; they may not change after."""
    return torch.compile(model, options={"freezing": True})


def measure_latency(
    models: dict[str, Forward], frames: Tensor, *, key_frame_interval: int, cycles: int = 10, warmup: int = 2
) -> dict[str, dict[str, Any]]:
    """Wall-clock milliseconds per frame of each model, measured side by side: the models take turns, cycle by cycle.

    frames: (N, 3, H, W), or windows, normalised, on the models' device, shown in turn at batch 1. A cycle is a key
    frame and `key_frame_interval` − 1 delta frames. Returns by model `key`, `first_delta`, `delta`, each with p50, p95
    and p99, and `amortised`, the median over cycles of a cycle's mean; delta entries are None for a model without
    state.
    """
    times: dict[str, list[list[float]]] = {name: [] for name in models}
    with torch.inference_mode():
        for cycle in range(warmup + cycles):
            for name, model in models.items():
                cycle_times = _time_cycle(model, frames, key_frame_interval)
                if cycle >= warmup:
                    times[name].append(cycle_times)
    return {name: _summary(np.array(measured) * 1e3) for name, measured in times.items()}


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


def _time_cycle(model: Forward, frames: Tensor, key_frame_interval: int) -> list[float]:
    state, measured = None, []
    for t in range(key_frame_interval):
        frame = frames[t % len(frames)][None]
        synchronise()
        began = time.perf_counter()
        _, state = model(frame, state or None)
        synchronise()
        measured.append(time.perf_counter() - began)
        if not state:
            break
    return measured


def _summary(milliseconds: np.ndarray) -> dict[str, Any]:
    """milliseconds: (cycles, frames of a cycle)."""
    frames = milliseconds.shape[1]
    return {
        "key": _percentiles(milliseconds[:, 0]),
        "first_delta": _percentiles(milliseconds[:, 1]) if frames > 1 else None,
        "delta": _percentiles(milliseconds[:, 2:]) if frames > 2 else None,
        "amortised": float(np.median(milliseconds.mean(axis=1))),
    }


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


def peak_memory_mb(model: Forward, frame: Tensor) -> dict[str, float | None]:
    """Peak MB (10⁶ bytes) of tensors alive during a key and a settled delta frame, state included, weights not."""
    with torch.no_grad(), PeakMemory() as key:
        _, state = model(frame)
    if not state:
        return {"key": key.peak / 1e6, "delta": None}
    with torch.no_grad(), PeakMemory() as delta:
        _, state = model(frame, state)
        _, state = model(frame, state)
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
