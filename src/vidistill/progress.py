"""Progress with rate and time left: a bar on a terminal, a line now and then in a log."""

import sys
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import TypeVar

T = TypeVar("T")

LINE_SECONDS = 30.0  # from one line of a log to the next


def track(items: Iterable[T], title: str, *, total: int | None = None, quiet: bool = False) -> Iterator[T]:
    """The items, with a bar on standard error while they pass; lines where that is not a terminal."""
    if quiet:
        yield from items
        return
    if not sys.stderr.isatty():
        yield from _with_lines(items, title, total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(items, total=total, description=title)


def _with_lines(items: Iterable[T], title: str, total: int | None) -> Iterator[T]:
    """The items, with a line on standard error every half minute; nothing is said of what is quicker."""
    began = said = monotonic()
    for done, item in enumerate(items):
        now = monotonic()
        if done and now - said >= LINE_SECONDS:
            said, speed = now, done / (now - began)
            left = "" if total is None else f", {(total - done) / speed / 60:.0f} min left"
            of = "" if total is None else f" of {total}"
            print(f"{title}: {done}{of}, {speed:.3g}/s{left}", file=sys.stderr, flush=True)
        yield item
