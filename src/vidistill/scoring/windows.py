"""Super-resolution networks over videos → metrics with their protocol."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, tee
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vidistill.data.clip import FrameSequence, Image, VideoDataset
from vidistill.data.sequences.high_resolution import (
    MOST_LOOKED_AT,
    HighResolutionSequence,
    as_high_resolution,
    check_length,
)
from vidistill.errors import UserError
from vidistill.ops.clip_view import View, WindowView
from vidistill.ops.flow import FLOW_SOURCE, Correspondence, estimate_correspondence
from vidistill.ops.image_quality import SSIM_SIZE, Plane, luma, psnr, ssim
from vidistill.progress import track
from vidistill.scoring.frames import Setting
from vidistill.students.student import StatefulNetwork, without_key_frame
from vidistill.students.windows import LookAhead
from vidistill.tasks.super_resolution.task import SuperResolution

TEACHER = "teacher"
TRUTH = "truth"


@dataclass
class _ClipScores:
    """What is counted of one network on one video, a value a frame or a pair of frames."""

    psnr: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    agreement: list[float] = field(default_factory=list)
    warped: list[float] = field(default_factory=list)


def check_videos(views: Sequence[View | None], datasets: Sequence[VideoDataset], setting: Setting) -> None:
    """Errors: UserError for a video that `evaluate_super_resolution` would refuse, as far as its first frame tells.

    views: of the networks. Of a large data set, the first videos' frames are read and the lengths of all.
    """
    window = max((view.window for view in views if isinstance(view, WindowView)), default=1)
    for dataset in datasets:
        for number, sequence in enumerate(dataset.sequences):
            check_length(sequence, window)
            truth = as_high_resolution(sequence, _task(setting).scale)
            truth.check_numbers()
            if number < MOST_LOOKED_AT:
                _check_size(truth, truth.pair(0)[1])


def evaluate_super_resolution(
    models: dict[str, StatefulNetwork], sequences: Sequence[FrameSequence], setting: Setting, *, interval: int
) -> dict[str, dict[str, Any]]:
    """The metrics of each model, in evaluation mode, by name; agreement with the one that is named "teacher".

    interval: frames from one key frame to the next, for those that have some.

    All see the same low-resolution frames, side by side, in constant memory. Errors: UserError for a video of fewer
    frames than a network looks at, of frames too small to score, or read for another scale.
    """
    task = _task(setting)
    clips = [as_high_resolution(sequence, task.scale) for sequence in sequences]
    total = sum(1 if clip.centre_only else len(clip) for clip in clips)
    found = [{name: _ClipScores() for name in (TRUTH, *models)} for _ in clips]
    frames = (
        (scores, index, images)
        for clip, scores in zip(clips, found, strict=True)
        for index, images in enumerate(_scored(models, clip, setting, interval=interval))
    )
    before: dict[str, Image] | None = None
    for scores, index, images in track(frames, "evaluating", total=total):
        _add(scores, images, None if index == 0 else before, task)
        before = images
    return {model: _metrics(model, clips, found, task, teacher=TEACHER in models) for model in models}


def _scored(
    models: dict[str, StatefulNetwork], clip: HighResolutionSequence, setting: Setting, *, interval: int
) -> Iterator[dict[str, Image]]:
    """What `restored` gives of the frames that are scored; the others are run only where key frames ask for it."""
    if not clip.centre_only:
        yield from restored(models, clip, setting, interval=interval)
        return
    _check_lengths(models, clip)
    lows, highs = zip(*clip.pairs(_task(setting).degradation), strict=True)
    high = highs[len(highs) // 2]
    _check_size(clip, high)
    yield {TRUTH: high, **{name: _centre(m, lows, setting, interval=interval) for name, m in models.items()}}


def _centre(model: StatefulNetwork, frames: Sequence[Image], setting: Setting, *, interval: int) -> Image:
    """The large frame of the middle one, of at least a window of frames."""
    middle = len(frames) // 2
    if isinstance(model, LookAhead) and not model.has_key_frames:
        margin = model.delay
        with torch.inference_mode():
            outputs, _ = model(_normalised(model, frames[middle - margin : middle + margin + 1], setting))
        return _decoded(outputs, setting)
    return next(islice(super_resolved(model, frames, setting, interval=interval), middle, None))


def restored(
    models: dict[str, StatefulNetwork], sequence: FrameSequence, setting: Setting, *, interval: int
) -> Iterator[dict[str, Image]]:
    """Of every frame the truth, by the name "truth", and what each model makes of its low-resolution frame."""
    task = _task(setting)
    truth = as_high_resolution(sequence, task.scale)
    _check_lengths(models, truth)
    pairs, *copies = tee(truth.pairs(task.degradation), len(models) + 1)
    streams = [
        super_resolved(model, (low for low, _ in copy), setting, interval=interval)
        for model, copy in zip(models.values(), copies, strict=True)
    ]
    for (_, high), *images in zip(pairs, *streams, strict=True):
        _check_size(truth, high)
        yield {TRUTH: high, **dict(zip(models, images, strict=True))}


def _check_lengths(models: dict[str, StatefulNetwork], sequence: FrameSequence) -> None:
    check_length(sequence, max(window_of(model) for model in models.values()))


def _check_size(truth: HighResolutionSequence, image: Image) -> None:
    """Errors: UserError for a frame that is too small to score."""
    if min(image.shape[:2]) < SSIM_SIZE:
        raise UserError(
            f"{truth.name}: has frames of {image.shape[1]}×{image.shape[0]} pixels; SSIM looks at squares of "
            f"{SSIM_SIZE}, so leave the clip out"
        )


def super_resolved(
    model: StatefulNetwork, frames: Iterable[Image], setting: Setting, *, interval: int
) -> Iterator[Image]:
    """A large frame for each small one, in order, in constant memory."""
    state: Any = None
    for index, frame in enumerate(frames):
        if index % interval == 0:
            state = without_key_frame(state or {})
        with torch.inference_mode():
            outputs, state = model(_normalised(model, frame, setting), state or None)
        if outputs is not None:
            yield _decoded(outputs, setting)
    with torch.inference_mode():
        late = model.flush(state or None)
    yield from (_decoded(outputs, setting) for outputs in late)


def _normalised(model: StatefulNetwork, images: Image | Sequence[Image], setting: Setting) -> torch.Tensor:
    """(1, 3, h, w) of an image, (1, T, 3, h, w) of several, on the device."""
    planes = torch.from_numpy(np.array(images)).movedim(-1, -3)[None].to(setting.device)
    return (model.normalisation or setting.normalisation)(planes)


def window_of(model: StatefulNetwork) -> int:
    """How many frames the model looks at."""
    return model.view.window if isinstance(model.view, WindowView) else 1


def _decoded(outputs: Any, setting: Setting) -> Image:
    image: Image = setting.task.decode(outputs, size=(0, 0))[0].cpu().numpy()
    return image


def _task(setting: Setting) -> SuperResolution:
    assert isinstance(setting.task, SuperResolution)
    return setting.task


def _add(
    scores: dict[str, _ClipScores], images: dict[str, Image], before: dict[str, Image] | None, task: SuperResolution
) -> None:
    planes = _planes(images, task)
    motion = None if before is None else estimate_correspondence(before[TRUTH], images[TRUTH])
    earlier = {} if before is None else _planes(before, task)
    for name, plane in planes.items():
        scores[name].psnr.append(psnr(plane, planes[TRUTH]))
        scores[name].ssim.append(ssim(plane, planes[TRUTH]))
        if TEACHER in planes:
            scores[name].agreement.append(psnr(plane, planes[TEACHER]))
        if motion is not None and motion.visible.any():
            scores[name].warped.append(warped_difference(earlier[name], plane, motion))


def _planes(images: dict[str, Image], task: SuperResolution) -> dict[str, Plane]:
    return {name: luma(image) if task.channels == "y" else image for name, image in images.items()}


def warped_difference(first: Plane, second: Plane, motion: Correspondence) -> float:
    """Mean absolute difference, in levels, of a frame and the next one carried back, where both show a thing."""
    carried = second[motion.rows, motion.columns].astype(np.float64)
    return float(np.abs(first.astype(np.float64) - carried)[motion.visible].mean())


def _metrics(
    model: str,
    clips: Sequence[HighResolutionSequence],
    found: list[dict[str, _ClipScores]],
    task: SuperResolution,
    *,
    teacher: bool,
) -> dict[str, Any]:
    own = [scores[model] for scores in found]
    agreement = [c.agreement for c in own] if teacher and model != TEACHER else []
    names = [clip.name for clip in clips]
    return {
        "psnr": _mean([c.psnr for c in own]),
        "ssim": _mean([c.ssim for c in own]),
        "agreement_psnr": _mean(agreement),
        "warped_difference": _mean([c.warped for c in own]),
        "warped_difference_of_truth": _mean([scores[TRUTH].warped for scores in found]),
        "by_clip": {n: {"psnr": _mean([c.psnr]), "ssim": _mean([c.ssim])} for n, c in zip(names, own, strict=True)},
        "num_scored": sum(len(c.psnr) for c in own),
        "num_frames": sum(len(clip) for clip in clips),
        "protocol": _protocol(task, clips, sum(len(c.psnr) for c in own))
        + _left_out("to the truth", [c.psnr for c in own])
        + _left_out("to the teacher", agreement),
    }


def _mean(clips: list[list[float]]) -> float | None:
    """The mean over frames of each clip, then over clips, less what is infinite; None where nothing is left."""
    finite = [[value for value in values if not np.isinf(value)] for values in clips]
    means: NDArray[np.float64] = np.array([np.mean(values) for values in finite if values])
    return float(means.mean()) if len(means) and np.isfinite(means).all() else None


def _left_out(what: str, clips: list[list[float]]) -> str:
    """How many PSNRs are infinite, as a sentence; nothing where none is."""
    infinite = sum(int(np.isinf(values).sum()) for values in clips)
    return f" Left out of the mean PSNR {what}: {infinite} frames that equal it." if infinite else ""


def _protocol(task: SuperResolution, clips: Sequence[HighResolutionSequence], num_scored: int) -> str:
    what = "Y of BT.601 (offset 16, not rounded)" if task.channels == "y" else "RGB"
    lows = "low-resolution frames as stored" if any(clip.low is not None for clip in clips) else str(task.degradation)
    frames = "centre frames" if any(clip.centre_only for clip in clips) else "frames"
    return (
        f"{lows}; frames cropped to a multiple of {task.scale}, a video's end frames repeated beyond its "
        f"ends. PSNR and SSIM (11×11 Gaussian, σ 1.5, valid region) of {what}, uint8 frames, no border cropped, mean "
        f"over the {frames} of a clip, then over {len(clips)} clips, {num_scored} frames. PSNR to the teacher: "
        "likewise. Warped difference: mean absolute difference, in levels, of consecutive output frames along the true "
        f"frames' flow ({FLOW_SOURCE}), nearest, occluded left out; a blurred video has a small one too."
    )
