"""High-resolution sequences as ground truth, cropped to the scale, with low-resolution counterparts where stored."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vidistill.data.clip import FrameSequence, Image, LabelMap
from vidistill.errors import UserError


@dataclass(frozen=True)
class HighResolutionSequence:
    """The frames of `sequence`, cropped to a multiple of `scale` from the upper left corner. No labels.

    low: the same frames, `scale` times smaller, where there is a stored counterpart. halved: every frame is the mean
    of 2×2 pixels first, which hides the blocks of JPEG and video coding.
    """

    sequence: FrameSequence
    scale: int
    low: FrameSequence | None = None
    halved: bool = False

    @property
    def name(self) -> str:
        return self.sequence.name

    def __len__(self) -> int:
        return len(self.sequence)

    def image(self, index: int) -> Image:
        return self._cropped(self.sequence.image(index))

    def images(self) -> Iterator[Image]:
        return (self._cropped(image) for image in self.sequence.images())

    def pair(self, index: int) -> tuple[Image | None, Image]:
        """The stored low-resolution frame, None where there is none, and the high-resolution one.

        Errors: UserError where the low-resolution frame is not exactly `scale` times smaller.
        """
        high = self.image(index)
        if self.low is None:
            return None, high
        low = self.low.image(index)
        if any(self.scale * low.shape[axis] != high.shape[axis] for axis in (0, 1)):
            raise UserError(self._mismatch(low, high))
        return low, high

    def labels(self, index: int) -> LabelMap | None:
        return None

    def labelled(self) -> Sequence[int]:
        return ()

    def problems(self) -> list[str]:
        found = self.sequence.problems() + (self.low.problems() if self.low else [])
        if found:
            return found
        if self.low is not None and len(self.low) != len(self):
            return [f"{self.name}: {len(self.low)} low-resolution frames for {len(self)}; one is needed for each"]
        try:  # within each sequence all frames have one size by now, so that the first speaks for all
            self.pair(0)
        except UserError as error:
            return [str(error)]
        return []

    def _cropped(self, image: Image) -> Image:
        if self.halved:
            height, width = (length // 2 for length in image.shape[:2])
            even = image[: 2 * height, : 2 * width]
            if height and width:
                image = np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        height, width = (length - length % self.scale for length in image.shape[:2])
        if not height or not width:
            size = f"{image.shape[1]}×{image.shape[0]}"
            raise UserError(f"{self.name}: frames of {size} are smaller than the scale {self.scale}; take them out")
        return np.ascontiguousarray(image[:height, :width])

    def _mismatch(self, low: Image, high: Image) -> str:
        found, wanted = (f"{shape[1]}×{shape[0]}" for shape in (low.shape, high.shape))
        return (
            f"{self.name}: the low-resolution frames are {found}, the high-resolution ones {wanted} after cropping, "
            f"which is not {self.scale} times as large; check the scale and the folder of low-resolution frames"
        )


def window_indices(centre: int, *, num_frames: int, window: int) -> list[int]:
    """The `window` frames around frame `centre` of a sequence, its first and last frames repeated beyond its ends.

    Errors: UserError where the sequence has fewer frames than the window.
    """
    if num_frames < window:
        raise UserError(
            f"the sequence has {num_frames} frames and the network looks at {window} at once; "
            "give a longer one or a network with a smaller window"
        )
    first = centre - window // 2
    return [min(max(index, 0), num_frames - 1) for index in range(first, first + window)]
