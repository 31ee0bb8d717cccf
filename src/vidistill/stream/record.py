"""A video through a stream into a file. However the video ends, what was written is whole."""

import queue
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vidistill.data.video.reader import VideoReader
from vidistill.errors import UserError
from vidistill.files import require_writable
from vidistill.interrupts import uninterrupted
from vidistill.progress import track
from vidistill.stream.sinks import Source, open_sink
from vidistill.stream.stream import Stream, save_state

T = TypeVar("T")

AHEAD = 2  # frames, and results, that are made before they are needed
PATIENCE = 0.2  # seconds until a stop is seen while a camera is silent


def record(video: str, stream: Stream, out: str, *, state: Path | None = None) -> None:
    """Writes what a stream makes of a video, or of a folder of frames.

    What is damaged or lost is left out, and told on standard error at the end; the next frame is a key frame.
    Ctrl-C and SIGTERM end the video: the frames until then are written, and then `Stopped` is raised.

    Args:
        video: a path or an address.
        stream: runs over the frames.
        out: where results go, see `open_sink`.
        state: where the stream's state is saved at the end.

    Raises:
        UserError: the video cannot be read, or something cannot be written. What came before a failure is kept.
    """
    (reader,) = in_background(VideoReader(video, damage="skip") for _ in range(1))
    with reader, uninterrupted() as stop:
        total = _frame_count(reader)
        source = Source(
            fps=reader.fps, path=video, first=stream.index, pixel_aspect=reader.pixel_aspect, is_live=total is None
        )
        if state is not None:
            require_writable(state)
        count, failure = 0, None
        broken: list[Exception] = []
        stop.kept = f"stopped before the first result; {out} is not written"
        with open_sink(out, stream.student, source) as sink:
            frames = _until_broken(in_background(reader, until=lambda: stop.is_asked), broken)
            outputs = in_background(stream(frames, ends=state is None))  # so that reading, network and writing overlap
            try:
                for output in track(outputs, "streaming", total=total):
                    sink.write(output)
                    count += 1
                    stop.kept = f"stopped; {out} holds the results of {count} frames"
            except Exception as error:  # of the network, or a full disk: what came before it stays
                failure = error
            if not count and (failure or broken or stop.is_asked):
                raise failure or next(iter(broken), UserError(stop.kept))  # leaves an earlier file as it was
        if reader.damage.count:
            print(reader.damage.sentence(video), file=sys.stderr)
        if state is not None and failure is None:
            save_state(stream, state)
    failure = failure or next(iter(broken), None)
    if isinstance(failure, UserError):
        raise UserError(f"{failure}; {out} holds the results of the {count} frames before") from failure
    if failure is not None:
        raise failure


@dataclass(frozen=True)
class _End:
    """After the last item. error: what ended them."""

    error: Exception | None


def _until_broken(frames: Iterable[T], broken: list[Exception]) -> Iterator[T]:
    """The frames until their end, or until the error that is added to `broken`."""
    try:
        yield from frames
    except Exception as error:
        broken.append(error)


def _frame_count(reader: VideoReader) -> int | None:
    """The number of frames; None of a pipe or a live stream, which has none."""
    try:
        return reader.num_frames
    except UserError:
        return None


def in_background(items: Iterable[T], *, until: Callable[[], bool] = lambda: False) -> Iterator[T]:
    """The items, which another thread makes: a signal is heard while that one waits for a camera.

    until: asked before every item and while there is none; the items end where it says so.
    """
    waiting: queue.Queue[T | _End] = queue.Queue(AHEAD)
    closed = threading.Event()

    def put(item: T | _End) -> None:
        while not closed.is_set():
            try:
                waiting.put(item, timeout=PATIENCE)
                return
            except queue.Full:
                continue

    def read() -> None:
        error: Exception | None = None
        source = iter(items)
        try:
            for item in source:
                put(item)
                if closed.is_set():
                    break
        except Exception as raised:
            error = raised
        finally:
            if isinstance(source, Generator):
                source.close()
        put(_End(error))

    reading = threading.Thread(target=read, daemon=True)  # one that waits for a camera does not keep the program alive
    reading.start()
    try:
        while not until():
            try:
                item = waiting.get(timeout=PATIENCE)
            except queue.Empty:
                continue
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        closed.set()
        reading.join(timeout=1)
