"""Decoding a video file: frames in order or by their place, or an error that says which frame is missing.

Packets tell which frames must come. They are compared with the decoder's frames on the way, because libav silently
drops what it cannot decode and silently stops where a file was cut off.
"""

import contextlib
import heapq
import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cached_property

import numpy as np
from av.error import FFmpegError, InvalidDataError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange
from numpy.typing import NDArray

from vidistill.data.video._colour import Orientation, RgbConverter, range_of, source_matrix
from vidistill.data.video._packets import (
    MOST_HELD,
    FrameIndex,
    Packets,
    open_video,
    scan_packets,
    seconds_of,
    videos_of,
)
from vidistill.data.video.damage import Damage, DamageReport
from vidistill.errors import UserError

# Frames. Decoding through so many costs less than a seek, which discards the decoder's buffered frames.
SEEK_GAIN = 8
# Formats that store decoding times only; of AVI's libav makes presentation times up.
DECODING_TIMES = ("avi", "asf", "mxf")
# Codecs whose decoder in libav needs what came before a key frame.
NEVER_SOUGHT = ("dirac",)


class SeekError(Exception):
    """A seek led to other packets than its time says."""


class Decoder:
    """One open container, decoded forward.

    `frames()` gives frames in presentation order. `position` is the place of the next one, `after_loss` whether
    something was lost just before the last one that came. The first missing or damaged frame, or the first of another
    size, raises a UserError that names it; with damage "skip", what is missing or damaged goes to `report` instead.
    """

    def __init__(self, path: str, num_threads: int, damage: Damage) -> None:
        self.path = path
        self.position = 0
        self.report = DamageReport()
        self.after_loss = False
        self.container, self.stream = open_video(path)
        self._skips = damage == "skip"
        self._context = self.stream.codec_context
        self._context.thread_count = num_threads
        self._context.thread_type = "SLICE" if num_threads == 1 else "FRAME"
        self.codec = str(self._context.codec.canonical_name)
        try:
            self._context.open(strict=False)
        except FFmpegError as error:
            self.container.close()
            raise UserError(
                f"{path}: its codec, {self.codec}, cannot be decoded ({error.strerror}); re-encode it, e.g. as H.264"
            ) from error
        self._size: tuple[int, int] | None = None
        self._range: ColorRange | None = None
        self._begin(sought=False)

    def _begin(self, *, sought: bool) -> None:
        self._packets = Packets(self.container, self.stream, joined=sought)
        self._sought = sought
        self._index: FrameIndex | None = None
        self._expected: list[int] = []  # heap of the pts of packets whose frames have not come yet
        self._unusable: deque[int] = deque(maxlen=MOST_HELD)  # the pts of packets that lack data
        self._counted: deque[int] = deque(maxlen=MOST_HELD)  # the pts of losses that are in the report
        self._fresh = True
        self._failed = False
        self._lost = False  # since the last frame
        self._time: int | None = None  # when the last frame was shown
        self._lead = 0  # from decoding times to those of showing, if these are lacking

    @property
    def seekable(self) -> bool:
        """False for pipes and live streams."""
        return self.container.size > 0

    @cached_property
    def lacks_times(self) -> bool:
        """Whether the file stores when packets are decoded, not when frames are shown, and their orders differ.

        Known from the first frame on.
        """
        name = self.container.format.name
        unordered = name == "avi" or (name in DECODING_TIMES and not self._packets.is_reordered)
        return unordered and bool(self._context.has_b_frames)

    def _show_time(self) -> int:
        """When the next frame is shown of a file that lacks times.

        Encoders hand out decoding times in the order in which frames are shown, earlier by as many frames as a decoder
        holds back. The first frame takes the first packet's.
        """
        times = self._packets.decoding_times
        if self._time is None and times:
            begin = times[0]
            for _ in range(len(times) - self._context.thread_count):  # each thread holds back a packet too
                times.popleft()
            self._lead = times[0] - begin
        if times:
            return times.popleft() - self._lead
        return 0 if self._time is None else self._time + self._ticks_per_frame

    @property
    def _ticks_per_frame(self) -> int:
        return round(1 / ((self.stream.average_rate or 25) * (self.stream.time_base or Fraction(1))))

    def countable(self, frame: VideoFrame) -> bool:
        """Whether one packet is one frame. Not where the two fields of an interlaced frame may be two packets."""
        whole = self.container.format.name.startswith(("mov", "matroska", "avi")) or not frame.interlaced_frame
        return whole and frame.pts is not None and not self.lacks_times

    def seek(self, timestamp: int, index: FrameIndex) -> None:
        """To a key frame at or before `timestamp`, if the format can. The caller sets `position`.

        `frames` then raises SeekError where a packet is not the one that has its time in `index`: formats without an
        index of their own, such as program streams, guess times after a seek.
        """
        self.container.seek(timestamp, stream=self.stream)
        self._begin(sought=True)
        self._index = index

    def frames(self) -> Iterator[VideoFrame]:
        """The frames from here to the end; after a seek, from the key frame that it reached."""
        for batch in self._batches():
            for frame in batch:
                start = self._packets.start_pts
                if self._sought and start is not None and frame.pts is not None and frame.pts < start:
                    continue  # leading picture of an open GOP: the frames that it refers to were not decoded
                usable = self._check(frame)
                if self.lacks_times:
                    frame.pts = self._show_time()
                elif frame.pts is None and self._time is not None:  # program streams give some frames a time only
                    frame.pts = self._time + self._ticks_per_frame
                self._time = frame.pts
                if usable:
                    self.position += 1
                    self.after_loss, self._lost = self._lost, False
                    yield frame
        if self._packets.reliable:
            for pts in sorted(set(self._expected).difference(self._counted)):
                self._lose(pts, "missing frame")
        if self._failed or (self.position == 0 and self.report.count):
            raise self.damage()

    def _lose(self, pts: int | None, reason: str) -> None:
        """Counts a loss, or raises its error."""
        if not self._skips:
            raise self.damage()
        self._lost = True
        if pts is not None:
            self._counted.append(pts)
        self.report.add(None if pts is None else seconds_of(pts, self.stream.time_base or Fraction(1)), reason)

    def _batches(self) -> Iterator[list[VideoFrame]]:
        """Frames by packet; after the last packet or the first failure, the frames that the decoder still holds."""
        for packet in self._readable():
            if self._index is not None and not self._index.knows(packet):
                raise SeekError
            if self._packets.shows(packet) and self._packets.reliable and packet.pts is not None:
                heapq.heappush(self._expected, packet.pts)
            if self._packets.lost:
                if self._fails(packet.pts, "lost data"):
                    break
                if packet.pts is not None:
                    self._unusable.append(packet.pts)
            try:
                frames = self._context.decode(packet)
            except FFmpegError as error:
                if self._fails(packet.pts, f"not decodable ({error.strerror})"):
                    break
            else:
                yield frames
        if not self._sought and self.seekable and self._packets.end_early():
            self._fails(None, "end of the file missing")
        try:
            held = self._context.decode(None)
        except FFmpegError as error:
            self._fails(None, f"not decodable ({error.strerror})")
        else:
            yield held

    def _readable(self) -> Iterator[Packet]:
        """The packets up to where reading fails; with "skip" on after what the demuxer cannot parse."""
        while True:
            before = self._packets.count
            try:
                yield from self._packets
            except FFmpegError as error:
                failed = self._fails(self._packets.last_dts, f"not readable ({error.strerror})")
                if not failed and isinstance(error, InvalidDataError) and self._packets.count > before:
                    continue
            return

    def _fails(self, pts: int | None, reason: str) -> bool:
        """Whether decoding must end here. With "skip" never: the loss is counted."""
        if self._skips:
            self._lose(pts, reason)
        else:
            self._failed = True
        return self._failed

    def _check(self, frame: VideoFrame) -> bool:
        """Whether the frame can be used."""
        size = (frame.width, frame.height)
        self._size = self._size or size
        if size != self._size:
            first, new = (f"{width}x{height}" for width, height in (self._size, size))
            raise UserError(f"{self.path}: frame {self.position} is {new}, expected {first}; re-encode it to one size")
        self._range = self._range or range_of(frame)
        if range_of(frame) != self._range and not self._skips:  # the decoder is not sure where it changes
            raise UserError(f"{self.path}: frame {self.position} has another colour range; re-encode it to one")
        self._compare(frame)
        if frame.pts in self._unusable:
            return False
        if frame.is_corrupt:
            self._lose(frame.pts, "damaged frame")
            return False
        packets = self._packets
        if self._failed and packets.reliable and frame.pts is not None and not packets.all_sent(frame.pts):
            raise self.damage()  # the packets broke off, and a frame before this one may be lost
        return True

    def _compare(self, frame: VideoFrame) -> None:
        """Finds the frames that packets announced before this one. Stops comparing where the two do not correspond."""
        packets, expected = self._packets, self._expected
        if self._fresh and packets.start_pts is not None and frame.pts is not None:
            while expected and expected[0] < min(frame.pts, packets.start_pts):
                heapq.heappop(expected)  # leading pictures of an open GOP at the start are rightly not decoded
        if self._fresh and not self.countable(frame):
            packets.reliable = False
        self._fresh = False
        if packets.reliable and frame.pts in expected:
            while (pts := heapq.heappop(expected)) != frame.pts:
                if pts not in self._counted:
                    self._lose(pts, "missing frame")
        else:
            packets.reliable = False
            expected.clear()

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

    def __init__(self, path: str, *, num_threads: int, damage: Damage) -> None:
        self._path = path
        self._damage = damage
        self._num_threads = num_threads
        self._rgb = RgbConverter(path, num_threads)
        self._index: FrameIndex | None = None
        self._untouched = True  # only the first frame was taken from the cursor
        self._cursor: tuple[Decoder, Iterator[VideoFrame]] | None = self._open()
        decoder, frames = self._cursor
        try:
            first = next(frames, None)
            if first is None:
                raise UserError(f"{path}: has no frames; record or copy it again")
            source_matrix(first, path)
        except UserError:
            self.close()
            raise
        self._first = first
        self._held = (0, first)
        self.damage = decoder.report

        stream = decoder.stream
        self.fps = Fraction(stream.average_rate or stream.guessed_rate or 25)
        self._time_base = stream.time_base or Fraction(1)  # frames flushed at the end have no time base of their own
        self.codec = decoder.codec
        self.pixel_format = first.format.name
        self.colour_range = "full" if range_of(first).name == "JPEG" else "limited"
        self._orientation = Orientation.of(first)
        self.rotation_degrees = self._orientation.degrees
        self.width, self.height = self._orientation.upright_size(first.width, first.height)
        stored = Fraction(stream.sample_aspect_ratio or 1)
        self.pixel_aspect = 1 / stored if self._orientation.transposed else stored
        self.stream_index, self.num_video_streams = stream.index, len(videos_of(decoder.container))
        self._has_times = first.pts is not None
        self._countable = decoder.countable(first)
        self._seekable = decoder.seekable

    def _open(self) -> tuple[Decoder, Iterator[VideoFrame]]:
        decoder = Decoder(self._path, self._num_threads, self._damage)
        return decoder, decoder.frames()

    def close(self) -> None:
        if self._cursor is not None:
            self._cursor[0].container.close()
        self._cursor = None

    def stream(self) -> Iterator[tuple[float, NDArray[np.uint8], bool]]:
        """(pts_seconds, image (H, W, 3), after_loss) from the first frame on, by a decoder that nothing else uses."""
        if self._untouched and self._cursor is not None:  # take over the decoder that has given the first frame only
            (decoder, rest), self._cursor = self._cursor, None
            frames: Iterator[VideoFrame] = itertools.chain([self._first], rest)
        elif self._seekable:
            decoder, frames = self._open()
        else:
            raise UserError(f"{self._path}: is a pipe or a live stream and can be read only once; open it again")
        rgb = RgbConverter(self._path, self._num_threads)
        self.damage = decoder.report
        try:
            for index, frame in enumerate(frames):
                yield self._seconds(index, frame), self._orientation.upright(rgb(frame)), decoder.after_loss
        finally:
            decoder.container.close()

    def _seconds(self, index: int, frame: VideoFrame) -> float:
        if not self._has_times or frame.pts is None:
            return float(index / self.fps)
        return seconds_of(frame.pts, self._time_base)

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
        except SeekError:
            self.close()
            self._index = replace(self.index, keys=())
            return self._fetch(index)
        except UserError:
            self.close()
            raise

    def _start_near(self, index: int) -> tuple[Decoder, Iterator[VideoFrame]]:
        """Frames from one at or before `index` on: by a seek if it lands there, else from the start."""
        decoder, _ = self._cursor or self._open()
        points = () if decoder.codec in NEVER_SOUGHT else self.index.seek_points(index)
        for point in points:
            try:
                decoder.seek(point, self.index)
                frames = decoder.frames()
                first = next(frames, None)
            except (UserError, FFmpegError, SeekError):
                continue
            place = None if first is None else self.index.place(first.pts)
            # Some files mark frames as key frames from which nothing can be decoded.
            if first is not None and first.key_frame and place is not None and place <= index:
                decoder.position = place + 1
                return decoder, itertools.chain([first], frames)
        decoder.container.close()
        return self._open()
