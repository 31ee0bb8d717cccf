"""The two kinds of networks that methods and tasks are tried on: of single frames, and of clips."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.networks import TinyClips, TinySegmenter
from vidistill.data.clip import Batch
from vidistill.distill.teacher import FrozenTeacher
from vidistill.ops.clip_view import ClipView
from vidistill.tasks import TASKS, Task

CLASSES = 4


@dataclass(frozen=True)
class Kind:
    """task: its name. size: of the frames. view: what the student sees of a clip; teacher_view: the teacher."""

    task: str
    size: tuple[int, int]
    network: Callable[[], nn.Module]
    teacher_network: Callable[[], nn.Module]
    view: ClipView | None = None
    teacher_view: ClipView | None = None

    @property
    def lengths(self) -> tuple[int, int]:
        """Two numbers of frames that a clip may have."""
        return (4, 8) if self.view else (2, 3)

    def make_task(self) -> Task:
        return TASKS[self.task](num_classes=CLASSES)

    def teacher(self) -> FrozenTeacher:
        return FrozenTeacher(self.teacher_network(), self.teacher_view)

    def example(self) -> Tensor:
        return torch.zeros(1, 3, *self.size) if self.view is None else torch.zeros(1, 4, 3, *self.size)

    def batch(self, num_frames: int) -> Batch:
        frames = torch.randn(2, num_frames, 3, *self.size)
        if self.view is None:
            return Batch(frames, frames, torch.randint(0, CLASSES, (2, num_frames, *self.size)))
        return Batch(frames, frames, torch.eye(CLASSES)[torch.randint(0, CLASSES, (2,))])

    def output_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Of one frame's outputs."""
        return (1, CLASSES) if self.view else (1, CLASSES, (size[0] + 1) // 2, (size[1] + 1) // 2)

    def outputs(self) -> Tensor:
        """Two examples of what a network returns."""
        return torch.randn(2, CLASSES) if self.view else torch.randn(2, CLASSES, 6, 7)

    def no_labels(self) -> Tensor:
        """What two unlabelled examples have."""
        return torch.zeros(2, CLASSES) if self.view else torch.full((2, 12, 14), 255)

    def prediction_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Of two decoded examples."""
        return (2, CLASSES) if self.view else (2, *size)


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
FITS = {
    "supervised": ("frames", "clips"),
    "low_rank": ("frames",),
    "delta": ("frames",),
    "cross_resolution": ("clips",),
    "collaborative": ("clips",),
}


def pairs(names: Any, *, fitting: bool = True) -> list[tuple[str, str]]:
    """(method, kind) pairs that fit, or those that do not."""
    return [(name, kind) for name in names for kind in KINDS if (kind in FITS[name]) is fitting]
