"""Reading video: files and URLs through PyAV, or folders of frames; in order, by frame number, or by time.

Pixels come out as upright 8-bit RGB. A video that does not state its colours is taken as limited range, BT.709 from
720 lines on and BT.601 below; RGB and grey are taken as full range.
"""

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from vidistill.data.image_files import IMAGE_SUFFIXES, images_in, read_image
from vidistill.data.video._packets import FrameIndex
from vidistill.data.video._video_file import VideoFile
from vidistill.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """One picture of a video. image: (H, W, 3) uint8 RGB, upright, contiguous."""

    index: int
    pts_seconds: float
    image: np.ndarray


@dataclass(frozen=True)
class VideoInfo:
    """What a video is. Sizes are upright; `rotation_degrees` is the clockwise turn that makes the stored frames so.

    pixel_aspect: an upright pixel's width ÷ its height, as it is shown.
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


class _Source(Protocol):
    width: int
    height: int
    fps: Fraction
    codec: str
    pixel_format: str
    rotation_degrees: int
    colour_range: str
    pixel_aspect: Fraction

    @property
    def index(self) -> FrameIndex: ...
    def stream(self) -> Iterator[tuple[float, np.ndarray]]: ...
    def image(self, index: int) -> np.ndarray: ...
    def close(self) -> None: ...


class VideoReader:
    """A video file, a URL, or a folder of frames in natural order.

    Iterating decodes in presentation order in constant memory, also from a pipe or a live stream, and ends with a
    UserError if the video breaks off. Frames by number or time equal those of iterating; they cost one scan of the
    packets at first. Every `iter()` starts over.

    num_threads: of the decoder; 1 decodes without delay, more decode several frames at once.
    fps: of a folder of frames; a file has its own.
    """

    def __init__(self, path: str | Path, *, num_threads: int = 1, fps: float | Fraction = 25) -> None:
        self.path = str(path)
        folder = "://" not in self.path and Path(path).is_dir()
        self._source: _Source = (
            FrameFolder(Path(path), frame_rate(fps)) if folder else VideoFile(self.path, num_threads=num_threads)
        )
        self.width = self._source.width
        self.height = self._source.height
        self.fps = self._source.fps  # average
        self.pixel_aspect = self._source.pixel_aspect

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Iterators that were begun stay valid."""
        self._source.close()

    @property
    def num_frames(self) -> int:
        return len(self._source.index.times)

    @property
    def duration_seconds(self) -> float:
        """From when the first frame is shown until the last is no longer."""
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
        )

    def __iter__(self) -> Iterator[Frame]:
        for index, (pts_seconds, image) in enumerate(self._source.stream()):
            yield Frame(index, pts_seconds, image)

    def __getitem__(self, index: int) -> Frame:
        place = self._place(index)
        return Frame(place, float(self._source.index.times[place]), self._source.image(place))

    def frames_at(self, indices: Sequence[int]) -> np.ndarray:
        """(N, H, W, 3) uint8: the frames at `indices`, which may repeat, be negative, and come in any order."""
        places = np.array([self._place(index) for index in indices], np.int64)
        images = np.empty((len(places), self.height, self.width, 3), np.uint8)
        for place in np.unique(places):
            images[places == place] = self._source.image(int(place))
        return images

    def frame_at_time(self, seconds: float) -> Frame:
        """The frame shown at `seconds`: the last one that begins by then; the first one for any earlier time."""
        place = int(np.searchsorted(self._source.index.times, seconds, side="right")) - 1
        return self[max(place, 0)]

    def _place(self, index: int) -> int:
        place = operator.index(index)
        place += self.num_frames if place < 0 else 0
        if not 0 <= place < self.num_frames:
            raise IndexError(f"{self.path} has {self.num_frames} frames and none numbered {index}")
        return place


class FrameFolder:
    """A folder of images of one size as a source of frames; other files and hidden ones are ignored."""

    pixel_format = "rgb24"
    rotation_degrees = 0
    colour_range = "full"
    pixel_aspect = Fraction(1)

    def __init__(self, path: Path, fps: Fraction) -> None:
        self._files = images_in(path)
        if not self._files:
            raise UserError(f"{path} is a folder without frames: it needs {', '.join(IMAGE_SUFFIXES)} files")
        self.fps = fps
        self.codec = self._files[0].suffix.lower().removeprefix(".")
        self.height, self.width = read_image(self._files[0]).shape[:2]

    @cached_property
    def index(self) -> FrameIndex:
        times = np.array([float(place / self.fps) for place in range(len(self._files))])
        return FrameIndex(times, float(len(self._files) / self.fps))

    def stream(self) -> Iterator[tuple[float, np.ndarray]]:
        for place in range(len(self._files)):
            yield float(place / self.fps), self.image(place)

    def image(self, index: int) -> np.ndarray:
        image = read_image(self._files[index])
        height, width = image.shape[:2]
        if (height, width) != (self.height, self.width):
            raise UserError(
                f"{self._files[index]} is {width}x{height} while the frames before it are {self.width}x{self.height}: "
                "resize it or take it out of the folder"
            )
        return image

    def close(self) -> None:
        pass


def probe(path: str | Path) -> VideoInfo:
    """What the video at `path` is; reads its packets and decodes one frame."""
    with VideoReader(path) as reader:
        return reader.info


def verify(path: str | Path) -> str | None:
    """The sentence that says what is wrong with the video at `path`, or None; decodes all of it."""
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
        raise UserError(f"a video cannot have {fps} frames a second: give fps from 0.001 to 1000")
    return fps if isinstance(fps, Fraction) else Fraction(fps).limit_denominator(1001)
