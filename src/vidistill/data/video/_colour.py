"""How stored pixels become upright 8-bit RGB: matrix, range and orientation, all explicit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from av.buffer import Buffer
from av.error import FFmpegError
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from vidistill.errors import UserError

# AVColorSpace, H.273 MatrixCoefficients; PyAV names swscale's values only.
UNTAGGED = (0, 2, 3)  # RGB, which a YUV video cannot be; unspecified; reserved
KNOWN_MATRICES = (1, 4, 5, 6, 7, 9)  # of swscale: BT.709, FCC, BT.601 twice, SMPTE 240M, BT.2020
OTHER_MATRICES = {8: "YCgCo", 10: "BT.2020 constant luminance", 14: "ICtCp", 16: "YCgCo-R", 17: "YCgCo-R"}


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


def source_matrix(frame: VideoFrame, path: str) -> Colorspace | None:
    """The matrix that turns YUV to RGB; None to go by the frame's own tag. Errors: UserError for one we cannot use."""
    if frame.format.is_rgb or len(frame.format.components) <= 2 or frame.colorspace in KNOWN_MATRICES:
        return None
    if frame.colorspace in UNTAGGED:
        return matrix_of_height(frame.height)
    name = OTHER_MATRICES.get(frame.colorspace, f"number {int(frame.colorspace)} of H.273")
    raise UserError(f"{path}: its colour matrix, {name}, is not supported; re-encode it as BT.709, e.g. with zscale")


class RgbConverter:
    """Turns decoded frames of any pixel format into contiguous (H, W, 3) uint8 RGB, as stored (not yet upright).

    Errors: UserError for a colour matrix or pixel format that cannot be converted.
    """

    def __init__(self, path: str, num_threads: int) -> None:
        self._path = path
        self._reformatter = VideoReformatter()
        self._num_threads = num_threads

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        matrix = source_matrix(frame, self._path)
        try:
            rgb = self._reformatter.reformat(
                frame,
                format="rgb24",
                src_colorspace=matrix,
                src_color_range=range_of(frame),
                dst_color_range=ColorRange.JPEG,
                threads=self._num_threads,
            )
        except (FFmpegError, OSError, ValueError) as error:
            raise UserError(
                f"{self._path}: its pixels ({frame.format.name}) cannot be converted to RGB ({error}); re-encode it"
            ) from error
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
