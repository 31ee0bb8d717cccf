"""Decoding a video file: every frame in order, or an error that says which is missing; and frames by their place.

Packets tell which frames there must be, the decoder gives them, and the two are compared as they go, because libav
drops silently what it cannot decode and ends silently where a file was cut.
"""

import contextlib
import heapq
import itertools
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame

from vidistill.data.video._colour import Orientation, RgbConverter, range_of
from vidistill.data.video._packets import FrameIndex, Packets, open_video, scan_packets
from vidistill.errors import UserError

# Decoding through this many frames costs less than a seek, which throws away what the decoder holds.
SEEK_GAIN = 8


class Decoder:
    """One open container, decoded forward.

    `frames()` gives every frame in presentation order, or raises a UserError that names the first one that is missing,
    damaged or of another size. `position` is the place in presentation order of the frame that comes next.
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
        self._promised: list[int] = []  # heap of the pts of packets whose frames have not come yet
        self._fresh = True
        self._failed = False

    @property
    def seekable(self) -> bool:
        """False for pipes and live streams."""
        return self.container.size > 0

    def has_times(self, frame: VideoFrame) -> bool:
        """False where pts are missing (elementary streams) or made up (AVI with reordered frames)."""
        made_up = self.container.format.name == "avi" and bool(self._context.has_b_frames)
        return frame.pts is not None and not made_up

    def countable(self, frame: VideoFrame) -> bool:
        """Whether packets can tell frames. Not where the two fields of an interlaced frame may be two packets."""
        whole = self.container.format.name.startswith(("mov", "matroska", "avi")) or not frame.interlaced_frame
        return whole and self.has_times(frame)

    def seek(self, timestamp: int) -> None:
        """To a key frame at or before `timestamp`; not every format keeps that. `position` is the caller's to set."""
        self.container.seek(timestamp, stream=self.stream)
        self._begin(sought=True)

    def frames(self) -> Iterator[VideoFrame]:
        """The frames from here to the end; after a seek, from the key frame on that was found."""
        for batch in self._batches():
            for frame in batch:
                start = self._packets.start_pts
                if self._sought and start is not None and frame.pts is not None and frame.pts < start:
                    continue  # leads an open GOP: the frames that it refers to were not decoded
                self._check(frame)
                self.position += 1
                yield frame
        if self._failed or (self._packets.reliable and self._promised):
            raise self.damage()

    def _batches(self) -> Iterator[list[VideoFrame]]:
        """Frames by packet; after the last packet or the first failure what the decoder still holds, and no more."""
        try:
            for packet in self._packets:
                if self._packets.shows(packet) and self._packets.reliable and packet.pts is not None:
                    heapq.heappush(self._promised, packet.pts)
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
            was, now = (f"{width}x{height}" for width, height in (self._size, size))
            raise UserError(
                f"{self.path} changes its picture size at frame {self.position}, from {was} to {now}: "
                "re-encode it to one size"
            )
        if frame.is_corrupt or not self._is_next(frame) or not self._is_sure(frame):
            raise self.damage()

    def _is_next(self, frame: VideoFrame) -> bool:
        """False if packets promised a frame before this one. Stops comparing where the two do not correspond."""
        packets, promised = self._packets, self._promised
        if self._fresh and packets.start_pts is not None and frame.pts is not None:
            while promised and promised[0] < min(frame.pts, packets.start_pts):
                heapq.heappop(promised)  # leading pictures of an open GOP at the start, rightly left out
        if self._fresh and not self.countable(frame):
            packets.reliable = False
        self._fresh = False
        if packets.reliable and frame.pts in promised:
            return heapq.heappop(promised) == frame.pts
        packets.reliable = False
        promised.clear()
        return True

    def _is_sure(self, frame: VideoFrame) -> bool:
        """False if the packets broke off and a frame before this one may be among the lost."""
        if not self._failed or not self._packets.reliable or frame.pts is None:
            return True
        return self._packets.all_sent(frame.pts)

    def damage(self) -> UserError:
        where = f"breaks after frame {self.position - 1}" if self.position else "breaks at its first frame"
        declared = self._packets.declared_frames()
        of = f" of {declared}" if declared is not None else ""
        return UserError(
            f"{self.path} {where}: {self.position}{of} frames could be decoded; copy the file again or re-encode it"
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
                raise UserError(f"{path} holds no frames: record or copy it again")
        except UserError:
            self.close()
            raise
        self._first = first
        self._held = (0, first)
        self._describe(decoder, first)

    def _open(self) -> tuple[Decoder, Iterator[VideoFrame]]:
        decoder = Decoder(self._path, self._num_threads)
        return decoder, decoder.frames()

    def _describe(self, decoder: Decoder, first: VideoFrame) -> None:
        stream = decoder.stream
        self.fps = Fraction(stream.average_rate or stream.guessed_rate or 25)
        self._time_base = stream.time_base or Fraction(1)  # the last frames, held by the decoder, come without theirs
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

    def close(self) -> None:
        if self._cursor is not None:
            self._cursor[0].container.close()
        self._cursor = None

    def stream(self) -> Iterator[tuple[float, np.ndarray]]:
        """(pts_seconds, image) from the first frame on, through a decoder that nothing else uses."""
        decoder, frames = self._from_start()
        rgb = RgbConverter(self._num_threads)
        try:
            for index, frame in enumerate(frames):
                yield self._seconds(index, frame), self._orientation.upright(rgb(frame))
        finally:
            decoder.container.close()

    def _from_start(self) -> tuple[Decoder, Iterator[VideoFrame]]:
        if self._untouched and self._cursor is not None:
            (decoder, rest), self._cursor = self._cursor, None
            return decoder, itertools.chain([self._first], rest)
        if not self._seekable:
            raise UserError(f"{self._path} is a pipe or a live stream, which can be read only once: open it again")
        return self._open()

    def _seconds(self, index: int, frame: VideoFrame) -> float:
        if not self._has_times or frame.pts is None:
            return float(index / self.fps)
        return frame.pts * self._time_base.numerator / self._time_base.denominator

    @property
    def index(self) -> FrameIndex:
        if self._index is None:
            if not self._seekable:
                raise UserError(f"{self._path} is a pipe or a live stream, which has no length: read it frame by frame")
            scanned = scan_packets(self._path, self._first) if self._countable else None
            self._index = scanned or self._count_by_decoding()
        return self._index

    def _count_by_decoding(self) -> FrameIndex:
        times: list[float] = []
        decoder, frames = self._open()
        # Where decoding fails, the frames before can be read; whoever reads on is told.
        with decoder.container, contextlib.suppress(UserError):
            for index, frame in enumerate(frames):
                times.append(self._seconds(index, frame))
        return FrameIndex(np.array(times), times[-1] + float(1 / self.fps))

    def image(self, index: int) -> np.ndarray:
        """Frame `index`, the same as `stream()` gives."""
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
        """Frames from one at or before `index` on: by a seek, if it lands where it should, else from the start."""
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
