"""ONNX Runtime: a student as two graphs whose state is inputs and outputs. Parity with torch is part of the export."""

import copy
import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from vidistill.config import Settings, Values, validate_json
from vidistill.errors import UserError
from vidistill.files import atomic_path
from vidistill.models.onnx_networks import MOST_SIDE, open_session
from vidistill.models.outputs import NetworkOutputs, from_named, logits_of, named_tensors
from vidistill.ops.clip_view import ClipView, WindowView
from vidistill.runtimes.contract import Exported, Runtime
from vidistill.students.card import Card
from vidistill.students.norms import fused_copy
from vidistill.students.state import KEY, WINDOW, State, without_key_frame
from vidistill.students.student import Student
from vidistill.students.windows import AGE, HELD, LookAhead

NEXT = "next/"  # ahead of the name of a state tensor that the next frame needs anew
OUTPUT = "output"
WAITED = "waited"  # frames so far, of a network whose outputs come late
PARITY = 1e-4  # of the output's scale
FRAME_SIZE = (360, 640)
PARITY_KEYS = (True, False, False, False, True, False)  # which frames of the parity check are key frames
LEAST = -1e30  # below every score but that of an empty box
OUTPUT_PATH = rf"^{OUTPUT}(/([0-9]{{1,3}}|[^/0-9][^/]*))*$"  # no list index that would need a long list
TYPES = ("tensor(float)", "tensor(int64)", "tensor(int32)", "tensor(bool)")  # of what goes in and out
FLOAT, BOOL = 1, 9  # ONNX's numbers for types


class Onnx(Runtime):
    """ONNX Runtime on the CPU, in float32. Graphs are for frames of one size."""

    name: ClassVar = "onnx"
    precisions: ClassVar = ("float32",)

    def __call__(self, student: Student, example: Tensor, *, precision: str = "float32", threads: int = 0) -> Student:
        if example.device.type != "cpu":
            raise UserError(f"runtime onnx runs on the CPU, got device {example.device.type}; choose eager or compiled")
        size = None if isinstance(student.view, ClipView) else (example.shape[-2], example.shape[-1])
        with TemporaryDirectory() as folder:
            self.export(student, Path(folder), size=size)
            return self.load(Path(folder), threads=threads)

    def export(self, student: Student, folder: Path, *, size: tuple[int, int] | None = None) -> Exported:
        """Writes `key.onnx`, for a student with a state `delta.onnx`, and `card.json`.

        key: input `frame` (1, 3, H, W) normalised; outputs `output` (`output.1`, …) and each state tensor by its name.
        delta: inputs `frame` and the state's names, of which a network may need only some; outputs as before, and
        `next/` with the name of each state tensor that the next frame needs anew.

        A network of clips takes squares of its view's `crop`, which `ClipView.cut` cuts, every `view.stride`-th frame:
        key.onnx the first one, delta.onnx those that follow. A network of windows keeps its window in the state, and
        its first `window // 2` outputs belong to no frame; with key frames it takes whole windows (1, T, 3, h, w) as
        `frame` instead, for a key frame in the middle of a stream needs the frames around it.

        Before any file takes its place, ONNX Runtime runs two key frames and some delta frames beside the student in
        torch as it is given, with nothing fused.

        Raises:
            UserError: packages are missing, the size is not the network's, it cannot be traced, or the outputs differ.
        """
        if any(find_spec(package) is None for package in ("onnxruntime", "onnxscript")):
            raise UserError("runtime onnx needs packages that are missing; pip install 'vidistill[export]'")
        student = copy.deepcopy(student).cpu().float().eval()
        frame = torch.randn(1, 3, *_frame_size(student, size), generator=torch.Generator().manual_seed(0))
        graphs = fused_copy(student, frame)
        graphs.prepare_for_graphs()
        takes_windows = isinstance(graphs, LookAhead) and graphs.has_key_frames
        if takes_windows:
            frame = graphs.whole(frame).contiguous()
            assert isinstance(graphs.network, Student)
            graphs = graphs.network
        with torch.no_grad():
            outputs, state = graphs(frame)
        paths = list(named_tensors(outputs, OUTPUT))
        names = [f"{OUTPUT}.{i}" if i else OUTPUT for i in range(len(paths))]
        with (
            atomic_path(folder / "key.onnx") as key_file,
            atomic_path(folder / "delta.onnx") as delta_file,
            atomic_path(folder / "card.json") as card_file,
        ):
            _export(_KeyGraph(graphs).eval(), (frame,), {}, key_file, ["frame"], [*names, *state])
            if state:
                moving = [f"{NEXT}{name}" for name in without_key_frame(state) or {}]
                inputs, wanted = ["frame", *state], [*names, *moving]
                _export(_DeltaGraph(graphs).eval(), (frame,), {"state": state}, delta_file, inputs, wanted)
            card = json.loads(student.card.to_json())
            values = {"runtime": self.name, "outputs": paths, "takes_windows": takes_windows, "card": card}
            text = json.dumps(values, indent=2)
            card_file.write_text(text)
            exported = _loaded(text, key_file, delta_file if state else None, where=str(folder), threads=0)
            gap = _parity(student, exported, frame[:, 0] if takes_windows else frame)
            if not gap < PARITY:
                raise UserError(
                    f"{folder}: ONNX Runtime's outputs differ from torch's by {gap:.1e} of their scale, expected less "
                    f"than {PARITY:.0e}; nothing was written, please report the network"
                )
        if not state:
            (folder / "delta.onnx").unlink()
        written = [folder / name for name in ("key.onnx", "delta.onnx", "card.json")]
        return Exported(tuple(path for path in written if path.exists()), gap)

    def load(self, folder: Path, *, threads: int = 0) -> Student:
        text = (folder / "card.json").read_text("utf-8")
        delta = folder / "delta.onnx"
        where = str(folder / "card.json")
        return _loaded(text, folder / "key.onnx", delta if delta.is_file() else None, where=where, threads=threads)


class _ExportedCard(Settings):
    """The contents of `card.json`, see `Onnx.export`. outputs: paths of the outputs' tensors, see `named_tensors`."""

    runtime: str
    outputs: Annotated[tuple[Annotated[str, Field(max_length=200, pattern=OUTPUT_PATH)], ...], Field(min_length=1)]
    takes_windows: bool
    card: Values


def _loaded(text: str, key: Path, delta: Path | None, *, where: str, threads: int) -> Student:
    not_one = f"{where}: is not the card of an exported student"
    values = validate_json(_ExportedCard, text, where=not_one, advice="export it again")
    card = Card.from_json(json.dumps(values.card), where=where)
    student = ExportedStudent(key, delta, card, values.outputs, takes_windows=values.takes_windows, threads=threads)
    if not values.takes_windows:
        return student
    if not isinstance(card.view, WindowView):
        raise UserError(f"{where}: takes_windows is true, but its card's view is of no windows; export it again")
    around = LookAhead(student, card)
    around.runtime = student.runtime
    return around


class ExportedStudent(Student):
    """`outputs, state = student(frame, state)`, as the student that was exported.

    key, delta: its files; one without a state has only the first. paths: of the outputs' tensors, see `named_tensors`.
    """

    runtime = Onnx.name

    def __init__(
        self,
        key: Path,
        delta: Path | None,
        card: Card,
        paths: Sequence[str],
        *,
        takes_windows: bool = False,
        threads: int = 0,
    ) -> None:
        super().__init__(nn.Identity(), card)
        self._key = open_session(key, threads=threads)
        self._delta = None if delta is None else open_session(delta, threads=threads)
        self._paths = paths
        files = [path.read_bytes() for path in (key, delta) if path is not None]
        self._identity = hashlib.blake2b(b"".join(files), digest_size=20).digest()
        _check_graphs(self._key, self._delta, len(paths), where=key)
        self._frame_shape = tuple(self._key.get_inputs()[0].shape)
        self._has_window = any(value.name == WINDOW for value in self._key.get_outputs())
        if isinstance(card.view, WindowView) and not takes_windows:
            self.delay = card.view.window // 2

    def identity(self) -> bytes:
        return self._identity

    @property
    def has_key_frames(self) -> bool:
        if isinstance(self.view, ClipView):
            return True
        return self._delta is not None and any(v.name.startswith(KEY) for v in self._delta.get_inputs())

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[NetworkOutputs, State]:
        if frame.ndim == 5 and len(self._frame_shape) == 4:
            return self._whole(frame), {}
        if isinstance(self.view, ClipView):
            return self._held(frame, state or {}, self.view)
        waited = 0 if state is None or WAITED not in state else int(state[WAITED])
        outputs, kept = self._step(frame, {n: t for n, t in (state or {}).items() if n != WAITED})
        if self.delay:
            kept[WAITED] = torch.tensor([min(waited + 1, self.delay)])
        return (None if waited < self.delay else outputs), kept

    def _held(self, frame: Tensor, state: State, view: ClipView) -> tuple[NetworkOutputs, State]:
        """Of a network of clips: outputs of key frames, held between them; a window moves on every `stride` frames."""
        age = state[AGE] + 1 if AGE in state else torch.tensor([0])
        held = state.get(HELD)
        if held is not None and not (self._has_window and int(age) == view.stride):
            return held, {**state, AGE: age}
        outputs, kept = self._step(frame, {n: t for n, t in state.items() if n not in (HELD, AGE)})
        logits = logits_of(outputs) if held is None else held
        return logits, {**kept, HELD: logits, AGE: torch.tensor([0])}

    def spacing_for(self, interval: int) -> int:
        """A window of clips gets every `stride`-th frame, so that key frames come a multiple of that apart."""
        if not (isinstance(self.view, ClipView) and self._has_window):
            return 1
        if interval % self.view.stride:
            raise UserError(
                f"an exported network of clips takes a key frame every {self.view.stride} frames, or a multiple of "
                f"that, got {interval}; leave the key frames out, or stream the student before its export"
            )
        return self.view.stride

    def _whole(self, clip: Tensor) -> NetworkOutputs:
        """The outputs of a clip (1, T, 3, H, W) or window, frame by frame."""
        chosen = self.view.chosen(clip) if isinstance(self.view, ClipView) else self.seen(clip)
        outputs: NetworkOutputs = None
        state: State = {}
        for frame in chosen.unbind(dim=1):
            outputs, state = self._step(frame, state)
        return outputs

    def _step(self, frame: Tensor, state: State) -> tuple[NetworkOutputs, State]:
        if tuple(frame.shape) != self._frame_shape:
            given, expected = (f"{shape[-1]}x{shape[-2]}" for shape in (frame.shape, self._frame_shape))
            raise UserError(
                f"the exported student takes frames of {expected}, got {given}; export it again with --size {given}"
            )
        session = self._key if not state or self._delta is None else self._delta
        inputs = {"frame": frame} | state
        missing = [value.name for value in session.get_inputs() if value.name not in inputs]
        if missing:
            raise UserError(f"the state lacks {missing[0]}: it is of another student; start with a key frame")
        wanted = {v.name: inputs[v.name].detach().cpu().contiguous().numpy() for v in session.get_inputs()}
        names = [value.name for value in session.get_outputs()]
        results = {
            n: torch.from_numpy(a).to(frame.device) for n, a in zip(names, session.run(None, wanted), strict=True)
        }
        own = [name for name in names if name.split(".")[0] == OUTPUT]
        outputs = from_named({path: results.pop(name) for path, name in zip(self._paths, own, strict=True)}, OUTPUT)
        kept = {} if session is self._key else dict(state)
        return outputs, kept | {name.removeprefix(NEXT): tensor for name, tensor in results.items()}


def _check_graphs(key: Any, delta: Any, num_outputs: int, *, where: Path) -> None:
    """Errors: UserError unless two sessions are those of a student with so many output tensors, see `Onnx.export`."""

    def require(fits: bool, expected: str) -> None:
        if not fits:
            raise UserError(f"{where}: is not the graph of an exported student, expected {expected}; export it again")

    frames = key.get_inputs()
    shape = frames[0].shape if frames else []
    require([value.name for value in frames] == ["frame"], "one input, 'frame'")
    is_frame = len(shape) in (4, 5) and shape[0] == 1 and shape[-3] == 3
    require(is_frame and all(isinstance(side, int) and 1 <= side <= MOST_SIDE for side in shape), "frames of one size")
    made = {value.name: value for value in key.get_outputs()}
    for session in (key, delta) if delta is not None else (key,):
        values = [*session.get_inputs(), *session.get_outputs()]
        require(all(value.type in TYPES for value in values), f"tensors of {', '.join(TYPES)}")
        own = [value for value in session.get_outputs() if value.name.split(".")[0] == OUTPUT]
        require(len(own) == num_outputs, f"{num_outputs} outputs by card.json")
    if delta is None:
        return
    for value in delta.get_inputs():
        other = frames[0] if value.name == "frame" else made.get(value.name)
        fits = other is not None and (value.shape, value.type) == (other.shape, other.type)
        require(fits, f"a state of delta.onnx that key.onnx makes, which '{value.name}' is not")
    moving = [value.name for value in delta.get_outputs() if value.name.split(".")[0] != OUTPUT]
    require(all(name.startswith(NEXT) and name.removeprefix(NEXT) in made for name in moving), "states of key.onnx")


class _KeyGraph(nn.Module):
    """frame → outputs and the state, folded, for the delta graph. Tensors are flat, in a fixed order."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        outputs, state = self.student(frame)
        return (*named_tensors(outputs, OUTPUT).values(), *state.values())


class _DeltaGraph(nn.Module):
    """frame and the state → outputs and what of the state changes from frame to frame.

    A folded student's state does not change between key frames; a network of clips has a window that moves on.
    """

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, frame: Tensor, state: State) -> tuple[Tensor, ...]:
        outputs, state = self.student(frame, state)
        return (*named_tensors(outputs, OUTPUT).values(), *(without_key_frame(state) or {}).values())


def _frame_size(student: Student, size: tuple[int, int] | None) -> tuple[int, int]:
    """The size that is asked for, or that the student's view decides."""
    if not isinstance(student.view, ClipView):
        return size or FRAME_SIZE
    square = (student.view.crop, student.view.crop)
    if size not in (None, square):
        raise UserError(
            f"size: a network of clips takes the squares that its view cuts, {square[0]}x{square[1]}, got "
            f"{size[1]}x{size[0]}; leave the size out"
        )
    return square


def _export(
    graph: nn.Module,
    args: tuple[Tensor, ...],
    kwargs: dict[str, State],
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> None:
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # or it names each tensor that it leaves as it is
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph, args, str(path), kwargs=kwargs, input_names=list(inputs), output_names=list(outputs),
                dynamo=True, external_data=False, verbose=False, custom_translation_table=translations(),
            )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0].rstrip(".")  # not how to go about it
        raise UserError(f"the network cannot be exported to ONNX: {reason}; run it with runtime eager") from error


def _parity(student: Student, exported: Student, example: Tensor) -> float:
    """The largest gap over a stream with two key frames or more, as a part of the output's scale."""
    generator = torch.Generator().manual_seed(1)
    is_clip = isinstance(student.view, ClipView)
    if isinstance(student.view, ClipView):
        student.expect_key_frames(student.view.stride)
    states: list[State | None] = [None, None]
    frame, gaps = example, [0.0]
    with torch.inference_mode():
        for is_key in PARITY_KEYS:
            states = [without_key_frame(state) if is_key or is_clip else state for state in states]
            (outputs, states[0]), (others, states[1]) = (
                model(frame, state) for model, state in zip((student, exported), states, strict=True)
            )
            gaps += [] if outputs is None else [largest_gap(outputs, others)]
            frame = example + 0.1 * torch.randn(example.shape, generator=generator)
        late = zip(student.flush(states[0]), exported.flush(states[1]), strict=True)
        return max(gaps + [largest_gap(outputs, others) for outputs, others in late])


def largest_gap(outputs: NetworkOutputs, others: NetworkOutputs) -> float:
    """The largest absolute difference in any tensor of two outputs, divided by that tensor's largest value."""
    ours, theirs = named_tensors(outputs, OUTPUT), named_tensors(others, OUTPUT)
    gaps = [float((theirs[n] - t).abs().max() / t.abs().max().clamp(min=1e-12)) for n, t in ours.items() if t.numel()]
    return max(gaps, default=0.0)


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
