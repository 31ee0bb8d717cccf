"""The kind "nothing"."""

import torch
from torch import Tensor, nn

from vidistill.students.delta.calls import Call
from vidistill.students.delta.kinds.block_student import BlockStudent, StudentSpec
from vidistill.students.state import State


class Nothing(BlockStudent):
    """z_t = z_0: the block is skipped between key frames. Any block with one input and one output."""

    is_scalable = True

    @classmethod
    def make(cls, spec: StudentSpec, block: nn.Module, channels: tuple[int, int]) -> "Nothing":
        return cls()

    def change(self, key: Call, now: Call, key_output: Tensor) -> Tensor:
        return torch.zeros_like(key_output)

    def fold(self, key: Call, key_output: Tensor) -> State:
        return {"offset": key_output}

    def follow(self, now: Call, folded: State) -> Tensor:
        return folded["offset"]

    def scale_outputs(self, factor: Tensor) -> None:
        pass
