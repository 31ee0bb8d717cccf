"""Object detection: boxes with a class and a score."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from vidistill.config import Share, real, whole
from vidistill.data.clip import FrameSequence, Image, TrainingSamples, VideoDataset
from vidistill.data.sequences.boxes import boxes_of
from vidistill.models.detectors import Detector, Outputs, detections
from vidistill.ops.boxes import CLASS, NOT_ANNOTATED, boxes_in, is_annotated, make_rows, stack_rows
from vidistill.ops.clip_view import View
from vidistill.report.page import RunFolder, Section
from vidistill.tasks.contract import ClassTask, Naming
from vidistill.tasks.detection.files import CocoVideoFile, CocoVideoLabels, MotFile
from vidistill.tasks.detection.losses import (
    BoxLoss,
    Target,
    compare_dense,
    compare_regions,
    dense_losses,
    proposal_losses,
    region_losses,
    with_true_boxes,
)
from vidistill.tasks.detection.samples import BoxedClips, BoxedClipSettings
from vidistill.tasks.detection.score import METRICS, BoxedFrame, DetectionScores
from vidistill.tasks.detection.show import DetectionLook, DetectionPictures, read_strip


@dataclass(frozen=True, kw_only=True)
class Detection(ClassTask):
    """Losses of one- and two-stage detectors against boxes and against a teacher, see `detection.losses`.

    Labels and predictions are rows of boxes, see `ops.boxes`. Networks are those of `models.detectors`.

    Args:
        num_classes, confidence: see `ClassTask`; pseudo-labels are boxes in frames that are not annotated.
        box_loss: of one-stage detectors; `giou` for FCOS.
        focal_gamma: of their focal loss, EfficientDet's; 2 for RetinaNet and FCOS.
        score_threshold, iou_threshold, max_detections: of what is decoded, see `models.detectors.detections`.
    """

    name: ClassVar = "detection"
    metrics: ClassVar = METRICS
    clip_settings: ClassVar = BoxedClipSettings
    result_files: ClassVar = {".json": CocoVideoFile, ".txt": MotFile}
    default_losses: ClassVar[dict[str, float]] = {
        "class": 1.0, "box": 1.0, "centreness": 1.0,
        "objectness": 1.0, "proposal_box": 1.0, "region_class": 1.0, "region_box": 1.0,
        "teacher_class": 1.0, "teacher_box": 1.0, "teacher_region_class": 1.0, "teacher_region_box": 1.0,
    }  # fmt: skip

    box_loss: BoxLoss = "smooth_l1"
    focal_gamma: Annotated[float, *real(0, 100)] = 1.5
    score_threshold: Share = 0.05
    iou_threshold: Share = 0.5
    max_detections: Annotated[int, *whole(1, 10_000)] = 100

    def samples(
        self, settings: BoxedClipSettings, datasets: Sequence[VideoDataset], *, use_labels: bool
    ) -> TrainingSamples:
        return BoxedClips(datasets, settings, use_labels=use_labels)

    def label_problems(self, sequences: Sequence[FrameSequence]) -> list[str]:
        annotated = [boxes_of(sequence, index) for sequence in sequences for index in sequence.labelled()]
        boxes = [one for one in annotated if one is not None]
        if boxes and not any(len(one) for one in boxes):
            return [
                f"{sequences[0].name}: none of the {len(boxes)} annotated frames has a box; look at the annotations"
            ]
        highest = max((int(one.labels.max()) for one in boxes if len(one)), default=-1)
        if highest >= self.num_classes:
            return [
                f"{sequences[0].name}: its boxes have the class {highest}, expected 0 to {self.num_classes - 1}; "
                "correct the annotations, or task.num_classes"
            ]
        return []

    def has_labels(self, sequence: FrameSequence) -> bool:
        return any(boxes_of(sequence, index) is not None for index in sequence.labelled()[:1])

    def supervise(self, outputs: Outputs, labels: Tensor, teacher_outputs: Outputs | None = None) -> dict[str, Tensor]:
        """The losses of the network's kind, means over frames; a frame that is not annotated counts 0.

        labels: (B, M, 6) rows. A frame annotated with no box trains the background. A network with proposals that is in
        training mode judges the true boxes beside its proposals, as torchvision's does.
        """
        if self.confidence is not None and teacher_outputs is not None:
            labels = self._with_pseudo_labels(labels, teacher_outputs, self.confidence)
        annotated = is_annotated(labels).nonzero()[:, 0]
        if not len(annotated):
            nothing = sum(t.float().sum() * 0.0 for t in outputs.values() if t.requires_grad)
            return {"class": torch.as_tensor(nothing, device=labels.device)}
        boxes = [boxes_in(labels[image]) for image in annotated.tolist()]
        targets: list[Target] = [{"boxes": rows[:, :4], "labels": rows[:, CLASS].long()} for rows in boxes]
        seen = {name: tensor[annotated] for name, tensor in outputs.items()}
        if "proposals" not in outputs:
            losses = dense_losses(seen, targets, box_loss=self.box_loss, gamma=self.focal_gamma)
        else:
            losses = proposal_losses(seen, targets) | self._region_losses(outputs, seen, annotated, targets)
        return {name: loss * (len(annotated) / len(labels)) for name, loss in losses.items()}

    @staticmethod
    def _region_losses(
        outputs: Outputs, seen: Outputs, annotated: Tensor, targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        regions, proposals = seen, seen["proposals"]
        judge = getattr(outputs, "regions", None)
        if judge is not None:
            no_boxes: Target = {"boxes": proposals.new_zeros(0, 4), "labels": proposals.new_zeros(0).long()}
            every = [no_boxes] * len(outputs["proposals"])
            for place, target in zip(annotated.tolist(), targets, strict=True):
                every[place] = target
            proposals = with_true_boxes(outputs["proposals"], every)
            regions = {name: tensor[annotated] for name, tensor in judge(proposals).items()}
            proposals = proposals[annotated]
        return region_losses(regions, proposals, targets)

    def _with_pseudo_labels(self, labels: Tensor, teacher_outputs: Outputs, confidence: float) -> Tensor:
        """The labels, those of frames without any taken from the teacher where it is confident."""
        frames = list(labels)
        for image in (~is_annotated(labels)).nonzero()[:, 0].tolist():
            whole = labels[image][labels[image, :, CLASS] == NOT_ANNOTATED][0]
            size = int(whole[3]), int(whole[2])
            one = {name: tensor[image : image + 1].detach() for name, tensor in teacher_outputs.items()}
            frames[image] = self._rows(one, size, score_threshold=confidence)[0]
        return stack_rows(frames)

    def compare(self, student_outputs: Outputs, teacher_outputs: Outputs) -> dict[str, Tensor]:
        """`teacher_class` and `teacher_box` of the dense outputs; of networks with proposals `teacher_region_class` and
        `teacher_region_box` on the teacher's proposals too, where the student's outputs can judge them.
        """
        losses = compare_dense(student_outputs, teacher_outputs)
        judge = getattr(student_outputs, "regions", None)
        if judge is not None:
            proposals = teacher_outputs["proposals"].detach()
            losses |= compare_regions(judge(proposals), teacher_outputs, proposals)
        return losses

    def decode(self, outputs: Outputs, *, size: tuple[int, int], seen: tuple[int, int] | None = None) -> Tensor:
        """(B, M, 6) rows of boxes in pixels of frames of `size` (height, width), best first, filled up; M may be 0."""
        rows = stack_rows(self._rows(outputs, seen or size, score_threshold=self.score_threshold))
        if seen is not None:
            rows[..., :4] *= rows.new_tensor([size[1] / seen[1], size[0] / seen[0]] * 2)
        return rows

    def _rows(self, outputs: Outputs, size: tuple[int, int], *, score_threshold: float) -> list[Tensor]:
        frames = detections(
            outputs,
            size=size,
            score_threshold=score_threshold,
            iou_threshold=self.iou_threshold,
            max_detections=self.max_detections,
        )
        return [make_rows(one["boxes"], one["labels"], one["scores"]) for one in frames]

    def frames(self, sequence: FrameSequence) -> Iterator[tuple[Image, BoxedFrame]]:
        for index, image in enumerate(sequence.images()):
            yield image, BoxedFrame(image, boxes_of(sequence, index))

    def scores(self, *, interval: int, view: View | None) -> DetectionScores:
        return DetectionScores(self.known_ids(), interval)

    def look(self, naming: Naming) -> DetectionLook:
        return DetectionLook(naming)

    def pictures(self, naming: Naming, *, interval: int, length: int) -> DetectionPictures:
        return DetectionPictures(naming, interval=interval, length=length)

    def report_sections(self, run: RunFolder) -> list[Section]:
        return [Section("Frames", run.read("detections.npz", read_strip) or "")]

    def is_for(self, network: nn.Module) -> bool:
        return isinstance(network, Detector)

    def as_labeller(self, score: float) -> "Detection":
        return replace(self, score_threshold=score)

    def label_files(self, out: Path, kept: Mapping[str, int]) -> CocoVideoLabels:
        return CocoVideoLabels(out, kept)
