"""Action recognition: one class, or several, for a whole clip."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vidistill.data.clip import TrainingSamples, VideoDataset
from vidistill.models.outputs import logits_of
from vidistill.ops.normalise import Normalisation
from vidistill.tasks.recognition.samples import ClassifiedClipSettings


class Recognition:
    """Cross-entropy against labels, Kullback-Leibler divergence against a teacher, class probabilities as prediction.

    multi_label: a clip may have several classes, and mean average precision is what counts. temperature: of the
    divergence, Hinton et al. 2015. num_clips, num_crops (1 or 3), average: the views that a video is scored on, and
    whether their probabilities or their logits ("score") are averaged. confidence: the teacher's class labels clips
    without any where its probability reaches this (pseudo-labels); None for none of that.
    """

    name = "recognition"
    clip_settings: ClassVar = ClassifiedClipSettings
    has_classes: ClassVar = True
    any_size: ClassVar = False
    degraded: ClassVar = ""
    normalisation: ClassVar = Normalisation()
    default_losses: ClassVar[dict[str, float]] = {}

    def __init__(
        self,
        *,
        num_classes: int,
        multi_label: bool = False,
        temperature: float = 1.0,
        num_clips: int = 1,
        num_crops: Literal[1, 3] = 1,
        average: Literal["prob", "score"] = "prob",
        confidence: float | None = None,
    ) -> None:
        if num_classes < 1:
            raise ValueError("recognition needs at least one class")
        if temperature <= 0:
            raise ValueError(f"temperature is above 0, not {temperature}")
        if num_clips < 1:
            raise ValueError(f"num_clips is at least 1, not {num_clips}")
        if confidence is not None and not 0 <= confidence <= 1:
            raise ValueError(f"confidence is a probability, not {confidence}")
        self.num_classes = num_classes
        self.multi_label = multi_label
        self.temperature = temperature
        self.num_clips = num_clips
        self.num_crops = num_crops
        self.average = average
        self.confidence = confidence

    @property
    def network_options(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes}

    def samples(
        self, settings: ClassifiedClipSettings, datasets: Sequence[VideoDataset], *, use_labels: bool
    ) -> TrainingSamples:
        return settings.samples(datasets, use_labels=use_labels)

    def examples(self, clips: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Every clip whole."""
        return clips, labels

    def supervise(self, outputs: Any, labels: Tensor, teacher_outputs: Any = None) -> dict[str, Tensor]:
        """`task`: cross-entropy, mean over clips; a clip of several classes has as target the same share of each.

        labels: (B, K), 1 for each class of the clip, all 0 where it is unlabelled, which counts 0. Data without labels
        may know of another number of classes, or of none.
        """
        logits = logits_of(outputs).float()
        labels = F.pad(labels.to(logits.dtype), (0, logits.shape[1] - labels.shape[1]))
        if self.confidence is not None and teacher_outputs is not None:
            labels = self._with_pseudo_labels(labels, logits_of(teacher_outputs), self.confidence)
        target = labels / labels.sum(dim=1, keepdim=True).clamp(min=1)
        return {"task": -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()}

    @staticmethod
    def _with_pseudo_labels(labels: Tensor, teacher: Tensor, confidence: float) -> Tensor:
        sure, classes = teacher.detach().float().softmax(dim=1).max(dim=1)
        pseudo = F.one_hot(classes, labels.shape[1]) * (sure >= confidence)[:, None]
        return torch.where(labels.any(dim=1, keepdim=True), labels, pseudo.to(labels.dtype))

    def compare(self, student_outputs: Any, teacher_outputs: Any) -> dict[str, Tensor]:
        """`teacher`: T² · KL(teacher ‖ student) at temperature T, mean over clips; 0 for equal outputs."""
        teacher = (logits_of(teacher_outputs).detach().float() / self.temperature).log_softmax(dim=1)
        student = (logits_of(student_outputs).float() / self.temperature).log_softmax(dim=1)
        gap = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return {"teacher": gap * self.temperature**2}

    def scores(self, outputs: Any) -> Tensor:
        """(B, K): what is averaged over views, probabilities or logits."""
        logits = logits_of(outputs).float()
        return logits.softmax(dim=1) if self.average == "prob" else logits

    def averaged(self, scores: Tensor) -> Tensor:
        """(K,) probabilities of a video, of the scores (V, K) of its views."""
        mean = scores.mean(dim=0)
        return mean if self.average == "prob" else mean.softmax(dim=0)

    def decode(self, outputs: Any, *, size: tuple[int, int], seen: tuple[int, int] | None = None) -> Tensor:
        """(B, K) class probabilities; a frame's size does not matter."""
        return logits_of(outputs).float().softmax(dim=1)
