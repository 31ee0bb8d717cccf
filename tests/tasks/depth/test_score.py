"""Depth's metrics against slow plain formulas, and values by hand."""

import math

import numpy as np
import pytest

from vidistill.ops.flow import correspond
from vidistill.tasks.depth.score import DepthScores, DepthTruth, depth_errors, is_near, relative_difference

IMAGE = np.zeros((2, 3, 3), np.uint8)


def truth_of(depth, *, before=None) -> DepthTruth:
    still = None if before is None else IMAGE
    return DepthTruth(IMAGE, still, None if depth is None else np.array(depth, np.float32), before)


def test_errors_against_the_plain_formulas() -> None:
    rng = np.random.default_rng(0)
    truth, prediction = rng.uniform(1, 40, 50), rng.uniform(1, 40, 50)
    pairs = list(zip(prediction.tolist(), truth.tolist(), strict=True))
    abs_rel = sum(abs(p - t) / t for p, t in pairs) / 50
    delta1 = sum(max(p / t, t / p) < 1.25 for p, t in pairs) / 50
    rmse = math.sqrt(sum((p - t) ** 2 for p, t in pairs) / 50)
    assert depth_errors(prediction, truth) == pytest.approx((abs_rel, delta1, rmse))


def test_errors_by_hand() -> None:
    prediction, truth = np.array([2.0, 5.0, 12.0]), np.array([2.0, 4.0, 8.0])
    # the second is 1.25 times too far, which is not below 1.25
    assert depth_errors(prediction, truth) == pytest.approx((0.25, 1 / 3, math.sqrt(17 / 3)))
    assert is_near(np.array([4.0, 3.9]), np.array([3.9, 4.2]), 1.05).tolist() == [True, False]


def test_counts_by_distance_and_their_means() -> None:
    scores = DepthScores(10.0, 2)
    depth = [[2, 4, 0], [8, 20, 0]]  # two pixels unknown, one beyond 10 m
    perfect = np.array([[2, 4, 1], [8, 1, 1]], np.float32)
    half = perfect / 2
    scores.add(truth_of(depth), perfect, distance=0, reference=perfect)
    scores.add(truth_of(None), perfect, distance=1, reference=perfect)  # unlabelled: agreement alone
    scores.add(truth_of(depth), half, distance=1, reference=perfect)
    scores.add(truth_of([[0, 0, 0], [0, 0, 0]]), half, distance=0)
    metrics = scores.metrics()
    assert metrics["abs_rel_by_distance"] == pytest.approx([0, 0.5])
    assert metrics["abs_rel"] == pytest.approx(0.25)
    assert metrics["delta1_by_distance"] == [1.0, 0.0]
    assert metrics["rmse"] == pytest.approx(math.sqrt((1 + 4 + 16) / 3) / 2)
    assert metrics["agreement_by_distance"] == [1.0, 0.5]
    assert (metrics["num_scored"], metrics["num_frames"], metrics["num_pixels"]) == (1, 2, 3)
    assert "1 labelled of 2 frames, 3 pixels" in metrics["protocol"]
    assert "no median scaling" in metrics["protocol"]


def test_each_frame_counts_the_same() -> None:
    scores = DepthScores(80.0, 1)
    scores.add(truth_of([[2, 2, 2], [2, 2, 2]]), np.full((2, 3), 2.0), distance=0)
    scores.add(truth_of([[2, 0, 0], [0, 0, 0]]), np.full((2, 3), 4.0), distance=0)
    assert scores.metrics()["abs_rel"] == pytest.approx(0.5), "mean over frames, not over all pixels"


def test_nothing_counted_is_unknown() -> None:
    metrics = DepthScores(80.0, 3).metrics()
    for key in ("abs_rel", "delta1", "rmse", "agreement", "temporal_difference", "abs_rel_by_distance"):
        assert metrics[key] is None


def test_agreement_on_one_depth_everywhere_is_unknown() -> None:
    for farthest, expected in ((80.0, None), (84.0, None), (90.0, 2 / 3)):
        scores = DepthScores(100.0, 2)
        teacher = np.array([[80, 80, 80]], np.float32)
        scores.add(truth_of(None), teacher, distance=0, reference=teacher)
        scores.add(truth_of(None), np.array([[80, 80, farthest]], np.float32), distance=1, reference=teacher)
        found = scores.metrics()["agreement_by_distance"]
        assert found == (None if expected is None else pytest.approx([1, expected]))


def test_differences_follow_the_flow() -> None:
    # everything moves one pixel to the right; the last column leaves the frame
    flow = np.zeros((2, 3, 2), np.float32)
    flow[..., 0] = 1
    motion = correspond(flow, -flow)
    first = np.array([[1.0, 2, 3], [4, 5, 6]])
    second = np.array([[9.0, 1, 2], [9, 5, 5]])  # as before, but for 4 m that became 5
    assert relative_difference(first, second, motion) == pytest.approx((0 + 0 + 0.25 + 0) / 4)


def test_consistency_beside_the_truth_s_own() -> None:
    scores = DepthScores(80.0, 1)
    before, now = np.full((2, 3), 4.0, np.float32), np.full((2, 3), 5.0, np.float32)
    still = np.zeros((2, 3, 2), np.float32)
    truth = truth_of(now, before=np.where([[1, 1, 1], [0, 0, 0]], before, 0))
    truth.__dict__["flow"] = correspond(still, still)
    scores.add(truth, np.full((2, 3), 3.0), distance=0, before=np.full((2, 3), 2.0))
    metrics = scores.metrics()
    assert metrics["temporal_difference"] == pytest.approx(0.5)
    assert metrics["temporal_difference_of_truth"] == pytest.approx(0.25)
