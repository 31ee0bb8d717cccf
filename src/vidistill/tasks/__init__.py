"""The door to the tasks: what a task promises, and `TASKS`.

A task knows its targets, how outputs compare, how they decode and which metrics count. It never knows which method
distils for it.
"""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from vidistill.tasks.segmentation import Segmentation


class Task(Protocol):
    """What methods, evaluation and streams may ask of any task. Outputs are whatever the network returns."""

    name: str

    def supervise(self, outputs: Any, labels: Tensor, teacher_outputs: Any = None) -> dict[str, Tensor]:
        """Named losses of outputs against labels; zero, with a gradient path, where nothing is labelled.

        A task with pseudo-labels makes them of the teacher's outputs, where they are given.
        """
        ...

    def compare(self, student_outputs: Any, teacher_outputs: Any) -> dict[str, Tensor]:
        """Named losses of the student's outputs against the teacher's; no gradient reaches the teacher."""
        ...

    def decode(self, outputs: Any, *, size: tuple[int, int]) -> Tensor:
        """Predictions in the pixels of a frame of `size` (height, width)."""
        ...


TASKS: dict[str, Callable[..., Task]] = {"segmentation": Segmentation}
