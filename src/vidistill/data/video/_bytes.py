"""What libav does not tell of files: where transport streams lost packets or were joined, and which were cut off."""

import os
from pathlib import Path

PACKET = 188  # bytes; ISO/IEC 13818-1, 2.4.3.2
SYNC = 0x47
AROUND = 1 << 18  # bytes that are looked at on either side; program tables come several times a second


def lost_packets(path: Path, pid: int, start: int, key: int | None) -> bool:
    """Whether packets of `pid` are lost after byte `start` of a file.

    Not where the counters start anew, those of the program tables too, just where a key frame begins, at byte `key`:
    files were joined. And not where every packet breaks the count: some writers do not count.
    """
    begin = max(start - AROUND, 0)
    with path.open("rb") as file:
        file.seek(begin)
        data = file.read((key or start) - begin + AROUND)
    steps = _steps(data, start - begin, pid)
    if sum(breaks for _, breaks in steps) > len(steps) / 2:
        return False
    if key is None:
        return True
    own = [at + begin for at, breaks in steps if breaks and start < at + begin <= key]
    tables = [breaks for at, breaks in _steps(data, start - begin, 0) if at + begin > start]
    return own != [key] or not any(tables)


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


def _steps(data: bytes, aligned: int, pid: int) -> list[tuple[int, bool]]:
    """(place, whether the count breaks there) of the packets of `pid` after their first one."""
    stride = stride_of(data[aligned:])
    before = stride - PACKET
    steps, last = [], None
    for at in range(aligned % stride, len(data) - stride + 1, stride):
        header = data[at + before : at + before + 4]
        has_payload = bool(header[3] & 0x10)
        if header[0] != SYNC or (header[1] & 0x1F) << 8 | header[2] != pid or not has_payload:
            continue
        count = header[3] & 0xF
        if last is not None:
            steps.append((at, count != (last + 1) % 16))
        last = count
    return steps
