"""Super-resolution's metrics: PSNR and SSIM to the truth, PSNR to the teacher, differences along the motion."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidistill.config import Values
from vidistill.data.clip import FrameSequence, Image
from vidistill.data.sequences.high_resolution import HighResolutionSequence, as_high_resolution
from vidistill.errors import UserError
from vidistill.ops.flow import FLOW_SOURCE, Correspondence, estimate_correspondence
from vidistill.ops.image_quality import SSIM_SIZE, Plane, luma, psnr, ssim
from vidistill.report.table import Metric
from vidistill.tasks.contract import Prediction, Scores

METRICS = (
    Metric(
        "psnr", "PSNR, dB", decimals=2, name="PSNR", unit="dB",
        sentence="the student's PSNR is {student:.2f} dB, the teacher's {teacher:.2f}",
    ),
    Metric("ssim", "SSIM"),
    Metric("agreement_psnr", "PSNR to the teacher, dB", decimals=2),
    Metric("warped_difference", "temporal consistency: warped difference, levels", decimals=3, better="lower"),
)  # fmt: skip


@dataclass(frozen=True)
class HighFrame:
    """A high-resolution frame (H, W, 3) and the one before it; None on the first. only_luma: what is scored of it."""

    high: Image
    before: Image | None
    only_luma: bool

    def plane(self, image: Image) -> Plane:
        """What is scored of an image: its luma, or all of it."""
        return luma(image) if self.only_luma else image

    @cached_property
    def truth(self) -> Plane:
        return self.plane(self.high)

    @cached_property
    def motion(self) -> Correspondence:
        """Where each pixel of the frame before is now."""
        assert self.before is not None
        return estimate_correspondence(self.before, self.high)

    @cached_property
    def warped_truth(self) -> float:
        """`warped_difference` of the truth itself."""
        assert self.before is not None
        return warped_difference(self.plane(self.before), self.truth, self.motion)


@dataclass
class _ClipScores:
    """What is counted of one video, a value for each frame or pair of frames."""

    name: str
    psnr: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    agreement: list[float] = field(default_factory=list)
    warped: list[float] = field(default_factory=list)
    warped_truth: list[float] = field(default_factory=list)


class SuperResolutionScores(Scores[HighFrame | None]):
    """Counts one network over videos. scale, channels, degradation: the task's, for the protocol."""

    def __init__(self, *, scale: int, channels: str, degradation: str) -> None:
        self.scale, self.channels, self.degradation = scale, channels, degradation
        self._sequences: list[HighResolutionSequence] = []
        self._clips: list[_ClipScores] = []

    def begin(self, sequence: FrameSequence) -> None:
        self._sequences.append(as_high_resolution(sequence, self.scale))
        self._clips.append(_ClipScores(sequence.name))

    def add(
        self,
        truth: HighFrame | None,
        prediction: Prediction,
        *,
        distance: int,
        reference: Prediction | None = None,
        before: Prediction | None = None,
    ) -> None:
        """prediction, reference, before: frames (H, W, 3) uint8. truth: None for a frame that is not scored."""
        if truth is None:
            return
        clip, plane = self._clips[-1], truth.plane(prediction)
        clip.psnr.append(psnr(plane, truth.truth))
        clip.ssim.append(ssim(plane, truth.truth))
        if reference is not None:
            clip.agreement.append(psnr(plane, truth.plane(reference)))
        if truth.before is not None and before is not None and truth.motion.visible.any():
            clip.warped.append(warped_difference(truth.plane(before), plane, truth.motion))
            clip.warped_truth.append(truth.warped_truth)

    def add_clips(self, truth: HighFrame | None, outputs: Sequence[Tensor], reference: Sequence[Tensor] | None) -> None:
        """The centre frame alone. outputs, reference: one (1, 3, H, W) each."""
        theirs = None if reference is None else as_frames(reference[0])[0].cpu().numpy()
        self.add(truth, as_frames(outputs[0])[0].cpu().numpy(), distance=0, reference=theirs)

    def metrics(self) -> Values:
        clips = self._clips
        agreement = [c.agreement for c in clips]
        if all(np.isinf(values).all() for values in agreement):  # the teacher itself
            agreement = []
        num_scored = sum(len(c.psnr) for c in clips)
        return {
            "psnr": _mean([c.psnr for c in clips]),
            "ssim": _mean([c.ssim for c in clips]),
            "agreement_psnr": _mean(agreement),
            "warped_difference": _mean([c.warped for c in clips]),
            "warped_difference_of_truth": _mean([c.warped_truth for c in clips]),
            "by_clip": {c.name: {"psnr": _mean([c.psnr]), "ssim": _mean([c.ssim])} for c in clips},
            "num_scored": num_scored,
            "num_frames": sum(len(sequence) for sequence in self._sequences),
            "protocol": self._protocol(num_scored)
            + _left_out("to the truth", [c.psnr for c in clips])
            + _left_out("to the teacher", agreement),
        }

    def _protocol(self, num_scored: int) -> str:
        what = "Y of BT.601 (offset 16, not rounded)" if self.channels == "y" else "RGB"
        is_stored = any(sequence.low is not None for sequence in self._sequences)
        frames = "centre frames" if any(sequence.centre_only for sequence in self._sequences) else "frames"
        return (
            f"{'low-resolution frames as stored' if is_stored else self.degradation}; frames cropped to a multiple of "
            f"{self.scale}, a video's end frames repeated beyond its ends. PSNR and SSIM (11×11 Gaussian, σ 1.5, valid "
            f"region) of {what}, uint8 frames, no border cropped, mean over the {frames} of a clip, then over "
            f"{len(self._clips)} clips, {num_scored} frames. PSNR to the teacher: likewise. Warped difference: mean "
            "absolute difference, in levels, of consecutive output frames along the true frames' flow "
            f"({FLOW_SOURCE}), nearest, occluded left out; a blurred video has a small one too."
        )


def as_frames(outputs: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 RGB of frames (B, 3, H, W) in 0…1, clamped and rounded."""
    return (outputs.float() * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def check_size(name: str, image: Image) -> None:
    """Checks that a frame is large enough for SSIM.

    Raises:
        UserError: it is not.
    """
    if min(image.shape[:2]) < SSIM_SIZE:
        raise UserError(
            f"{name}: frames are {image.shape[1]}x{image.shape[0]} pixels, expected at least {SSIM_SIZE}x{SSIM_SIZE} "
            "for SSIM; leave the clip out"
        )


def warped_difference(first: Plane, second: Plane, motion: Correspondence) -> float:
    """Mean absolute difference, in levels, of a frame and the next one carried back, where both show a thing."""
    carried = second[motion.rows, motion.columns].astype(np.float64)
    return float(np.abs(first.astype(np.float64) - carried)[motion.visible].mean())


def _mean(clips: Sequence[Sequence[float]]) -> float | None:
    """The mean over frames of each clip, then over clips, less what is infinite; None where nothing is left."""
    finite = [[value for value in values if not np.isinf(value)] for values in clips]
    means: NDArray[np.float64] = np.array([np.mean(values) for values in finite if values])
    return float(means.mean()) if len(means) and np.isfinite(means).all() else None


def _left_out(what: str, clips: Sequence[Sequence[float]]) -> str:
    """How many PSNRs are infinite, as a sentence; "" for none."""
    infinite = sum(int(np.isinf(values).sum()) for values in clips)
    return f" Left out of the mean PSNR {what}: {infinite} frames that equal it." if infinite else ""
