"""Ctrl-C and SIGTERM in training: the running step ends and is saved, then they do what they always do."""

import os
import signal
import threading
from time import monotonic
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAME_SECONDS = 0.5  # two signals so close are one: launchers repeat what a terminal has sent already
WORKER_SECONDS = 30  # that a worker lives on after SIGTERM, which a service manager sends to all processes at once


class Interrupts:
    """Puts the first signal off while its block lasts; `requested` says that it came. A second Ctrl-C acts at once.

    Outside the main thread, and where a signal is ignored, as by nohup, nothing changes.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._earlier: dict[int, Any] = {}
        self._came = 0.0  # when

    @property
    def requested(self) -> bool:
        return self._signal is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._earlier[number] = signal.signal(number, self._put_off)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier.clear()

    def act(self) -> None:
        """Now does what the signal that came would have done."""
        self.__exit__()
        if self._signal is not None:
            signal.raise_signal(self._signal)

    def _put_off(self, number: int, frame: FrameType | None) -> None:
        if self._signal is None:
            self._signal, self._came = number, monotonic()
            os.write(2, b"stopping after this step; Ctrl-C once more stops at once, without saving it\n")
        elif number == signal.SIGINT and monotonic() - self._came > SAME_SECONDS:
            self.act()


def start_worker() -> None:
    """In a process that loads data: it ends with its parent, which gets the same signals and still needs it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # not on Windows
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_SECONDS))
