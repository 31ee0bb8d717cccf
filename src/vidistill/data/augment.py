"""Random changes of a clip: scale, crop, flip, colour, and the camera motion that makes clips from stills.

One draw serves all frames of a clip and their labels, so that motion and correspondence are kept. All geometry is one
homography per frame, from the output's pixels to the source's, so that everything is a single resampling.
"""

from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from vidistill.config import Share, real
from vidistill.data.clip import IGNORED, Clip, Image, LabelMap

Matrix = NDArray[np.float64]  # (3, 3), homogeneous pixel coordinates (x, y, 1)
Factor = Annotated[float, *real(0.01, 100)]


def _ascending(scale: tuple[float, float]) -> tuple[float, float]:
    if scale[0] > scale[1]:
        raise ValueError("must be [least, most] with least <= most")
    return scale


ScaleRange = Annotated[tuple[Factor, Factor], AfterValidator(_ascending)]


@dataclass(frozen=True)
class RandomView:
    """Ranges that a view of a clip is drawn from. crop: (height, width) of the result; None keeps the frame's size."""

    crop: tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = True
    colour: float = 0.0  # largest change of brightness, contrast and saturation, 0…1

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> Matrix:
        """A homography from the result's pixels to those of a frame of `size` (height, width)."""
        height, width = size
        out_height, out_width = self.crop or size
        scale = float(np.exp(rng.uniform(*np.log(self.scale))))
        # whole pixels, so that a crop at scale 1 is not interpolated
        spare_x, spare_y = np.floor([width - out_width / scale, height - out_height / scale])
        # centred where the frame is smaller than the crop
        left, top = (rng.integers(spare + 1) if spare > 0 else spare // 2 for spare in (spare_x, spare_y))
        matrix = np.array([[1 / scale, 0, left], [0, 1 / scale, top], [0, 0, 1]], dtype=np.float64)
        # pixel centres: (x + 1/2) / scale - 1/2
        matrix[:2, 2] += 0.5 / scale - 0.5
        if self.flip and rng.uniform() < 0.5:
            matrix = matrix @ np.array([[-1, 0, out_width - 1], [0, 1, 0], [0, 0, 1]], dtype=np.float64)
        return matrix


@dataclass(frozen=True)
class CameraMotion:
    """Largest speeds per frame of the random motion, at its end; lengths in units of the picture's longer side."""

    translation: Share = 0.004
    rotation_degrees: Annotated[float, *real(0, 180)] = 0.15
    zoom: Share = 0.006
    acceleration: Annotated[float, *real(0, 10)] = 0.3  # largest change of the speed over the clip, a part of it

    def draw(self, size: tuple[int, int], times: list[float], rng: np.random.Generator) -> list[Matrix]:
        """One homography per time (in frames), from the moved camera's pixels to the still's; the last is identity.

        size: (height, width). The motion ends at the identity, as the labelled frame of a clip is its last.
        """
        height, width = size
        unit = max(height, width)
        # (4,) x, y, angle, log zoom per frame
        speed = rng.uniform(-1, 1, 4) * np.array(
            [self.translation * unit, self.translation * unit * 0.5, np.deg2rad(self.rotation_degrees), self.zoom]
        )
        change = rng.uniform(-1, 1, 4) * self.acceleration
        # (x, y) of the fixed point of zoom and rotation, near the centre: where the camera moves to
        centre = np.array([width, height]) * rng.uniform(0.35, 0.65, 2)
        matrices = []
        for time in times:
            back = time - times[-1]
            span = max(1.0, times[-1] - times[0])
            shift_x, shift_y, angle, log_zoom = speed * back * (1 + change * back / (2 * span))
            # rotate and zoom about `centre`, then shift
            cos, sin = np.cos(angle) * np.exp(log_zoom), np.sin(angle) * np.exp(log_zoom)
            turn = np.array([[cos, -sin], [sin, cos]])
            matrix = np.eye(3)
            matrix[:2, :2] = turn
            matrix[:2, 2] = centre - turn @ centre + (shift_x, shift_y)
            matrices.append(matrix)
        return matrices


def warp_image(
    image: Image, matrix: Matrix, size: tuple[int, int], *, border: tuple[int, int, int] | None = None
) -> Image:
    """`image` resampled bilinearly through `matrix` to `size` (height, width).

    border: the colour outside the image; None mirrors the image there.
    """
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    mode = cv2.BORDER_REFLECT_101 if border is None else cv2.BORDER_CONSTANT
    warped = cv2.warpPerspective(
        image, matrix, size[::-1], flags=flags, borderMode=mode, borderValue=border or (0, 0, 0)
    )
    return np.asarray(warped, dtype=np.uint8)


def warp_labels(labels: LabelMap, matrix: Matrix, size: tuple[int, int], *, unknown: float = IGNORED) -> LabelMap:
    """`labels` resampled to the nearest pixel; unknown outside the image."""
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(
        labels, matrix, size[::-1], flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=unknown
    )
    return np.asarray(warped, dtype=labels.dtype)


def warp_clip(clip: Clip, matrices: list[Matrix], size: tuple[int, int], *, unknown: float = IGNORED) -> Clip:
    """Every frame and its labels, resampled through its matrix to `size` (height, width)."""
    frames = [warp_image(frame, matrix, size) for frame, matrix in zip(clip.frames, matrices, strict=True)]
    labels = [
        warp_labels(labels, matrix, size, unknown=unknown) for labels, matrix in zip(clip.labels, matrices, strict=True)
    ]
    return Clip(np.stack(frames), np.stack(labels))


def change_colour(frames: NDArray[np.uint8], strength: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(T, H, W, 3) frames with one draw of brightness, contrast and saturation for all.

    strength: the largest change of each factor, 0…1.
    """
    if strength <= 0:
        return frames
    brightness, contrast, saturation = 1 + strength * rng.uniform(-1, 1, 3)
    changed = frames.astype(np.float32)
    # (T, H, W) luma, weights of BT.601
    grey = changed @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    changed = grey[..., None] + (changed - grey[..., None]) * np.float32(saturation)
    changed = (changed - grey.mean()) * np.float32(contrast) + grey.mean() * np.float32(brightness)
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)
