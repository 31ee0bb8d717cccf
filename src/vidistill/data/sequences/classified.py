"""Videos with a class, or several, for the whole of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from vidistill.data.clip import FrameSequence
from vidistill.data.resized import WrappedSequence


@dataclass(frozen=True)
class ClassifiedVideo(WrappedSequence):
    """A sequence with its class ids, none where it is unlabelled.

    columns: what else its list says of it, by name; listed_frames: how many frames that says it has, where it does.
    """

    classes: tuple[int, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    listed_frames: int | None = None

    def problems(self) -> list[str]:
        problems = super().problems()
        if not problems and self.listed_frames is not None and self.listed_frames != len(self):
            problems.append(f"{self.name}: has {len(self)} frames where its list says {self.listed_frames}")
        return problems


def classes_of(sequence: FrameSequence) -> tuple[int, ...]:
    """The sequence's class ids; () for one without any."""
    return sequence.classes if isinstance(sequence, ClassifiedVideo) else ()
