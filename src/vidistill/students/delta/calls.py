"""The calls of a block: their arguments and outputs as trees of tensors, and images among them resized."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map_only

from vidistill.students.state import State

Tree: TypeAlias = Any  # what a block takes or returns: a tensor, another value, or lists, tuples and dicts of trees


class Call(NamedTuple):
    """The arguments of one call of a block."""

    args: tuple[Tree, ...]
    kwargs: dict[str, Tree]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Call":
        return Call(*tree_map_only(Tensor, change, (self.args, self.kwargs)))

    def tensors(self) -> list[Tensor]:
        return tensors_of((self.args, self.kwargs))

    @property
    def tensor(self) -> Tensor:
        """The one tensor of a call that has a single one."""
        return self.args[0] if len(self.args) == 1 and isinstance(self.args[0], Tensor) else self.tensors()[0]


def tensors_of(tree: Tree) -> list[Tensor]:
    """The tensors of a tree, in order."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def map_outputs(function: Callable[[Tensor, Tensor], Tensor], outputs: Tree, like: Tree) -> Tree:
    """`function` of each tensor of a tree and its counterpart in `like`."""
    counterparts = iter(tensors_of(like))
    return tree_map_only(Tensor, lambda z: function(z, next(counterparts)), outputs)


def name_leaves(name: str, tree: Tree) -> State:
    """The tensors of a tree, in order, as name, name.1, name.2 …"""
    return {f"{name}.{i}" if i else name: tensor for i, tensor in enumerate(tensors_of(tree))}


def leaves_named(state: State, name: str) -> list[Tensor]:
    """What `name_leaves` named so, in order, in whatever order a file gave them back."""
    numbered = [
        (int(number or 0), tensor)
        for key, tensor in state.items()
        for first, _, number in [key.partition(".")]
        if first == name
    ]
    return [tensor for _, tensor in sorted(numbered, key=lambda leaf: leaf[0])]


def scaled_size(size: tuple[int, ...], scale: float, *, multiple: int = 1) -> tuple[int, int]:
    """(height, width), the last two of `size`, times `scale`, rounded to a multiple, once that at least."""
    return max(1, round(size[-2] * scale / multiple)) * multiple, max(1, round(size[-1] * scale / multiple)) * multiple


def smaller(x: Tensor, scale: float) -> Tensor:
    """An image (B, C, H, W) resized to its `scaled_size`; other tensors and scale 1 as they are."""
    return x if scale == 1 or x.ndim != 4 else resize_map(x, scaled_size(x.shape, scale))


def larger(x: Tensor, like: Tensor) -> Tensor:
    """`x` resized to the height and width of `like`, where it is an image."""
    if x.ndim != 4 or x.shape[-2:] == like.shape[-2:]:
        return x
    return resize_map(x, (like.shape[-2], like.shape[-1]))


def resize_map(x: Tensor, size: tuple[int, int]) -> Tensor:
    """An image (B, C, H, W) at another (height, width), bilinearly."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
