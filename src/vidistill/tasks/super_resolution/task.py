"""Video super-resolution: every frame `scale` times as large, from the frames around it."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from vidistill.data.clip import TrainingSamples, VideoDataset
from vidistill.data.degradation import Degradation, DegradationKind
from vidistill.errors import UserError
from vidistill.models.upscaling import SCALES
from vidistill.ops.normalise import Normalisation
from vidistill.tasks.super_resolution.samples import SuperResolutionClips, SuperResolutionClipSettings

EPSILON = 1e-3


class SuperResolution:
    """Charbonnier distance to the true frame and to a teacher's; frames as prediction.

    Networks see frames in 0…1. scale: 2, 3 or 4. degradation, centred: what made the low-resolution frames, in
    training and in tests, see `Degradation`. channels: what is scored, luma or all three.
    """

    name = "super_resolution"
    clip_settings: ClassVar = SuperResolutionClipSettings
    has_classes: ClassVar = False
    any_size: ClassVar = False
    normalisation: ClassVar = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    default_losses: ClassVar[dict[str, float]] = {}

    def __init__(
        self,
        *,
        scale: int = 4,
        degradation: DegradationKind = "bicubic",
        centred: bool = False,
        channels: Literal["y", "rgb"] = "y",
    ) -> None:
        if scale not in SCALES:
            raise ValueError(f"scale is {scale}; it must be one of {SCALES}")
        self.scale = scale
        self.degradation = Degradation(scale, degradation, centred)
        self.channels = channels

    @property
    def degraded(self) -> str:
        """How low-resolution frames are made, and their scale."""
        return str(self.degradation)

    @property
    def network_options(self) -> dict[str, Any]:
        return {"scale": self.scale}

    def samples(
        self, settings: SuperResolutionClipSettings, datasets: Sequence[VideoDataset], *, use_labels: bool
    ) -> TrainingSamples:
        return SuperResolutionClips(datasets, settings, degradation=self.degradation, use_labels=use_labels)

    def examples(self, clips: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Every window by itself: (B·T, window, 3, h, w) of (B, T, window, 3, h, w), and its frame."""
        return clips.flatten(0, 1), labels.flatten(0, 1)

    def supervise(self, outputs: Any, labels: Tensor, teacher_outputs: Any = None) -> dict[str, Tensor]:
        """`task`: Charbonnier distance, ε 1e-3, mean over all values.

        outputs: (B, 3, H, W) in 0…1. labels: (B, 3, H, W) uint8, or (B, 3, 0, 0) where nothing is known, which is 0.
        Errors: UserError where the network's scale is not the task's.
        """
        if not labels.numel():
            return {"task": outputs.float().sum() * 0.0}
        if outputs.shape != labels.shape:
            raise UserError(
                f"the network makes frames of {tuple(outputs.shape[-2:])} where {tuple(labels.shape[-2:])} are wanted; "
                f"task.scale is {self.scale}, give the network the same"
            )
        return {"task": charbonnier(outputs.float() - labels.float() / 255)}

    def compare(self, student_outputs: Any, teacher_outputs: Any) -> dict[str, Tensor]:
        """`teacher`: Charbonnier distance to the teacher's frames, less ε: 0 for equal outputs."""
        return {"teacher": charbonnier(student_outputs.float() - teacher_outputs.detach().float()) - EPSILON}

    def decode(self, outputs: Any, *, size: tuple[int, int], seen: tuple[int, int] | None = None) -> Tensor:
        """(B, H, W, 3) uint8 RGB frames, clamped and rounded, of the size that the network makes."""
        return (outputs.float() * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def charbonnier(gap: Tensor) -> Tensor:
    """Mean of √(gap² + ε²), the smooth absolute error (Lai et al. 2017)."""
    return (gap.square() + EPSILON**2).sqrt().mean()
