"""What a network of several frames sees of a video: which frames, which square of them, and at which size."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Sampling = Literal["segments", "dense"]

MARGIN = 8 / 7  # short side ÷ crop when a frame is cut for a test, 256 to 224 as the field has it


@dataclass(frozen=True)
class ClipView:
    """Frames and their size, for one network. Two networks may see one clip differently, which is all that
    cross-resolution needs.

    num_frames: of a clip. sampling: "segments", spread over the whole video, or "dense", every `stride`-th frame.
    stride: frames from one to the next; of segments, as a stream has them. crop: side of the square that is cut.
    size: side that the square is resized to for the network, inside the model. detail: side that it is resized to
    before that, so that it holds no finer detail; None to leave that out.
    """

    num_frames: int = 8
    sampling: Sampling = "segments"
    stride: int = 8
    crop: int = 224
    size: int = 224
    detail: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_frames", "stride", "crop", "size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The centred square of a frame (H, W, 3) whose short side is 8/7 of `crop`."""
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
            raise ValueError(f"a clip of {length} frames has no {self.num_frames} evenly spaced ones")
        every = length // self.num_frames
        return clips[:, every // 2 :: every]

    def resize(self, frames: Tensor) -> Tensor:
        """(…, 3, H, W) frames resized bilinearly, as published, to `detail` and to `size`."""
        for side in (self.detail, self.size):
            if side is not None and frames.shape[-2:] != (side, side):
                flat = frames.reshape(-1, *frames.shape[-3:])
                flat = F.interpolate(flat, size=(side, side), mode="bilinear", align_corners=False)
                frames = flat.reshape(*frames.shape[:-2], side, side)
        return frames

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class WindowView:
    """Consecutive frames around the one that a network restores, whole; `window` is their number, odd.

    Two networks may look at windows of different length around one frame: each takes the middle.
    """

    window: int

    def __post_init__(self) -> None:
        if self.window < 1 or self.window % 2 == 0:
            raise ValueError(f"window is {self.window}; a window with a centre frame has an odd number of frames")

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The frame, whole."""
        return image

    def __call__(self, windows: Tensor) -> Tensor:
        """(B, window, 3, h, w) of (B, W, 3, h, w). Errors: ValueError where W is smaller or even."""
        length = windows.shape[1]
        if length < self.window or (length - self.window) % 2:
            raise ValueError(f"windows of {length} frames have no {self.window} in the middle")
        first = (length - self.window) // 2
        return windows[:, first : first + self.window]


View = ClipView | WindowView


def view_of_values(values: dict[str, Any]) -> View:
    """The view that `asdict` made `values` of."""
    return WindowView(**values) if "window" in values else ClipView(**values)


def cut_square(image: NDArray[np.uint8], *, share: float, place: tuple[float, float], size: int) -> NDArray[np.uint8]:
    """The square of side `share` · short side at `place` (down, right; 0…1 of the room there is), resized to `size`."""
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
