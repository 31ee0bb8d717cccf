"""Accuracies and average precision against slow plain formulas, ties included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidistill.ops.classification import confusion, mean_average_precision, mean_class_accuracy, top_k_accuracy


@st.composite
def scored(draw, *, multi_label: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Scores of few different values, so that many are equal, and labels."""
    num_videos, num_classes = draw(st.integers(1, 12)), draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    scores = rng.integers(0, draw(st.integers(2, 9)), (num_videos, num_classes)) / 8
    labels = np.eye(num_classes)[rng.integers(0, num_classes, num_videos)]
    if multi_label:
        labels = np.maximum(labels, rng.integers(0, 2, labels.shape))
    return scores.astype(np.float32), labels.astype(np.float32)


def plain_top_k(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    hits = 0
    for row, wanted in zip(scores, labels, strict=True):
        ranks = [sum(s > row[c] for s in row) + sum(s == row[c] for s in row[:c]) for c in np.flatnonzero(wanted)]
        hits += min(ranks) < k
    return hits / len(scores)


def plain_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Σ (R_n − R_{n−1}) P_n over every different score as a threshold, from the highest down."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        found = scores >= threshold
        hits = (found & (labels > 0)).sum()
        precision, recall = hits / found.sum(), hits / (labels > 0).sum()
        total += (recall - recall_before) * precision
        recall_before = recall
    return total


@given(scored(multi_label=True), st.integers(1, 6))
def test_top_k_is_a_rank(case, k: int) -> None:
    assert top_k_accuracy(*case, k=k) == pytest.approx(plain_top_k(*case, k))


@given(scored())
def test_mean_class_accuracy_is_recall_over_the_classes_that_occur(case) -> None:
    scores, labels = case
    recalls = []
    for c in range(labels.shape[1]):
        own = [row for row, wanted in zip(scores.tolist(), labels, strict=True) if wanted[c]]
        if own:
            recalls.append(sum(row.index(max(row)) == c for row in own) / len(own))
    assert mean_class_accuracy(scores, labels) == pytest.approx(sum(recalls) / len(recalls))


@given(scored(multi_label=True))
def test_average_precision_is_that_of_every_threshold(case) -> None:
    scores, labels = case
    known = [c for c in range(labels.shape[1]) if labels[:, c].any()]
    expected = sum(plain_average_precision(scores[:, c], labels[:, c]) for c in known) / len(known)
    assert mean_average_precision(scores, labels) == pytest.approx(expected)


def test_average_precision_by_hand() -> None:
    scores = np.array([[0.9], [0.8], [0.7], [0.6]])
    labels = np.array([[1.0], [0.0], [1.0], [0.0]])
    assert mean_average_precision(scores, labels) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    tied = np.array([[0.9], [0.5], [0.5], [0.5]])  # three at once: precision ½ at recall 1
    assert mean_average_precision(tied, labels) == pytest.approx(0.5 * 1 + 0.5 * 2 / 4)
    assert mean_average_precision(np.zeros((4, 1)), labels) == pytest.approx(0.5), "all equal: the share that is true"


def test_top_k_by_hand() -> None:
    scores = np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])
    labels = np.array([[0.0, 0, 1], [0, 1, 0]])
    assert top_k_accuracy(scores, labels, k=1) == 0, "of equal scores the first class is the answer"
    assert top_k_accuracy(scores, labels, k=2) == 1
    assert mean_class_accuracy(scores, labels) == 0


@given(scored())
def test_the_confusion_counts_every_video_once(case) -> None:
    scores, labels = case
    expected = np.zeros((labels.shape[1],) * 2, dtype=int)
    for row, wanted in zip(scores, labels, strict=True):
        expected[wanted.tolist().index(1), row.tolist().index(row.max())] += 1
    assert confusion(scores, labels).tolist() == expected.tolist()
    assert np.trace(expected) / len(scores) == pytest.approx(top_k_accuracy(scores, labels, k=1))
