"""A small student of every task, with videos that it is scored on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.networks import TinyClips, TinyDetector, TinySegmenter, TinyWindows
from tests.tasks.super_resolution.test_score import moving
from vidistill.data.datasets.synthetic import synthetic
from vidistill.data.datasets.synthetic_actions import synthetic_actions
from vidistill.methods.delta import Delta
from vidistill.ops.clip_view import ClipView, View, WindowView
from vidistill.students.card import Card
from vidistill.students.student import Student
from vidistill.students.windows import LookAhead, as_student
from vidistill.tasks import Task, task_of
from vidistill.tasks.depth.synthetic import synthetic_depth

K = 3  # frames from one key frame to the next
CLIPS = ClipView(num_frames=3, sampling="dense", stride=2, crop=16, size=8)


class StepByStep(nn.Module):
    """A causal classifier of clips: a frame's logits depend on it and, half as much, on the frame before."""

    causal = True

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Linear(6, num_classes)

    def step(self, frame: Tensor, state: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        feature = self.first(frame).mean(dim=(2, 3))
        before = torch.zeros_like(feature) if state is None else state["before"]
        return self.head(feature + 0.5 * before), {"before": feature}

    def forward(self, clips: Tensor) -> Tensor:
        state, logits = None, []
        for frame in clips.unbind(dim=1):
            one, state = self.step(frame, state)
            logits.append(one)
        return torch.stack(logits).mean(dim=0)


def _delta(network: nn.Module, example: Tensor, card: Card) -> Student:
    method = Delta(key_frame_interval=K)
    student = method.finish(method.prepare(network.eval(), example, card=card))
    for block in student.blocks().values():  # so that it makes a difference where the key frames are
        for parameter in block.student.parameters():
            nn.init.normal_(parameter, std=0.2)
    return student


@dataclass(frozen=True)
class Small:
    """What one task is tried on. size: (height, width) of the frames that its students see."""

    task: Task
    network: Callable[[], nn.Module]
    videos: Callable[[], list[Any]]
    size: tuple[int, int]
    view: View | None = None
    delta: bool = True
    names: tuple[str, ...] = ()

    def card(self) -> Card:
        interval = self.view.stride if isinstance(self.view, ClipView) else K if self.delta else 1
        return Card(
            task=self.task,
            class_names=self.names,
            key_frame_interval=interval,
            view=self.view,
            normalisation=self.task.normalisation,
        )

    def student(self, seed: int = 0) -> Student:
        """In evaluation mode, sure of something."""
        torch.manual_seed(seed)
        network, card = self.network().eval(), self.card()
        for name in ("head", "logits"):
            if hasattr(network, name):
                nn.init.normal_(getattr(network, name).weight, std=1.5)
        if not self.delta:
            return as_student(network, card).eval()
        if isinstance(self.view, WindowView):
            inner = _delta(network, torch.zeros(1, self.view.window, 3, *self.size), card)
            return LookAhead(inner, inner.card).eval()
        return _delta(network, torch.zeros(1, 3, *self.size), card).eval()

    def teacher(self) -> Student:
        """A network of single frames, or of the same clips or windows."""
        torch.manual_seed(9)
        return as_student(self.network().eval(), self.card()).eval()


def _shapes(num_classes: int) -> list[Any]:
    return list(synthetic(num_sequences=2, num_frames=5, size=(32, 48), num_classes=num_classes).sequences)


def _actions() -> list[Any]:
    return list(synthetic_actions(num_videos=4, num_frames=9, size=20, num_classes=3).sequences)


SMALL = {
    "segmentation": Small(
        task_of({"name": "segmentation", "num_classes": 4}),
        lambda: TinySegmenter(4),
        lambda: _shapes(4),
        (32, 48),
        names=("ground", "rectangle", "disc", "triangle"),
    ),
    "detection": Small(
        task_of({"name": "detection", "num_classes": 3}),
        lambda: TinyDetector(3),
        lambda: _shapes(3),
        (32, 48),
        names=("ground", "rectangle", "disc"),
    ),
    "depth": Small(
        task_of({"name": "depth", "max_depth": 20.0}),
        lambda: TinySegmenter(1),
        lambda: list(synthetic_depth(num_sequences=2, num_frames=5, size=(32, 48)).sequences),
        (32, 48),
    ),
    "super_resolution": Small(
        task_of({"name": "super_resolution", "scale": 2}),
        TinyWindows,
        lambda: [moving(7, 0), moving(5, 1)],
        (17, 23),
        view=WindowView(3),
    ),
    "recognition": Small(
        task_of({"name": "recognition", "num_classes": 3}),
        lambda: TinyClips(3),
        _actions,
        (16, 16),
        view=CLIPS,
        delta=False,
        names=("1 swings", "2 swings", "3 swings"),
    ),
    "recognition, frame by frame": Small(
        task_of({"name": "recognition", "num_classes": 3}),
        lambda: StepByStep(3),
        _actions,
        (16, 16),
        view=CLIPS,
        delta=False,
        names=("1 swings", "2 swings", "3 swings"),
    ),
}
