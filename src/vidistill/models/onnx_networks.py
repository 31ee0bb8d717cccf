"""Detectors and segmenters in ONNX files, as teachers: they run in ONNX Runtime and take no gradient."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidistill.errors import UserError
from vidistill.models.detectors import Detector, Outputs, grid_anchors
from vidistill.ops.boxes import encode_boxes

if TYPE_CHECKING:  # part of an extra
    from onnxruntime import InferenceSession

STRIDES = (8, 16, 32)  # pixels, of YOLOX's three grids
PADDING = 114.0  # grey level that fills the square
FASTEST_DET_STRIDE = 16
COARSEST = 32  # pixels; the largest stride of a segmenter's logits
FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")
MOST_SIDE = 16_384  # pixels of a graph's frames
MOST_MEMORY = 8 * 2**30  # bytes that all graphs together may take
LEAST, MOST = 1e-7, 1 - 1e-6  # probabilities are clamped to these, so that logits are finite

Shape = Sequence[int | str]  # of a graph's input or output; a side that varies is a name


class LevelsDetector(Detector):
    """A graph that finds boxes in frames of RGB levels 0…255, see `ops.normalise.Normalisation`, of any size."""

    def __init__(self, session: "InferenceSession", num_classes: int) -> None:
        super().__init__()
        self.session = session
        self.num_classes = num_classes


class YoloxDetector(LevelsDetector):
    """A YOLOX (Ge et al. 2021, arXiv 2107.08430) as its authors export it, without its decoding or with it.

    The graph takes squares (1, 3, S, S) of BGR levels 0…255 and returns (1, N, 5 + K), a row for each cell of three
    grids: the centre, in cells from the cell's corner; the logarithms of width and height, in cells; the probabilities
    of anything and, given that, of each class. decoded: centre, width and height are in pixels of the square instead.
    Frames are resized to fit the square's top left.
    """

    def __init__(self, session: "InferenceSession", *, decoded: bool = False) -> None:
        super().__init__(session, int(session.get_outputs()[0].shape[2]) - 5)
        self.side = int(session.get_inputs()[0].shape[2])
        self.decoded = decoded

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Outputs:
        scale = min(self.side / frames.shape[-2], self.side / frames.shape[-1])
        size = round(frames.shape[-2] * scale), round(frames.shape[-1] * scale)
        resized = F.interpolate(frames.flip(1), size=size, mode="bilinear", align_corners=False)
        squares = F.pad(resized, (0, self.side - size[1], 0, self.side - size[0]), value=PADDING)
        rows = torch.cat([_run(self.session, square[None]) for square in squares]).to(frames.device)  # (B, N, 5 + K)
        # the cells are the anchors (N, 4), in pixels of the square
        shapes = [torch.tensor([[-stride / 2, -stride / 2, stride / 2, stride / 2]]) for stride in STRIDES]
        anchors = grid_anchors(shapes, STRIDES, frames.new_zeros(1, 1, self.side // 8, self.side // 8))
        centre, sides = rows[..., :2], rows[..., 2:4]
        if self.decoded:
            regression = encode_boxes(torch.cat([centre - sides / 2, centre + sides / 2], dim=2), anchors)
        else:
            regression = torch.cat([centre - 0.5, sides], dim=2)  # from the cell's middle
        return {
            "logits": (rows[..., 4:5] * rows[..., 5:]).clamp(LEAST, MOST).logit(),
            "regression": regression,
            "anchors": (anchors / scale).expand(len(frames), -1, -1),
        }


class FastestDetector(LevelsDetector):
    """A FastestDet (github.com/dog-qiuqiu/FastestDet) as its author exports it.

    The graph takes frames (1, 3, H, W) of BGR 0…1, of one size, and returns (1, 5 + K, H / 16, W / 16), for each cell:
    the probability of anything; atanh of the centre, in cells from the cell's corner; the logits of width and height as
    parts of the frame's; and the probabilities of the classes. Frames are resized to its size.
    """

    def __init__(self, session: "InferenceSession") -> None:
        super().__init__(session, int(session.get_outputs()[0].shape[1]) - 5)
        self.size = tuple(session.get_inputs()[0].shape[2:])

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Outputs:
        resized = F.interpolate(frames.flip(1) / 255, size=self.size, mode="bilinear", antialias=True)
        cells = torch.cat([_run(self.session, frame[None]) for frame in resized]).to(frames.device)
        rows = cells.flatten(2).transpose(1, 2)  # (B, N, 5 + K)
        score = rows[..., :1] ** 0.6 * rows[..., 5:] ** 0.4  # its author's weights
        shape = torch.tensor([[-FASTEST_DET_STRIDE, -FASTEST_DET_STRIDE, 0.0, 0.0]])  # about the cell's corner
        anchors = grid_anchors([shape], [FASTEST_DET_STRIDE], cells)
        size, frame = (anchors.new_tensor(sides[::-1]) for sides in (self.size, frames.shape[-2:]))
        sides = F.logsigmoid(rows[..., 3:5]) + (size / FASTEST_DET_STRIDE).log()
        return {
            "logits": score.clamp(LEAST, MOST).logit(),
            "regression": torch.cat([rows[..., 1:3].tanh(), sides], dim=2),
            "anchors": (anchors * (frame / size).repeat(2)).expand(len(frames), -1, -1),
        }


class OnnxSegmenter(nn.Module):
    """A graph that takes normalised frames (1, 3, H, W), of one size or any, and returns logits (1, K, h, w).

    Frames are resized to the graph's size bilinearly. has_probabilities: of a single class it returns the probability
    instead, whose logit this network returns.
    """

    def __init__(self, session: "InferenceSession", *, has_probabilities: bool = False) -> None:
        super().__init__()
        self.session = session
        self.has_probabilities = has_probabilities
        sides = session.get_inputs()[0].shape[2:]
        self.size = tuple(sides) if all(isinstance(side, int) for side in sides) else None
        self.num_classes = int(session.get_outputs()[0].shape[1])

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        if self.size is not None:
            frames = F.interpolate(frames, size=self.size, mode="bilinear", align_corners=False)
        maps = torch.cat([_run(self.session, frame[None]) for frame in frames]).to(frames.device)
        return maps.clamp(LEAST, MOST).logit() if self.has_probabilities else maps


def _run(session: "InferenceSession", frame: Tensor) -> Tensor:
    outputs = session.run(None, {session.get_inputs()[0].name: frame.float().cpu().contiguous().numpy()})
    return torch.from_numpy(outputs[0])


def onnx_network(path: str | Path, *, threads: int = 0) -> LevelsDetector | OnnxSegmenter:
    """The network in an ONNX file, recognised by its shapes and by its outputs for noise.

    Errors: UserError for any other graph.
    """
    session = open_session(path, threads=threads)
    inputs = session.get_inputs()
    outputs = [output.shape for output in session.get_outputs()]
    frame = inputs[0].shape if inputs else []
    if (
        len(inputs) == 1
        and _is_frame(frame)
        and outputs
        and all(output.type in FLOATS for output in session.get_outputs())
    ):
        if _has_grids(frame, outputs[0]):
            return YoloxDetector(session, decoded=_is_decoded(_run_on_noise(session)))
        if _has_cells(frame, outputs[0]) and _is_fastest_det(_run_on_noise(session)):
            return FastestDetector(session)
        if _has_logits(frame, outputs) and all(output.type in FLOATS for output in session.get_outputs()):
            is_single = outputs[0][1] == 1
            if not is_single or _is_probability(_run_on_noise(session)):
                return OnnxSegmenter(session, has_probabilities=is_single)
    taken, returned = (", ".join(map(str, shapes)) or "nothing" for shapes in ([one.shape for one in inputs], outputs))
    raise UserError(
        f"{path}: takes {taken} and returns {returned}, expected YOLOX, (1, 3, S, S) to (1, cells, "
        "5 + classes), FastestDet, (1, 3, H, W) to (1, 5 + classes, H / 16, W / 16), or a segmenter, (1, 3, H, W) to "
        "(1, classes, h, w) of floats, where h is H / 32 or more and classes 2 or more, or 1 with probabilities from 0 "
        "to 1; export one of these"
    )


def _is_frame(shape: Shape) -> bool:
    """Whether an input is (1, 3, H, W), sides and batch fixed to usual numbers, or not fixed."""
    sides = [side for side in shape[2:] if isinstance(side, int)]
    is_one = len(shape) == 4 and shape[1] == 3 and (shape[0] == 1 or not isinstance(shape[0], int))
    return is_one and all(1 <= side <= MOST_SIDE for side in sides)


def _has_grids(frame: Shape, output: Shape) -> bool:
    """Whether an output has a row for each cell of YOLOX's grids."""
    side = frame[2]
    if not isinstance(side, int) or frame[3] != side or len(output) != 3 or not isinstance(output[2], int):
        return False
    return output[2] > 5 and output[1] == sum((side // s) ** 2 for s in STRIDES)


def _has_cells(frame: Shape, output: Shape) -> bool:
    """Whether an output has FastestDet's channels and cells."""
    sides = [side for side in (*frame[2:], *output[1:]) if isinstance(side, int)]
    if len(output) != 4 or len(sides) != 5:
        return False
    height, width, channels, rows, columns = sides
    return channels > 5 and (rows * FASTEST_DET_STRIDE, columns * FASTEST_DET_STRIDE) == (height, width)


def _has_logits(frame: Shape, outputs: Sequence[Shape]) -> bool:
    """Whether outputs may be a segmenter's: maps of classes, of one shape, of the frame's proportions."""
    first = outputs[0]
    if len(first) != 4 or not isinstance(first[1], int) or first[1] < 1 or any(other != first for other in outputs[1:]):
        return False
    sides = [side for side in (*frame[2:], *first[2:]) if isinstance(side, int)]
    if min(sides, default=1) < 1:
        return False
    if len(sides) < 4:  # a graph for any size
        return True
    down, across = round(sides[0] / sides[2]), round(sides[1] / sides[3])
    return down == across and 1 <= down <= COARSEST


def _run_on_noise(session: "InferenceSession") -> Tensor:
    """The outputs for uniform noise, of 256×256 where a graph takes any size."""
    shape = [side if isinstance(side, int) else 256 for side in session.get_inputs()[0].shape[1:]]
    return _run(session, torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)))


def _is_probability(maps: Tensor) -> bool:
    """Whether all values are from 0 to 1; logits have both signs, and depth has a unit."""
    return bool(((maps >= 0) & (maps <= 1)).all())


def _is_decoded(rows: Tensor) -> bool:
    """Whether YOLOX's rows hold pixels: sides that are positive, and the last cell's centre far from the first's."""
    return bool((rows[..., 2:4] > 0).all()) and bool((rows[0, -1, :2] - rows[0, 0, :2] > STRIDES[-1]).all())


def _is_fastest_det(cells: Tensor) -> bool:
    """Whether the channels are probabilities where FastestDet's are: the first, and from the sixth on, of sum 1."""
    anything, total = cells[:, 0], cells[:, 5:].sum(dim=1)
    return bool(((anything >= 0) & (anything <= 1)).all()) and torch.allclose(total, torch.ones_like(total), atol=1e-3)


@cache
def _bound_memory() -> None:
    """Makes the arena of `MOST_MEMORY` bytes that this process's sessions share; a graph may ask for any size."""
    import onnxruntime

    info = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(info, onnxruntime.OrtArenaCfg({"max_mem": MOST_MEMORY}))


def open_session(path: str | Path, *, threads: int = 0) -> "InferenceSession":
    """ONNX Runtime's session of a graph, on the CPU. The file may come from anyone: weights that lie outside its folder
    are refused, and memory is bounded; but a graph is a program, and may run long.

    threads: of one operator; 0 for as many as there are cores.

    Errors: UserError where ONNX Runtime is missing or cannot read the file; on `run`, where it fails, or the outputs'
    shapes are not those that the file says.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("onnxruntime is not installed; pip install 'vidistill[export]'") from error
    if not Path(path).is_file():
        raise UserError(f"{path}: file not found; give the path of an ONNX network")

    class SharedSession(onnxruntime.InferenceSession):  # type: ignore[misc]
        """One that copies of a network share, for it cannot be copied and keeps nothing from run to run."""

        def __deepcopy__(self, memo: object) -> "InferenceSession":
            return self

        def run(self, names: Sequence[str] | None, inputs: dict[str, Any], options: Any = None) -> list[Any]:
            try:
                results: list[Any] = super().run(names, inputs, options)
            except Exception as error:  # ONNX Runtime raises many types
                raise UserError(f"{path}: ONNX Runtime cannot run it ({_reason(error)}); give another file") from error
            for value, result in zip(self.get_outputs(), results, strict=True):
                shape = getattr(result, "shape", ())
                if len(shape) != len(value.shape) or any(
                    isinstance(side, int) and side != given for side, given in zip(value.shape, shape, strict=True)
                ):
                    raise UserError(
                        f"{path}: returns {value.name} of shape {list(shape)}, although it says {value.shape}; give "
                        "another file"
                    )
            return results

    _bound_memory()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 4  # what is wrong is in the exceptions
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads would slow other work
    settings.add_session_config_entry("session.use_env_allocators", "1")  # those of `_bound_memory`
    try:
        return SharedSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises many types
        raise UserError(f"{path}: is not a network in ONNX ({_reason(error)}); give another file") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
