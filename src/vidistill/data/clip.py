"""The currency of the data package: sequences of frames, the clips drawn from them, and batches of clips."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidistill.config import Values
from vidistill.ops.clip_view import View

Image = NDArray[np.uint8]  # (H, W, 3), RGB, 0…255
LabelMap = NDArray[Any]  # (H, W): uint8 class ids, 255 is ignored; or float32 values such as depth
IGNORED = 255


class FrameSequence(Protocol):
    """Consecutive frames of one size, with labels where there are some. A still image is a sequence of one frame."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image:
        """The frame, decoded."""
        ...

    def labels(self, index: int) -> LabelMap | None:
        """The frame's labels, of the frame's size; None where it has none."""
        ...

    def images(self) -> Iterator[Image]:
        """All frames in order, in constant memory."""
        ...

    def labelled(self) -> Sequence[int]:
        """The indices of the frames that have labels."""
        ...

    def problems(self) -> list[str]:
        """One sentence for each thing that is missing, broken or of another size."""
        ...


@dataclass(frozen=True)
class VideoDataset:
    """Sequences that share their classes. `num_classes` is 0 where there are no labels.

    notes: what is worth knowing of the whole, a sentence each.
    """

    name: str
    sequences: Sequence[FrameSequence]
    class_names: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def problems(self) -> list[str]:
        """What is broken in any sequence, a sentence each; decodes everything once."""
        return [problem for sequence in self.sequences for problem in sequence.problems()]


@dataclass(frozen=True)
class LabelForm:
    """How dense labels are stored.

    unknown: the value of a pixel without a label. is_distance: a picture enlarged s times shows what would be s times
    nearer, so a view divides its values by s (Eigen, Puhrsch & Fergus 2014).
    """

    dtype: type[np.generic]
    unknown: float
    is_distance: bool = False


CLASS_IDS = LabelForm(np.uint8, IGNORED)


@dataclass(frozen=True)
class Clip:
    """T frames of one size, and their labels: unknown everywhere in a frame that has none."""

    frames: NDArray[np.uint8]  # (T, H, W, 3)
    labels: NDArray[Any]  # (T, H, W), see `LabelForm`


class SampleKey(NamedTuple):
    """All that a random draw may depend on, so that workers, processes and resumed runs agree."""

    seed: int
    epoch: int
    sample: int

    def generator(self) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.epoch, self.sample))


@dataclass
class Batch:
    """The student's and the teacher's view of the same clips, with their labels.

    student, teacher: (B, T, 3, H, W) uint8; the same tensor unless a recipe makes the views differ.
    labels: what the task wants: class ids (B, T, H, W) int64, 255 where ignored or unknown; values (B, T, H, W)
    float32; or a clip's classes (B, K).
    """

    student: Tensor
    teacher: Tensor
    labels: Tensor
    keys: list[SampleKey] = field(default_factory=list)

    def to(self, device: torch.device) -> "Batch":
        student = self.student.to(device, non_blocking=True)
        teacher = student if self.teacher is self.student else self.teacher.to(device, non_blocking=True)
        return Batch(student, teacher, self.labels.to(device, non_blocking=True), self.keys)

    def pin_memory(self) -> "Batch":
        student = self.student.pin_memory()
        teacher = student if self.teacher is self.student else self.teacher.pin_memory()
        return Batch(student, teacher, self.labels.pin_memory(), self.keys)


class TrainingSamples(Protocol):
    """What a run trains on; a sample is a function of its key and of nothing else."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: SampleKey) -> Any: ...

    def collate(self, samples: Sequence[Any]) -> Batch: ...

    def example(self) -> Tensor:
        """Zeros of the shape of what is drawn, a batch of one: (1, 3, H, W) frames or (1, T, 3, H, W) clips."""
        ...

    def view_of(self, changes: Values) -> View | None:
        """What a network sees of a clip, with a recipe's changes; None for networks of single frames."""
        ...
