"""torch.compile with frozen weights, which lets it lay them out for the machine. The first frames take minutes."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vidistill.models.outputs import NetworkOutputs
from vidistill.runtimes.contract import DTYPES, Runtime
from vidistill.runtimes.eager import Eager
from vidistill.students.state import State
from vidistill.students.student import Student


def compile_for_inference(module: nn.Module) -> Callable[..., Any]:
    """The module compiled with its weights frozen; they may not change after."""
    return torch.compile(module, options={"freezing": True})


class CompiledStudent(Student):
    """A student whose frames run compiled; all else it leaves to the student inside."""

    def __init__(self, inside: Student) -> None:
        super().__init__(inside, inside.card)
        self.inside = inside
        self.delay = inside.delay
        self.layout = inside.layout
        # not as a submodule, or every parameter would have two names
        self._compiled: Callable[..., Any]
        object.__setattr__(self, "_compiled", compile_for_inference(inside))

    @property
    def has_key_frames(self) -> bool:
        return self.inside.has_key_frames

    def spacing_for(self, interval: int) -> int:
        return self.inside.spacing_for(interval)

    def expect_key_frames(self, interval: int) -> None:
        self.inside.expect_key_frames(interval)

    def flush(self, state: State | None) -> list[NetworkOutputs]:
        return self.inside.flush(state)

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[NetworkOutputs, State]:
        return self._compiled(frame, state)


class Compiled(Runtime):
    """As eager, compiled. threads counts for all of torch in this process."""

    name: ClassVar = "compiled"
    precisions: ClassVar = tuple(DTYPES)
    warmup: ClassVar = 3

    def __call__(self, student: Student, example: Tensor, *, precision: str = "float32", threads: int = 0) -> Student:
        return CompiledStudent(Eager()(student, example, precision=precision, threads=threads))

    def wrap(self, module: nn.Module) -> Callable[..., Any]:
        return compile_for_inference(module)
