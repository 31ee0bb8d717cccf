"""torch.compile with frozen weights, which lets it lay them out for the machine. The first frames take minutes."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vidistill.runtimes.contract import DTYPES, Deployed, Runtime
from vidistill.runtimes.eager import TorchStudent, ready_copy, ready_part
from vidistill.students.delta.calls import Tree
from vidistill.students.student import Student


def compile_for_inference(module: nn.Module) -> Callable[..., Any]:
    """The module compiled with its weights frozen; they may not change after."""
    return torch.compile(module, options={"freezing": True})


class Compiled(Runtime):
    """As eager, compiled. threads counts for all of torch in this process."""

    name: ClassVar = "compiled"
    precisions: ClassVar = tuple(DTYPES)
    warmup: ClassVar = 3

    def __call__(self, student: Student, pixels: Tensor, *, precision: str = "float32", threads: int = 0) -> Deployed:
        ready = ready_copy(student, pixels, precision=precision, threads=threads)
        return TorchStudent(ready, compile_for_inference(ready), runtime=self.name, precision=precision)

    def part(self, module: nn.Module, args: tuple[Tree, ...], *, precision: str = "float32") -> Callable[[], Any]:
        run, given = ready_part(module, args, precision)
        return partial(compile_for_inference(run), *given)
