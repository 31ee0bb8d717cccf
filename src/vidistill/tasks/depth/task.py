"""Monocular depth: the distance of what every pixel shows, in metres along the camera's axis."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidistill.config import Positive, Share, Values
from vidistill.data.clip import FrameSequence, Image, LabelForm, LabelMap, TrainingSamples, VideoDataset
from vidistill.data.dense_clips import DenseClips, DenseClipSettings
from vidistill.errors import UserError
from vidistill.models.outputs import NetworkOutputs, logits_of
from vidistill.ops.clip_view import View
from vidistill.report.page import RunFolder, Section
from vidistill.tasks.contract import Naming, Task
from vidistill.tasks.depth.maps import LARGEST, SCALE, DepthMapFolder, depth_maps
from vidistill.tasks.depth.score import METRICS, DepthScores, DepthTruth
from vidistill.tasks.depth.show import DepthLook, DepthPictures, read_strip
from vidistill.tasks.depth.synthetic import synthetic_depth

METRES = LabelForm(np.float32, 0.0, is_distance=True)
NEAREST = 1e-3  # metres, the least that is predicted, as in the field's evaluations
EPSILON = 1e-3  # of the loss: its gradient is smooth where the gap is below a thousandth


@dataclass(frozen=True, kw_only=True)
class Depth(Task):
    """The scale-invariant logarithmic loss against labels and against a teacher; metres as prediction.

    A network gives log depth as one channel, (B, 1, h, w) or (B, h, w), as in Eigen, Puhrsch & Fergus, "Depth Map
    Prediction from a Single Image using a Multi-Scale Deep Network", NeurIPS 2014 (arXiv 1406.2283): depth is exp of
    it, so it is positive whatever a network or a student's correction gives. Metres in `predicted_depth`, as
    Transformers' networks of metric depth return them, are taken as they are.

    Args:
        max_depth: Metres. Labels beyond are neither learned nor scored and predictions end there, as the field has it:
            80 for KITTI, 10 for NYU Depth v2. The colours of pictures end there too.
        scale_invariance: λ of the loss, 0…1: how much of an error of the whole frame's scale is forgiven. 0.85 as
            Lee et al., "From Big to Small", 2019 (arXiv 1907.10326) and most since; Eigen et al. have 0.5.
    """

    name: ClassVar = "depth"
    metrics: ClassVar = METRICS
    clip_settings: ClassVar = DenseClipSettings
    image_files: ClassVar = "depth maps"
    datasets: ClassVar = {"depth_maps": depth_maps, "synthetic_depth": synthetic_depth}

    max_depth: Positive = 80.0
    scale_invariance: Share = 0.85

    def __post_init__(self) -> None:
        super().__post_init__()
        if not NEAREST < self.max_depth <= LARGEST / SCALE:
            raise ValueError(
                f"max_depth must be above {NEAREST:g} m and at most {LARGEST / SCALE:.0f} m, as 16-bit PNGs hold, "
                f"got {self.max_depth:g}"
            )

    @property
    def network_options(self) -> Values:
        return {"num_classes": 1}

    def samples(
        self, settings: DenseClipSettings, datasets: Sequence[VideoDataset], *, use_labels: bool
    ) -> TrainingSamples:
        for dataset in datasets if use_labels else ():
            _check_labels(dataset.sequences)
        return DenseClips(datasets, settings, form=METRES, use_labels=use_labels)

    def supervise(
        self, outputs: NetworkOutputs, labels: Tensor, teacher_outputs: NetworkOutputs | None = None
    ) -> dict[str, Tensor]:
        """`task`: `scale_invariant_gap` of each frame's labelled pixels, mean over frames (0 for a frame without any).

        labels: (B, H, W) metres, 0 where unknown.
        """
        is_known = (labels > 0) & (labels <= self.max_depth)
        ours = resize_depth(log_depth_of(outputs), (labels.shape[-2], labels.shape[-1]))[:, 0]
        theirs = labels.clamp(min=NEAREST).log()
        return {"task": scale_invariant_gap(ours, theirs, is_known, self.scale_invariance).mean()}

    def compare(self, student_outputs: NetworkOutputs, teacher_outputs: NetworkOutputs) -> dict[str, Tensor]:
        """`teacher`: `scale_invariant_gap` to the teacher's depth at every pixel; 0 for equal outputs."""
        theirs = log_depth_of(teacher_outputs).detach()
        ours = resize_depth(log_depth_of(student_outputs), (theirs.shape[-2], theirs.shape[-1]))
        is_known = torch.ones_like(theirs[:, 0], dtype=torch.bool)
        return {"teacher": scale_invariant_gap(ours[:, 0], theirs[:, 0], is_known, self.scale_invariance).mean()}

    def decode(self, outputs: NetworkOutputs, *, size: tuple[int, int], seen: tuple[int, int] | None = None) -> Tensor:
        """(B, height, width) float32 metres: exp of the log depth resized bilinearly to `size`."""
        log_depth = resize_depth(log_depth_of(outputs), size)[:, 0]
        return log_depth.clamp(log(NEAREST), log(self.max_depth)).exp()

    def stand_in(self, settings: Any) -> Values:
        """Labelled with classes, the synthetic frames of other tasks say nothing of depth."""
        return {"name": "synthetic_depth"}

    def label_problems(self, sequences: Sequence[FrameSequence]) -> list[str]:
        num_maps = num_known = 0
        for sequence in sequences:
            for index in sequence.labelled():
                depth = sequence.labels(index)
                num_maps += 1
                num_known += 0 if depth is None else int(((depth > 0) & (depth <= self.max_depth)).sum())
        if num_maps and not num_known:
            return [
                f"{sequences[0].name}: no pixel of all {num_maps} depth maps is above 0 and at most task.max_depth "
                f"{self.max_depth:g} metres; look at their scale"
            ]
        return []

    def check_videos(self, sequences: Sequence[FrameSequence], views: Sequence[View | None]) -> None:
        _check_labels(sequences)

    def frames(self, sequence: FrameSequence) -> Iterator[tuple[Image, DepthTruth]]:
        before: Image | None = None
        depth_before: LabelMap | None = None
        for index, image in enumerate(sequence.images()):
            depth = sequence.labels(index)
            yield image, DepthTruth(image, before, depth, depth_before)
            before, depth_before = image, depth

    def scores(self, *, interval: int, view: View | None) -> DepthScores:
        return DepthScores(self.max_depth, interval)

    def look(self, naming: Naming) -> DepthLook:
        return DepthLook(self.max_depth)

    def pictures(self, naming: Naming, *, interval: int, length: int) -> DepthPictures:
        return DepthPictures(self.max_depth, interval=interval, length=length)

    def report_sections(self, run: RunFolder) -> list[Section]:
        return [Section("Frames", run.read("strip.npz", read_strip) or "")]

    def as_labeller(self, score: float) -> Self:
        """The task itself: depth has no score that could be too low."""
        return self

    def label_files(self, out: Path, kept: Mapping[str, int]) -> DepthMapFolder:
        return DepthMapFolder(out)


def log_depth_of(outputs: NetworkOutputs) -> Tensor:
    """(B, 1, h, w) float32 log metres in what a network returns, see `Depth`.

    Errors: UserError where it is not one channel.
    """
    is_mapping = isinstance(outputs, Mapping)
    metres = outputs.get("predicted_depth") if is_mapping else getattr(outputs, "predicted_depth", None)
    values = metres.float().clamp(min=NEAREST).log() if isinstance(metres, Tensor) else logits_of(outputs).float()
    log_depth = values[:, None] if values.ndim == 3 else values
    if log_depth.ndim != 4 or log_depth.shape[1] != 1:
        raise UserError(
            f"a network for depth must give one channel, (B, 1, h, w) or (B, h, w), got {tuple(values.shape)}; build "
            "it with num_classes: 1"
        )
    return log_depth


def resize_depth(log_depth: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (B, 1, h, w) bilinearly resized to (height, width)."""
    if log_depth.shape[-2:] == size:
        return log_depth
    return F.interpolate(log_depth, size=size, mode="bilinear", align_corners=False)


def scale_invariant_gap(ours: Tensor, theirs: Tensor, is_known: Tensor, invariance: float) -> Tensor:
    """(B,) √(D + ε²) − ε with D = mean(g²) − λ · mean(g)² over each frame's known pixels, g = ours − theirs.

    ours, theirs: (B, H, W) log metres; is_known: (B, H, W); invariance: λ. 0 where nothing is known. D is Eigen et
    al.'s (2014), its root Lee et al.'s (2019), without their weight of 10; per frame, so that splitting a batch does
    not change it.
    """
    num_known = is_known.sum(dim=(1, 2)).clamp(min=1)
    gaps = torch.where(is_known, ours - theirs, 0)
    mean = gaps.sum(dim=(1, 2)) / num_known
    spread = torch.where(is_known, gaps - mean[:, None, None], 0).square().sum(dim=(1, 2)) / num_known
    squared = spread + (1 - invariance) * mean.square()  # D, as a sum that rounding never makes negative
    return squared / ((squared + EPSILON**2).sqrt() + EPSILON)  # exactly 0 at 0


def _check_labels(sequences: Sequence[FrameSequence]) -> None:
    """Errors: UserError where the first labelled sequence has class ids."""
    for sequence in sequences:
        if len(sequence.labelled()):
            labels = sequence.labels(sequence.labelled()[0])
            if labels is not None and not np.issubdtype(labels.dtype, np.floating):
                raise UserError(
                    f"{sequence.name}: has class ids as labels, expected metres; give a data set of depth such as "
                    "depth_maps, or leave the labels out with data.labels: none"
                )
            return
