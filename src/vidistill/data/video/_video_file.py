"""Decoding a video file: frames in order or by their place, or an error that says which frame is missing.

Packets tell which frames must come. They are compared with the decoder's frames on the way, because libav silently
drops what it cannot decode and silently stops where a file was cut off.
"""

import contextlib
import heapq
import itertools
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from vidistill.data.video._colour import Orientation, RgbConverter, range_of
from vidistill.data.video._packets import FrameIndex, Packets, open_video, scan_packets
from vidistill.errors import UserError

# Frames. Decoding through so many costs less than a seek, which discards the decoder's buffered frames.
SEEK_GAIN = 8


class Decoder:
    """One open container, decoded forward.

    `frames()` gives every frame in presentation order, or raises a UserError that names the first missing or damaged
    one, or the first of another size. `position` is the place of the next frame in presentation order.
    """

    def __init__(self, path: str, num_threads: int) -> None:
        self.path = path
        self.position = 0
        self.container, self.stream = open_video(path)
        self._context = self.stream.codec_context
        self._context.thread_count = num_threads
        self._context.thread_type = "SLICE" if num_threads == 1 else "FRAME"
        self._size: tuple[int, int] | None = None
        self._begin(sought=False)

    def _begin(self, *, sought: bool) -> None:
        self._packets = Packets(self.container, self.stream, joined=sought)
        self._sought = sought
        self._expected: list[int] = []  # heap of the pts of packets whose frames have not come yet
        self._fresh = True
        self._failed = False

    @property
    def seekable(self) -> bool:
        """False for pipes and live streams."""
        return self.container.size > 0

    def has_times(self, frame: VideoFrame) -> bool:
        """False where pts are missing (elementary streams) or invented (AVI with reordered frames)."""
        invented = self.container.format.name == "avi" and bool(self._context.has_b_frames)
        return frame.pts is not None and not invented

    def countable(self, frame: VideoFrame) -> bool:
        """Whether one packet is one frame. Not where the two fields of an interlaced frame may be two packets."""
        whole = self.container.format.name.startswith(("mov", "matroska", "avi")) or not frame.interlaced_frame
        return whole and self.has_times(frame)

    def seek(self, timestamp: int) -> None:
        """To a key frame at or before `timestamp`, if the format can. The caller sets `position`."""
        self.container.seek(timestamp, stream=self.stream)
        self._begin(sought=True)

    def frames(self) -> Iterator[VideoFrame]:
        """The frames from here to the end; after a seek, from the key frame that it reached."""
        for batch in self._batches():
            for frame in batch:
                start = self._packets.start_pts
                if self._sought and start is not None and frame.pts is not None and frame.pts < start:
                    continue  # leading picture of an open GOP: the frames that it refers to were not decoded
                self._check(frame)
                self.position += 1
                yield frame
        if self._failed or (self._packets.reliable and self._expected):
            raise self.damage()

    def _batches(self) -> Iterator[list[VideoFrame]]:
        """Frames by packet; after the last packet or the first failure, the frames that the decoder still holds."""
        try:
            for packet in self._packets:
                if self._packets.shows(packet) and self._packets.reliable and packet.pts is not None:
                    heapq.heappush(self._expected, packet.pts)
                if packet.is_corrupt:
                    self._failed = True
                    break
                yield self._context.decode(packet)
        except FFmpegError:
            self._failed = True
        if not self._sought and self.seekable and self._packets.end_early():
            self._failed = True
        try:
            held = self._context.decode(None)
        except FFmpegError:
            self._failed = True
        else:
            yield held

    def _check(self, frame: VideoFrame) -> None:
        size = (frame.width, frame.height)
        self._size = self._size or size
        if size != self._size:
            first, new = (f"{width}x{height}" for width, height in (self._size, size))
            raise UserError(f"{self.path}: frame {self.position} is {new}, expected {first}; re-encode it to one size")
        if frame.is_corrupt or not self._is_next(frame):
            raise self.damage()
        packets = self._packets
        if self._failed and packets.reliable and frame.pts is not None and not packets.all_sent(frame.pts):
            raise self.damage()  # the packets broke off, and a frame before this one may be lost

    def _is_next(self, frame: VideoFrame) -> bool:
        """False if packets announced a frame before this one. Stops comparing where the two do not correspond."""
        packets, expected = self._packets, self._expected
        if self._fresh and packets.start_pts is not None and frame.pts is not None:
            while expected and expected[0] < min(frame.pts, packets.start_pts):
                heapq.heappop(expected)  # leading pictures of an open GOP at the start are rightly not decoded
        if self._fresh and not self.countable(frame):
            packets.reliable = False
        self._fresh = False
        if packets.reliable and frame.pts in expected:
            return heapq.heappop(expected) == frame.pts
        packets.reliable = False
        expected.clear()
        return True

    def damage(self) -> UserError:
        """The error that says how far this file can be decoded."""
        where = f"breaks off after frame {self.position - 1}" if self.position else "breaks off at its first frame"
        declared = self._packets.declared_frames()
        total = f" of {declared}" if declared is not None else ""
        return UserError(
            f"{self.path}: {where} ({self.position}{total} frames could be decoded); copy it again or re-encode it"
        )


class VideoFile:
    """A video file as a source of frames: in order, or by place."""

    def __init__(self, path: str, *, num_threads: int) -> None:
        self._path = path
        self._num_threads = num_threads
        self._rgb = RgbConverter(num_threads)
        self._index: FrameIndex | None = None
        self._untouched = True  # only the first frame was taken from the cursor
        self._cursor: tuple[Decoder, Iterator[VideoFrame]] | None = self._open()
        decoder, frames = self._cursor
        try:
            first = next(frames, None)
            if first is None:
                raise UserError(f"{path}: has no frames; record or copy it again")
        except UserError:
            self.close()
            raise
        self._first = first
        self._held = (0, first)

        stream = decoder.stream
        self.fps = Fraction(stream.average_rate or stream.guessed_rate or 25)
        self._time_base = stream.time_base or Fraction(1)  # frames flushed at the end have no time base of their own
        self.codec = str(stream.codec_context.codec.canonical_name)
        self.pixel_format = first.format.name
        self.colour_range = "full" if range_of(first).name == "JPEG" else "limited"
        self._orientation = Orientation.of(first)
        self.rotation_degrees = self._orientation.degrees
        self.width, self.height = self._orientation.upright_size(first.width, first.height)
        stored = Fraction(stream.sample_aspect_ratio or 1)
        self.pixel_aspect = 1 / stored if self._orientation.transposed else stored
        self._has_times = decoder.has_times(first)
        self._countable = decoder.countable(first)
        self._seekable = decoder.seekable

    def _open(self) -> tuple[Decoder, Iterator[VideoFrame]]:
        decoder = Decoder(self._path, self._num_threads)
        return decoder, decoder.frames()

    def close(self) -> None:
        if self._cursor is not None:
            self._cursor[0].container.close()
        self._cursor = None

    def stream(self) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """(pts_seconds, image (H, W, 3)) from the first frame on, through a decoder that nothing else uses."""
        if self._untouched and self._cursor is not None:  # take over the decoder that has given the first frame only
            (decoder, rest), self._cursor = self._cursor, None
            frames: Iterator[VideoFrame] = itertools.chain([self._first], rest)
        elif self._seekable:
            decoder, frames = self._open()
        else:
            raise UserError(f"{self._path}: is a pipe or a live stream and can be read only once; open it again")
        rgb = RgbConverter(self._num_threads)
        try:
            for index, frame in enumerate(frames):
                yield self._seconds(index, frame), self._orientation.upright(rgb(frame))
        finally:
            decoder.container.close()

    def _seconds(self, index: int, frame: VideoFrame) -> float:
        if not self._has_times or frame.pts is None:
            return float(index / self.fps)
        return frame.pts * self._time_base.numerator / self._time_base.denominator

    @property
    def index(self) -> FrameIndex:
        """Made when first needed: from the packets where they tell the frames, else by decoding everything once."""
        if self._index is None:
            if not self._seekable:
                raise UserError(f"{self._path}: is a pipe or a live stream without a length; read it frame by frame")
            scanned = scan_packets(self._path, self._first) if self._countable else None
            self._index = scanned or self._count_by_decoding()
        return self._index

    def _count_by_decoding(self) -> FrameIndex:
        times: list[float] = []
        decoder, frames = self._open()
        # Where decoding fails, the frames before can be read; reading on raises the error.
        with decoder.container, contextlib.suppress(UserError):
            for index, frame in enumerate(frames):
                times.append(self._seconds(index, frame))
        return FrameIndex(np.array(times), times[-1] + float(1 / self.fps))

    def image(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) frame `index`, the same as `stream()` gives."""
        if self._held[0] != index:
            self._held = (index, self._fetch(index))
        return self._orientation.upright(self._rgb(self._held[1]))

    def _fetch(self, index: int) -> VideoFrame:
        position = index + 1 if self._cursor is None else self._cursor[0].position
        if self._cursor is None or position > index or self.index.key_place(index) - position > SEEK_GAIN:
            self._cursor = self._start_near(index)
        self._untouched = False
        decoder, frames = self._cursor
        try:
            for frame in frames:
                if decoder.position > index:
                    return frame
            raise decoder.damage()
        except UserError:
            self.close()
            raise

    def _start_near(self, index: int) -> tuple[Decoder, Iterator[VideoFrame]]:
        """Frames from one at or before `index` on: by a seek if it lands there, else from the start."""
        decoder, _ = self._cursor or self._open()
        for point in self.index.seek_points(index):
            try:
                decoder.seek(point)
                frames = decoder.frames()
                first = next(frames, None)
            except (UserError, FFmpegError):
                continue
            place = None if first is None else self.index.place(first.pts)
            if first is not None and place is not None and place <= index:
                decoder.position = place + 1
                return decoder, itertools.chain([first], frames)
        decoder.container.close()
        return self._open()
