"""The frozen reference network: never trained, never changed, not even by batch normalisation."""

from typing import Any

import torch
from torch import Tensor, nn


class FrozenTeacher:
    """A network in evaluation mode that takes no gradient.

    Not a module on purpose: it is no part of the student, its optimiser, its checkpoint or its process group.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Any:
        """The network's outputs for (B, 3, H, W) normalised frames."""
        return self.network(frames)

    def to(self, device: torch.device) -> "FrozenTeacher":
        self.network.to(device)
        return self
