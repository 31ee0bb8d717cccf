"""Segmentation's metrics, counted frame by frame: mIoU by distance to the key frame, agreement, consistency in time."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vidistill.config import Values
from vidistill.data.clip import IGNORED, Image, LabelMap
from vidistill.ops.flow import FLOW_SOURCE, Correspondence, estimate_correspondence
from vidistill.ops.metrics import ConfusionMatrix, Share
from vidistill.report.table import Metric
from vidistill.tasks.contract import Prediction, Scores, by_distance, mean_of

STILL = 2  # grey levels a channel may differ by where "the image does not change"
FULL = 255  # of a soft prediction: the foreground for sure

METRICS = (
    Metric(
        "foreground_iou", "IoU, foreground", name="IoU of the foreground",
        sentence="the student keeps {share} of the teacher's IoU of the foreground",
    ),
    Metric("background_iou", "IoU, background"),
    Metric("foreground_f1", "F1, foreground"),
    Metric("soft_error", "mean absolute error of soft masks", better="lower"),
    Metric("miou", "mIoU", name="mIoU", sentence="the student keeps {share} of the teacher's mIoU"),
    Metric(
        "foreground_agreement", "overlap with the teacher: IoU of the foreground",
        name="overlap with the teacher", is_agreement=True,
        sentence="the student's foreground and the teacher's overlap with an IoU of {student:.3f}",
    ),
    Metric("soft_gap", "mean absolute difference of soft masks to the teacher's", better="lower"),
    Metric(
        "agreement", "agreement with the teacher", name="agreement with the teacher", is_agreement=True,
        sentence="the student agrees with the teacher on {student:.3f} of the pixels",
    ),
    Metric("temporal_consistency", "temporal consistency"),
    Metric("flip_rate", "flip rate", better="lower"),
)  # fmt: skip


@dataclass(frozen=True)
class SegmentationTruth:
    """A frame (H, W, 3), the one before it, and its labels; None where there is none."""

    image: Image
    before: Image | None
    labels: LabelMap | None

    @cached_property
    def flow(self) -> Correspondence:
        """Where each pixel of the frame before is now."""
        assert self.before is not None
        return estimate_correspondence(self.before, self.image)

    @cached_property
    def still(self) -> NDArray[np.bool_]:
        """(H, W): where no channel has changed by more than `STILL` levels."""
        assert self.before is not None
        return np.abs(self.before.astype(np.int16) - self.image).max(axis=-1) <= STILL


def hard(soft: Prediction) -> Prediction:
    """Class ids (H, W), 0 or 1, of a soft prediction in 255ths."""
    return (soft > FULL // 2).astype(np.uint8)


class SegmentationScores(Scores[SegmentationTruth]):
    """Everything that is counted while a network with key frames runs over sequences.

    is_binary: whether class 1 is a foreground and class 0 what is behind it; is_soft: whether predictions are soft.
    """

    def __init__(self, num_ids: int, interval: int, *, is_binary: bool = False, is_soft: bool = False) -> None:
        self.interval, self.is_binary, self.is_soft = interval, is_binary, is_soft
        self.by_distance = [ConfusionMatrix(num_ids) for _ in range(interval)]
        self.agreement = [ConfusionMatrix(num_ids) for _ in range(interval)]
        self.soft_error, self.soft_gap = Share(), Share()
        self.consistency = ConfusionMatrix(num_ids)
        self.flips = Share()
        self.num_labelled = 0
        self.num_frames = 0

    def add(
        self,
        truth: SegmentationTruth,
        prediction: Prediction,
        *,
        distance: int,
        reference: Prediction | None = None,
        before: Prediction | None = None,
    ) -> None:
        if self.is_soft:
            if truth.labels is not None:
                is_labelled = truth.labels != IGNORED
                gaps = np.abs(prediction.astype(np.int16) - FULL * truth.labels.astype(np.int16))[is_labelled]
                self.soft_error.update(gaps.sum(), FULL * gaps.size)
            if reference is not None:
                gaps = np.abs(prediction.astype(np.int16) - reference)
                self.soft_gap.update(gaps.sum(), FULL * gaps.size)
            prediction = hard(prediction)
            reference, before = (None if soft is None else hard(soft) for soft in (reference, before))
        if truth.labels is not None:
            self.by_distance[distance].update(truth.labels, prediction)
        if reference is not None:
            self.agreement[distance].update(reference, prediction)
        if before is not None and truth.before is not None:
            self.consistency.update(before, truth.flow.carry_back(prediction), truth.flow.visible)
            self.flips.update((before != prediction)[truth.still].sum(), truth.still.sum())
        if distance == 0:
            self.num_frames += 1
            self.num_labelled += truth.labels is not None

    def metrics(self) -> Values:
        mious = [matrix.mean_iou() for matrix in self.by_distance]
        # where both networks see one and the same class everywhere, they agree on nothing
        says_something = np.any([matrix.occurs for matrix in self.agreement], axis=0).sum() > 1
        agreements = [matrix.accuracy() if says_something else None for matrix in self.agreement]
        values: Values = {
            "miou": mean_of(mious),
            "miou_by_distance": by_distance(mious),
            "agreement": mean_of(agreements),
            "agreement_by_distance": by_distance(agreements),
            "temporal_consistency": self.consistency.mean_iou(present_only=True)
            if self.consistency.occurs.sum() > 1
            else None,
            "flip_rate": self.flips.value,
            "soft_error": self.soft_error.value,
            "soft_gap": self.soft_gap.value,
            "num_scored": self.num_labelled,
            "num_frames": self.num_frames,
            "iou_by_class": self.by_distance[0].iou().tolist() if self.num_labelled else None,
            "protocol": self._protocol(),
        }
        return values | self._binary_metrics()

    def _binary_metrics(self) -> Values:
        """Of foreground and background, unknown where neither labels nor predictions have any of it."""
        iou, f1 = ConfusionMatrix.iou, ConfusionMatrix.f1
        counted = {
            "foreground_iou": (self.by_distance, iou, 1),
            "background_iou": (self.by_distance, iou, 0),
            "foreground_f1": (self.by_distance, f1, 1),
            "foreground_agreement": (self.agreement, iou, 1),
        }
        values: Values = {}
        for key, (matrices, score, k) in counted.items():
            known = [float(score(matrix)[k]) if self.is_binary and matrix.occurs[k] else None for matrix in matrices]
            values |= {key: mean_of(known), f"{key}_by_distance": by_distance(known)}
        return values

    def _protocol(self) -> str:
        num_ids = len(self.consistency.counts)
        soft = (
            "Soft masks: mean absolute difference of the foreground's probability, in 255ths, to the labels (0 or 1) "
            "and to the teacher's, over all pixels, phases and distances; ids by a threshold of one half. "
        )
        foreground = (
            "Foreground, background: IoU and F1 (Dice) of that class from the same matrices; overlap: IoU of the "
            "foreground with the teacher's predictions as labels; unknown where there is nothing of it. "
        )
        return (
            f"mIoU: one confusion matrix per distance to the key frame (0…{self.interval - 1}) over all key-frame "
            f"phases, mean over {num_ids} classes, 255 ignored, logits resized bilinearly to "
            f"the labels, then mean over distances; {self.num_labelled} labelled of {self.num_frames} frames. "
            + (foreground if self.is_binary else "")
            + (soft if self.is_soft else "")
            + "Agreement: share of pixels with the teacher's class, mean over distances; unknown where both have one "
            "and the same class everywhere. "
            f"Temporal consistency: mIoU of consecutive predictions along the flow ({FLOW_SOURCE}), nearest, "
            "occluded left out, one matrix over all pairs and phases, classes that occur, of which there must be two. "
            f"Flip rate: share of pixels whose class changes where no channel changes by more than {STILL} levels."
        )
