"""Counts of pixels, and the scores that follow from them."""

import numpy as np
from numpy.typing import NDArray

IGNORED = 255


class ConfusionMatrix:
    """Pixels by true (row) and predicted (column) class, over all frames added. Pixels labelled 255 do not count."""

    def __init__(self, num_classes: int) -> None:
        self.counts: NDArray[np.int64] = np.zeros((num_classes, num_classes), dtype=np.int64)

    def update(
        self, labels: NDArray[np.uint8], predictions: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None
    ) -> None:
        """Adds a frame. labels, predictions: class ids of one shape; valid: pixels to count, all by default."""
        num_classes = len(self.counts)
        counted = labels != IGNORED if valid is None else valid & (labels != IGNORED)
        pairs = labels[counted].astype(np.int64) * num_classes + predictions[counted]
        self.counts += np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)

    def iou(self) -> NDArray[np.float64]:
        """(K,) intersection over union of each class: tp / max(1, pos + pred − tp)."""
        tp = np.diag(self.counts)
        union = self.counts.sum(axis=0) + self.counts.sum(axis=1) - tp
        return tp / np.maximum(1, union)

    def mean_iou(self, *, present_only: bool = False) -> float | None:
        """Mean over the classes; None where nothing was counted.

        A class that never occurs counts 0, as in the field's protocol; with `present_only` it is left out.
        """
        if not self.counts.any():
            return None
        iou = self.iou()
        if present_only:
            iou = iou[(self.counts.sum(axis=0) + self.counts.sum(axis=1)) > 0]
        return float(iou.mean())


class Share:
    """A share of pixels, added up frame by frame."""

    def __init__(self) -> None:
        self.part = 0
        self.whole = 0

    def update(self, part: int, whole: int) -> None:
        self.part += int(part)
        self.whole += int(whole)

    @property
    def value(self) -> float | None:
        """0…1; None where nothing was counted."""
        return self.part / self.whole if self.whole else None
