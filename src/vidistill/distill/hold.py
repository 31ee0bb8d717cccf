"""The control that every key-frame scheme must beat: hold the key frame's output until the next one."""

from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from vidistill.distill.stateful import KEY, State, StatefulNetwork


class HeldOutput(StatefulNetwork):
    """A network on key frames, its last output on the frames between them, at no cost."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._structure: Any = None

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[Any, State]:
        if state is None:
            outputs = self.network(frame)
            leaves, self._structure = tree_flatten(outputs)
            return outputs, {f"{KEY}held.{i}": leaf for i, leaf in enumerate(leaves)}
        return tree_unflatten([state[f"{KEY}held.{i}"] for i in range(len(state))], self._structure), state
