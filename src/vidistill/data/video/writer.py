"""Writing video files through PyAV: the file appears when it is complete, or not at all."""

import warnings
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import av
import numpy as np
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from vidistill.data.video._colour import matrix_of_height
from vidistill.data.video.reader import frame_rate
from vidistill.data.video.sound import Sound
from vidistill.errors import UserError
from vidistill.files import part_beside, put_in_place

CODECS = {
    ".mp4": "libx264",
    ".mov": "libx264",
    ".mkv": "libx264",
    ".webm": "libvpx-vp9",
    ".avi": "mjpeg",
}
MOST_CRF = 51
TICK = Fraction(1, 60000)  # seconds, of frames with times of their own; MPEG-4 allows no finer time base
MOST_AVI_GAP = 60000  # places without a picture that libav's avi writer fills between two
SQUARE = Fraction(1)  # pixel aspect


class VideoWriter:
    """Writes frames to a video file; its suffix decides codec and container. A context manager.

    H.264 for mp4, mov and mkv (MPEG-4 where PyAV lacks libx264), VP9 for webm, Motion JPEG for avi; all 4:2:0 with
    colour tags: BT.709 from 720 lines on and BT.601 below, limited range; Motion JPEG is always BT.601, full range.
    H.264 needs an even size: an odd one is padded by repeating its last row or column, with a warning.

    Frames go to a hidden file beside `path`, which takes the name `path` when the `with` block succeeds. An exception
    deletes it, and an earlier file of that name stays.

    Args:
        path: A file in an existing folder, named .mp4, .mov, .mkv, .webm or .avi.
        fps: Frames per second, 0.001 to 1000. Frames that `write` gets with times are shown at those times instead,
            to 1/60000 s; in avi, whose pictures are all 1/fps apart, at the nearest place, and from 0 on.
        crf: Quality, 0 (best) to 51, as in x264; the other codecs get the nearest quality that they have.
        sound: Copied into the file, and shifted as the frames' times are; packets shifted to before 0 are left out.
        pixel_aspect: Width ÷ height of a pixel as it is displayed; webm does not store it.

    Raises:
        UserError: For a suffix, folder, `fps` or `crf` that cannot be used; later where a frame has another shape than
            (H, W, 3) uint8 or another size than the first one, where writing fails, and at the end if there were no
            frames.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        fps: float | Fraction,
        crf: int = 20,
        sound: Sound | None = None,
        pixel_aspect: Fraction = SQUARE,
    ) -> None:
        self._path = Path(path)
        if self._path.suffix.lower() not in CODECS:
            raise UserError(f"{path}: suffix must be one of {', '.join(CODECS)}, got {self._path.suffix or 'none'}")
        if not self._path.parent.is_dir():
            raise UserError(f"{path}: cannot be written, no folder {self._path.parent}; create it first")
        if not 0 <= crf <= MOST_CRF:
            raise UserError(f"{path}: crf must be between 0 (best) and {MOST_CRF}, got {crf}")
        self._fps = frame_rate(fps)
        self._crf = crf
        self._stack = ExitStack()
        self._part: Path | None = None
        self._container: OutputContainer | None = None
        self._reformatter = VideoReformatter()
        self._num_frames = 0
        self._sound = sound
        self._pixel_aspect = pixel_aspect
        self._last_tick = -1  # the last written one
        self._last_given = -1  # the last time that `write` got, in ticks
        self._shift = 0  # ticks from given times to written ones

    def __enter__(self) -> Self:
        self._part = self._stack.enter_context(part_beside(self._path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            try:
                if kind is None:
                    self._finish()
            finally:
                self._close()

    def write(self, image: NDArray[np.uint8], seconds: float | None = None, *, silent: bool = False) -> None:
        """Adds a frame.

        Args:
            image: (H, W, 3) uint8 RGB, of the first frame's size.
            seconds: When it is shown; without it frames come at `fps`.
            silent: Write no sound up to this frame, as for frames before the one that the sound starts at.

        Raises:
            UserError: For another shape, type or size, or where writing fails.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise UserError(
                f"{self._path}: a frame must have shape (H, W, 3) and type uint8, got {image.shape} {image.dtype}"
            )
        if self._container is None:
            self._size = image.shape
        if image.shape != self._size:
            new, first = (f"{width}x{height}" for height, width, _ in (image.shape, self._size))
            raise UserError(
                f"{self._path}: frame {self._num_frames} is {new}, expected {first} as the first one; resize the "
                "frames to one size"
            )
        try:
            if self._container is None:
                self._open(image.shape[0], image.shape[1], is_timed=seconds is not None)
            self._encode(image, seconds, silent=silent)
        except (FFmpegError, OSError) as error:
            raise self._failure(error) from error
        self._num_frames += 1

    def _open(self, height: int, width: int, *, is_timed: bool) -> None:
        codec = CODECS[self._path.suffix.lower()]
        if codec == "libx264" and codec not in av.codecs_available:
            codec = "mpeg4"
        self._padding = ((0, height % 2), (0, width % 2), (0, 0)) if codec == "libx264" else None
        if self._padding and (height % 2 or width % 2):
            height, width = height + height % 2, width + width % 2
            warnings.warn(f"{self._path}: is written as {width}x{height}, as H.264 needs an even size", stacklevel=3)
        jpeg = codec == "mjpeg"
        self._matrix = Colorspace.ITU601 if jpeg else matrix_of_height(height)  # JPEG has only this one
        self._range = ColorRange.JPEG if jpeg else ColorRange.MPEG
        assert self._part is not None
        self._container = av.open(str(self._part.absolute()), "w")
        self._stream = cast(
            VideoStream, self._container.add_stream(codec, rate=self._fps, options=self._options(codec))
        )
        context = self._stream.codec_context
        context.width, context.height = width, height
        context.pix_fmt = self._format = "yuvj420p" if jpeg else "yuv420p"
        self._starts_at_0 = jpeg or not is_timed
        self._most_gap = MOST_AVI_GAP if jpeg else None
        self._tick = 1 / self._fps if self._starts_at_0 else TICK
        context.time_base = self._tick
        context.sample_aspect_ratio = self._pixel_aspect
        context.color_range = self._range
        high = self._matrix == Colorspace.ITU709
        context.colorspace = 1 if high else 6  # AVCOL_SPC_BT709, AVCOL_SPC_SMPTE170M
        context.color_primaries = ColorPrimaries.BT709 if high else ColorPrimaries.SMPTE170M
        context.color_trc = ColorTrc.BT709 if high else ColorTrc.SMPTE170M
        if self._sound is not None:
            self._sound.add_to(self._container, self._path)
        self._container.start_encoding()  # opens the file now instead of at the encoder's first packet

    def _options(self, codec: str) -> dict[str, str]:
        if codec == "libx264":
            return {"crf": str(self._crf)}
        if codec == "libvpx-vp9":  # its scale ends at 63, and its default speed is very slow
            return {"crf": str(round(self._crf * 63 / MOST_CRF)), "b": "0", "cpu-used": "4", "row-mt": "1"}
        # JPEG and MPEG-4 have a quantiser from 2 (best) to 31, here in libav's unit (FF_QP2LAMBDA = 118).
        return {"flags": "+qscale", "global_quality": str((2 + self._crf // 5) * 118)}

    def _encode(self, image: NDArray[np.uint8], seconds: float | None, *, silent: bool) -> None:
        assert self._container is not None
        if self._padding:
            image = np.pad(image, self._padding, mode="edge")
        frame = self._reformatter.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24"),
            format=self._format,
            dst_colorspace=self._matrix,
            src_color_range=ColorRange.JPEG,
            dst_color_range=self._range,
        )
        self._place(self._num_frames if seconds is None else round(seconds / self._tick))
        frame.pts, frame.time_base = self._last_tick, self._tick
        if self._sound is not None and not silent:
            self._container.mux(list(self._sound.until(self._last_tick * self._tick, self._shift * self._tick)))
        self._container.mux(self._stream.encode(frame))

    def _place(self, given: int) -> None:
        """Decides the tick that a frame is written at. Times that start over, as after a cut, continue instead."""
        frame_ticks = round(1 / (self._fps * self._tick))
        if given < self._last_given - frame_ticks or (self._num_frames == 0 and self._starts_at_0):
            self._shift = self._last_tick + frame_ticks - given
        elif self._most_gap is not None and given > self._last_given + self._most_gap:
            self._shift -= given - self._last_given - self._most_gap
        self._last_given = given
        self._last_tick = max(given + self._shift, self._last_tick + 1)

    def _finish(self) -> None:
        if self._container is None or self._part is None:
            raise UserError(f"{self._path}: got no frames, so no file was written; write at least one")
        try:
            self._container.mux(self._stream.encode(None))
            if self._sound is not None:
                self._container.mux(list(self._sound.until(None, self._shift * self._tick)))
            self._container.close()
            put_in_place(self._part, self._path)
        except (FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def _close(self) -> None:
        """Closes the file, also an unfinished one."""
        container, self._container = self._container, None
        try:
            if container is not None:
                container.close()
        except (FFmpegError, OSError):
            pass  # a full disk cannot take the end of the file either

    def _failure(self, error: FFmpegError | OSError) -> UserError:
        return UserError(
            f"{self._path}: frame {self._num_frames} cannot be written ({error.strerror}); check the folder's "
            "permissions, the free space and the frame size"
        )
