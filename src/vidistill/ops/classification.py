"""How well class scores of whole videos fit their labels."""

import numpy as np
from numpy.typing import NDArray

ClassScores = NDArray[np.floating]  # (N, K) of N videos
ClassLabels = NDArray[np.floating]  # (N, K), 1 for each class of a video, else 0


def top_k_accuracy(scores: ClassScores, labels: ClassLabels, *, k: int) -> float:
    """The share of videos with one of their classes among the k of largest score; of equal scores the first count."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(np.take_along_axis(labels, best, axis=1).any(axis=1).mean())


def mean_class_accuracy(scores: ClassScores, labels: ClassLabels) -> float:
    """The share of a class's videos whose largest score is its own, mean over the classes that occur."""
    predicted = scores.argmax(axis=1)
    shares = [(predicted[labels[:, c] > 0] == c).mean() for c in range(labels.shape[1]) if labels[:, c].any()]
    return float(np.mean(shares))


def mean_average_precision(scores: ClassScores, labels: ClassLabels) -> float:
    """Average precision of each class's ranking of the videos, mean over the classes that occur.

    AP = Σ (R_n − R_{n−1}) P_n over the thresholds between different scores, without interpolation, so that videos of
    equal score count together.
    """
    values = []
    for c in np.flatnonzero(labels.any(axis=0)):
        order = np.argsort(-scores[:, c], kind="stable")
        ranked, hits = scores[order, c], np.cumsum(labels[order, c] > 0)
        last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each group of equal scores
        recall, precision = hits[last] / hits[-1], hits[last] / (last + 1)
        values.append(np.sum(np.diff(recall, prepend=0) * precision))
    return float(np.mean(values))


def confusion(scores: ClassScores, labels: ClassLabels) -> NDArray[np.int64]:
    """(K, K) videos by their first class (row) and the class of largest score (column)."""
    num_classes = labels.shape[1]
    pairs = labels.argmax(axis=1) * num_classes + scores.argmax(axis=1)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
