"""The kinds of networks that methods, forms, runtimes and tasks are tried on: of frames, clips, windows and boxes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.networks import TinyClips, TinyDetector, TinySegmenter, TinyWindows
from vidistill.data.clip import Batch, Image, VideoDataset
from vidistill.data.datasets.synthetic import synthetic
from vidistill.data.datasets.synthetic_actions import synthetic_actions
from vidistill.methods import METHODS
from vidistill.methods.teacher import FrozenTeacher
from vidistill.ops.boxes import make_rows, not_annotated, stack_rows
from vidistill.ops.clip_view import ClipView, View, WindowView
from vidistill.students.card import Card
from vidistill.students.state import without_key_frame
from vidistill.students.student import Student
from vidistill.tasks import TASKS, Task
from vidistill.tasks.depth.synthetic import synthetic_depth

CLASSES = 4


@dataclass(frozen=True)
class Kind:
    """task: its name. size: of the frames. view: what the student sees of a clip; teacher_view: the teacher."""

    task: str
    size: tuple[int, int]
    network: Callable[[], nn.Module]
    teacher_network: Callable[[], nn.Module]
    view: View | None = None
    teacher_view: View | None = None

    @property
    def lengths(self) -> tuple[int, int]:
        """Two numbers of frames that a clip may have."""
        return (4, 8) if self.view else (2, 3)

    def make_task(self) -> Task:
        return TASKS[self.task](num_classes=CLASSES)

    @property
    def interval(self) -> int:
        """From key frame to key frame; of a network of clips that of the frames it sees, as an export needs it."""
        return self.view.stride if isinstance(self.view, ClipView) else 3

    def card(self) -> Card:
        names = tuple(f"class {i}" for i in range(CLASSES))
        return Card(task=self.make_task(), view=self.view, class_names=names, key_frame_interval=self.interval)

    def teacher(self) -> FrozenTeacher:
        return FrozenTeacher(self.teacher_network(), self.teacher_view)

    def example(self) -> Tensor:
        return torch.zeros(1, 3, *self.size) if self.view is None else torch.zeros(1, 4, 3, *self.size)

    def frames(self, num_frames: int, size: tuple[int, int] | None = None) -> Tensor:
        """Consecutive ones, each a batch of one, as a student is given them."""
        return torch.randn(num_frames, 1, 3, *(size or self.size))

    def images(self, num_frames: int, size: tuple[int, int] | None = None) -> list[Image]:
        """As a stream gets them, each like the one before it."""
        rng = np.random.default_rng(num_frames)
        first = rng.integers(0, 200, (*(size or self.size), 3))
        return [(first + rng.integers(0, 20, first.shape) + i).astype(np.uint8) for i in range(num_frames)]

    def dataset(self) -> VideoDataset:
        """Videos with labels that suit the task."""
        if self.view is None:
            return synthetic(num_sequences=1, num_frames=5, size=(32, 48), num_classes=CLASSES)
        return synthetic_actions(num_videos=2, num_frames=8, size=16, num_classes=CLASSES)

    def batch(self, num_frames: int) -> Batch:
        frames = torch.randn(2, num_frames, 3, *self.size)
        if self.view is None:
            return Batch(frames, frames, torch.randint(0, CLASSES, (2, num_frames, *self.size)))
        return Batch(frames, frames, torch.eye(CLASSES)[torch.randint(0, CLASSES, (2,))])

    def output_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Of one frame's outputs."""
        return (1, CLASSES) if self.view else (1, CLASSES, (size[0] + 1) // 2, (size[1] + 1) // 2)

    def values(self, outputs: Any) -> Tensor:
        """What a network returns as one tensor."""
        return outputs

    def outputs(self) -> Any:
        """Two examples of what a network returns."""
        return torch.randn(2, CLASSES) if self.view else torch.randn(2, CLASSES, 6, 7)

    def no_labels(self) -> Tensor:
        """What two unlabelled examples have."""
        return torch.zeros(2, CLASSES) if self.view else torch.full((2, 12, 14), 255)

    def prediction_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Of two decoded examples."""
        return (2, CLASSES) if self.view else (2, *size)


class Windows(Kind):
    """Of networks that restore a frame from three."""

    lengths = (1, 2)

    def make_task(self) -> Task:
        return TASKS[self.task](scale=2)

    def dataset(self) -> VideoDataset:
        return synthetic(num_sequences=1, num_frames=5, size=(32, 48), num_classes=CLASSES)

    def frames(self, num_frames: int, size: tuple[int, int] | None = None) -> Tensor:
        return torch.rand(num_frames, 1, 3, 3, *(size or self.size))

    def example(self) -> Tensor:
        return torch.zeros(1, 3, 3, *self.size)

    def batch(self, num_frames: int) -> Batch:
        windows = torch.rand(2, num_frames, 3, 3, *self.size)
        doubled = torch.Size((2, num_frames, 3, 2 * self.size[0], 2 * self.size[1]))
        return Batch(windows, windows, torch.randint(0, 256, doubled, dtype=torch.uint8))

    def output_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        return (1, 3, 2 * size[0], 2 * size[1])

    def outputs(self) -> Tensor:
        return torch.rand(2, 3, 12, 14)

    def no_labels(self) -> Tensor:
        return torch.zeros(2, 3, 0, 0, dtype=torch.uint8)

    def prediction_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        return (2, 12, 14, 3)


class Boxes(Kind):
    """Of detectors."""

    def batch(self, num_frames: int) -> Batch:
        frames = torch.randn(2, num_frames, 3, *self.size)
        corner = 10 * torch.rand(2 * num_frames, 2, 2)
        boxes = torch.cat([corner, corner + 4 + 4 * torch.rand(2 * num_frames, 2, 2)], dim=2)
        rows = [make_rows(frame, torch.randint(0, CLASSES, (2,)), torch.ones(2)) for frame in boxes]
        rows[0] = rows[0][:1]
        return Batch(frames, frames, stack_rows(rows).unflatten(0, (2, num_frames)))

    def values(self, outputs: Any) -> Tensor:
        return torch.cat([outputs["logits"], outputs["regression"]], dim=2)

    def output_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        return (1, 2 * ((size[0] + 3) // 4) * ((size[1] + 3) // 4), CLASSES + 4)

    def outputs(self) -> Any:
        anchors = torch.tensor([[0.0, 0, 8, 8], [9, 9, 16, 16], [12, 0, 20, 8]]).expand(2, 3, 4)
        logits = 2 + 0.5 * torch.randn(2, 3, CLASSES)  # which are all found
        return {"logits": logits, "regression": 0.1 * torch.randn(2, 3, 4), "anchors": anchors}

    def no_labels(self) -> Tensor:
        return stack_rows([not_annotated(self.size)] * 2)

    def prediction_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        return (2, 3 * CLASSES, 6)


class Depths(Kind):
    """Of networks that give one channel, with labels in metres of which some are unknown."""

    def make_task(self) -> Task:
        return TASKS[self.task]()

    def dataset(self) -> VideoDataset:
        return synthetic_depth(num_sequences=1, num_frames=5, size=(32, 48))

    def batch(self, num_frames: int) -> Batch:
        frames = torch.randn(2, num_frames, 3, *self.size)
        metres = torch.empty(2, num_frames, *self.size).uniform_(-5, 40).clamp(min=0)  # 0 is unknown
        return Batch(frames, frames, metres)

    def output_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        return (1, 1, (size[0] + 1) // 2, (size[1] + 1) // 2)

    def outputs(self) -> Tensor:
        return torch.randn(2, 1, 6, 7)

    def no_labels(self) -> Tensor:
        return torch.zeros(2, 12, 14)


class Foregrounds(Kind):
    """Of segmenters that give one logit a pixel."""

    def make_task(self) -> Task:
        return TASKS[self.task](num_classes=1)

    def card(self) -> Card:
        return replace(super().card(), class_names=("ground", "thing"))

    def dataset(self) -> VideoDataset:
        return synthetic(num_sequences=1, num_frames=5, size=(32, 48), num_classes=2)

    def batch(self, num_frames: int) -> Batch:
        frames = torch.randn(2, num_frames, 3, *self.size)
        return Batch(frames, frames, torch.randint(0, 2, (2, num_frames, *self.size)))

    def output_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        return (1, 1, (size[0] + 1) // 2, (size[1] + 1) // 2)

    def outputs(self) -> Tensor:
        return torch.randn(2, 1, 6, 7)


KINDS = {
    "frames": Kind("segmentation", (17, 22), lambda: TinySegmenter(CLASSES), lambda: TinySegmenter(CLASSES)),
    "clips": Kind(
        "recognition",
        (16, 16),
        lambda: TinyClips(CLASSES),
        lambda: TinyClips(CLASSES, width=8),
        ClipView(num_frames=2, sampling="dense", stride=2, crop=16, size=8),
        ClipView(num_frames=4, sampling="dense", stride=1, crop=16, size=16),
    ),
}
KINDS["windows"] = Windows(
    "super_resolution", (12, 16), TinyWindows, lambda: TinyWindows(width=12), WindowView(3), WindowView(3)
)
KINDS["boxes"] = Boxes("detection", (17, 22), lambda: TinyDetector(CLASSES), lambda: TinyDetector(CLASSES))
KINDS["depths"] = Depths("depth", (17, 22), lambda: TinySegmenter(1), lambda: TinySegmenter(1))
KINDS["foregrounds"] = Foregrounds("segmentation", (17, 22), lambda: TinySegmenter(1), lambda: TinySegmenter(1))
FITS = {
    "supervised": ("frames", "clips", "windows", "boxes", "depths", "foregrounds"),
    "low_rank": ("frames", "windows", "boxes", "depths", "foregrounds"),
    "delta": ("frames", "windows", "boxes", "depths", "foregrounds"),
    "cross_resolution": ("clips",),
    "collaborative": ("clips",),
    "space_time": ("windows",),
}


def untrained(method: str, kind: Kind) -> Student:
    """A student of the method as it deploys it, without any step of training."""
    learns = METHODS[method]()
    card = kind.card()
    return learns.finish(learns.prepare(kind.network().eval(), kind.example(), card=card, teacher=kind.teacher()))


def streamed(student: Student, frames: Iterable[Tensor], interval: int) -> list[Any]:
    """The outputs of the stream that these frames are, key frames `interval` apart; what comes late at the end too."""
    state, outputs = None, []
    with torch.no_grad():
        for index, frame in enumerate(frames):
            one, state = student(frame, (without_key_frame(state) if index % interval == 0 else state) or None)
            outputs += [] if one is None else [one]
        return outputs + student.flush(state)


def pairs(names: Any, *, fitting: bool = True) -> list[tuple[str, str]]:
    """(method, kind) pairs that fit, or those that do not."""
    return [(name, kind) for name in names for kind in KINDS if (kind in FITS[name]) is fitting]
