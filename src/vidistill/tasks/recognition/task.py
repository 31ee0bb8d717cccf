"""Action recognition: one class, or several, for a whole clip."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vidistill.config import Positive, whole
from vidistill.data.clip import FrameSequence, Image, TrainingSamples, VideoDataset
from vidistill.data.sequences.classified import classes_of
from vidistill.errors import UserError
from vidistill.models.outputs import NetworkOutputs, logits_of
from vidistill.ops.clip_view import ClipView, View
from vidistill.report.figures import Picture
from vidistill.report.page import RunFolder
from vidistill.tasks.contract import ClassTask, Naming, WholeClips
from vidistill.tasks.recognition.samples import ClassifiedClips, ClassifiedClipSettings
from vidistill.tasks.recognition.score import METRICS, LabelledVideo, RecognitionScores, views_of
from vidistill.tasks.recognition.show import RecognitionLook, ShownFrame, TimelinePictures, confusions, timelines

MOST_VIDEOS, MOST_FRAMES = 4, 90  # videos strung together in a run's pictures, frames of each


@dataclass(frozen=True, kw_only=True)
class Recognition(ClassTask):
    """Cross-entropy against labels, Kullback-Leibler divergence against a teacher, class probabilities as prediction.

    Args:
        num_classes, confidence: see `ClassTask`; pseudo-labels are of clips without a class.
        multi_label: a clip may have several classes, and mean average precision is what counts.
        temperature: of the divergence, Hinton et al. 2015.
        num_clips, num_crops: the views that a video is scored on; 1 or 3 crops.
        average: whether the views' probabilities ("prob") or logits ("score") are averaged.
    """

    name: ClassVar = "recognition"
    metrics: ClassVar = METRICS
    clip_settings: ClassVar = ClassifiedClipSettings
    sees_clips: ClassVar = True
    any_size: ClassVar = False
    whole_videos: ClassVar = True

    multi_label: bool = False
    temperature: Positive = 1.0
    num_clips: Annotated[int, *whole(1, 1000)] = 1
    num_crops: Literal[1, 3] = 1
    average: Literal["prob", "score"] = "prob"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_classes == 1:
            raise ValueError(
                "num_classes must be at least 2, got 1, whose softmax is always 1; add a class for all other videos"
            )

    def samples(
        self, settings: ClassifiedClipSettings, datasets: Sequence[VideoDataset], *, use_labels: bool
    ) -> TrainingSamples:
        return ClassifiedClips(datasets, settings, use_labels=use_labels)

    def examples(self, clips: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Every clip whole: (B, T, 3, S, S) and (B, K)."""
        return clips, labels

    def supervise(
        self, outputs: NetworkOutputs, labels: Tensor, teacher_outputs: NetworkOutputs | None = None
    ) -> dict[str, Tensor]:
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

    def compare(self, student_outputs: NetworkOutputs, teacher_outputs: NetworkOutputs) -> dict[str, Tensor]:
        """`teacher`: T² · KL(teacher ‖ student) at temperature T, mean over clips; 0 for equal outputs."""
        teacher = (logits_of(teacher_outputs).detach().float() / self.temperature).log_softmax(dim=1)
        student = (logits_of(student_outputs).float() / self.temperature).log_softmax(dim=1)
        gap = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return {"teacher": gap * self.temperature**2}

    def decode(self, outputs: NetworkOutputs, *, size: tuple[int, int], seen: tuple[int, int] | None = None) -> Tensor:
        """(B, K) class probabilities; a frame's size does not matter."""
        return logits_of(outputs).float().softmax(dim=1)

    def has_labels(self, sequence: FrameSequence) -> bool:
        return len(classes_of(sequence)) > 0

    def check_videos(self, sequences: Sequence[FrameSequence], views: Sequence[View | None]) -> None:
        """Refuses a video of a class that the network does not know."""
        for sequence in sequences:
            highest = max(classes_of(sequence), default=0)
            if highest >= self.num_classes:
                raise UserError(
                    f"{sequence.name}: has the class {highest}, the network knows {self.num_classes} classes, from 0; "
                    "score it on videos of its own classes"
                )

    def frames(self, sequence: FrameSequence) -> Iterator[tuple[Image, ShownFrame]]:
        for image in sequence.images():
            yield image, ShownFrame(image, classes_of(sequence))

    def clips(self, sequence: FrameSequence, view: View | None) -> WholeClips[LabelledVideo]:
        assert isinstance(view, ClipView)
        frames = views_of(sequence, view, num_clips=self.num_clips, num_crops=self.num_crops)
        return WholeClips(frames, LabelledVideo(sequence.name, classes_of(sequence)))

    def scores(self, *, interval: int, view: View | None) -> RecognitionScores:
        assert isinstance(view, ClipView)
        return RecognitionScores(
            self.probabilities, self.protocol(view), num_classes=self.num_classes, multi_label=self.multi_label
        )

    def probabilities(self, outputs: Sequence[NetworkOutputs]) -> Tensor:
        """(K,) of a video, averaged over its views' outputs (1, K)."""
        logits = torch.cat([logits_of(one).float() for one in outputs])
        return logits.softmax(dim=1).mean(dim=0) if self.average == "prob" else logits.mean(dim=0).softmax(dim=0)

    def protocol(self, view: ClipView) -> str:
        """How a video is seen, in words."""
        how = "one frame of each equal segment" if view.sampling == "segments" else f"frames {view.stride} apart"
        averaged = "probabilities" if self.average == "prob" else "logits"
        return (
            f"{self.num_clips} clip{'s' * (self.num_clips > 1)} of {view.num_frames} frames ({how}), "
            f"{self.num_crops} square crop{'s' * (self.num_crops > 1)} of {view.crop} px seen at {view.size} px, "
            f"{averaged} averaged over the views"
        )

    def look(self, naming: Naming) -> RecognitionLook:
        return RecognitionLook(naming)

    def shown(self, sequences: Sequence[FrameSequence]) -> tuple[int, Iterator[tuple[Image, ShownFrame]]]:
        """The first frames of a video of each class, of a few classes; a video is shown up to where it breaks."""
        return MOST_VIDEOS * MOST_FRAMES, self._different(sequences)

    def _different(self, sequences: Sequence[FrameSequence]) -> Iterator[tuple[Image, ShownFrame]]:
        seen: set[tuple[int, ...]] = set()
        for sequence in sequences:
            if len(seen) == MOST_VIDEOS:
                return
            if classes_of(sequence) not in seen:
                # scoring decodes only the frames that it samples, so that it may have met none of the broken ones
                with suppress(UserError):
                    for frame in islice(self.frames(sequence), MOST_FRAMES):
                        seen.add(classes_of(sequence))
                        yield frame

    def pictures(self, naming: Naming, *, interval: int, length: int) -> TimelinePictures:
        return TimelinePictures(naming, self.num_classes)

    def report_figures(self, run: RunFolder) -> list[Picture]:
        matrix = confusions(run.results)
        return [*([matrix] if matrix else []), *(run.read("timeline.npz", timelines) or [])]
