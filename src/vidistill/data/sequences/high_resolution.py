"""High-resolution sequences as ground truth, cropped to the scale, with low-resolution counterparts where stored."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from vidistill.data.clip import FrameSequence, Image
from vidistill.data.degradation import Degradation
from vidistill.data.resized import WrappedSequence
from vidistill.data.sequences.images import ImageSequence
from vidistill.errors import UserError

MOST_LOOKED_AT = 100  # videos of a data set, of which the first frames are read before a run


@dataclass(frozen=True)
class HighResolutionSequence(WrappedSequence):
    """The frames of a sequence, cropped to a multiple of `scale` from the upper left corner. No labels.

    low: the same frames, `scale` times smaller, where there is a stored counterpart. halved: every frame is the mean
    of 2×2 pixels first, which hides the blocks of JPEG and video coding. centre_only: its middle frame alone is scored,
    the others are what networks see around it.
    """

    scale: int
    low: FrameSequence | None = None
    halved: bool = False
    centre_only: bool = False

    def image(self, index: int) -> Image:
        return self._cropped(self.frames.image(index))

    def images(self) -> Iterator[Image]:
        return (self._cropped(image) for image in self.frames.images())

    def pair(self, index: int) -> tuple[Image | None, Image]:
        """The stored low-resolution frame, None where there is none, and the high-resolution one.

        Errors: UserError where the low-resolution frame is not exactly `scale` times smaller.
        """
        high = self.image(index)
        if self.low is None:
            return None, high
        low = self.low.image(index)
        self.check_sizes(low, high)
        return low, high

    def pairs(self, degrade: Degradation) -> Iterator[tuple[Image, Image]]:
        """Every frame in order, in constant memory: low resolution, stored or made by `degrade`, and high resolution.

        Errors: UserError where a stored one has another size, there are more or fewer, or the frames have several.
        """
        highs = of_one_size(self.name, enumerate(self.images()))
        if self.low is None:
            yield from ((degrade(high[None])[0], high) for high in highs)
            return
        self.check_numbers()
        for low, high in zip(self.low.images(), highs, strict=True):
            self.check_sizes(low, high)
            yield low, high

    def check_numbers(self) -> None:
        """Errors: UserError where there is not one stored low-resolution frame for each high-resolution one."""
        if self.low is not None and len(self.low) != len(self):
            raise UserError(
                f"{self.name}: {len(self.low)} low-resolution frames for {len(self)}; one is needed for each"
            )

    def check_sizes(self, low: Image, high: Image) -> None:
        """Errors: UserError where `high` is not `scale` times as large as `low`."""
        if any(self.scale * low.shape[axis] != high.shape[axis] for axis in (0, 1)):
            found, wanted = (f"{shape[1]}×{shape[0]}" for shape in (low.shape, high.shape))
            raise UserError(
                f"{self.name}: the low-resolution frames are {found}, the high-resolution ones {wanted} after "
                f"cropping, which is not {self.scale} times as large; check the scale and the folder of "
                "low-resolution frames"
            )

    def problems(self) -> list[str]:
        found = self.frames.problems() + (self.low.problems() if self.low else [])
        if found:
            return found
        try:  # within each sequence all frames have one size by now, so that the first speaks for all
            self.check_numbers()
            self.pair(0)
        except UserError as error:
            return [str(error)]
        return self._misnumbered()

    def _misnumbered(self) -> list[str]:
        """The first frame, where both sides are files, whose name shares no number with its counterpart's."""
        if not isinstance(self.frames, ImageSequence) or not isinstance(self.low, ImageSequence):
            return []
        for high, low in zip(self.frames.image_paths, self.low.image_paths, strict=True):
            numbers, others = (set(map(int, re.findall(r"\d+", path.stem))) for path in (high, low))
            if numbers and others and not numbers & others:
                return [
                    f"{high}: is paired with {low}, for frames are paired by their order; where they are not the same "
                    "frame, take out what is too many, else number both alike"
                ]
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


def of_one_size(name: str, frames: Iterable[tuple[int, Image]]) -> Iterator[Image]:
    """The images of (index, image), one by one.

    Errors: UserError, with the sequence's name, at the first frame that is not of the first one's size.
    """
    began: tuple[int, ...] | None = None
    for index, image in frames:
        began = began or image.shape
        if image.shape != began:
            found, wanted = (f"{shape[1]}×{shape[0]}" for shape in (image.shape, began))
            raise UserError(
                f"{name}: frame {index} is {found}, those before it {wanted}; give the frames of each size a video or "
                "folder of their own"
            )
        yield image


def as_high_resolution(sequence: FrameSequence, scale: int) -> HighResolutionSequence:
    """The sequence as ground truth of `scale`. Errors: UserError where it was read for another scale."""
    if not isinstance(sequence, HighResolutionSequence):
        return HighResolutionSequence(sequence, scale)
    if sequence.scale != scale:
        raise UserError(
            f"{sequence.name}: is read for ×{sequence.scale} and the task is ×{scale}; give the data set scale: {scale}"
        )
    return sequence


def check_length(sequence: FrameSequence, window: int) -> None:
    """Errors: UserError where the sequence has fewer frames than are looked at together."""
    if len(sequence) < window:
        raise UserError(
            f"{sequence.name}: has {len(sequence)} frames and {window} are looked at together; take the video out, or "
            "a network (in training data.clip) with a smaller window"
        )
