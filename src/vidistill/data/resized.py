"""Images and sequences at another size; `WrappedSequence`, the base of sequences that change another one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vidistill.data.clip import FrameSequence, Image, LabelMap
from vidistill.errors import UserError


def resized_width(size: tuple[int, int], height: int) -> int:
    """The width of a frame of `size` (height, width) that is resized to `height`, at least 1."""
    return max(1, round(size[1] * height / size[0]))


def resize_image(image: Image, height: int) -> Image:
    """The image (H, W, 3) at `height`, the width in proportion: area average down, bilinear up."""
    size = (resized_width((image.shape[0], image.shape[1]), height), height)
    method = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=method), dtype=np.uint8)


def check_height(height: int | None) -> None:
    """Errors: UserError for a height below 1. None: frames keep their size."""
    if height is not None and height < 1:
        raise UserError(f"height must be at least 1, got {height}")


@dataclass(frozen=True)
class WrappedSequence:
    """The frames of a sequence, without its masks; the base of sequences that change or add something."""

    frames: FrameSequence

    @property
    def name(self) -> str:
        return self.frames.name

    def __len__(self) -> int:
        return len(self.frames)

    def image(self, index: int) -> Image:
        return self.frames.image(index)

    def images(self) -> Iterator[Image]:
        return self.frames.images()

    def labels(self, index: int) -> LabelMap | None:
        return None

    def labelled(self) -> Sequence[int]:
        return ()

    def problems(self) -> list[str]:
        return self.frames.problems()


@dataclass(frozen=True)
class ResizedSequence(WrappedSequence):
    """A sequence whose frames and masks are resized to `height`, the width in proportion."""

    height: int

    def image(self, index: int) -> Image:
        return resize_image(self.frames.image(index), self.height)

    def images(self) -> Iterator[Image]:
        return (resize_image(image, self.height) for image in self.frames.images())

    def labels(self, index: int) -> LabelMap | None:
        labels = self.frames.labels(index)
        if labels is None:
            return None
        size = (resized_width((labels.shape[0], labels.shape[1]), self.height), self.height)
        return np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT), dtype=labels.dtype)

    def labelled(self) -> Sequence[int]:
        return self.frames.labelled()
