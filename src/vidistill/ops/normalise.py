"""From decoded frames to what a network was trained on."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalisation:
    """Per-channel mean and standard deviation of RGB in 0…1; ImageNet's unless the network says otherwise."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __call__(self, frames: Tensor) -> Tensor:
        """(…, 3, H, W) uint8 in 0…255 → float32, normalised."""
        mean = torch.tensor(self.mean, device=frames.device).mul(255).view(3, 1, 1)
        scale = torch.tensor(self.std, device=frames.device).mul(255).reciprocal().view(3, 1, 1)
        return (frames.float() - mean) * scale

    def to_dict(self) -> dict[str, tuple[float, float, float]]:
        return asdict(self)
