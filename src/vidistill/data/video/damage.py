"""What a reader does where a video is damaged, and the record of what it left out."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

# "refuse": a UserError where a frame is damaged or missing, for data that must be whole, as in training.
# "skip": what decodes is used, the rest is counted, for streams that must go on.
Damage = Literal["refuse", "skip"]
MOST_LISTED = 20  # a live stream may run for months


@dataclass
class DamageReport:
    """What could not be decoded.

    Attributes:
        count: How many frames, packets and breaks.
        first: The first 20 of them: their time in seconds, None where it is unknown, and the reason.
    """

    count: int = 0
    first: list[tuple[float | None, str]] = field(default_factory=list)

    def add(self, seconds: float | None, reason: str) -> None:
        self.count += 1
        if len(self.first) < MOST_LISTED:
            self.first.append((seconds, reason))

    def sentence(self, path: str | Path) -> str:
        """What was left out of the video at `path`, for a log."""
        if self.count == 0:
            return f"{path}: nothing was left out"
        shown = [reason if at is None else f"{reason} at {at:.2f} s" for at, reason in self.first[:3]]
        more = ", …" if self.count > len(shown) else ""
        places = "1 damaged place was" if self.count == 1 else f"{self.count} damaged places were"
        return f"{path}: {places} left out ({', '.join(shown)}{more}); the rest was used"
