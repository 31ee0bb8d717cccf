"""Ctrl-C and SIGTERM as one exception, which can wait until what is being written is whole."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Stopped(KeyboardInterrupt):
    """Somebody asked the program to stop. number: of the signal; kept: a sentence on what was kept, "" for none."""

    def __init__(self, number: int, kept: str = "") -> None:
        super().__init__(number, kept)
        self.number, self.kept = number, kept

    @property
    def name(self) -> str:
        """As a user calls the signal."""
        return "Ctrl-C" if self.number == signal.SIGINT else signal.Signals(self.number).name


@dataclass
class Stop:
    """Whether somebody has asked the program to stop, for who waits with it. kept: what `Stopped` will say was kept."""

    kept: str = ""

    @property
    def is_asked(self) -> bool:
        return _waiting is not None


_held = 0  # blocks of `uninterrupted` that the main thread is in
_waiting: int | None = None  # the signal that came in them


def raise_signals() -> None:
    """From here on Ctrl-C, SIGTERM and a closed terminal (SIGHUP) raise `Stopped`; what is ignored stays ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _raise)


def _raise(number: int, frame: FrameType | None) -> None:
    global _waiting
    if not _held:
        raise Stopped(number)
    _waiting = number


@contextmanager
def uninterrupted() -> Iterator[Stop]:
    """A signal that comes in this block raises `Stopped` at its end, of the outermost one. In the main thread."""
    global _held, _waiting
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    _held += 1
    try:
        yield stop
    finally:
        _held -= 1
        if not _held and _waiting is not None:
            number, _waiting = _waiting, None
            raise Stopped(number, stop.kept)
