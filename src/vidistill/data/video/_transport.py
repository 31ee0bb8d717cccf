"""Whether a transport stream lost packets where its counters jump, or was only joined from recordings there."""

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


def _steps(data: bytes, aligned: int, pid: int) -> list[tuple[int, bool]]:
    """(place, whether the count breaks there) of the packets of `pid` after their first one."""
    # Blu-ray files have 4 more bytes before each packet.
    stride = PACKET if data[aligned + PACKET : aligned + PACKET + 1] == bytes([SYNC]) else PACKET + 4
    aligned += 0 if data[aligned] == SYNC else 4
    steps, last = [], None
    for at in range(aligned % stride, len(data) - PACKET + 1, stride):
        header = data[at : at + 4]
        has_payload = bool(header[3] & 0x10)
        if header[0] != SYNC or (header[1] & 0x1F) << 8 | header[2] != pid or not has_payload:
            continue
        count = header[3] & 0xF
        if last is not None:
            steps.append((at, count != (last + 1) % 16))
        last = count
    return steps
