"""Detectors and segmenters in ONNX files, as teachers: they run in ONNX Runtime and take no gradient."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidistill.errors import UserError
from vidistill.models.detectors import Detector, Outputs, grid_anchors
from vidistill.onnx_runtime import open_session

STRIDES = (8, 16, 32)
PADDING = 114.0  # grey level of what fills the square


class YoloxDetector(Detector):
    """A YOLOX (Ge et al. 2021, arXiv 2107.08430) as its authors export it, without its decoding.

    The graph takes squares (1, 3, S, S) of BGR levels 0…255 and gives (1, N, 5 + K): of each cell of three grids the
    centre, in cells from the cell's corner, the logarithms of width and height, in cells, the probabilities of
    anything and, given that, of each class. Frames are RGB levels of any size, see `ops.normalise.Normalisation`; they
    are resized to fit the square's top left.
    """

    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session
        self.side = int(session.get_inputs()[0].shape[2])
        self.num_classes = int(session.get_outputs()[0].shape[2]) - 5

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Outputs:
        scale = min(self.side / frames.shape[-2], self.side / frames.shape[-1])
        size = round(frames.shape[-2] * scale), round(frames.shape[-1] * scale)
        resized = F.interpolate(frames.flip(1), size=size, mode="bilinear", align_corners=False)
        squares = F.pad(resized, (0, self.side - size[1], 0, self.side - size[0]), value=PADDING)
        said = torch.cat([_run(self.session, square[None]) for square in squares]).to(frames.device)
        probability = (said[..., 4:5] * said[..., 5:]).clamp(1e-7, 1 - 1e-6)
        shapes = [torch.tensor([[-stride / 2, -stride / 2, stride / 2, stride / 2]]) for stride in STRIDES]
        anchors = grid_anchors(shapes, STRIDES, frames.new_zeros(1, 1, self.side // 8, self.side // 8)) / scale
        return {
            "logits": probability.logit(),
            "regression": torch.cat([said[..., :2] - 0.5, said[..., 2:4]], dim=2),  # from the cell's middle
            "anchors": anchors.expand(len(frames), -1, -1),
        }


class OnnxSegmenter(nn.Module):
    """A graph that takes normalised frames (1, 3, H, W), of a size of its own or of any, and gives logits (1, K, h, w).

    Frames are resized to the graph's size bilinearly.
    """

    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session
        sides = session.get_inputs()[0].shape[2:]
        self.size = tuple(sides) if all(isinstance(side, int) for side in sides) else None
        self.num_classes = int(session.get_outputs()[0].shape[1])

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        if self.size is not None:
            frames = F.interpolate(frames, size=self.size, mode="bilinear", align_corners=False)
        return torch.cat([_run(self.session, frame[None]) for frame in frames]).to(frames.device)


def _run(session: Any, frame: Tensor) -> Tensor:
    outputs = session.run(None, {session.get_inputs()[0].name: frame.float().cpu().contiguous().numpy()})
    return torch.from_numpy(outputs[0])


def onnx_network(path: str | Path) -> YoloxDetector | OnnxSegmenter:
    """The network in an ONNX file, by the shape of its first output. Errors: UserError for any other network."""
    session = open_session(path)
    given, said = session.get_inputs()[0].shape, session.get_outputs()[0].shape
    if len(given) == 4 and given[1] == 3 and len(said) == 3 and _is_grid(given[2], said):
        return YoloxDetector(session)
    if len(given) == 4 and given[1] == 3 and len(said) == 4 and isinstance(said[1], int):
        return OnnxSegmenter(session)
    raise UserError(
        f"{path}: takes {given} and gives {said}; known are YOLOX, (1, 3, S, S) to (1, cells, 5 + classes), and "
        "segmenters, (1, 3, H, W) to (1, classes, h, w)"
    )


def _is_grid(side: Any, said: Any) -> bool:
    """Whether an output has a row for each cell of YOLOX's grids."""
    return isinstance(side, int) and isinstance(said[2], int) and said[1] == sum((side // s) ** 2 for s in STRIDES)
