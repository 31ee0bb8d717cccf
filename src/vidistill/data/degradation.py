"""How low-resolution frames are made from high-resolution ones, the same way in training and in scoring."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vidistill.config import whole
from vidistill.ops.resize import degrade_bicubic, degrade_blur

DegradationKind = Literal["bicubic", "blur"]
Scale = Annotated[int, *whole(1, 16)]


@dataclass(frozen=True)
class Degradation:
    """Makes frames `scale` times smaller. kind: "bicubic" (BI) or "blur" (BD).

    centred: of the two variants of BD in use, the one without a shift, see `degrade_blur`.
    """

    scale: Scale = 4
    kind: DegradationKind = "bicubic"
    centred: bool = False

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(T, h, w, 3) from (T, H, W, 3). Errors: UserError where the scale does not divide the size."""
        # (T, 3, H, W)
        planes = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        if self.kind == "bicubic":
            small = degrade_bicubic(planes, self.scale)
        else:
            small = degrade_blur(planes, self.scale, centred=self.centred)
        return small.permute(0, 2, 3, 1).contiguous().numpy()

    def __str__(self) -> str:
        if self.kind == "bicubic":
            return f"BI ×{self.scale}: MATLAB's bicubic with antialiasing"
        how = "centred" if self.centred else f"pixels 0, {self.scale}, {2 * self.scale} …"
        return f"BD ×{self.scale}: Gaussian blur σ 1.6, then every {self.scale}th pixel, {how}"
