"""The sound of a video, copied unchanged into another."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet

from vidistill.data.video._packets import open_container
from vidistill.errors import UserError


class Sound:
    """The audio packets of a video file in order, to be written between frames. A context manager.

    Errors: UserError where the file cannot be opened.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._container = open_container(str(path))
        self._copies: dict[int, AudioStream] = {}
        self._packets: Iterator[Packet] = iter(())
        self._next: Packet | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def add_to(self, output: OutputContainer, name: str | Path) -> None:
        """Adds an audio stream to the output for each of the video's.

        Errors: UserError where the output's file format cannot hold one of them; `name`: the output's, for that.
        """
        for stream in self._container.streams.audio:
            codec = stream.codec_context.name if stream.codec_context is not None else "unknown"
            if codec not in output.supported_codecs:
                raise UserError(f"{name}: cannot hold the sound of {self._path} ({codec}); write an .mkv file")
            self._copies[stream.index] = output.add_stream_from_template(stream)
        if self._copies:
            self._packets = self._container.demux(list(self._container.streams.audio))
            self._advance()

    def until(self, seconds: Fraction | None, offset: Fraction) -> Iterator[Packet]:
        """The next packets that begin before `seconds`, or all the rest for None, shifted by `offset` seconds.

        Each comes once. Packets that are shifted back to before 0 are left out.
        """
        while self._next is not None:
            packet = self._next
            if packet.dts is not None:  # the last one, without data, has none
                begins = packet.dts * packet.time_base + offset
                if seconds is not None and begins >= seconds:
                    return
                if begins >= 0 or offset >= 0:
                    ticks = round(offset / packet.time_base)
                    packet.dts += ticks
                    packet.pts = None if packet.pts is None else packet.pts + ticks
                    packet.stream = self._copies[packet.stream.index]
                    yield packet
            self._advance()

    def _advance(self) -> None:
        """Where the file cannot be read any further the sound ends: what that means for the video, its reader says."""
        try:
            self._next = next(self._packets, None)
        except FFmpegError:
            self._next = None
