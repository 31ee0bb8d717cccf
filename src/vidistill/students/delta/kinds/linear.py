"""What the students of single layers share: they map the change of the input, as the layer itself does."""

from abc import abstractmethod

from torch import Tensor, nn

from vidistill.students.delta.calls import Call, larger, smaller
from vidistill.students.delta.kinds.block_student import BlockStudent
from vidistill.students.delta.layers import ConvertibleLayer
from vidistill.students.state import State


class LinearStudent(BlockStudent):
    """z_t = z_0 + g(x_t − x_0) with g linear and without a bias, so that z_t = g(x_t) + c, c = z_0 − g(x_0).

    Source: Habibian et al., "Delta Distillation for Efficient Video Processing", ECCV 2022 (arXiv 2203.09594). With a
    scale below 1, g works on a smaller x and its output is enlarged. [ours]
    """

    is_scalable = True

    def __init__(self, linear: nn.Module, scale: float) -> None:
        super().__init__()
        self.linear = linear
        self.scale = scale

    @property
    @abstractmethod
    def last_layer(self) -> ConvertibleLayer:
        """The last layer of g."""

    def forward(self, x: Tensor) -> Tensor:
        """g(x), at the scale it works on."""
        return self.linear(smaller(x, self.scale))

    def change(self, key: Call, now: Call, key_output: Tensor) -> Tensor:
        return self._sized(self(now.tensor - key.tensor), key_output)

    def fold(self, key: Call, key_output: Tensor) -> State:
        return {"offset": key_output - self._sized(self(key.tensor), key_output)}

    def follow(self, now: Call, folded: State) -> Tensor:
        return self._sized(self(now.tensor), folded["offset"]) + folded["offset"]

    def scale_outputs(self, factor: Tensor) -> None:
        self.last_layer.weight.mul_(factor[:, None, None, None])  # (C_out, C, h, w)

    def _sized(self, x: Tensor, like: Tensor) -> Tensor:
        return larger(x, like) if self.scale < 1 else x
