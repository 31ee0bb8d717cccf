"""Average precision by COCO's protocol.

The protocol is pycocotools' own code: detections by score, at most 100 a frame, greedy matching per class, crowds
neither asked for nor counted wrong, precision interpolated at 101 recalls, mean over the classes that occur.
"""

import contextlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidistill.errors import UserError

PROTOCOL = "COCO API, at most 100 detections a frame, all sizes, mean over the classes that occur"
MAX_DETECTIONS = 100


class AveragePrecision:
    """AP50 and AP@[.5:.95] of the frames added."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.num_frames = 0
        self._truth: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []

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
        """Adds a frame: its true boxes (N, 4) xyxy with classes from 0, and those that were found, with scores."""
        self.num_frames += 1
        for number, record in enumerate(_records(boxes, labels, self.num_frames)):
            is_crowd = int(crowd[number]) if crowd is not None else 0
            self._truth.append(record | {"id": len(self._truth) + 1, "iscrowd": is_crowd, "ignore": is_crowd})
        for record, score in zip(_records(found_boxes, found_labels, self.num_frames), found_scores, strict=True):
            self._found.append(record | {"id": len(self._found) + 1, "score": float(score), "iscrowd": 0})

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
        COCO, COCOeval = _pycocotools()
        with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress
            evaluation = COCOeval(self._coco(COCO, self._truth), self._coco(COCO, self._found), "bbox")
            evaluation.params.areaRng = [[0, 1e10]]
            evaluation.params.areaRngLbl = ["all"]
            evaluation.params.maxDets = [MAX_DETECTIONS]
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation.eval["precision"][:, :, :, 0, 0]

    def _coco(self, kind: Any, records: list[dict[str, Any]]) -> Any:
        coco = kind()
        coco.dataset = {
            "images": [{"id": number} for number in range(1, self.num_frames + 1)],
            "annotations": [dict(record) for record in records],
            "categories": [{"id": label} for label in range(self.num_classes)],
        }
        coco.createIndex()
        return coco


def _records(boxes: NDArray[np.float32], labels: NDArray[np.int64], frame: int) -> list[dict[str, Any]]:
    sizes = boxes[:, 2:].astype(np.float64) - boxes[:, :2]
    xywh = np.concatenate([boxes[:, :2], sizes], axis=1)
    return [
        {"image_id": frame, "category_id": int(label), "bbox": box, "area": box[2] * box[3]}
        for box, label in zip(xywh.tolist(), labels, strict=True)
    ]


def _mean(precision: NDArray[np.float64]) -> float | None:
    counted = precision[precision > -1]
    return float(counted.mean()) if counted.size else None


def _pycocotools() -> tuple[Any, Any]:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise UserError("pycocotools is not installed; pip install 'vidistill[detection]'") from error
    return COCO, COCOeval
