"""What a container tells about its video without decoding: its packets, its declared length, an index of frames."""

import bisect
import contextlib
import itertools
import operator
import os
import re
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from vidistill.data.video._bytes import ends_within_chunk, ends_within_packet, ends_within_tag, lost_packets
from vidistill.errors import UserError

# libav's own bound (MAX_NVOP_SIZE) on the size of MPEG-4 packets that repeat the last picture and give no frame.
EMPTY_MPEG4_BYTES = 19
# Formats of files whose structure shows whether they were cut off.
TAILS = {"avi": ends_within_chunk, "flv": ends_within_tag, "mpegts": ends_within_packet}
# Frames. More than a decoder holds back, threads included.
MOST_HELD = 64
# How far to look for streams: bytes, microseconds.
FAR = {"probesize": str(1 << 28), "analyzeduration": str(600 * 10**6)}
# Of a Dirac data unit (parse info); an end of sequence has nothing else.
DIRAC_HEADER_BYTES = 13


def open_container(path: str, options: dict[str, str] | None = None) -> InputContainer:
    """The container at `path`, a file or a URL, whatever characters its name and its metadata have.

    Errors: UserError where it is missing or not a container.
    """
    if "://" not in path:
        if not os.path.exists(path):
            raise UserError(f"{path}: video not found; check the path")
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            raise UserError(f"{path}: is empty (0 bytes); copy or download it again")
    # libav takes a colon in a relative path for a protocol. Path.resolve() would change `..` behind a link.
    name = path if "://" in path else str(Path(path).absolute())
    try:
        return av.open(name, metadata_errors="replace", options=options or {})
    except (FFmpegError, OSError, ValueError) as error:
        raise _cannot_open(path, getattr(error, "strerror", None) or str(error)) from error


def open_video(path: str) -> tuple[InputContainer, VideoStream]:
    """A container and its video stream: libav's best, mostly the one marked default; cover pictures do not count.

    Errors: UserError where the path, the container, the stream or its codec is missing or unusable.
    """
    container = open_container(path)
    streams = videos_of(container)
    if not streams and os.path.isfile(path) and container.streams:
        container.close()
        container = open_container(path, FAR)  # some recordings begin with minutes of sound
        streams = videos_of(container)
    if not streams or container.format.name == "tty":  # libav's "tty" draws text files as pictures
        kinds = sorted({"text" if streams else stream.type for stream in container.streams} - {"video"})
        pictures = bool(container.streams.video) and not streams
        container.close()
        if not kinds and not pictures:
            raise _cannot_open(path, "it has no streams")
        kinds += ["a cover picture"] if pictures else []
        raise UserError(f"{path}: has no video stream, only {', '.join(kinds)}; choose a video")
    decodable = [stream for stream in streams if stream.codec_context is not None]
    if not decodable:
        container.close()
        raise UserError(f"{path}: its codec cannot be decoded by the installed PyAV; re-encode it, e.g. as H.264")
    best = container.streams.best("video")
    return container, next((stream for stream in decodable if stream == best), decodable[0])


def videos_of(container: InputContainer) -> list[VideoStream]:
    """The video streams without cover pictures."""
    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def seconds_of(pts: int, time_base: Fraction) -> float:
    """A time of a stream in seconds. pts: in units of `time_base`, itself in seconds."""
    return pts * time_base.numerator / time_base.denominator


def _cannot_open(path: str, reason: str | None) -> UserError:
    return UserError(
        f"{path}: cannot be opened as a video ({reason}); it is not a video, or it was cut off while being written: "
        "record or copy it again"
    )


class Packets:
    """The packets of a video. After a seek (`joined`) they start at the first key frame: nothing decodes before it.

    `reliable` is true while every packet that `shows` must give exactly one frame with the packet's pts.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, *, joined: bool = False) -> None:
        self.reliable = True
        self.start_pts: int | None = None
        self.count = 0
        self.last_dts: int | None = None
        self.is_reordered = False  # whether any packet's pts - dts differs from others', as with stored B-frames
        self.decoding_times: deque[int] = deque(maxlen=MOST_HELD)  # dts of the last packets
        self.lost = False  # whether the last packet lacks data, or one is missing before it
        self._container, self._stream = container, stream
        self._joined = joined
        self._codec = stream.codec_context.codec.canonical_name
        self._started = False
        self._offset: int | None = None
        self._ahead: deque[Packet] = deque()
        self._end_pts = 0

    def __iter__(self) -> Iterator[Packet]:
        source = self._container.demux(self._stream)
        loses_next = False
        while (packet := self._ahead.popleft() if self._ahead else next(source, None)) is not None:
            self.lost, loses_next = loses_next, False
            if packet.is_corrupt and self._container.format.name != "mpegts":
                self.lost = True
            elif packet.is_corrupt:  # by libav's parser the mark stands one packet too early
                self._ahead.extend(itertools.islice(source, 2 - len(self._ahead)))
                loses_next = self._loses(packet)
            self.count += packet.size > 0 or packet.dts is not None
            self._started = self._started or packet.is_keyframe or (not self._joined and self._indexed(packet))
            if packet.size == 0 or not self._started:
                continue
            if packet.pts is None:
                self.reliable = False
            if packet.dts is not None and self.last_dts is not None and packet.dts <= self.last_dts:
                self.reliable = False  # times start over where files were concatenated
            if self._codec == "mpeg4" and packet.size <= EMPTY_MPEG4_BYTES:
                self.reliable = False
            if packet.pts is not None:
                self.start_pts = packet.pts if self.start_pts is None else self.start_pts
                self._end_pts = max(self._end_pts, packet.pts + (packet.duration or 0))
            if packet.dts is not None:
                self.last_dts = packet.dts
                self.decoding_times.append(packet.dts)
            if packet.pts is not None and packet.dts is not None:
                self.is_reordered |= self._offset not in (None, packet.pts - packet.dts)
                self._offset = packet.pts - packet.dts
            yield packet

    def _loses(self, packet: Packet) -> bool:
        """Whether data is lost after a marked packet of a transport stream, whose packets are counted.

        Where recordings are joined the count only starts anew, with a key frame. Of a pipe this is taken to be a join.
        """
        key = self._ahead[1] if len(self._ahead) == 2 and self._ahead[1].is_keyframe else None
        path = self._container.name
        if packet.pos is None or not os.path.isfile(path):
            return key is None
        return lost_packets(Path(path), self._stream.id, packet.pos, None if key is None else key.pos)

    def _indexed(self, packet: Packet) -> bool:
        """Whether the container's index starts with a key frame at or before this packet, even if that is damaged."""
        entries = self._stream.index_entries
        if packet.pts is None or len(entries) == 0:
            return False
        return entries[0].is_keyframe and entries[0].timestamp <= packet.pts

    def shows(self, packet: Packet) -> bool:
        """False for packets outside the edit list, VP8's hidden reference frames and the end of a Dirac sequence."""
        if self._codec == "vp8":  # show_frame, RFC 6386 9.1
            return not packet.is_discard and bool(memoryview(packet)[0] & 0x10)
        return not packet.is_discard and (self._codec != "dirac" or packet.size > DIRAC_HEADER_BYTES)

    def all_sent(self, pts: int) -> bool:
        """Whether no later packet can show a frame before `pts`: a frame is never shown before it is decoded."""
        return pts == self.start_pts or (self.last_dts is not None and pts <= self.last_dts)

    def declared_frames(self) -> int | None:
        """The number of frames that the container declares; for Matroska, which declares the duration, an estimate."""
        if self._container.format.name.startswith("mov"):
            return sum(not entry.is_discard for entry in self._stream.index_entries)
        end = self._declared_end()
        if end is not None and self._stream.average_rate:
            return round(end * self._stream.average_rate)
        return self._stream.frames or None

    def end_early(self) -> bool:
        """After reading all packets from the start: whether there were fewer than the container declares."""
        name = self._container.format.name
        if name.startswith("mov"):
            return self.count < len(self._stream.index_entries)
        if name == "avi" and self.last_dts is not None and self.last_dts + 1 >= self._stream.frames:
            return False  # only its index is cut off; times count chunks, of which some repeat a picture
        path = self._container.name
        if name in TAILS and os.path.isfile(path) and TAILS[name](Path(path)):
            return True
        end = self._declared_end()
        if end is None or self._stream.time_base is None:
            return False
        slack = 0.5 / float(self._stream.average_rate or 25)  # times are rounded, and the last duration may be a guess
        return float(self._end_pts * self._stream.time_base) + slack < end

    def _declared_end(self) -> float | None:
        """Seconds at which Matroska says that this stream ends: the lesser of two values, as tags may be outdated."""
        duration = self._container.duration
        if not self._container.format.name.startswith("matroska") or not duration:
            return None
        tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", self._stream.metadata.get("DURATION", ""))
        if tag:
            return min(duration / av.time_base, int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]))
        return duration / av.time_base if len(self._container.streams) == 1 else None


@dataclass(frozen=True)
class FrameIndex:
    """When each frame of a video is shown, in order, and where decoding can start if that is known."""

    times: NDArray[np.float64]  # (N,) seconds
    end_seconds: float
    pts: NDArray[np.int64] | None = None  # (N,); None: frames can be told apart only by counting from the start
    keys: tuple[tuple[int, int, int | None], ...] = ()  # of key frames: (place, pts, dts) in presentation order
    packets: NDArray[np.int64] | None = None  # (2, M) pts, in order, and fingerprint of each packet

    def key_place(self, index: int) -> int:
        """The last place at or before `index` where decoding can start."""
        until = self._keys_until(index)
        return self.keys[until - 1][0] if until else 0

    def seek_points(self, index: int) -> list[int]:
        """Timestamps to try, best first: formats differ in whether they seek by pts or by dts."""
        points: list[int] = []
        until = self._keys_until(index)
        for _, pts, dts in reversed(self.keys[max(until - 2, 0) : until]):
            points += [pts] if dts is None else [pts, dts]
        return points

    def _keys_until(self, index: int) -> int:
        return bisect.bisect_right(self.keys, index, key=operator.itemgetter(0))

    def knows(self, packet: Packet) -> bool:
        """Whether this packet was found at its time."""
        if self.packets is None or packet.pts is None:
            return False
        at = int(np.searchsorted(self.packets[0], packet.pts))
        return at < self.packets.shape[1] and tuple(self.packets[:, at]) == (packet.pts, _fingerprint(packet))

    def place(self, pts: int | None) -> int | None:
        """The place of the frame with this pts; None where there is none."""
        if self.pts is None or pts is None:
            return None
        place = int(np.searchsorted(self.pts, pts))
        return place if place < len(self.pts) and self.pts[place] == pts else None


def _fingerprint(packet: Packet) -> int:
    """Tells the packets of a video apart."""
    return zlib.crc32(memoryview(packet)[:256], packet.size)


def scan_packets(path: str, first: VideoFrame) -> FrameIndex | None:
    """The index from packets alone; None where packets cannot tell. `first`: the first frame that is shown."""
    container, stream = open_video(path)
    prints: list[tuple[int, int]] = []  # (pts, fingerprint)
    time_base, rate = stream.time_base or Fraction(1), stream.average_rate or 25
    packets = Packets(container, stream)
    shown: list[tuple[int, int]] = []  # (pts, duration)
    keys: list[tuple[int, int | None]] = []  # (pts, dts)
    cut = True
    # Where reading fails, the packets before are intact, and decoding will report the frame.
    with container, contextlib.suppress(FFmpegError):
        for packet in packets:
            if packet.pts is None or not packets.reliable:
                break
            if packets.lost:
                shown = [item for item in shown if item[0] < packet.pts]
                break
            prints.append((packet.pts, _fingerprint(packet)))
            if packet.is_keyframe:
                keys.append((packet.pts, packet.dts))
            if packets.shows(packet):
                shown.append((packet.pts, packet.duration or 0))
        else:
            cut = packets.end_early()
    if not packets.reliable or first.pts is None:
        return None
    if cut:  # leave out frames that come, in presentation order, after one that may be lost
        shown = [item for item in shown if packets.all_sent(item[0])]
    # Leading pictures of an open GOP at the start refer to missing frames and are not shown.
    shown = sorted(item for item in shown if item[0] >= min(first.pts, packets.start_pts or 0))
    pts = np.array([item[0] for item in shown], np.int64)
    if len(pts) == 0 or pts[0] != first.pts or (np.diff(pts) == 0).any():
        return None
    times = pts * time_base.numerator / time_base.denominator
    last = shown[-1][1] * time_base or 1 / rate
    places = sorted((int(np.searchsorted(pts, key)), key, dts) for key, dts in keys)
    return FrameIndex(times, float(times[-1] + last), pts, tuple(places), np.array(sorted(prints)).T)
