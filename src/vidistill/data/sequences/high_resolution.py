"""High-resolution sequences as ground truth, cropped to the scale, with stored low-resolution frames if any."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from vidistill.data.clip import FrameSequence, Image
from vidistill.data.degradation import Degradation
from vidistill.data.image_files import size_text
from vidistill.data.resized import WrappedSequence
from vidistill.data.sequences.images import ImageSequence
from vidistill.errors import UserError

MOST_LOOKED_AT = 100  # videos of a data set whose first frames are read before a run


@dataclass(frozen=True)
class HighResolutionSequence(WrappedSequence):
    """The frames of a sequence, cropped to a multiple of `scale` from the upper left corner. No labels.

    low: the same frames, stored `scale` times smaller, or None. halved: frames are first averaged over 2×2 pixels,
    which hides the blocks of JPEG and video coding. centre_only: only the middle frame is scored, the others are what
    networks see around it.
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
        """The stored low-resolution frame (None without one) and the high-resolution one.

        Errors: UserError where the low-resolution frame is not exactly `scale` times smaller.
        """
        high = self.image(index)
        if self.low is None:
            return None, high
        low = self.low.image(index)
        self.check_sizes(low, high)
        return low, high

    def pairs(self, degrade: Degradation) -> Iterator[tuple[Image, Image]]:
        """Every frame in order, in constant memory: (low resolution, stored or made by `degrade`; high resolution).

        Errors: UserError where a stored frame has a wrong size, their numbers differ, or frames have several sizes.
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
        """Errors: UserError where the numbers of low-resolution and high-resolution frames differ."""
        if self.low is not None and len(self.low) != len(self):
            raise UserError(
                f"{self.name}: has {len(self.low)} low-resolution frames, expected {len(self)}, one for each "
                "high-resolution frame; add or remove frames"
            )

    def check_sizes(self, low: Image, high: Image) -> None:
        """Errors: UserError where `high` is not `scale` times as large as `low`."""
        if any(self.scale * low.shape[axis] != high.shape[axis] for axis in (0, 1)):
            raise UserError(
                f"{self.name}: low-resolution frames are {size_text(low.shape)} and high-resolution ones "
                f"{size_text(high.shape)} after cropping, expected {self.scale} times as large; check the scale and "
                "the folder of low-resolution frames"
            )

    def problems(self) -> list[str]:
        problems = self.frames.problems() + (self.low.problems() if self.low else [])
        if problems:
            return problems
        try:  # without problems all frames of a sequence have one size, so that checking the first is enough
            self.check_numbers()
            self.pair(0)
        except UserError as error:
            return [str(error)]
        return self._misnumbered()

    def _misnumbered(self) -> list[str]:
        """Where both sides are files: the first frame whose name shares no number with that of its counterpart."""
        if not isinstance(self.frames, ImageSequence) or not isinstance(self.low, ImageSequence):
            return []
        for high, low in zip(self.frames.image_paths, self.low.image_paths, strict=True):
            numbers, others = (set(map(int, re.findall(r"\d+", path.stem))) for path in (high, low))
            if numbers and others and not numbers & others:
                return [
                    f"{high}: is paired with {low}, as frames are paired by their order; if they are not the same "
                    "frame, remove the extra one, else number both alike"
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
            raise UserError(
                f"{self.name}: frames must be at least {self.scale}x{self.scale} for scale {self.scale}, got "
                f"{size_text(image.shape)}; leave the video out"
            )
        return np.ascontiguousarray(image[:height, :width])


def of_one_size(name: str, frames: Iterable[tuple[int, Image]]) -> Iterator[Image]:
    """The images of (index, image) pairs, one by one.

    Errors: UserError, with the sequence's name, at the first frame of another size than the first one's.
    """
    first: tuple[int, ...] | None = None
    for index, image in frames:
        first = first or image.shape
        if image.shape != first:
            raise UserError(
                f"{name}: frame {index} is {size_text(image.shape)}, expected {size_text(first)} as those before it; "
                "put each size into a video or folder of its own"
            )
        yield image


def as_high_resolution(sequence: FrameSequence, scale: int) -> HighResolutionSequence:
    """The sequence as ground truth for `scale`. Errors: UserError where it was read for another scale."""
    if not isinstance(sequence, HighResolutionSequence):
        return HighResolutionSequence(sequence, scale)
    if sequence.scale != scale:
        raise UserError(
            f"{sequence.name}: is read for scale {sequence.scale}, expected {scale} as for the task; give the data set "
            f"scale: {scale}"
        )
    return sequence


def check_length(sequence: FrameSequence, window: int) -> None:
    """Errors: UserError where the sequence has fewer frames than a network sees at once, its `window`."""
    if len(sequence) < window:
        raise UserError(
            f"{sequence.name}: has {len(sequence)} frames, expected at least the window of {window}; leave the video "
            "out, or choose a network (in training data.clip) with a smaller window"
        )
