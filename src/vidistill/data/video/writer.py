"""Writing video files through PyAV, whole or not at all."""

import uuid
import warnings
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

from vidistill.data.video._colour import matrix_of_height
from vidistill.data.video.reader import frame_rate
from vidistill.data.video.sound import Sound
from vidistill.errors import UserError

CODECS = {
    ".mp4": "libx264",
    ".mov": "libx264",
    ".mkv": "libx264",
    ".webm": "libvpx-vp9",
    ".avi": "mjpeg",
}
MOST_CRF = 51
TICK = Fraction(1, 60000)  # of frames with times of their own: MPEG-4 takes no finer one
SQUARE = Fraction(1)  # pixels


class VideoWriter:
    """Writes frames to a video file, whose name decides codec and container.

    H.264 for mp4, mov and mkv (MPEG-4 where PyAV lacks libx264), VP9 for webm, Motion JPEG for avi; all 4:2:0,
    colours tagged: BT.709 from 720 lines on and BT.601 below, limited range; Motion JPEG is always BT.601, full range.
    H.264 needs an even size: an odd one is padded by repeating its last row or column, with a warning.

    The file appears under its name when the `with` block ends well. Until then frames go to a hidden neighbour, which
    an exception removes, so that an earlier file of that name stays.

    Frames come at `fps`, or each at its own time where `write` is given it (to 1/60000 s, not in avi, whose pictures
    come one after the other from 0 on).
    sound: is copied in, and moved as the frames' times are; what would then begin before 0 is left out.
    pixel_aspect: a pixel's width ÷ its height as it is shown; webm keeps none.

    crf: 0 (best) to 51, as in x264; the other codecs get the nearest quality they have.
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
            raise UserError(f"{path} is not named as a video that can be written: use one of {', '.join(CODECS)}")
        if not self._path.parent.is_dir():
            raise UserError(f"{path} cannot be written: there is no folder {self._path.parent}; make it first")
        if not 0 <= crf <= MOST_CRF:
            raise UserError(f"{path} cannot be written with crf={crf}: give crf from 0 (best) to {MOST_CRF}")
        self._fps = frame_rate(fps)
        self._crf = crf
        # The muxer goes by the suffix, and a rename is atomic only within a folder.
        name = f".{self._path.stem}.{uuid.uuid4().hex[:8]}.part{self._path.suffix}"
        self._part = self._path.with_name(name)
        self._container: OutputContainer | None = None
        self._reformatter = VideoReformatter()
        self._num_frames = 0
        self._sound = sound
        self._pixel_aspect = pixel_aspect
        self._last_tick = -1  # that was written
        self._last_given = -1
        self._shift = 0  # ticks from the times that are given to those that are written

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._discard()

    def write(self, image: np.ndarray, seconds: float | None = None, *, silent: bool = False) -> None:
        """Adds a frame, (H, W, 3) uint8 RGB, all of the first one's size.

        seconds: when it is shown. silent: it comes before what the sound belongs to.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise UserError(f"{self._path} takes frames of shape (H, W, 3) and uint8, not {image.shape} {image.dtype}")
        if self._container is None:
            self._size = image.shape
        if image.shape != self._size:
            new, first = (f"{width}x{height}" for height, width, _ in (image.shape, self._size))
            raise UserError(
                f"{self._path} cannot take frame {self._num_frames} of size {new}, for its first was {first}: "
                "resize the frames to one size"
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
            warnings.warn(f"{self._path} is written as {width}x{height}: H.264 needs an even size", stacklevel=3)
        jpeg = codec == "mjpeg"
        self._matrix = Colorspace.ITU601 if jpeg else matrix_of_height(height)  # JPEG has but one
        self._range = ColorRange.JPEG if jpeg else ColorRange.MPEG
        self._container = av.open(str(self._part.absolute()), "w")
        self._stream = cast(
            VideoStream, self._container.add_stream(codec, rate=self._fps, options=self._options(codec))
        )
        context = self._stream.codec_context
        context.width, context.height = width, height
        context.pix_fmt = self._format = "yuvj420p" if jpeg else "yuv420p"
        self._tick = TICK if is_timed and not jpeg else 1 / self._fps
        context.time_base = self._tick
        context.sample_aspect_ratio = self._pixel_aspect
        context.color_range = self._range
        high = self._matrix == Colorspace.ITU709
        context.colorspace = 1 if high else 6  # AVCOL_SPC_BT709, AVCOL_SPC_SMPTE170M
        context.color_primaries = ColorPrimaries.BT709 if high else ColorPrimaries.SMPTE170M
        context.color_trc = ColorTrc.BT709 if high else ColorTrc.SMPTE170M
        if self._sound is not None:
            self._sound.add_to(self._container, self._path)
        self._container.start_encoding()  # opens the file now; by itself it would wait for the encoder's first packet

    def _options(self, codec: str) -> dict[str, str]:
        if codec == "libx264":
            return {"crf": str(self._crf)}
        if codec == "libvpx-vp9":  # its scale ends at 63, and its usual speed is for archives
            return {"crf": str(round(self._crf * 63 / MOST_CRF)), "b": "0", "cpu-used": "4", "row-mt": "1"}
        # JPEG and MPEG-4 have a quantiser of 2 (best) to 31, here in libav's unit (FF_QP2LAMBDA).
        return {"flags": "+qscale", "global_quality": str((2 + self._crf // 5) * 118)}

    def _encode(self, image: np.ndarray, seconds: float | None, *, silent: bool) -> None:
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
        """Decides the tick that a frame is written at. Times that begin anew, as after a cut, go on instead."""
        frame_ticks = round(1 / (self._fps * self._tick))
        has_own_times = self._tick == TICK
        if given < self._last_given - frame_ticks or (self._num_frames == 0 and not has_own_times):
            self._shift = self._last_tick + frame_ticks - given
        self._last_given = given
        self._last_tick = max(given + self._shift if has_own_times else 0, self._last_tick + 1)

    def _finish(self) -> None:
        if self._container is None:
            raise UserError(f"{self._path} was given no frames, so nothing was written: write at least one")
        try:
            self._container.mux(self._stream.encode(None))
            if self._sound is not None:
                self._container.mux(list(self._sound.until(None, self._shift * self._tick)))
            self._container.close()
            self._part.replace(self._path)
        except (FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def _discard(self) -> None:
        """Removes what is left of an unfinished file; after a good end there is nothing."""
        container, self._container = self._container, None
        try:
            if container is not None:
                container.close()
        except (FFmpegError, OSError):
            pass  # the disk that is full cannot take the end of the file either
        self._part.unlink(missing_ok=True)

    def _failure(self, error: FFmpegError | OSError) -> UserError:
        return UserError(
            f"{self._path} cannot be written ({error.strerror}) at frame {self._num_frames}: "
            "check the folder's permissions, the free space and the frame size"
        )
