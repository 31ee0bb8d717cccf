"""What libav does not tell of files: where transport streams lost packets or were joined, and which were cut off."""

import os
from pathlib import Path
from typing import NamedTuple

PACKET = 188  # bytes; ISO/IEC 13818-1, 2.4.3.2
SYNC = 0x47
NULL_PID = 0x1FFF
AROUND = 1 << 18  # bytes that are looked at on either side; program tables come several times a second


class Step(NamedTuple):
    """From a packet to the next one of its stream: where that is, its stream, whether the count breaks there."""

    at: int
    pid: int
    breaks: bool
    starts: bool  # whether a table or a frame begins there


def lost_packets(path: Path, pid: int, start: int, key: int | None) -> bool:
    """Whether packets of the stream `pid` are lost after byte `start` of a file.

    Not where counters start anew, those of tables or sound too, where a key frame begins, at byte `key`: files were
    joined. And not where every packet breaks the count: some writers do not count.
    """
    begin = max(start - AROUND, 0)
    with path.open("rb") as file:
        file.seek(begin)
        steps = _steps(file.read((key or start) - begin + AROUND), start - begin)
    own = [step for step in steps if step.pid == pid]
    if sum(step.breaks for step in own) > len(own) / 2:
        return False
    if key is None:
        return True
    after = [step for step in steps if step.breaks and start < step.at + begin]
    others = any(step.pid != pid and step.starts for step in after)
    return [step.at + begin for step in after if step.pid == pid and step.at + begin <= key] != [key] or not others


def stride_of(data: bytes) -> int:
    """The bytes from packet to packet: Blu-ray files have 4 more before each, a time."""
    return PACKET if all(byte == SYNC for byte in data[: 4 * PACKET : PACKET]) else PACKET + 4


def ends_within_tag(path: Path) -> bool:
    """Whether an FLV file was cut off within a tag: the size of the last tag is behind it (FLV 10.1, annex E.3)."""
    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        size = int.from_bytes(file.read(4), "big")
        if size < 11 or size + 4 > file.tell():
            return True
        file.seek(-size - 4, os.SEEK_END)
        return int.from_bytes(file.read(4)[1:], "big") + 11 != size


def ends_within_chunk(path: Path) -> bool:
    """Whether an AVI file was cut off: it is a row of RIFF chunks, each with its size."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        at = 0
        while at + 8 <= end:
            file.seek(at)
            name, size = file.read(4), int.from_bytes(file.read(4), "little")
            if name != b"RIFF" or size == 0:  # what follows is not part of it, or its writer never came to the end
                return False
            at += 8 + size + size % 2
        return at > end + 1  # some leave out the last chunk's padding


def ends_within_packet(path: Path) -> bool:
    """Whether a transport stream was cut off within a packet."""
    with path.open("rb") as file:
        stride = stride_of(file.read(4 * PACKET))
        return file.seek(0, os.SEEK_END) % stride > 0


def _steps(data: bytes, aligned: int) -> list[Step]:
    """Those of all streams; `aligned`: where a packet begins."""
    stride = stride_of(data[aligned:])
    before = stride - PACKET
    counts: dict[int, int] = {}
    steps = []
    for at in range(aligned % stride, len(data) - stride + 1, stride):
        sync, high, low, flags = data[at + before : at + before + 4]
        pid = (high & 0x1F) << 8 | low
        if sync == SYNC and flags & 0x10 and pid != NULL_PID:  # a packet without payload is not counted
            if pid in counts:
                steps.append(Step(at, pid, flags & 0xF != (counts[pid] + 1) % 16, bool(high & 0x40)))
            counts[pid] = flags & 0xF
    return steps
