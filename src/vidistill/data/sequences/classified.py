"""Videos with one or several classes for the whole video."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from vidistill.data.clip import FrameSequence
from vidistill.data.resized import WrappedSequence


@dataclass(frozen=True)
class ClassifiedVideo(WrappedSequence):
    """A sequence with its class ids; none where it is unlabelled.

    columns: the other columns of the list that names it. listed_frames: its number of frames according to that list.
    """

    classes: tuple[int, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    listed_frames: int | None = None

    def problems(self) -> list[str]:
        problems = super().problems()
        if not problems and self.listed_frames is not None and self.listed_frames != len(self):
            problems.append(f"{self.name}: has {len(self)} frames, expected {self.listed_frames} as its list says")
        return problems


def classes_of(sequence: FrameSequence) -> tuple[int, ...]:
    """The sequence's class ids; () for one without."""
    return sequence.classes if isinstance(sequence, ClassifiedVideo) else ()
