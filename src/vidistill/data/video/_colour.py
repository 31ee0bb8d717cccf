"""How stored pixels become upright 8-bit RGB: matrix, range and orientation, all explicit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from av.buffer import Buffer
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

UNSPECIFIED_MATRIX = 2  # AVCOL_SPC_UNSPECIFIED; PyAV names swscale's values only, which lack it


def matrix_of_height(height: int) -> Colorspace:
    """BT.709 from 720 lines on, else BT.601: what players assume of a video without colour tags, and what we write."""
    return Colorspace.ITU709 if height >= 720 else Colorspace.ITU601


def range_of(frame: VideoFrame) -> ColorRange:
    """The range of the stored samples: as tagged; without a tag full for RGB and grey, else limited."""
    if frame.color_range != ColorRange.UNSPECIFIED:
        return ColorRange(frame.color_range)
    layout = frame.format
    full = layout.is_rgb or len(layout.components) == 1 or layout.name.startswith("yuvj")
    return ColorRange.JPEG if full else ColorRange.MPEG


class RgbConverter:
    """Turns decoded frames of any pixel format into contiguous (H, W, 3) uint8 RGB, as stored (not yet upright)."""

    def __init__(self, num_threads: int) -> None:
        self._reformatter = VideoReformatter()
        self._num_threads = num_threads

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        untagged = frame.colorspace == UNSPECIFIED_MATRIX and not frame.format.is_rgb
        rgb = self._reformatter.reformat(
            frame,
            format="rgb24",
            src_colorspace=matrix_of_height(frame.height) if untagged else None,
            src_color_range=range_of(frame),
            dst_color_range=ColorRange.JPEG,
            threads=self._num_threads,
        )
        image = np.asarray(rgb.to_ndarray(), dtype=np.uint8)
        # A frame that is rgb24 already comes back as itself; a view of it would change with the next write to either.
        return image.copy() if rgb is frame else np.ascontiguousarray(image)


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways to turn and mirror a picture: transpose first, then flip."""

    transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False
    degrees: int = 0  # its clockwise rotation

    @classmethod
    def of(cls, frame: VideoFrame) -> "Orientation":
        """The orientation in a frame's display matrix; an angle between quarter turns is rounded."""
        side_data = cast("Mapping[Type, Buffer]", frame.side_data)  # PyAV's stub types only one of its keys
        matrix = side_data.get(Type.DISPLAYMATRIX)
        if matrix is None:
            return cls()
        # Row vectors: (x, y) is shown at (a x + c y, b x + d y).
        a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(matrix), np.int32)[:5])
        degrees = round(-frame.rotation / 90) % 4 * 90
        if abs(b) > abs(a):
            return cls(True, c < 0, b < 0, degrees)
        return cls(False, a < 0, d < 0, degrees)

    def upright(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """`image` (H, W, 3) turned and mirrored for display, contiguous."""
        if self.transposed:
            image = image.swapaxes(0, 1)
        image = image[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        return np.ascontiguousarray(image)

    def upright_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the upright picture."""
        return (height, width) if self.transposed else (width, height)
