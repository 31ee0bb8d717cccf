"""A student as ONNX graphs whose state is inputs and outputs, with parity checked as part of the export."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vidistill.errors import UserError
from vidistill.files import atomic_path
from vidistill.models.onnx_networks import open_session
from vidistill.ops.clip_view import ClipView
from vidistill.students.delta.network import DeltaNetwork
from vidistill.students.norms import fused_copy
from vidistill.students.student import State, StatefulNetwork, without_key_frame
from vidistill.students.windows import FrameByFrame, LookAhead, Windowed

PARITY = 1e-4  # of the output's scale
FRAME_SIZE = (360, 640)
DELTA_FRAMES = 3


class KeyGraph(nn.Module):
    """frame → outputs and the state, folded, for the delta graph. Tensors are flat, in a fixed order."""

    def __init__(self, student: StatefulNetwork) -> None:
        super().__init__()
        self.student = student

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        outputs, state = self.student(frame)
        return (*tensors_of(outputs), *state.values())


class DeltaGraph(nn.Module):
    """frame and the state → outputs and what of the state changes from frame to frame.

    A folded student's does not change between key frames; a network of clips has a window that moves on.
    """

    def __init__(self, student: StatefulNetwork) -> None:
        super().__init__()
        self.student = student

    def forward(self, frame: Tensor, state: State) -> tuple[Tensor, ...]:
        outputs, state = self.student(frame, state)
        return (*tensors_of(outputs), *(without_key_frame(state) or {}).values())


@dataclass(frozen=True)
class Exported:
    """The graphs' files and the largest gap to torch, as a part of the output's scale."""

    key: Path
    delta: Path | None
    gap: float


def tensors_of(outputs: Any) -> list[Tensor]:
    """The tensors in a network's outputs, in order."""
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


def export_onnx(student: StatefulNetwork, folder: str | Path, *, size: tuple[int, int] | None = None) -> Exported:
    """Writes `key.onnx` and, for a student with key frames, `delta.onnx`, for frames of `size` (height, width).

    A network of clips takes squares of its view's `crop`, which `ClipView.cut` cuts, every `view.stride`-th frame:
    key.onnx the first one, delta.onnx those that follow.

    key: input `frame` (1, 3, H, W) normalised; outputs `output` (`output.1`, …) and each state tensor by its name.
    delta: inputs `frame` and the state's names, of which a network may need only some; outputs as before, and
    `next/` with the name of each state tensor that the next frame needs anew.
    Before either file takes its place, ONNX Runtime runs a key frame and three delta frames beside torch. Errors:
    UserError where packages are missing, the size is not the network's, it cannot be traced, or the outputs differ.
    """
    _require_onnx()
    folder = Path(folder)
    example = torch.randn(1, 3, *_frame_size(student, size), generator=torch.Generator().manual_seed(0))
    fused = fused_copy(student.cpu(), example)
    for part in fused.modules():
        if isinstance(part, DeltaNetwork):
            part.folding = "at once"
    if isinstance(fused, Windowed | FrameByFrame):
        fused.holds = False
        fused.expect_key_frames(1)
    if isinstance(fused, LookAhead):
        fused.waits = False
    key_graph, delta_graph = KeyGraph(fused).eval(), DeltaGraph(fused).eval()
    with torch.no_grad():
        outputs, state = fused(example)
    names = [f"output.{i}" if i else "output" for i in range(len(tensors_of(outputs)))]
    with atomic_path(folder / "key.onnx") as key_file, atomic_path(folder / "delta.onnx") as delta_file:
        _export(key_graph, (example,), {}, key_file, ["frame"], [*names, *state])
        if state:
            moving = [f"{NEXT}{name}" for name in without_key_frame(state) or {}]
            _export(delta_graph, (example,), {"state": state}, delta_file, ["frame", *state], [*names, *moving])
        gap = _parity(fused, key_file, delta_file if state else None, example)
        if not gap < PARITY:
            raise UserError(
                f"{folder}: ONNX Runtime's outputs differ from torch's by {gap:.1e} of their scale; not written"
            )
    if not state:
        (folder / "delta.onnx").unlink()
    return Exported(folder / "key.onnx", folder / "delta.onnx" if state else None, gap)


def _frame_size(student: StatefulNetwork, size: tuple[int, int] | None) -> tuple[int, int]:
    """The size that is asked for, or that the student's view decides."""
    if not isinstance(student.view, ClipView):
        return size or FRAME_SIZE
    square = (student.view.crop, student.view.crop)
    if size not in (None, square):
        raise UserError(
            f"a network of clips takes the squares that its view cuts, here {square[0]}×{square[1]}; no size"
        )
    return square


def _require_onnx() -> None:
    if any(find_spec(package) is None for package in ("onnxruntime", "onnxscript")):
        raise UserError("export needs ONNX; pip install 'vidistill[export]'")


def _export(
    graph: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph, args, str(path), kwargs=kwargs, input_names=list(inputs), output_names=list(outputs),
                dynamo=True, external_data=False, verbose=False, custom_translation_table=translations(),
            )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as error:
        raise UserError(f"the network cannot be exported: {str(error).splitlines()[0]}") from error


def _parity(student: StatefulNetwork, key: Path, delta: Path | None, example: Tensor) -> float:
    """The largest gap over a key frame and three delta frames, as a part of the output's scale."""
    exported = OnnxStudent(key, delta)
    generator = torch.Generator().manual_seed(1)
    state, held, frame, gaps = None, None, example, []
    with torch.inference_mode():
        for _ in range(1 + DELTA_FRAMES if delta is not None else 1):
            outputs, state = student(frame, state)
            found, held = exported(frame, held)
            gaps.append(_gap(outputs, found))
            frame = example + 0.1 * torch.randn(example.shape, generator=generator)
    return max(gaps)


def _gap(outputs: Any, found: Sequence[Tensor]) -> float:
    """The largest absolute difference of any output, divided by that output's largest value."""
    return max(
        float((b - a).abs().max() / a.abs().max().clamp(min=1e-12))
        for a, b in zip(tensors_of(outputs), found, strict=True)
    )


LEAST = -1e30  # below every score but that of an empty box
FLOAT, BOOL = 1, 9  # ONNX's numbers for types


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """By torch operator the function that writes it with ONNX's, as `torch.onnx.export` takes them."""
    import onnxscript

    import vidistill.ops.boxes  # noqa: F401 - defines the operator

    op: Any = onnxscript.opset18

    def suppress(boxes: Any, scores: Any, groups: Any, iou_threshold: float, num_kept: int) -> Any:
        """ONNX's own non-maximum suppression, its answer filled up with −1 to `num_kept`; of one frame at a time."""
        low, high = op.Split(boxes, axis=-1, num_outputs=2)
        is_longer = op.Cast(op.Greater(high, low), to=FLOAT)
        solid = op.Cast(op.ReduceMin(is_longer, op.Constant(value_ints=[-1]), keepdims=0), to=BOOL)
        counted = op.Where(solid, scores, op.Constant(value_float=10 * LEAST))
        apart = op.Unsqueeze(op.Cast(groups, to=FLOAT), op.Constant(value_ints=[-1]))
        reach = op.Add(op.Sub(op.ReduceMax(boxes), op.ReduceMin(boxes)), op.Constant(value_float=1.0))
        found = op.NonMaxSuppression(
            op.Add(boxes, op.Mul(apart, reach)),  # boxes of different groups do not touch
            op.Unsqueeze(counted, op.Constant(value_ints=[1])),
            op.Constant(value_ints=[num_kept]),
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[LEAST]),
        )
        places = op.Gather(found, op.Constant(value_int=2), axis=1)
        missing = op.Sub(op.Constant(value_ints=[num_kept]), op.Shape(places))
        pads = op.Concat(op.Constant(value_ints=[0]), missing, axis=0)
        filled = op.Pad(places, pads, op.Constant(value_int=-1))
        return op.Reshape(filled, op.Constant(value_ints=[1, num_kept]))

    return {torch.ops.vidistill.suppress.default: suppress}


NEXT = "next/"  # ahead of the name of a state tensor that the next frame needs anew


State = dict[str, Tensor]


class OnnxStudent:
    """`outputs, state = student(frame, state)`, as the network that `vidistill export` wrote, on the CPU.

    key, delta: its files; without key frames there is only the first. outputs: the network's tensors in order.
    threads: 0 for the runtime's own choice. Errors: UserError where ONNX Runtime is missing or cannot read a file.
    """

    def __init__(self, key: Path, delta: Path | None, *, threads: int = 0) -> None:
        self._key = open_session(key, threads=threads)
        self._delta = None if delta is None else open_session(delta, threads=threads)

    def __call__(self, frame: Tensor, state: State | None = None) -> tuple[list[Tensor], State]:
        if not state or self._delta is None:
            found = self._run(self._key, {"frame": frame})
            kept: State = {}
        else:
            found = self._run(self._delta, {"frame": frame, **state})
            kept = dict(state)
        outputs = [found.pop(name) for name in list(found) if name.split(".")[0] == "output"]
        return outputs, kept | {name.removeprefix(NEXT): tensor for name, tensor in found.items()}

    @staticmethod
    def _run(session: Any, tensors: State) -> State:
        wanted = {value.name: tensors[value.name].numpy() for value in session.get_inputs()}
        names: Sequence[str] = [value.name for value in session.get_outputs()]
        found: Sequence[np.ndarray] = session.run(None, wanted)
        return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}
