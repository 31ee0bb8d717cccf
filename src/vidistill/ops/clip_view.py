"""What a network of several frames sees of a video: which frames, which square of them, and at which size."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Sampling = Literal["segments", "dense"]

MOST_PIXELS = 2**27  # of a clip with the frames between its own, as a stream keeps them
MOST_WINDOW = 999
MARGIN = 8 / 7  # short side ÷ crop when a frame is cut for a test, 256 to 224 as the field has it


@dataclass(frozen=True)
class ClipView:
    """What a network of clips sees of a video. Two networks may see one clip differently: cross-resolution needs that.

    Args:
        num_frames: Frames of a clip, at least 1.
        sampling: "segments" spreads the frames over the whole video, "dense" takes every `stride`-th one.
        stride: Frames from one to the next, at least 1. For "segments": on a stream.
        crop: Side in pixels of the square that is cut from a frame.
        size: Side in pixels that the square is resized to for the network, inside the model.
        detail: Side in pixels that the square is resized to before that, so that it holds no finer detail; None
            leaves that step out.

    Raises:
        ValueError: A number is below 1, or the clip is larger than a machine could keep.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    num_frames: int = 8
    sampling: Sampling = "segments"
    stride: int = 8
    crop: int = 224
    size: int = 224
    detail: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_frames", "stride", "crop", "size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.detail is not None and self.detail < 1:
            raise ValueError(f"detail must be at least 1, got {self.detail}")
        pixels = self.num_frames * self.stride * max(self.crop, self.size, self.detail or 1) ** 2
        if pixels > MOST_PIXELS:
            raise ValueError(
                f"num_frames · stride · size² must be at most {MOST_PIXELS}, got {pixels}; choose a smaller clip"
            )

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(crop, crop, 3): the centred square of a frame (H, W, 3) whose short side is 8/7 of `crop`."""
        return cut_square(image, share=1 / MARGIN, place=(0.5, 0.5), size=self.crop)

    def __call__(self, clips: Tensor) -> Tensor:
        """(B, T, 3, S, S) clips of this view, from (B, T·m, 3, H, W) of a longer or larger one."""
        return self.resize(self.chosen(clips))

    def chosen(self, clips: Tensor) -> Tensor:
        """(B, T, 3, H, W): the middle one of every m frames of (B, T·m, 3, H, W).

        Errors: ValueError where T does not divide the clip's frames.
        """
        length = clips.shape[1]
        if length % self.num_frames:
            raise ValueError(
                f"a clip of {length} frames does not divide into {self.num_frames} evenly spaced ones; "
                "choose a num_frames that divides its length"
            )
        every = length // self.num_frames
        return clips[:, every // 2 :: every]

    def resize(self, frames: Tensor) -> Tensor:
        """(…, 3, S, S): frames (…, 3, H, W) resized bilinearly, as published, to `detail` and then to S = `size`."""
        for side in (self.detail, self.size):
            if side is not None and frames.shape[-2:] != (side, side):
                flat = frames.reshape(-1, *frames.shape[-3:])
                flat = F.interpolate(flat, size=(side, side), mode="bilinear", align_corners=False)
                frames = flat.reshape(*frames.shape[:-2], side, side)
        return frames


@dataclass(frozen=True)
class WindowView:
    """Whole consecutive frames around the one that a network restores.

    Networks may look at windows of different length around one frame: each takes the middle of what is drawn.

    Args:
        window: Number of frames, odd, from 1 to 999.

    Raises:
        ValueError: `window` is even or out of range.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    window: int

    def __post_init__(self) -> None:
        if not 1 <= self.window <= MOST_WINDOW or self.window % 2 == 0:
            raise ValueError(
                "window must be an odd number of frames, so that one is the centre, and at least 1, at most "
                f"{MOST_WINDOW}, got {self.window}"
            )

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The frame, whole."""
        return image

    def __call__(self, windows: Tensor) -> Tensor:
        """Takes the frames in the middle.

        Args:
            windows: (B, W, 3, h, w), W odd and not less than `window`.

        Returns:
            (B, window, 3, h, w).

        Raises:
            ValueError: W is even or less than `window`.
        """
        length = windows.shape[1]
        if length < self.window or (length - self.window) % 2:
            raise ValueError(
                f"windows of {length} frames have no middle of {self.window}; expected an odd number, "
                f"at least {self.window}"
            )
        first = (length - self.window) // 2
        return windows[:, first : first + self.window]


View = ClipView | WindowView


def cut_square(image: NDArray[np.uint8], *, share: float, place: tuple[float, float], size: int) -> NDArray[np.uint8]:
    """(size, size, 3): a square of a frame (H, W, 3), resized. Its side is `share` of the frame's short side.

    place: how far (down, right) the square lies, 0…1 of what the frame leaves.
    """
    height, width = image.shape[:2]
    side = max(1, round(min(height, width) * share))
    top, left = (round(room * where) for room, where in zip((height - side, width - side), place, strict=True))
    square = image[top : top + side, left : left + side]
    method = cv2.INTER_AREA if size < side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (size, size), interpolation=method), dtype=np.uint8)


def middle_square(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The largest square in the middle of a frame (H, W, 3)."""
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]
