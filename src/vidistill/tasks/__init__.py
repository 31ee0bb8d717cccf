"""The door to the tasks: what a task promises, and `TASKS`.

A task knows its targets, how outputs compare, how they decode and which metrics count. It never knows which method
distils for it.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from torch import Tensor

from vidistill.data.clip import TrainingSamples, VideoDataset
from vidistill.errors import UserError
from vidistill.ops.normalise import Normalisation
from vidistill.tasks.detection.task import Detection
from vidistill.tasks.recognition.task import Recognition
from vidistill.tasks.segmentation.task import Segmentation
from vidistill.tasks.super_resolution.task import SuperResolution


class Task(Protocol):
    """What methods, evaluation and streams may ask of any task. Outputs are whatever the network returns."""

    name: str
    clip_settings: ClassVar[type[Any]]  # how training clips are drawn, as `data.clip` of a recipe has it
    has_classes: ClassVar[bool]  # whether it is built with `num_classes`, which the data or the teacher knows
    normalisation: ClassVar[Normalisation]  # of networks unless a recipe says otherwise
    any_size: ClassVar[bool]  # whether what it decodes of a resized frame can be told in the frame's own pixels
    default_losses: ClassVar[dict[str, float]]  # weights of its losses, where they are more than `task` and `teacher`

    @property
    def degraded(self) -> str:
        """What is done to frames before a network sees them, the same for its teacher; empty where nothing is."""
        ...

    @property
    def network_options(self) -> dict[str, Any]:
        """What networks for this task are built with."""
        ...

    def samples(self, settings: Any, datasets: Sequence[VideoDataset], *, use_labels: bool) -> TrainingSamples:
        """What a run trains on, drawn as `settings`, of the class `clip_settings`, say."""
        ...

    def examples(self, clips: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch as a network without memory sees it: (B, T, 3, H, W) clips, or their frames (B·T, 3, H, W)
        or windows (B·T, window, 3, H, W)."""
        ...

    def supervise(self, outputs: Any, labels: Tensor, teacher_outputs: Any = None) -> dict[str, Tensor]:
        """Named losses of outputs against labels; zero, with a gradient path, where nothing is labelled.

        A task with pseudo-labels makes them of the teacher's outputs, where they are given.
        """
        ...

    def compare(self, student_outputs: Any, teacher_outputs: Any) -> dict[str, Tensor]:
        """Named losses of the student's outputs against the teacher's; no gradient reaches the teacher."""
        ...

    def decode(self, outputs: Any, *, size: tuple[int, int], seen: tuple[int, int] | None = None) -> Tensor:
        """Predictions, those of pixels in a frame of `size` (height, width).

        seen: the size in which the network got the frame, where that is another.
        """
        ...


TASKS: dict[str, type[Task]] = {
    "segmentation": Segmentation,
    "recognition": Recognition,
    "super_resolution": SuperResolution,
    "detection": Detection,
}


def require_same_frames(trained: Task, task: Task, *, where: str) -> None:
    """Errors: UserError where a teacher of the task `trained` sees or predicts other things than `task` asks for."""
    if trained.name != task.name:
        raise UserError(f"{where}: was trained for {trained.name}; take one of {task.name}")
    if trained.degraded != task.degraded:
        raise UserError(
            f"{where}: was trained on frames of {trained.degraded}, and the task has {task.degraded}; take another "
            "teacher, or give the task the teacher's scale and degradation"
        )
