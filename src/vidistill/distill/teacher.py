"""The frozen reference network: never trained, never changed, not even by batch normalisation."""

from typing import Any

import torch
from torch import Tensor, nn

from vidistill.ops.clip_view import ClipView


class FrozenTeacher:
    """A network in evaluation mode that takes no gradient.

    Not a module on purpose: it is no part of the student, its optimiser, its checkpoint or its process group.
    view: what it sees of a clip; None for a network of single frames.
    """

    def __init__(self, network: nn.Module, view: ClipView | None = None) -> None:
        self.network = network.eval().requires_grad_(False)
        self.view = view

    def seen(self, clips: Tensor) -> Tensor:
        """What the network is given of a batch."""
        return clips if self.view is None else self.view(clips)

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Any:
        """The network's outputs for normalised frames (B, 3, H, W), or clips (B, T, 3, H, W)."""
        return self.network(self.seen(inputs))

    def to(self, device: torch.device) -> "FrozenTeacher":
        self.network.to(device)
        return self
