"""Counts of pixels, and the scores that follow from them."""

import numpy as np
from numpy.typing import NDArray

IGNORED = 255


class ConfusionMatrix:
    """Pixels by true (row) and predicted (column) class, over all frames added. Pixels labelled 255 do not count.

    counts: (K, K + 1); the last column is of pixels without a prediction, 255, which are right for no class.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts: NDArray[np.int64] = np.zeros((num_classes, num_classes + 1), dtype=np.int64)

    def update(
        self, labels: NDArray[np.uint8], predictions: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None
    ) -> None:
        """Adds a frame. labels, predictions: class ids of one shape; valid: pixels to count, all by default."""
        num_classes = len(self.counts)
        counted = labels != IGNORED if valid is None else valid & (labels != IGNORED)
        pairs = labels[counted].astype(np.int64) * (num_classes + 1) + np.minimum(predictions[counted], num_classes)
        self.counts += np.bincount(pairs, minlength=self.counts.size).reshape(self.counts.shape)

    @property
    def hits(self) -> NDArray[np.int64]:
        """(K,) pixels of each class that are predicted as it."""
        return np.diag(self.counts)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(K,) pixels of each class, those labelled as it and those predicted as it, together."""
        return self.counts.sum(axis=1) + self.counts[:, :-1].sum(axis=0)

    @property
    def occurs(self) -> NDArray[np.bool_]:
        """(K,) whether a class is labelled or predicted anywhere."""
        return self.sizes > 0

    def iou(self) -> NDArray[np.float64]:
        """(K,) intersection over union of each class: tp / max(1, pos + pred − tp)."""
        return self.hits / np.maximum(1, self.sizes - self.hits)

    def f1(self) -> NDArray[np.float64]:
        """(K,) 2 · tp / max(1, pos + pred) of each class, also called Dice."""
        return 2 * self.hits / np.maximum(1, self.sizes)

    def accuracy(self) -> float | None:
        """Share of the pixels that are right; None where nothing was counted."""
        total = int(self.counts.sum())
        return int(self.hits.sum()) / total if total else None

    def mean_iou(self, *, present_only: bool = False) -> float | None:
        """Mean over the classes; None where nothing was counted.

        A class that never occurs counts 0, as in the field's protocol; with `present_only` it is left out.
        """
        if not self.counts.any():
            return None
        return float(self.iou()[self.occurs].mean() if present_only else self.iou().mean())


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
