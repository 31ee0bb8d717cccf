"""Average precision by COCO's protocol.

The protocol is pycocotools' own code: detections by score, at most 100 a frame, greedy matching per class, crowds
neither asked for nor counted wrong, precision interpolated at 101 recalls, mean over the classes that occur.
"""

import contextlib
import io
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from vidistill.errors import UserError

PROTOCOL = "COCO API, at most 100 detections a frame, all sizes, mean over the classes that occur"
MAX_DETECTIONS = 100


class _Annotation(TypedDict, total=False):
    """A box as COCO's files have it; `score` for a detection, `ignore` for a true box. Ids begin at 1."""

    id: int
    image_id: int
    category_id: int
    bbox: list[float]  # x, y, width, height
    area: float
    iscrowd: int
    ignore: int
    score: float


class AveragePrecision:
    """AP50 and AP@[.5:.95] of the frames added."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.num_frames = 0
        self._truth: list[_Annotation] = []
        self._detections: list[_Annotation] = []

    def add(
        self,
        *,
        boxes: NDArray[np.float32],
        labels: NDArray[np.int64],
        crowd: NDArray[np.bool_] | None = None,
        found_boxes: NDArray[np.float32],
        found_scores: NDArray[np.float32],
        found_labels: NDArray[np.int64],
    ) -> None:
        """Adds a frame: its N true boxes (N, 4) xyxy with classes (N,) from 0, and the M that were found, with scores.

        crowd: (N,) whether a box is around many objects; None for no such box.
        """
        self.num_frames += 1
        for number, annotation in enumerate(_annotations(boxes, labels, self.num_frames)):
            is_crowd = int(crowd[number]) if crowd is not None else 0
            self._truth.append({**annotation, "id": len(self._truth) + 1, "iscrowd": is_crowd, "ignore": is_crowd})
        detections = _annotations(found_boxes, found_labels, self.num_frames)
        for annotation, score in zip(detections, found_scores, strict=True):
            self._detections.append(
                {**annotation, "id": len(self._detections) + 1, "score": float(score), "iscrowd": 0}
            )

    def value(self) -> dict[str, float | None]:
        """`ap50` and `ap`, 0…1; None where no frame had a box to find."""
        precision = self._precision()
        return {"ap50": _mean(precision[:1]), "ap": _mean(precision)}

    def by_class(self) -> list[float | None]:
        """AP50 of each class, None for one that never occurs."""
        precision = self._precision()[:1]
        return [_mean(precision[:, :, label]) for label in range(self.num_classes)]

    def _precision(self) -> NDArray[np.float64]:
        """(10 overlaps, 101 recalls, classes), −1 where a class does not occur."""
        try:
            from pycocotools.coco import COCO
            from pycocotools.cocoeval import COCOeval
        except ImportError as error:
            raise UserError("pycocotools is not installed; pip install 'vidistill[detection]'") from error
        sides = []
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            for annotations in (self._truth, self._detections):
                coco = COCO()
                coco.dataset = {
                    "images": [{"id": number} for number in range(1, self.num_frames + 1)],
                    "annotations": [dict(annotation) for annotation in annotations],  # COCO writes into them
                    "categories": [{"id": label} for label in range(self.num_classes)],
                }
                coco.createIndex()
                sides.append(coco)
            evaluation = COCOeval(*sides, "bbox")
            evaluation.params.areaRng = [[0, 1e10]]
            evaluation.params.areaRngLbl = ["all"]
            evaluation.params.maxDets = [MAX_DETECTIONS]
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation.eval["precision"][:, :, :, 0, 0]


def _annotations(boxes: NDArray[np.float32], labels: NDArray[np.int64], frame: int) -> list[_Annotation]:
    sizes = boxes[:, 2:].astype(np.float64) - boxes[:, :2]
    xywh = np.concatenate([boxes[:, :2], sizes], axis=1)
    return [
        {"image_id": frame, "category_id": int(label), "bbox": box, "area": box[2] * box[3]}
        for box, label in zip(xywh.tolist(), labels, strict=True)
    ]


def _mean(precision: NDArray[np.float64]) -> float | None:
    counted = precision[precision > -1]
    return float(counted.mean()) if counted.size else None
