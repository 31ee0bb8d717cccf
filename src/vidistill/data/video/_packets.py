"""What a container says about its video, without decoding: the packets, what it declares, and an index of frames."""

import bisect
import contextlib
import operator
import os
import re
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

from vidistill.errors import UserError

# libav's own bound (MAX_NVOP_SIZE) on MPEG-4 packets that say "as before" and give no frame.
EMPTY_MPEG4_BYTES = 19
# Headers of AVI writers are often off by a frame or two.
AVI_SLACK = 2


def open_video(path: str) -> tuple[InputContainer, VideoStream]:
    """A container and its first video stream that is no cover picture."""
    if "://" not in path:
        if not os.path.exists(path):
            raise UserError(f"there is no video {path}: check the path")
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            raise UserError(f"{path} is empty (0 bytes): copy or download it again")
    # A colon in a relative path would pass for a protocol; `..` behind a link is what the system says it is.
    name = path if "://" in path else str(Path(path).absolute())
    try:
        container = av.open(name, metadata_errors="ignore")
    except (FFmpegError, OSError) as error:
        raise _unopened(path, error.strerror) from error
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams or container.format.name == "tty":  # libav's "tty" draws text files as pictures
        found = sorted({"text" if streams else stream.type for stream in container.streams} - {"video"})
        container.close()
        if not found:
            raise _unopened(path, "nothing is in it")
        raise UserError(f"{path} holds no video (only: {', '.join(found)}): give a video")
    if streams[0].codec_context is None:
        container.close()
        raise UserError(f"{path} is in a codec that this PyAV cannot decode: re-encode it, e.g. as H.264")
    return container, streams[0]


def _unopened(path: str, why: str | None) -> UserError:
    return UserError(
        f"{path} cannot be opened as a video ({why}): it is no video, or it was cut short while being written; make or "
        "copy it again"
    )


class Packets:
    """The packets of a video; where it was joined midway, from its first key frame on: before, nothing can be decoded.

    `reliable` holds while each packet that `shows` is sure to give exactly one frame, stamped with the packet's pts.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, *, joined: bool = False) -> None:
        self.reliable = True
        self.start_pts: int | None = None
        self._container, self._stream = container, stream
        self._joined = joined
        self._codec = stream.codec_context.codec.canonical_name
        self._count = 0
        self._last_dts: int | None = None
        self._end_pts = 0

    def __iter__(self) -> Iterator[Packet]:
        started = False
        for packet in self._container.demux(self._stream):
            self._count += packet.size > 0 or packet.dts is not None
            started = started or packet.is_keyframe or (not self._joined and self._indexed(packet))
            if packet.size == 0 or not started:
                continue
            if packet.pts is None:
                self.reliable = False
            if packet.dts is not None and self._last_dts is not None and packet.dts <= self._last_dts:
                self.reliable = False  # times start over where files were joined end to end
            if self._codec == "mpeg4" and packet.size <= EMPTY_MPEG4_BYTES:
                self.reliable = False
            if packet.pts is not None:
                self.start_pts = packet.pts if self.start_pts is None else self.start_pts
                self._end_pts = max(self._end_pts, packet.pts + (packet.duration or 0))
            self._last_dts = packet.dts if packet.dts is not None else self._last_dts
            yield packet

    def _indexed(self, packet: Packet) -> bool:
        """Whether the container says that one can start at this packet, whatever is left of the packet itself."""
        entries = self._stream.index_entries
        if packet.pts is None or len(entries) == 0:
            return False
        return entries[0].is_keyframe and entries[0].timestamp <= packet.pts

    def shows(self, packet: Packet) -> bool:
        """False for packets outside an edit list and for VP8's hidden reference frames (show_frame, RFC 6386 9.1)."""
        return not packet.is_discard and (self._codec != "vp8" or bool(memoryview(packet)[0] & 0x10))

    def all_sent(self, pts: int) -> bool:
        """Whether no packet yet to come can show a frame before `pts`: none is shown before it is decoded."""
        return pts == self.start_pts or (self._last_dts is not None and pts <= self._last_dts)

    def declared_frames(self) -> int | None:
        """How many frames the container says there are; for Matroska, which tells only the time, about how many."""
        if self._container.format.name.startswith("mov"):
            return sum(not entry.is_discard for entry in self._stream.index_entries)
        end = self._declared_end()
        if end is not None and self._stream.average_rate:
            return round(end * self._stream.average_rate)
        return self._stream.frames or None

    def end_early(self) -> bool:
        """Whether, all having been read from the start, they are fewer than the container declares."""
        name = self._container.format.name
        if name.startswith("mov"):
            return self._count < len(self._stream.index_entries)
        if name == "avi":
            return self._count + AVI_SLACK < self._stream.frames
        end = self._declared_end()
        if end is None or self._stream.time_base is None:
            return False
        slack = 0.5 / float(self._stream.average_rate or 25)  # times are rounded, and the last duration may be a guess
        return float(self._end_pts * self._stream.time_base) + slack < end

    def _declared_end(self) -> float | None:
        """Seconds at which Matroska says that this stream ends: the lesser of two statements, for tags grow stale."""
        duration = self._container.duration
        if not self._container.format.name.startswith("matroska") or not duration:
            return None
        tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", self._stream.metadata.get("DURATION", ""))
        if tag:
            return min(duration / av.time_base, int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]))
        return duration / av.time_base if len(self._container.streams) == 1 else None


@dataclass(frozen=True)
class FrameIndex:
    """When every frame of a video is shown, in order; and where decoding can start, if that is known."""

    times: np.ndarray  # (N,) float64, seconds
    end_seconds: float
    pts: np.ndarray | None = None  # (N,) int64; None: only counting from the start tells frames apart
    keys: tuple[tuple[int, int, int | None], ...] = ()  # (place, pts, dts) in presentation order

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

    def place(self, pts: int | None) -> int | None:
        if self.pts is None or pts is None:
            return None
        found = int(np.searchsorted(self.pts, pts))
        return found if found < len(self.pts) and self.pts[found] == pts else None


def scan_packets(path: str, first: VideoFrame) -> FrameIndex | None:
    """The index from packets alone; None where packets do not tell. `first`: the first frame that is shown."""
    container, stream = open_video(path)
    time_base, rate = stream.time_base or Fraction(1), stream.average_rate or 25
    packets = Packets(container, stream)
    shown: list[tuple[int, int]] = []  # (pts, duration)
    keys: list[tuple[int, int | None]] = []  # (pts, dts)
    cut = True
    # Where reading fails, what came before is intact, and decoding will name the frame.
    with container, contextlib.suppress(FFmpegError):
        for packet in packets:
            if packet.pts is None or not packets.reliable:
                break
            if packet.is_corrupt:
                shown = [item for item in shown if item[0] < packet.pts]
                break
            if packet.is_keyframe:
                keys.append((packet.pts, packet.dts))
            if packets.shows(packet):
                shown.append((packet.pts, packet.duration or 0))
        else:
            cut = packets.end_early()
    if not packets.reliable or first.pts is None:
        return None
    if cut:  # reading in order ends before frames that were sent ahead of ones that are lost
        shown = [item for item in shown if packets.all_sent(item[0])]
    # Leading pictures of an open GOP at the start refer to frames that are not there, and are not shown.
    shown = sorted(item for item in shown if item[0] >= min(first.pts, packets.start_pts or 0))
    pts = np.array([item[0] for item in shown], np.int64)
    if len(pts) == 0 or pts[0] != first.pts or (np.diff(pts) == 0).any():
        return None
    times = pts * time_base.numerator / time_base.denominator
    last = shown[-1][1] * time_base or 1 / rate
    places = sorted((int(np.searchsorted(pts, key)), key, dts) for key, dts in keys)
    return FrameIndex(times, float(times[-1] + last), pts, tuple(places))
