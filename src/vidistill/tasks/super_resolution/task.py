"""Video super-resolution: every frame `scale` times as large, from the frames around it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from vidistill.config import Count, Values
from vidistill.data.clip import FrameSequence, Image, TrainingSamples, VideoDataset
from vidistill.data.degradation import Degradation, DegradationKind
from vidistill.data.sequences.high_resolution import MOST_LOOKED_AT, as_high_resolution, check_length
from vidistill.errors import UserError
from vidistill.models.upscaling import SCALES, Bicubic
from vidistill.ops.clip_view import View, WindowView
from vidistill.ops.normalise import Normalisation
from vidistill.report.page import RunFolder, Section
from vidistill.tasks.contract import Naming, Task, WholeClips
from vidistill.tasks.super_resolution.samples import SuperResolutionClips, SuperResolutionClipSettings
from vidistill.tasks.super_resolution.score import METRICS, HighFrame, SuperResolutionScores, as_frames, check_size
from vidistill.tasks.super_resolution.show import BICUBIC, SuperResolutionLook, SuperResolutionPictures, read_crops

EPSILON = 1e-3
SHOWN_FRAMES = 60


@dataclass(frozen=True, kw_only=True)
class SuperResolution(Task):
    """Charbonnier distance to the true frame and to a teacher's; frames as prediction.

    Networks see frames in 0…1.

    Args:
        scale: 2, 3 or 4.
        degradation, centred: what makes the low-resolution frames, in training and in tests, see `Degradation`.
        channels: what is scored, luma or all three.
    """

    name: ClassVar = "super_resolution"
    metrics: ClassVar = METRICS
    clip_settings: ClassVar = SuperResolutionClipSettings
    normalisation: ClassVar = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    any_size: ClassVar = False
    every_phase: ClassVar = False
    image_files: ClassVar = "frames"
    restores: ClassVar = True

    scale: Count = 4
    degradation: DegradationKind = "bicubic"
    centred: bool = False
    channels: Literal["y", "rgb"] = "y"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale not in SCALES:
            raise ValueError(f"scale must be one of {SCALES}, got {self.scale}")

    @property
    def degrade(self) -> Degradation:
        """Makes low-resolution frames."""
        return Degradation(self.scale, self.degradation, self.centred)

    @property
    def degraded(self) -> str:
        """How low-resolution frames are made, and their scale."""
        return str(self.degrade)

    @property
    def network_options(self) -> Values:
        return {"scale": self.scale}

    def samples(
        self, settings: SuperResolutionClipSettings, datasets: Sequence[VideoDataset], *, use_labels: bool
    ) -> TrainingSamples:
        return SuperResolutionClips(datasets, settings, degradation=self.degrade, use_labels=use_labels)

    def stand_in(self, settings: SuperResolutionClipSettings) -> Values:
        """Synthetic frames, so large that a patch fits."""
        side = max(64, settings.patch * self.scale)
        return {"name": "synthetic", "size": [side, side]}

    def supervise(self, outputs: Tensor, labels: Tensor, teacher_outputs: Tensor | None = None) -> dict[str, Tensor]:
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

    def compare(self, student_outputs: Tensor, teacher_outputs: Tensor) -> dict[str, Tensor]:
        """`teacher`: Charbonnier distance to the teacher's frames, less ε: 0 for equal outputs."""
        return {"teacher": charbonnier(student_outputs.float() - teacher_outputs.detach().float()) - EPSILON}

    def decode(self, outputs: Tensor, *, size: tuple[int, int], seen: tuple[int, int] | None = None) -> Tensor:
        """(B, H, W, 3) uint8 RGB frames, clamped and rounded, of the size that the network makes."""
        return as_frames(outputs)

    def has_labels(self, sequence: FrameSequence) -> bool:
        """Always: the frames themselves are what is restored."""
        return True

    def check_videos(self, sequences: Sequence[FrameSequence], views: Sequence[View | None]) -> None:
        """As far as the first frames tell; of a large data set, the first videos' frames are read and all lengths."""
        window = max((view.window for view in views if isinstance(view, WindowView)), default=1)
        for number, sequence in enumerate(sequences):
            check_length(sequence, window)
            truth = as_high_resolution(sequence, self.scale)
            truth.check_numbers()
            if number < MOST_LOOKED_AT:
                check_size(truth.name, truth.pair(0)[1])

    def frames(self, sequence: FrameSequence) -> Iterator[tuple[Image, HighFrame]]:
        """Low-resolution frames, stored or made, each with the high-resolution frame it shows."""
        truth = as_high_resolution(sequence, self.scale)
        before: Image | None = None
        for low, high in truth.pairs(self.degrade):
            check_size(truth.name, high)
            yield low, HighFrame(high, before, self.channels == "y")
            before = high

    def clips(self, sequence: FrameSequence, view: View | None) -> WholeClips[HighFrame] | None:
        """Of a video whose centre frame alone is scored: the frames around it, as many on both sides."""
        truth = as_high_resolution(sequence, self.scale)
        if not truth.centre_only:
            return None
        check_length(truth, view.window if isinstance(view, WindowView) else 1)
        lows, highs = zip(*truth.pairs(self.degrade), strict=True)
        middle = len(highs) // 2
        check_size(truth.name, highs[middle])
        lows = lows[1 - len(lows) % 2 :]  # an odd number, around the same frame
        return WholeClips(np.stack(lows)[None], HighFrame(highs[middle], None, self.channels == "y"))

    def scores(self, *, interval: int, view: View | None) -> SuperResolutionScores:
        return SuperResolutionScores(scale=self.scale, channels=self.channels, degradation=self.degraded)

    def baselines(self) -> dict[str, nn.Module]:
        return {BICUBIC: Bicubic(scale=self.scale)}

    def look(self, naming: Naming) -> SuperResolutionLook:
        return SuperResolutionLook()

    def shown(self, sequences: Sequence[FrameSequence]) -> tuple[int, Iterator[tuple[Image, HighFrame]]]:
        length, frames = super().shown(sequences)
        return min(length, SHOWN_FRAMES), islice(frames, SHOWN_FRAMES)

    def pictures(self, naming: Naming, *, interval: int, length: int) -> SuperResolutionPictures:
        return SuperResolutionPictures(length=length)

    def report_sections(self, run: RunFolder) -> list[Section]:
        return [Section("Crops", run.read("crops.npz", read_crops) or "")]


def charbonnier(gap: Tensor) -> Tensor:
    """Mean of √(gap² + ε²), the smooth absolute error (Lai et al. 2017)."""
    return (gap.square() + EPSILON**2).sqrt().mean()
