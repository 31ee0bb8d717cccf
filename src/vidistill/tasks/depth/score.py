"""Depth's metrics, counted frame by frame: errors by distance to the key frame, agreement, consistency in time."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vidistill.config import Values
from vidistill.data.clip import Image, LabelMap
from vidistill.ops.flow import FLOW_SOURCE, Correspondence, estimate_correspondence
from vidistill.ops.metrics import Share
from vidistill.report.table import Metric
from vidistill.tasks.contract import Prediction, Scores, by_distance, mean_of

CLOSE, AGREES = 1.25, 1.05  # largest ratios of a prediction that counts as right, and as the teacher's

METRICS = (
    Metric(
        "abs_rel", "AbsRel", name="AbsRel", better="lower",
        sentence="the student's AbsRel is {student:.4f}, the teacher's {teacher:.4f}",
    ),
    Metric("delta1", f"δ < {CLOSE}", name=f"share of pixels with δ < {CLOSE}"),
    Metric("rmse", "RMSE, m", decimals=3, better="lower"),
    Metric(
        "agreement", f"agreement with the teacher: δ < {AGREES}", name="agreement with the teacher", is_agreement=True,
        sentence="the student is within 5 % of the teacher's depth on {student:.3f} of the pixels",
    ),
    Metric("temporal_difference", "temporal consistency: relative difference along the flow", better="lower"),
)  # fmt: skip


@dataclass(frozen=True)
class DepthTruth:
    """A frame (H, W, 3), the one before it, and the depth of both (H, W), 0 where unknown; None where there is none."""

    image: Image
    before: Image | None
    depth: LabelMap | None
    depth_before: LabelMap | None

    @cached_property
    def flow(self) -> Correspondence:
        """Where each pixel of the frame before is now."""
        assert self.before is not None
        return estimate_correspondence(self.before, self.image)


class DepthScores(Scores[DepthTruth]):
    """Everything that is counted while a network with key frames runs over sequences. max_depth: metres."""

    def __init__(self, max_depth: float, interval: int) -> None:
        self.max_depth, self.interval = max_depth, interval
        self.errors: list[list[tuple[float, float, float]]] = [[] for _ in range(interval)]  # AbsRel, δ, RMSE a frame
        self.agreement = [Share() for _ in range(interval)]
        self.differences: list[float] = []  # one a pair of frames
        self.true_differences: list[float] = []
        self.nearest, self.farthest = np.inf, 0.0  # of all that both networks see, metres
        self.num_scored = self.num_pixels = self.num_frames = 0

    def add(
        self,
        truth: DepthTruth,
        prediction: Prediction,
        *,
        distance: int,
        reference: Prediction | None = None,
        before: Prediction | None = None,
    ) -> None:
        """prediction, reference, before: metres (H, W)."""
        known = None if truth.depth is None else (truth.depth > 0) & (truth.depth <= self.max_depth)
        num_known = 0 if known is None else int(known.sum())
        if num_known:
            assert truth.depth is not None
            self.errors[distance].append(depth_errors(prediction[known], truth.depth[known]))
        if reference is not None:
            self.nearest = min(self.nearest, float(prediction.min()), float(reference.min()))
            self.farthest = max(self.farthest, float(prediction.max()), float(reference.max()))
            self.agreement[distance].update(is_near(prediction, reference, AGREES).sum(), prediction.size)
        if before is not None and truth.before is not None and truth.flow.visible.any():
            flow = truth.flow
            self.differences.append(relative_difference(before, prediction, flow))
            if truth.depth is not None and truth.depth_before is not None:
                in_both = flow.visible & (truth.depth_before > 0) & (truth.depth[flow.rows, flow.columns] > 0)
                if in_both.any():
                    known_flow = Correspondence(flow.rows, flow.columns, in_both)
                    self.true_differences.append(relative_difference(truth.depth_before, truth.depth, known_flow))
        if distance == 0:
            self.num_frames += 1
            self.num_scored += num_known > 0
            self.num_pixels += num_known

    def metrics(self) -> Values:
        # (interval, 3), None where no frame was scored at that distance
        means = [np.mean(errors, axis=0).tolist() if errors else [None] * 3 for errors in self.errors]
        abs_rel, delta1, rmse = (list(values) for values in zip(*means, strict=True))
        # where both networks see one and the same depth everywhere, they agree on nothing
        says_something = self.farthest > AGREES * self.nearest
        agreements = [share.value if says_something else None for share in self.agreement]
        return {
            "abs_rel": mean_of(abs_rel),
            "abs_rel_by_distance": by_distance(abs_rel),
            "delta1": mean_of(delta1),
            "delta1_by_distance": by_distance(delta1),
            "rmse": mean_of(rmse),
            "rmse_by_distance": by_distance(rmse),
            "agreement": mean_of(agreements),
            "agreement_by_distance": by_distance(agreements),
            "temporal_difference": mean_of(self.differences),
            "temporal_difference_of_truth": mean_of(self.true_differences),
            "num_scored": self.num_scored,
            "num_frames": self.num_frames,
            "num_pixels": self.num_pixels,
            "protocol": (
                "AbsRel: mean of |prediction − truth| / truth; "
                f"δ < {CLOSE}: share of pixels whose ratio to the truth, or the truth's to it, is below {CLOSE}; RMSE "
                f"in metres; each over a frame's pixels of known depth up to {self.max_depth:g} m, then mean over "
                f"frames, at each distance to the key frame (0…{self.interval - 1}) over all key-frame phases, then "
                "mean over distances; log depth resized bilinearly to the labels, kept within 1 mm and "
                f"{self.max_depth:g} m, its scale as the network gives it (no median scaling), no crop; "
                f"{self.num_scored} labelled of {self.num_frames} frames, {self.num_pixels} pixels. "
                f"Agreement: share of pixels with δ < {AGREES} to the teacher's depth, mean over distances; unknown "
                "where all depths of both are as near to each other. "
                "Temporal consistency: mean of |depth − depth of the next frame along the flow| / depth "
                f"({FLOW_SOURCE}, nearest, occluded left out), mean over pairs and phases; a moving camera changes "
                "true depth too."
            ),
        }


def depth_errors(prediction: NDArray[np.floating], truth: NDArray[np.floating]) -> tuple[float, float, float]:
    """AbsRel, the share with δ < 1.25, and RMSE of metres (N,), as Eigen, Puhrsch & Fergus (2014) define them."""
    gap = prediction.astype(np.float64) - truth
    near = is_near(prediction, truth, CLOSE)
    return float((np.abs(gap) / truth).mean()), float(near.mean()), float(np.sqrt((gap**2).mean()))


def is_near(prediction: NDArray[np.floating], truth: NDArray[np.floating], ratio: float) -> NDArray[np.bool_]:
    """Where max(prediction / truth, truth / prediction) is below `ratio`."""
    return np.maximum(prediction / truth, truth / prediction) < ratio


def relative_difference(first: NDArray[np.floating], second: NDArray[np.floating], flow: Correspondence) -> float:
    """Mean of |first − second carried back| / first, metres (H, W), where both show a thing.

    As the flow-based warping error of video depth (Wang et al., "Neural Video Depth Stabilizer", ICCV 2023), but
    relative.
    """
    ours = first[flow.visible].astype(np.float64)
    carried = second[flow.rows, flow.columns][flow.visible]
    return float((np.abs(ours - carried) / ours).mean())
