"""What a runtime promises: a student in, the same student out, as it runs there."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.students.delta.calls import Tree
from vidistill.students.student import Student

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Exported:
    """What an export wrote. gap: the largest one to the student in torch, as a part of the output's scale."""

    files: tuple[Path, ...]
    gap: float


class Deployed(Student):
    """A student as it runs: `outputs, state = deployed(pixels, state)`, and it normalises frames itself.

    pixels: (B, H, W, 3) uint8 RGB, frames as they come; (B, T, H, W, 3) of whole clips and windows.

    Attributes:
        runtime: a key of `RUNTIMES`.
        precision: what it computes in.
        has_one_size: whether its frames are all of the size that it was made for.
    """

    runtime: str
    precision: str
    has_one_size: bool = False


class Runtime(ABC):
    """A way to run students. `runtime(student, pixels)` gives a student with the same card that takes pixels.

    Attributes:
        name: its key in `RUNTIMES`.
        precisions: what it can compute in.
        warmup: cycles of a stream before it is as fast as it will be.
    """

    name: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]]
    warmup: ClassVar[int] = 2

    @abstractmethod
    def __call__(self, student: Student, pixels: Tensor, *, precision: str = "float32", threads: int = 0) -> Deployed:
        """The student as it runs here; the one that is given stays as it is.

        Args:
            student: where its parameters are, it runs, in evaluation mode.
            pixels: (1, H, W, 3) uint8, a frame on the student's device, of the size that will come.
            precision: one of `precisions`.
            threads: 0 for the runtime's own choice.

        Raises:
            UserError: it cannot run here.
        """

    def part(self, module: nn.Module, args: tuple[Tree, ...], *, precision: str = "float32") -> Callable[[], Any]:
        """A function that runs a module on these arguments here; for parts of a network, to be timed.

        module: in float32 and evaluation mode, its norms fused. It is not changed.
        """
        raise NotImplementedError

    def export(
        self, student: Student, folder: Path, *, size: tuple[int, int] | None = None, precision: str = "float32"
    ) -> Exported:
        """Writes the student to a folder that `open_student` reads.

        Args:
            size: (height, width) of its frames; None for the size that its view decides, or a usual one.
            precision: one of `precisions`.

        Raises:
            UserError: this runtime has no files of its own, or the student cannot be written.
        """
        raise UserError(f"runtime {self.name} has no files to export; choose onnx or openvino")

    def load(self, folder: Path, *, threads: int = 0) -> Deployed:
        """A student that `export` wrote."""
        raise UserError(f"{folder}: runtime {self.name} has no files to load; choose onnx or openvino")
