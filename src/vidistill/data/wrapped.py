"""Another sequence's frames, to stand beside labels of another kind than masks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vidistill.data.clip import FrameSequence, Image, LabelMap


@dataclass(frozen=True)
class WrappedSequence:
    """The frames of a sequence, without masks."""

    frames: FrameSequence

    @property
    def name(self) -> str:
        return self.frames.name

    def __len__(self) -> int:
        return len(self.frames)

    def image(self, index: int) -> Image:
        return self.frames.image(index)

    def images(self) -> Iterator[Image]:
        return self.frames.images()

    def labels(self, index: int) -> LabelMap | None:
        return None

    def labelled(self) -> Sequence[int]:
        return ()

    def problems(self) -> list[str]:
        return self.frames.problems()
