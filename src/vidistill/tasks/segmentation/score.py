"""Segmentation's metrics, counted frame by frame: mIoU by distance to the key frame, agreement, consistency in time."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vidistill.config import Values
from vidistill.data.clip import Image, LabelMap
from vidistill.ops.flow import FLOW_SOURCE, Correspondence, estimate_correspondence
from vidistill.ops.metrics import ConfusionMatrix, Share
from vidistill.report.table import Metric
from vidistill.tasks.contract import Prediction, Scores, by_distance, mean_of

STILL = 2  # grey levels a channel may differ by where "the image does not change"

METRICS = (
    Metric("miou", "mIoU", name="mIoU", sentence="the student keeps {share} of the teacher's mIoU"),
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


class SegmentationScores(Scores[SegmentationTruth]):
    """Everything that is counted while a network with key frames runs over sequences."""

    def __init__(self, num_classes: int, interval: int) -> None:
        self.interval = interval
        self.by_distance = [ConfusionMatrix(num_classes) for _ in range(interval)]
        self.agreement = [Share() for _ in range(interval)]
        self.consistency = ConfusionMatrix(num_classes)
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
        if truth.labels is not None:
            self.by_distance[distance].update(truth.labels, prediction)
        if reference is not None:
            self.agreement[distance].update((reference == prediction).sum(), prediction.size)
        if before is not None and truth.before is not None:
            self.consistency.update(before, truth.flow.carry_back(prediction), truth.flow.visible)
            self.flips.update((before != prediction)[truth.still].sum(), truth.still.sum())
        if distance == 0:
            self.num_frames += 1
            self.num_labelled += truth.labels is not None

    def metrics(self) -> Values:
        mious = [matrix.mean_iou() for matrix in self.by_distance]
        agreements = [share.value for share in self.agreement]
        return {
            "miou": mean_of(mious),
            "miou_by_distance": by_distance(mious),
            "agreement": mean_of(agreements),
            "agreement_by_distance": by_distance(agreements),
            "temporal_consistency": self.consistency.mean_iou(present_only=True),
            "flip_rate": self.flips.value,
            "num_scored": self.num_labelled,
            "num_frames": self.num_frames,
            "iou_by_class": self.by_distance[0].iou().tolist() if self.num_labelled else None,
            "protocol": (
                f"mIoU: one confusion matrix per distance to the key frame (0…{self.interval - 1}) over all key-frame "
                f"phases, mean over {len(self.consistency.counts)} classes, 255 ignored, logits resized bilinearly to "
                f"the labels, then mean over distances; {self.num_labelled} labelled of {self.num_frames} frames. "
                "Agreement: share of pixels with the teacher's class, mean over distances. "
                f"Temporal consistency: mIoU of consecutive predictions along the flow ({FLOW_SOURCE}), nearest, "
                "occluded left out, one matrix over all pairs and phases, classes that occur. Flip rate: share of "
                f"pixels whose class changes where no channel changes by more than {STILL} levels."
            ),
        }
