"""What the students of a delta network should have predicted: its own key path on every frame of the clips."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from vidistill.ops.modules import evaluating
from vidistill.students.delta.calls import Tree, larger
from vidistill.students.delta.network import DeltaBlock, DeltaNetwork
from vidistill.students.state import State


class Features(NamedTuple):
    """By the path of each feature block: what enters the last layer that runs in it, and that layer's path in it."""

    tensors: dict[str, Tensor]
    layers: dict[str, str]


class Reference:
    """Outputs, state and features of the key path on all frames, in evaluation mode, without gradient.

    Tensors are kept for all frames together, (B·T, …), and given for one of them, (B, …).
    """

    def __init__(self, outputs: Tree, state: State, features: Features, num_frames: int) -> None:
        self._outputs = outputs
        self._state = state
        self._features = features
        self._num_frames = num_frames

    @classmethod
    @torch.no_grad()
    def of(cls, network: DeltaNetwork, frames: Tensor) -> "Reference":
        """frames: (B, T, 3, H, W), normalised."""
        with evaluating(network), captured_features(network) as features:
            outputs, state = network(frames.flatten(0, 1))
        return cls(outputs, state, features, frames.shape[1])

    def _at(self, tensor: Tensor, t: int) -> Tensor:
        return tensor.unflatten(0, (-1, self._num_frames))[:, t]

    def outputs(self, t: int) -> Tree:
        return tree_map_only(Tensor, lambda tensor: self._at(tensor, t), self._outputs)

    def state(self, t: int) -> State:
        return {name: self._at(tensor, t) for name, tensor in self._state.items()}

    def feature(self, path: str, t: int) -> Tensor:
        return self._at(self._features.tensors[path], t)

    @property
    def last_layers(self) -> dict[str, str]:
        """By the path of a block, the path in it of the layer that its features enter."""
        return self._features.layers

    def change(self, name: str, t: int) -> Tensor:
        """dz_ref: how a block's output, by its name in the state, differs between frame t and the key frame."""
        return self._at(self._state[name], t) - self._at(self._state[name], 0)


def delta_gaps(changes: dict[str, Tensor], reference: Reference, t: int) -> Tensor:
    """(L,) mean squared gaps between the predicted and the true change of each output of a block, call by call."""
    gaps = [(change - reference.change(name, t)).square().mean() for name, change in changes.items()]
    return torch.stack(gaps)


def feature_gap(features: Features, reference: Reference, t: int) -> Tensor:
    """() mean over the blocks of MSE(up(F_student), F_reference), on frame t and on the key frame.

    Source: Ma et al., "Rethinking Resolution in the Context of Efficient Video Recognition", NeurIPS 2022 (arXiv
    2209.12797), the feature form of cross-resolution distillation; here on what enters the block's last layer.
    """
    gaps = []
    for path, feature in features.tensors.items():
        wanted = torch.cat([reference.feature(path, t), reference.feature(path, 0)])  # (2B, …), as `change` has them
        gaps.append((larger(feature, wanted) - wanted).square().mean())
    return torch.stack(gaps).mean()


def feature_blocks(network: DeltaNetwork) -> list[DeltaBlock]:
    """The blocks whose student should also learn what enters the block's last layer."""
    return [block for block in network.blocks().values() if block.student.distils_features]


@contextmanager
def captured_features(network: DeltaNetwork, layers: dict[str, str] | None = None) -> Iterator[Features]:
    """Collects the features of the blocks; or of their students' copies, at the `layers` that are the blocks' last.

    A copy in training may run others after these, as auxiliary heads.
    """
    features = Features({}, {})

    def note(path: str, layer: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            features.tensors[path], features.layers[path] = args[0], layer

        return hook

    handles = []
    for block in feature_blocks(network):
        part = block.block if layers is None else block.student.block_copy
        assert part is not None
        for name, layer in part.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear) and (layers is None or name == layers.get(block.path)):
                handles.append(layer.register_forward_pre_hook(note(block.path, name)))
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()
