"""PyTorch as it is: norms fused, kernels channels last where the network can have them so."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from vidistill.models.outputs import NetworkOutputs
from vidistill.ops.modules import copied
from vidistill.runtimes.contract import DTYPES, Deployed, Runtime
from vidistill.students.delta.calls import Tree
from vidistill.students.norms import running_copy
from vidistill.students.state import State
from vidistill.students.student import Student


class TorchStudent(Deployed):
    """A student that torch runs. run: what runs its frames, the student itself or a compiled form of it."""

    def __init__(self, inside: Student, run: Callable[..., Any] | None = None, *, runtime: str, precision: str) -> None:
        super().__init__(inside, inside.card)
        self.runtime, self.precision = runtime, precision
        self.inside = inside
        self.delay, self.layout = inside.delay, inside.layout
        self._run: Callable[..., Any]
        # not as a submodule, or every parameter would have two names
        object.__setattr__(self, "_run", inside if run is None else run)

    @property
    def has_key_frames(self) -> bool:
        return self.inside.has_key_frames

    def spacing_for(self, interval: int) -> int:
        return self.inside.spacing_for(interval)

    def expect_key_frames(self, interval: int) -> None:
        self.inside.expect_key_frames(interval)

    def flush(self, state: State | None) -> list[NetworkOutputs]:
        return self.inside.flush(state)

    def forward(self, pixels: Tensor, state: State | None = None) -> tuple[NetworkOutputs, State]:
        return self._run(as_frames(self.inside, pixels), state)


class Eager(Runtime):
    """Runs operation by operation. threads counts for all of torch in this process."""

    name: ClassVar = "eager"
    precisions: ClassVar = tuple(DTYPES)

    def __call__(self, student: Student, pixels: Tensor, *, precision: str = "float32", threads: int = 0) -> Deployed:
        ready = ready_copy(student, pixels, precision=precision, threads=threads)
        return TorchStudent(ready, runtime=self.name, precision=precision)

    def part(self, module: nn.Module, args: tuple[Tree, ...], *, precision: str = "float32") -> Callable[[], Any]:
        run, given = ready_part(module, args, precision)
        return partial(run, *given)


def ready_part(module: nn.Module, args: Tree, precision: str) -> tuple[nn.Module, Tree]:
    """A copy of the module and its arguments, in a precision; see `Runtime.part`."""
    dtype = DTYPES[precision]
    ready = tree_map_only(Tensor, lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor, args)
    return copied(module).to(dtype), ready


def ready_copy(student: Student, pixels: Tensor, *, precision: str, threads: int) -> Student:
    """The student as torch runs it best; see `Runtime.__call__`."""
    if threads:
        torch.set_num_threads(threads)
    running = running_copy(student, as_frames(student, pixels))
    # a network that computes parts of itself in another precision keeps them so
    return running if running.dtype == DTYPES[precision] else running.to(DTYPES[precision])


def as_frames(student: Student, pixels: Tensor) -> Tensor:
    """(B, 3, H, W) or (B, T, 3, H, W), normalised, as the student has them, of pixels (…, H, W, 3) uint8."""
    return student.laid_out(student.normalisation(pixels.movedim(-1, -3)).to(student.dtype))
