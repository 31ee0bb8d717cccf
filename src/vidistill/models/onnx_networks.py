"""Detectors and segmenters in ONNX files, as teachers: they run in ONNX Runtime and take no gradient."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidistill.errors import UserError
from vidistill.models.detectors import Detector, Outputs, grid_anchors
from vidistill.ops.boxes import encode_boxes

STRIDES = (8, 16, 32)
PADDING = 114.0  # grey level of what fills the square
FASTEST_DET_STRIDE = 16
COARSEST = 32  # pixels; the largest stride of a segmenter's logits
FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")
LEAST, MOST = 1e-7, 1 - 1e-6  # of a probability whose logit is finite


class LevelsDetector(Detector):
    """A graph that finds boxes in frames of RGB levels 0…255, see `ops.normalise.Normalisation`, of any size."""

    def __init__(self, session: Any, num_classes: int) -> None:
        super().__init__()
        self.session = session
        self.num_classes = num_classes


class YoloxDetector(LevelsDetector):
    """A YOLOX (Ge et al. 2021, arXiv 2107.08430) as its authors export it, without its decoding or with it.

    The graph takes squares (1, 3, S, S) of BGR levels 0…255 and gives (1, N, 5 + K): of each cell of three grids the
    centre, in cells from the cell's corner, the logarithms of width and height, in cells, the probabilities of
    anything and, given that, of each class. decoded: centre, width and height are in pixels of the square instead.
    Frames are resized to fit the square's top left.
    """

    def __init__(self, session: Any, *, decoded: bool = False) -> None:
        super().__init__(session, int(session.get_outputs()[0].shape[2]) - 5)
        self.side = int(session.get_inputs()[0].shape[2])
        self.decoded = decoded

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Outputs:
        scale = min(self.side / frames.shape[-2], self.side / frames.shape[-1])
        size = round(frames.shape[-2] * scale), round(frames.shape[-1] * scale)
        resized = F.interpolate(frames.flip(1), size=size, mode="bilinear", align_corners=False)
        squares = F.pad(resized, (0, self.side - size[1], 0, self.side - size[0]), value=PADDING)
        said = torch.cat([_run(self.session, square[None]) for square in squares]).to(frames.device)
        probability = (said[..., 4:5] * said[..., 5:]).clamp(LEAST, MOST)
        shapes = [torch.tensor([[-stride / 2, -stride / 2, stride / 2, stride / 2]]) for stride in STRIDES]
        anchors = grid_anchors(shapes, STRIDES, frames.new_zeros(1, 1, self.side // 8, self.side // 8))
        return {
            "logits": probability.logit(),
            "regression": self._regression(said, anchors),
            "anchors": (anchors / scale).expand(len(frames), -1, -1),
        }

    def _regression(self, said: Tensor, anchors: Tensor) -> Tensor:
        """(B, N, 4) offsets of the cells, which are the anchors (N, 4) in the square."""
        if not self.decoded:
            return torch.cat([said[..., :2] - 0.5, said[..., 2:4]], dim=2)  # from the cell's middle
        centre, half = said[..., :2], said[..., 2:4] / 2
        return encode_boxes(torch.cat([centre - half, centre + half], dim=2), anchors)


class FastestDetector(LevelsDetector):
    """A FastestDet (github.com/dog-qiuqiu/FastestDet) as its author exports it.

    The graph takes frames (1, 3, H, W) of BGR 0…1, of one size, and gives (1, 5 + K, H / 16, W / 16): of each cell the
    probability of anything, the centre from the cell's corner in cells, of which tanh is to be taken, width and height
    as parts of the frame's, logits of those, and the probabilities of the classes. Frames are resized to its size.
    """

    def __init__(self, session: Any) -> None:
        super().__init__(session, int(session.get_outputs()[0].shape[1]) - 5)
        self.size = tuple(session.get_inputs()[0].shape[2:])

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Outputs:
        resized = F.interpolate(frames.flip(1) / 255, size=self.size, mode="bilinear", antialias=True)
        said = torch.cat([_run(self.session, frame[None]) for frame in resized]).to(frames.device)
        rows = said.flatten(2).transpose(1, 2)
        score = rows[..., :1] ** 0.6 * rows[..., 5:] ** 0.4  # its author's weights
        shape = torch.tensor([[-FASTEST_DET_STRIDE, -FASTEST_DET_STRIDE, 0.0, 0.0]])  # about the cell's corner
        anchors = grid_anchors([shape], [FASTEST_DET_STRIDE], said)
        size, frame = (anchors.new_tensor(sides[::-1]) for sides in (self.size, frames.shape[-2:]))
        sides = F.logsigmoid(rows[..., 3:5]) + (size / FASTEST_DET_STRIDE).log()
        return {
            "logits": score.clamp(LEAST, MOST).logit(),
            "regression": torch.cat([rows[..., 1:3].tanh(), sides], dim=2),
            "anchors": (anchors * (frame / size).repeat(2)).expand(len(frames), -1, -1),
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


def onnx_network(path: str | Path) -> LevelsDetector | OnnxSegmenter:
    """The network in an ONNX file, by its shapes and by what it says of noise. Errors: UserError for any other."""
    session = open_session(path)
    given, said = session.get_inputs()[0].shape, [output.shape for output in session.get_outputs()]
    if len(given) == 4 and given[1] == 3:
        if _has_grids(given, said[0]):
            return YoloxDetector(session, decoded=_is_decoded(_said_of_noise(session)))
        if _has_cells(given, said[0]) and _is_fastest_det(_said_of_noise(session)):
            return FastestDetector(session)
        if _has_logits(given, said) and all(output.type in FLOATS for output in session.get_outputs()):
            return OnnxSegmenter(session)
    raise UserError(
        f"{path}: takes {given} and gives {', '.join(map(str, said))}; known are YOLOX, (1, 3, S, S) to (1, cells, 5 + "
        "classes), FastestDet, (1, 3, H, W) to (1, 5 + classes, H / 16, W / 16), and segmenters, (1, 3, H, W) to "
        "(1, classes, h, w) of floats, where classes is 2 or more and h is H / 32 or more"
    )


def _has_grids(given: Any, said: Any) -> bool:
    """Whether an output has a row for each cell of YOLOX's grids."""
    side = given[2]
    return (
        len(said) == 3
        and isinstance(side, int)
        and isinstance(said[2], int)
        and said[1] == sum((side // s) ** 2 for s in STRIDES)
    )


def _has_cells(given: Any, said: Any) -> bool:
    """Whether an output has FastestDet's channels and cells."""
    sides = [*given[2:], *said[1:]]
    whole = len(said) == 4 and all(isinstance(side, int) for side in sides)
    return whole and said[1] > 5 and [side * FASTEST_DET_STRIDE for side in said[2:]] == list(given[2:])


def _has_logits(given: Any, said: list[Any]) -> bool:
    """Whether outputs may be a segmenter's: maps of two or more classes, of one shape, of the frame's proportions."""
    first = said[0]
    if len(first) != 4 or not isinstance(first[1], int) or first[1] < 2 or any(other != first for other in said[1:]):
        return False
    sides = [*given[2:], *first[2:]]
    if not all(isinstance(side, int) for side in sides):
        return True
    ratios = [round(frame / logits) for frame, logits in zip(given[2:], first[2:], strict=True)]
    return ratios[0] == ratios[1] and 1 <= ratios[0] <= COARSEST


def _said_of_noise(session: Any) -> Tensor:
    shape = session.get_inputs()[0].shape
    return _run(session, torch.rand(1, *shape[1:], generator=torch.Generator().manual_seed(0)))


def _is_decoded(said: Tensor) -> bool:
    """Whether YOLOX's rows hold pixels: sides that are positive, and the last cell's centre far from the first's."""
    return bool((said[..., 2:4] > 0).all()) and bool((said[0, -1, :2] - said[0, 0, :2] > STRIDES[-1]).all())


def _is_fastest_det(said: Tensor) -> bool:
    """Whether the channels are probabilities where FastestDet's are: the first, and from the sixth on, of sum 1."""
    anything, total = said[:, 0], said[:, 5:].sum(dim=1)
    return bool(((anything >= 0) & (anything <= 1)).all()) and torch.allclose(total, torch.ones_like(total), atol=1e-3)


def open_session(path: str | Path, *, threads: int = 0) -> Any:
    """ONNX Runtime's session of a graph, on the CPU. Errors: UserError where it is missing or cannot read the file."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("onnxruntime is not installed; pip install 'vidistill[export]'") from error
    if not Path(path).is_file():
        raise UserError(f"{path}: there is no such file; give the path of an ONNX network")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads would slow what runs beside
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises of many kinds
        raise UserError(f"{path}: is not a network in ONNX ({' '.join(str(error).split())[:200]})") from error
