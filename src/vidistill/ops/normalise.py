"""Decoded frames → the numbers that a network was trained on."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from vidistill.config import check_numbers, real

Mean = Annotated[float, *real(-1e3, 1e3)]
Deviation = Annotated[float, *real(1e-3, 1e3)]


@dataclass(frozen=True)
class Normalisation:
    """Subtracts a mean and divides by a standard deviation, channel by channel.

    Args:
        mean: Of red, green and blue in 0…1; ImageNet's by default.
        std: Likewise, at least 0.001.

    Raises:
        ValueError: A value is not a number, or outside its range.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    mean: tuple[Mean, Mean, Mean] = (0.485, 0.456, 0.406)
    std: tuple[Deviation, Deviation, Deviation] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        check_numbers(self)

    def __call__(self, frames: Tensor) -> Tensor:
        """(…, 3, H, W) float32, normalised, of frames (…, 3, H, W) uint8 in 0…255. The memory layout stays."""
        mean = torch.tensor(self.mean, device=frames.device).mul(255).view(3, 1, 1)
        scale = torch.tensor(self.std, device=frames.device).mul(255).reciprocal().view(3, 1, 1)
        return frames.to(torch.float32, copy=True).sub_(mean).mul_(scale)  # a single copy at full size

    def to_dict(self) -> dict[str, tuple[float, float, float]]:
        return asdict(self)
