"""What a runtime promises: a student in, the same student out, as it runs there."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.students.student import Student

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Exported:
    """What an export wrote. gap: the largest one to the student in torch, as a part of the output's scale."""

    files: tuple[Path, ...]
    gap: float


class Runtime(ABC):
    """A way to run students. `runtime(student, example)` gives a student with the same contract and card.

    Attributes:
        name: its key in `RUNTIMES`.
        precisions: keys of `DTYPES` that it can run in.
        warmup: cycles of a stream before it is as fast as it will be.
    """

    name: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]]
    warmup: ClassVar[int] = 2

    @abstractmethod
    def __call__(self, student: Student, example: Tensor, *, precision: str = "float32", threads: int = 0) -> Student:
        """The student as it runs here; the one that is given stays as it is.

        Args:
            student: where its parameters are, it runs, in evaluation mode.
            example: (1, 3, H, W) float32, a normalised frame on the student's device, of the size that will come.
            precision: one of `precisions`.
            threads: 0 for the runtime's own choice.

        Raises:
            UserError: it cannot run here.
        """

    def wrap(self, module: nn.Module) -> Callable[..., Any]:
        """A module that is ready to run, as a function that this runtime runs; for parts of a network, to be timed.

        Raises:
            UserError: this runtime cannot run a part alone.
        """
        raise UserError(f"runtime {self.name} cannot time parts of a network; choose eager or compiled")

    def export(self, student: Student, folder: Path, *, size: tuple[int, int] | None = None) -> Exported:
        """Writes the student to a folder that `open_student` reads.

        Args:
            size: (height, width) of its frames; None for the size that its view decides, or a usual one.

        Raises:
            UserError: this runtime has no files of its own, or the student cannot be written.
        """
        raise UserError(f"runtime {self.name} has no files to export; choose onnx")

    def load(self, folder: Path, *, threads: int = 0) -> Student:
        """A student that `export` wrote."""
        raise UserError(f"{folder}: runtime {self.name} has no files to load; choose onnx")
