"""Clips from still images: what a camera that moves smoothly in front of the picture would have seen.

It lets people who have image sets, with or without labels, distil for video. [ours]
"""

from dataclasses import dataclass

import numpy as np

from vidistill.data.augment import Matrix


@dataclass(frozen=True)
class CameraMotion:
    """Largest speeds per frame of the random motion, at its end; the picture's longer side is the unit of length."""

    translation: float = 0.004
    rotation_degrees: float = 0.15
    zoom: float = 0.006
    acceleration: float = 0.3  # how much the speed may change over the clip, as a part of the speed

    def draw(self, size: tuple[int, int], times: list[float], rng: np.random.Generator) -> list[Matrix]:
        """One homography per time (in frames), from the moved camera's pixels to the still's; the last is identity.

        size: (height, width). The labelled frame of a clip is its last, so the motion leads up to it.
        """
        height, width = size
        unit = max(height, width)
        speed = rng.uniform(-1, 1, 4) * np.array(
            [self.translation * unit, self.translation * unit * 0.5, np.deg2rad(self.rotation_degrees), self.zoom]
        )
        change = rng.uniform(-1, 1, 4) * self.acceleration
        # the point that stays in place while zooming: where the camera heads, near the centre
        centre = np.array([width, height]) * rng.uniform(0.35, 0.65, 2)
        matrices = []
        for time in times:
            back = time - times[-1]
            span = max(1.0, times[-1] - times[0])
            moved = speed * back * (1 + change * back / (2 * span))
            matrices.append(_similarity(moved, centre))
        return matrices


def _similarity(moved: np.ndarray, centre: np.ndarray) -> Matrix:
    """Shift, then rotate and zoom about `centre`; moved: (x, y, angle, log zoom)."""
    shift_x, shift_y, angle, log_zoom = moved
    cos, sin = np.cos(angle) * np.exp(log_zoom), np.sin(angle) * np.exp(log_zoom)
    turn = np.array([[cos, -sin], [sin, cos]])
    matrix = np.eye(3)
    matrix[:2, :2] = turn
    matrix[:2, 2] = centre - turn @ centre + (shift_x, shift_y)
    return matrix
