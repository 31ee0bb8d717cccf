"""Semantic segmentation: a class for every pixel."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from vidistill.data.clip import IGNORED, TrainingSamples, VideoDataset
from vidistill.data.dense_clips import FrameClipSettings
from vidistill.models.outputs import logits_of
from vidistill.ops.normalise import Normalisation


def resize(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits bilinearly resized to (height, width)."""
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


class Segmentation:
    """Cross-entropy against labels, Kullback-Leibler divergence against a teacher, the arg-max as prediction.

    class_weights: one factor per class for the cross-entropy, to help the rare ones; None for equal weights.
    confidence: where a frame has no label at all, the teacher's class takes its place in every pixel whose probability
    reaches this (pseudo-labels, 0…1); None for none of that.
    """

    name = "segmentation"
    clip_settings: ClassVar = FrameClipSettings
    has_classes: ClassVar = True
    any_size: ClassVar = True
    degraded: ClassVar = ""
    normalisation: ClassVar = Normalisation()
    default_losses: ClassVar[dict[str, float]] = {}

    def __init__(
        self, *, num_classes: int, class_weights: Sequence[float] | None = None, confidence: float | None = None
    ) -> None:
        if num_classes < 1:
            raise ValueError("segmentation needs at least one class")
        if class_weights is not None and len(class_weights) != num_classes:
            raise ValueError(f"{len(class_weights)} class_weights for {num_classes} classes")
        if confidence is not None and not 0 <= confidence <= 1:
            raise ValueError(f"confidence is a probability, not {confidence}")
        self.num_classes = num_classes
        self.confidence = confidence
        self.class_weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)

    @property
    def network_options(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes}

    def samples(
        self, settings: FrameClipSettings, datasets: Sequence[VideoDataset], *, use_labels: bool
    ) -> TrainingSamples:
        return settings.samples(datasets, use_labels=use_labels)

    def examples(self, clips: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Every frame by itself."""
        return clips.flatten(0, 1), labels.flatten(0, 1)

    def supervise(self, outputs: Any, labels: Tensor, teacher_outputs: Any = None) -> dict[str, Tensor]:
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
        logits = resize(logits_of(outputs)[has_labels], (labels.shape[-2], labels.shape[-1]))
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        per_pixel = F.cross_entropy(logits.float(), labels, weight=weights, ignore_index=IGNORED, reduction="none")
        per_frame = per_pixel.sum(dim=(1, 2)) / is_labelled.sum(dim=(1, 2))
        return {"task": per_frame.sum() / num_frames}

    @staticmethod
    def with_pseudo_labels(labels: Tensor, teacher: Any, confidence: float) -> Tensor:
        """The labels, those of frames without any taken from the teacher where it is confident."""
        logits = resize(logits_of(teacher).detach().float(), (labels.shape[-2], labels.shape[-1]))
        sure, classes = logits.softmax(dim=1).max(dim=1)
        pseudo = torch.where(sure >= confidence, classes, IGNORED)
        is_unlabelled = (labels == IGNORED).all(dim=2).all(dim=1)
        return torch.where(is_unlabelled[:, None, None], pseudo, labels)

    def compare(self, student_outputs: Any, teacher_outputs: Any) -> dict[str, Tensor]:
        """`teacher`: KL(teacher ‖ student) of the class distributions, mean over pixels; 0 for equal outputs."""
        teacher = logits_of(teacher_outputs).detach().float()
        student = resize(logits_of(student_outputs).float(), (teacher.shape[-2], teacher.shape[-1]))
        target = teacher.log_softmax(dim=1)
        per_pixel = F.kl_div(student.log_softmax(dim=1), target, reduction="none", log_target=True).sum(dim=1)
        return {"teacher": per_pixel.mean()}

    def decode(self, outputs: Any, *, size: tuple[int, int], seen: tuple[int, int] | None = None) -> Tensor:
        """(B, height, width) uint8 class ids: arg-max of the logits resized bilinearly to `size`."""
        # on CPU, torch's max over channels is many times faster than its argmax
        return resize(logits_of(outputs), size).max(dim=1).indices.to(torch.uint8)
