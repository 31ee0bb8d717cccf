"""PyTorch as it is: norms fused, kernels channels last where the network can have them so."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from vidistill.runtimes.contract import DTYPES, Runtime
from vidistill.students.norms import running_copy
from vidistill.students.student import Student


class Eager(Runtime):
    """Runs operation by operation. threads counts for all of torch in this process."""

    name: ClassVar = "eager"
    precisions: ClassVar = tuple(DTYPES)

    def __call__(self, student: Student, example: Tensor, *, precision: str = "float32", threads: int = 0) -> Student:
        if threads:
            torch.set_num_threads(threads)
        running = running_copy(student, example.to(student.dtype))
        # a network that computes parts of itself in another precision keeps them so
        return running if running.dtype == DTYPES[precision] else running.to(DTYPES[precision])

    def wrap(self, module: nn.Module) -> nn.Module:
        return module
