"""Semantic segmentation: a class for every pixel."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vidistill.config import Share, Weight, whole
from vidistill.data.clip import IGNORED, FrameSequence, Image, TrainingSamples, VideoDataset
from vidistill.data.dense_clips import DenseClips, DenseClipSettings
from vidistill.errors import UserError
from vidistill.models.outputs import NetworkOutputs, logits_of
from vidistill.ops.clip_view import View
from vidistill.ops.upsampled_argmax import upsampled_argmax
from vidistill.report.page import RunFolder, Section
from vidistill.tasks.contract import ClassTask, Naming
from vidistill.tasks.segmentation.score import FULL, METRICS, SegmentationScores, SegmentationTruth
from vidistill.tasks.segmentation.show import (
    BACKGROUND,
    BINARY_PALETTE,
    FOREGROUND,
    LabelMapFolder,
    Paint,
    SegmentationLook,
    SegmentationPictures,
    read_strip,
)

ENDS_IN_A_SIGMOID = (
    "a network for segmentation with num_classes: 1 must return logits, got the outputs of a sigmoid; leave the "
    "network's last sigmoid out"
)


def resize_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (B, K, h, w) bilinearly resized to (height, width)."""
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def class_logits(channels: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, K, height, width) float32 of channels (B, C, h, w): as they are, or (0, z) of one channel z."""
    logits = resize_logits(channels, size).float()
    return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits


@dataclass(frozen=True, kw_only=True)
class Segmentation(ClassTask):
    """Cross-entropy against labels, Kullback-Leibler divergence against a teacher, the most probable class.

    With one class a network tells a foreground from its background: it returns one logit z a pixel, whose sigmoid is
    the foreground's probability. That is a softmax over the two logits (0, z), so losses, pseudo-labels and predictions
    are those of two classes: binary cross-entropy, the divergence of two Bernoulli distributions, foreground where
    z > 0. Labels and predictions then have the ids 0 and 1.

    Args:
        num_classes, confidence: see `ClassTask`; pseudo-labels are of frames without any labelled pixel. 1 for one
            logit a pixel, (B, 1, h, w) or (B, h, w); two logits are two classes, 2.
        class_weights: one factor per class for the cross-entropy, to help the rare ones, and so many classes are there
            where `num_classes` is 0; None for equal weights. With one class: background, foreground.
        unsure_below: a pixel whose class is less probable than this, 0…1, is predicted as 255, unknown.
        soft: with one class: the foreground's probability as prediction, in 255ths, as a matte has it; scored as a
            matte too, and by the ids that follow from it.
    """

    name: ClassVar = "segmentation"
    metrics: ClassVar = METRICS
    clip_settings: ClassVar = DenseClipSettings
    image_files: ClassVar = "masks"

    num_classes: Annotated[int, *whole(0, IGNORED)] = 0
    class_weights: tuple[Weight, ...] | None = None
    unsure_below: Share = 0.0
    soft: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.class_weights is not None:  # a list, as JSON and YAML give it, equals no tuple
            object.__setattr__(self, "class_weights", tuple(self.class_weights))
            object.__setattr__(self, "num_classes", self.num_classes or len(self.class_weights))
        if self.class_weights is not None and len(self.class_weights) != self.num_ids:
            raise ValueError(f"{len(self.class_weights)} class_weights for {self.num_ids} classes; give one each")
        if self.soft and self.num_classes != 1:
            raise ValueError(f"soft predictions are of one foreground; num_classes must be 1, got {self.num_classes}")

    @property
    def is_binary(self) -> bool:
        """Whether one logit a pixel tells foreground from background."""
        return self.num_classes == 1

    @property
    def num_ids(self) -> int:
        return 2 if self.is_binary else self.num_classes

    def naming(self, class_names: tuple[str, ...], palette: tuple[tuple[int, int, int], ...]) -> Naming:
        """One class has a background as well; a single name or colour is the foreground's."""
        if not self.is_binary:
            return Naming(class_names, palette)
        names = (BACKGROUND, *class_names) if len(class_names) == 1 else class_names or (BACKGROUND, FOREGROUND)
        return Naming(names, (BINARY_PALETTE[0], *palette) if len(palette) == 1 else palette or BINARY_PALETTE)

    def samples(
        self, settings: DenseClipSettings, datasets: Sequence[VideoDataset], *, use_labels: bool
    ) -> TrainingSamples:
        return DenseClips(datasets, settings, use_labels=use_labels)

    def label_problems(self, sequences: Sequence[FrameSequence]) -> list[str]:
        problems, num_maps, num_known = [], 0, 0
        for sequence in sequences:
            highest = -1
            for index in sequence.labelled():
                labels = sequence.labels(index)
                known = [] if labels is None else [int(value) for value in np.unique(labels) if value != IGNORED]
                num_maps, num_known = num_maps + 1, num_known + len(known)
                highest = max(highest, *known, 0)
            if highest >= self.num_ids:
                problems.append(
                    f"{sequence.name}: its label maps have the value {highest}, expected classes from 0 to "
                    f"{self.num_ids - 1}, or {IGNORED} for none; correct them, or task.num_classes"
                )
        if num_maps and not num_known:
            problems.append(
                f"{sequences[0].name}: every pixel of all {num_maps} label maps is {IGNORED}, ignored; look at how the "
                "maps were written"
            )
        return problems

    def supervise(
        self, outputs: NetworkOutputs, labels: Tensor, teacher_outputs: NetworkOutputs | None = None
    ) -> dict[str, Tensor]:
        """`task`: cross-entropy, mean over a frame's labelled pixels, then over frames (0 for a frame without any).

        labels: (B, H, W) int64, 255 ignored. The mean is per frame first, so that splitting a batch among processes
        does not change it. With class weights each pixel's term is multiplied by its class's, nothing renormalised.
        """
        if self.confidence is not None and teacher_outputs is not None:
            labels = self.with_pseudo_labels(labels, teacher_outputs, self.confidence)
        is_labelled = labels != IGNORED
        has_labels = is_labelled.flatten(1).any(dim=1)
        if not has_labels.any():
            return {"task": logits_of(outputs).float().sum() * 0.0}
        num_frames, labels, is_labelled = len(labels), labels[has_labels], is_labelled[has_labels]
        logits = class_logits(self._channels(outputs)[has_labels], (labels.shape[-2], labels.shape[-1]))
        weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        per_pixel = F.cross_entropy(logits, labels, weight=weights, ignore_index=IGNORED, reduction="none")
        per_frame = per_pixel.sum(dim=(1, 2)) / is_labelled.sum(dim=(1, 2))
        return {"task": per_frame.sum() / num_frames}

    def with_pseudo_labels(self, labels: Tensor, teacher: NetworkOutputs, confidence: float) -> Tensor:
        """The labels (B, H, W), those of frames without any taken from the teacher where it is confident."""
        logits = class_logits(self._channels(teacher).detach(), (labels.shape[-2], labels.shape[-1]))
        pseudo = _confident_classes(logits, confidence)
        is_unlabelled = (labels == IGNORED).all(dim=2).all(dim=1)
        return torch.where(is_unlabelled[:, None, None], pseudo, labels)

    def compare(self, student_outputs: NetworkOutputs, teacher_outputs: NetworkOutputs) -> dict[str, Tensor]:
        """`teacher`: KL(teacher ‖ student) of the class distributions, mean over pixels; 0 for equal outputs."""
        teacher = self._channels(teacher_outputs).detach()
        if teacher.shape[1] == 1 and teacher.min() >= 0 and teacher.max() <= 1 and teacher.max() > teacher.min():
            raise UserError(ENDS_IN_A_SIGMOID)  # no teacher is unsure of a foreground everywhere
        size = (teacher.shape[-2], teacher.shape[-1])
        student = class_logits(self._channels(student_outputs), size)
        target = class_logits(teacher, size).log_softmax(dim=1)
        per_pixel = F.kl_div(student.log_softmax(dim=1), target, reduction="none", log_target=True).sum(dim=1)
        return {"teacher": per_pixel.mean()}

    def decode(self, outputs: NetworkOutputs, *, size: tuple[int, int], seen: tuple[int, int] | None = None) -> Tensor:
        """(B, height, width) uint8 class ids: the largest of the logits resized bilinearly to `size`.

        Of one logit 1 where it is above 0; with `soft` its sigmoid times 255, rounded.
        """
        channels = self._channels(outputs)
        if self.soft:
            return (resize_logits(channels, size)[:, 0].float().sigmoid() * FULL).round().to(torch.uint8)
        if self.unsure_below > 0:
            return _confident_classes(class_logits(channels, size), self.unsure_below).to(torch.uint8)
        if channels.shape[1] == 1:
            return (resize_logits(channels, size)[:, 0] > 0).to(torch.uint8)
        return upsampled_argmax(channels, size)

    def _channels(self, outputs: NetworkOutputs) -> Tensor:
        """(B, C, h, w) as the network returns them.

        Errors: UserError where they are not one channel for each of `num_classes`, or one that is a sigmoid already.
        """
        logits = logits_of(outputs)
        channels = logits[:, None] if logits.ndim == 3 else logits
        if channels.ndim != 4 or self.num_classes not in (0, channels.shape[1]):
            count = f"{self.num_classes or 'K'}"
            raise UserError(
                f"a network for segmentation with num_classes: {count} must return logits (B, {count}, h, w), got "
                f"{tuple(logits.shape)}; give num_classes as many as its channels (1 for a sigmoid, which tells "
                "foreground from background), or another network"
            )
        if channels.shape[1] == 1 and type(logits.grad_fn).__name__ == "SigmoidBackward0":
            raise UserError(ENDS_IN_A_SIGMOID)
        return channels

    def frames(self, sequence: FrameSequence) -> Iterator[tuple[Image, SegmentationTruth]]:
        before: Image | None = None
        for index, image in enumerate(sequence.images()):
            yield image, SegmentationTruth(image, before, sequence.labels(index))
            before = image

    def scores(self, *, interval: int, view: View | None) -> SegmentationScores:
        return SegmentationScores(self.known_ids(), interval, is_binary=self.is_binary, is_soft=self.soft)

    def look(self, naming: Naming) -> SegmentationLook:
        return SegmentationLook(self._paint(naming))

    def pictures(self, naming: Naming, *, interval: int, length: int) -> SegmentationPictures:
        return SegmentationPictures(self._paint(naming), self.num_ids, interval=interval, length=length)

    def report_sections(self, run: RunFolder) -> list[Section]:
        return [Section("Frames", run.read("strip.npz", read_strip) or "")]

    def _paint(self, naming: Naming) -> Paint:
        return Paint(naming, is_binary=self.is_binary, is_soft=self.soft)

    def as_labeller(self, score: float) -> "Segmentation":
        return replace(self, unsure_below=score, soft=False)

    def label_files(self, out: Path, kept: Mapping[str, int]) -> LabelMapFolder:
        return LabelMapFolder(out, kept, self.num_ids)


def _confident_classes(logits: Tensor, least: float) -> Tensor:
    """(B, H, W) int64 of logits (B, K, H, W): the class, 255 where its probability is below `least`."""
    probability, classes = logits.softmax(dim=1).max(dim=1)
    return torch.where(probability >= least, classes, IGNORED)
