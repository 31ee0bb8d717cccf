"""The calls of a block: their arguments and outputs as trees of tensors, and images among them resized."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map_only

from vidistill.students.student import State


class Call(NamedTuple):
    """The arguments of one call of a block."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Call":
        return Call(*tree_map_only(Tensor, change, (self.args, self.kwargs)))

    def tensors(self) -> list[Tensor]:
        return [leaf for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]

    @property
    def tensor(self) -> Tensor:
        """The one tensor of a call that has a single one."""
        return self.args[0] if len(self.args) == 1 and isinstance(self.args[0], Tensor) else self.tensors()[0]


def batched(first: Call, second: Call) -> Call:
    """Both calls as one of a doubled batch."""
    others = iter(second.tensors())
    return first.map(lambda x: torch.cat([x, next(others)]))


def scaled_size(size: torch.Size | tuple[int, ...], scale: float, *, multiple: int = 1) -> tuple[int, int]:
    """(height, width) times `scale`, rounded to a multiple, once that at least."""
    return max(1, round(size[-2] * scale / multiple)) * multiple, max(1, round(size[-1] * scale / multiple)) * multiple


def smaller(x: Tensor, scale: float) -> Tensor:
    """An image (B, C, H, W) resized to its `scaled_size`; other tensors and scale 1 as they are."""
    return x if scale == 1 or x.ndim != 4 else resized(x, scaled_size(x.shape, scale))


def larger(x: Tensor, like: Tensor) -> Tensor:
    """`x` resized to the height and width of `like`, where it is an image."""
    if x.ndim != 4 or x.shape[-2:] == like.shape[-2:]:
        return x
    return resized(x, (like.shape[-2], like.shape[-1]))


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """An image, bilinearly."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def name_leaves(name: str, tree: Any) -> State:
    """The tensors of a tree, in order, as name, name.1, name.2 …"""
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    return {f"{name}.{i}" if i else name: tensor for i, tensor in enumerate(tensors)}


def leaves_named(state: State, name: str) -> list[Tensor]:
    """What `name_leaves` named so, in order, in whatever order a file gave them back."""
    found = [
        (int(number or 0), tensor)
        for key, tensor in state.items()
        for first, _, number in [key.partition(".")]
        if first == name
    ]
    return [tensor for _, tensor in sorted(found, key=lambda leaf: leaf[0])]


def map_outputs(function: Callable[[Tensor, Tensor], Tensor], found: Any, like: Any) -> Any:
    """`function` of each tensor of a tree and its counterpart in `like`."""
    counterparts = iter([leaf for leaf in tree_leaves(like) if isinstance(leaf, Tensor)])
    return tree_map_only(Tensor, lambda z: function(z, next(counterparts)), found)
