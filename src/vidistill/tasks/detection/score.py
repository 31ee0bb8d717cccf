"""Detection's metrics: average precision by distance to the key frame, and agreement with a teacher's boxes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidistill.config import Values
from vidistill.data.clip import Image
from vidistill.data.sequences.boxes import Boxes
from vidistill.ops.detection_metrics import PROTOCOL, AveragePrecision
from vidistill.report.table import Metric
from vidistill.tasks.contract import Prediction, Scores, by_distance, mean_of

CONFIDENT = 0.5  # the score from which a teacher's boxes stand for true ones

METRICS = (
    Metric("ap50", "AP50", name="AP50", sentence="the student keeps {share} of the teacher's AP50"),
    Metric("ap", "AP@[.5:.95]"),
    Metric(
        "agreement", "agreement with the teacher", name="agreement with the teacher", is_agreement=True,
        sentence="the student's AP50 with the teacher's confident boxes as the truth is {student:.3f}",
    ),
    Metric("num_boxes", "true boxes", decimals=0, better=""),
)  # fmt: skip


@dataclass(frozen=True)
class BoxedFrame:
    """A frame (H, W, 3) and its true boxes; None where it is not annotated."""

    image: Image
    boxes: Boxes | None


class DetectionScores(Scores[BoxedFrame]):
    """Everything that is counted while a detector with key frames runs over sequences."""

    def __init__(self, num_classes: int, interval: int) -> None:
        self.interval = interval
        self.precision = [AveragePrecision(num_classes) for _ in range(interval)]
        self.agreement = [AveragePrecision(num_classes) for _ in range(interval)]
        self.num_frames = 0
        self.num_annotated = 0
        self.num_boxes = 0

    def add(
        self,
        truth: BoxedFrame,
        prediction: Prediction,
        *,
        distance: int,
        reference: Prediction | None = None,
        before: Prediction | None = None,
    ) -> None:
        """prediction, reference: (M, 6) rows of boxes, see `ops.boxes`."""
        boxes = Boxes.of_rows(np.asarray(prediction, np.float32))
        if truth.boxes is not None:
            _add(self.precision[distance], truth.boxes, boxes)
        if reference is not None:
            others = Boxes.of_rows(np.asarray(reference, np.float32))
            assert others.scores is not None
            _add(self.agreement[distance], others.chosen(others.scores >= CONFIDENT), boxes)
        if distance == 0:
            self.num_frames += 1
            self.num_annotated += truth.boxes is not None
            self.num_boxes += 0 if truth.boxes is None else len(truth.boxes)

    def metrics(self) -> Values:
        values = [precision.value() for precision in self.precision]
        ap50, ap = ([value[name] for value in values] for name in ("ap50", "ap"))
        agreements = [precision.value()["ap50"] for precision in self.agreement]
        return {
            "ap50": mean_of(ap50),
            "ap50_by_distance": by_distance(ap50),
            "ap": mean_of(ap),
            "ap_by_distance": by_distance(ap),
            "agreement": mean_of(agreements),
            "agreement_by_distance": by_distance(agreements),
            "num_scored": self.num_annotated,
            "num_frames": self.num_frames,
            "num_boxes": self.num_boxes,
            "ap50_by_class": self.precision[0].by_class() if self.num_boxes else None,
            "protocol": (
                f"AP50 and AP@[.5:.95]: {PROTOCOL}; at each distance to the key frame (0…{self.interval - 1}) over all "
                f"key-frame phases, then mean over distances; {self.num_boxes} boxes in {self.num_annotated} annotated "
                f"of {self.num_frames} frames. Agreement: AP50 with the teacher's boxes of score {CONFIDENT:g} or more "
                f"as the truth, mean over distances.{_unknown(ap50 if self.num_boxes else agreements)}"
            ),
        }


def _unknown(values: Sequence[float | None]) -> str:
    """The sentence that says why there is no mean over distances, where only some of them have a value."""
    missing = [str(distance) for distance, value in enumerate(values) if value is None]
    if not missing or len(missing) == len(values):
        return ""
    return (
        f" There was nothing to find at the distances {', '.join(missing)}, so the mean is unknown: take longer "
        "sequences, or a smaller key_frame_interval."
    )


def _add(precision: AveragePrecision, truth: Boxes, boxes: Boxes) -> None:
    precision.add(
        boxes=truth.xyxy,
        labels=truth.labels,
        crowd=truth.crowd,
        found_boxes=boxes.xyxy,
        found_scores=np.ones(len(boxes), np.float32) if boxes.scores is None else boxes.scores,
        found_labels=boxes.labels,
    )
