"""Reading video: files and URLs through PyAV, or folders of frames; in order, by frame number, or by time.

Pixels come out as upright 8-bit RGB. A video without colour tags is taken as limited range, BT.709 from 720 lines on
and BT.601 below; RGB and grey are taken as full range.
"""

import operator
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from vidistill.data.image_files import IMAGE_SUFFIXES, images_in, read_image
from vidistill.data.video._packets import FrameIndex
from vidistill.data.video._video_file import VideoFile
from vidistill.data.video.damage import Damage, DamageReport
from vidistill.errors import UserError

# What a folder is searched for, in lower case; a file that is named itself may have any suffix.
VIDEO_SUFFIXES = (
    ".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".mts", ".m2ts",
    ".m2t", ".trp", ".vob", ".vro", ".evo", ".mpe", ".mpv", ".m1v", ".m2v", ".mod", ".tod", ".3gp", ".3g2", ".ogv",
    ".ogm", ".qt", ".mj2", ".mjpg", ".mjpeg", ".mk3d", ".asf", ".wtv", ".dvr-ms", ".rm", ".rmvb", ".f4v", ".divx",
    ".dv", ".mxf", ".gxf", ".nut", ".nsv", ".amv", ".ismv", ".insv", ".lrv", ".gif", ".apng", ".y4m", ".ivf",
    ".obu", ".h264", ".264", ".avc", ".h265", ".265", ".hevc", ".h266", ".266", ".vvc", ".vc1", ".av1", ".drc",
)  # fmt: skip


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """One picture of a video.

    Attributes:
        index: From 0 on.
        pts_seconds: When it is shown.
        image: (H, W, 3) uint8 RGB, upright, contiguous.
        after_loss: Whether something before it was lost, so that a stream should start anew from it, with a key frame.
    """

    index: int
    pts_seconds: float
    image: NDArray[np.uint8]
    after_loss: bool = False


@dataclass(frozen=True)
class VideoInfo:
    """The properties of a video. Sizes are upright; `rotation_degrees` is the clockwise turn of the stored frames.

    pixel_aspect: width ÷ height of an upright pixel as it is displayed.
    stream: which of the file's streams it is, from 0 on; num_video_streams: how many it could have been.
    """

    path: str
    width: int
    height: int
    num_frames: int
    fps: Fraction
    duration_seconds: float
    codec: str
    pixel_format: str
    rotation_degrees: int
    colour_range: str  # "limited" or "full"
    pixel_aspect: Fraction
    stream: int
    num_video_streams: int


class FrameSource(Protocol):
    """What a reader reads from: a video file or a folder of frames."""

    width: int
    height: int
    fps: Fraction
    codec: str
    pixel_format: str
    rotation_degrees: int
    colour_range: str
    pixel_aspect: Fraction
    stream_index: int
    num_video_streams: int

    @property
    def index(self) -> FrameIndex: ...
    @property
    def damage(self) -> DamageReport: ...
    def stream(self) -> Iterator[tuple[float, NDArray[np.uint8], bool]]: ...
    def image(self, index: int) -> NDArray[np.uint8]: ...
    def close(self) -> None: ...


class VideoReader:
    """A video file, a URL, or a folder of frames in natural order. Of several streams libav's best, mostly the default.

    Iterating decodes in presentation order in constant memory, also from a pipe or a live stream, and every `iter()`
    starts over. Frames by number or by time equal those of iterating; the first such access scans all packets once.

    Args:
        path: A video file, a URL, or a folder of images.
        num_threads: Of the decoder. 1 decodes without delay, more decode several frames at once.
        fps: Frames per second of a folder of frames, 0.001 to 1000; a file has its own.
        damage: "refuse": a UserError where a frame is damaged or missing, or the video breaks off. "skip": such frames
            are left out and counted in `damage`, and the first frame after them has `after_loss`. Left out are frames
            that do not decode, that the decoder marks corrupt, or whose data a transport stream lost; frames that
            refer to these are used, as the decoder makes them. Where reading fails, as when a connection is reset,
            iterating ends. Frames cannot be had by number or time then, and `num_frames` counts the lost ones too.

    Attributes:
        width, height: Of the upright frames, in pixels.
        fps: Frames per second, the average for a file.
        pixel_aspect: Width ÷ height of an upright pixel as it is displayed.

    Raises:
        UserError: If the path is not a video that can be opened; while reading, where the video breaks off or a frame
            is damaged or of another size.
        IndexError: For a frame number that the video does not have.
    """

    def __init__(
        self, path: str | Path, *, num_threads: int = 1, fps: float | Fraction = 25, damage: Damage = "refuse"
    ) -> None:
        self.path = str(path)
        self._skips = damage == "skip"
        folder = "://" not in self.path and os.path.isdir(path)  # False of names that no file can have
        self._source: FrameSource = (
            FrameFolder(Path(path), frame_rate(fps), damage)
            if folder
            else VideoFile(self.path, num_threads=num_threads, damage=damage)
        )
        self.width = self._source.width
        self.height = self._source.height
        self.fps = self._source.fps
        self.pixel_aspect = self._source.pixel_aspect

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Releases the file. Iterators that have begun stay valid."""
        self._source.close()

    @property
    def num_frames(self) -> int:
        return len(self._source.index.times)

    @property
    def damage(self) -> DamageReport:
        """What the iterator that began last has left out so far."""
        return self._source.damage

    @property
    def duration_seconds(self) -> float:
        """The time from when the first frame is shown until the last one ends."""
        index = self._source.index
        return index.end_seconds - float(index.times[0])

    @property
    def info(self) -> VideoInfo:
        source = self._source
        return VideoInfo(
            path=self.path,
            width=self.width,
            height=self.height,
            num_frames=self.num_frames,
            fps=self.fps,
            duration_seconds=self.duration_seconds,
            codec=source.codec,
            pixel_format=source.pixel_format,
            rotation_degrees=source.rotation_degrees,
            colour_range=source.colour_range,
            pixel_aspect=source.pixel_aspect,
            stream=source.stream_index,
            num_video_streams=source.num_video_streams,
        )

    def __iter__(self) -> Iterator[Frame]:
        for index, (pts_seconds, image, after_loss) in enumerate(self._source.stream()):
            yield Frame(index, pts_seconds, image, after_loss)

    def __getitem__(self, index: int) -> Frame:
        place = self._place(index)
        return Frame(place, float(self._source.index.times[place]), self._source.image(place))

    def frames_at(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Several frames at once.

        Args:
            indices: N frame numbers, which may repeat, be negative, and come in any order.

        Returns:
            (N, H, W, 3) uint8 RGB.
        """
        places = np.array([self._place(index) for index in indices], np.int64)
        images = np.empty((len(places), self.height, self.width, 3), np.uint8)
        for place in np.unique(places):  # in order, as the decoder runs forward, and each once
            images[places == place] = self._source.image(int(place))
        return images

    def frame_at_time(self, seconds: float) -> Frame:
        """The frame shown at `seconds`: the last one that begins by then; the first one for any earlier time."""
        place = int(np.searchsorted(self._source.index.times, seconds, side="right")) - 1
        return self[max(place, 0)]

    def _place(self, index: int) -> int:
        """The frame number from 0 on."""
        if self._skips:
            raise UserError(f"{self.path}: is read with damage='skip', in order only; open it with damage='refuse'")
        place = operator.index(index)
        place += self.num_frames if place < 0 else 0
        if not 0 <= place < self.num_frames:
            raise IndexError(f"{self.path}: frame {index} is out of range, the video has {self.num_frames} frames")
        return place


class FrameFolder:
    """A folder of images of one size as a source of frames; other files and hidden ones are ignored."""

    pixel_format = "rgb24"
    rotation_degrees = 0
    colour_range = "full"
    pixel_aspect = Fraction(1)
    stream_index, num_video_streams = 0, 1

    def __init__(self, path: Path, fps: Fraction, damage: Damage) -> None:
        self.damage = DamageReport()
        self._skips = damage == "skip"
        self._files = images_in(path)
        if not self._files:
            raise UserError(f"{path}: is a folder without frames; it needs {', '.join(IMAGE_SUFFIXES)} files")
        self.fps = fps
        self.codec = self._files[0].suffix.lower().removeprefix(".")
        self.height, self.width = read_image(self._files[0]).shape[:2]

    @cached_property
    def index(self) -> FrameIndex:
        times = np.array([float(place / self.fps) for place in range(len(self._files))])
        return FrameIndex(times, float(len(self._files) / self.fps))

    def stream(self) -> Iterator[tuple[float, NDArray[np.uint8], bool]]:
        self.damage, after_loss = DamageReport(), False
        for place in range(len(self._files)):
            seconds = float(place / self.fps)
            try:
                image = self.image(place)
            except UserError as error:
                if not self._skips:
                    raise
                self.damage.add(seconds, str(error))
                after_loss = True
            else:
                yield seconds, image, after_loss
                after_loss = False

    def image(self, index: int) -> NDArray[np.uint8]:
        image = read_image(self._files[index])
        height, width = image.shape[:2]
        if (height, width) != (self.height, self.width):
            raise UserError(
                f"{self._files[index]}: is {width}x{height}, expected {self.width}x{self.height} as the frames before "
                "it; resize it or take it out of the folder"
            )
        return image

    def close(self) -> None:
        pass


def probe(path: str | Path) -> VideoInfo:
    """The properties of the video at `path`; reads its packets and decodes one frame.

    Raises:
        UserError: If it is not a video that can be opened.
    """
    with VideoReader(path) as reader:
        return reader.info


def verify(path: str | Path) -> str | None:
    """Decodes all of the video at `path`.

    Returns:
        The sentence that says what is wrong with it, or None.
    """
    try:
        with VideoReader(path) as reader:
            for _ in reader:
                pass
    except UserError as error:
        return str(error)
    return None


def frame_rate(fps: float | Fraction) -> Fraction:
    """`fps` as a fraction: 29.97003 is 30000/1001, the largest denominator in use (NTSC); a Fraction stays itself."""
    if not 0.001 <= fps <= 1000:
        raise UserError(f"fps must be between 0.001 and 1000, got {fps}")
    return fps if isinstance(fps, Fraction) else Fraction(fps).limit_denominator(1001)
