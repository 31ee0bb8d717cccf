"""A student as graphs whose state is inputs and outputs, for runtimes outside torch.

One graph a kind of frame: the key frame, where blocks are folded the first frame after it, and every further frame.
Folding has a graph of its own, so that no frame costs a key frame and all students together. A runtime opens the
graphs; parity with torch is part of every export.
"""

import json
import logging
import shutil
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from vidistill.config import Settings, Values, validate_json
from vidistill.errors import UserError
from vidistill.files import atomic_path, new_folder, writing
from vidistill.models.onnx_networks import MOST_SIDE
from vidistill.models.outputs import NetworkOutputs, from_named, largest_gap, logits_of, named_tensors
from vidistill.ops.clip_view import ClipView, WindowView
from vidistill.ops.digest import digest
from vidistill.ops.modules import copied
from vidistill.runtimes.contract import Deployed, Exported, Runtime
from vidistill.runtimes.eager import as_frames
from vidistill.runtimes.onnx_operators import translations
from vidistill.students.card import Card
from vidistill.students.delta.calls import Tree, tensors_of
from vidistill.students.norms import fused_copy
from vidistill.students.state import KEY, WINDOW, State, without_key_frame
from vidistill.students.student import Student
from vidistill.students.windows import AGE, HELD, LookAhead

FRAME = "frame"
NEXT = "next/"  # ahead of the name of a state tensor that the frame makes anew
OUTPUT = "output"
FRAME_SIZE = (360, 640)
OUTPUT_PATH = rf"^{OUTPUT}(/([0-9]{{1,3}}|[^/0-9][^/]*))*$"  # no list index that would need a long list
PARITY_KEYS = (True, False, False, False, True, False)  # which frames of the parity check are key frames


class Graph(Settings):
    """What a traced graph takes and gives, by name.

    Args:
        inputs: `frame` and what it needs of the state.
        outputs: `output`, `output.1` …, then `next/` and the name of each state tensor that it makes anew.
        takes: names of the state that the frame before left.
        leaves: names of the state that it leaves.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    takes: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()


class ExportedCard(Settings):
    """The contents of `card.json`. outputs: paths of the outputs' tensors, see `named_tensors`."""

    runtime: str
    precision: str
    outputs: Annotated[tuple[Annotated[str, Field(max_length=200, pattern=OUTPUT_PATH)], ...], Field(min_length=1)]
    graphs: dict[Literal["key", "first_delta", "delta"], Graph]
    card: Values


class TensorSpec(NamedTuple):
    """A tensor that goes in or out of a graph; a side that a graph leaves open is None."""

    shape: tuple[int | None, ...]
    dtype: torch.dtype | None


class GraphSession(Protocol):
    """A graph that a runtime has opened, for frames of one size. inputs: by name. outputs: in order."""

    inputs: Mapping[str, TensorSpec]
    outputs: Sequence[TensorSpec]

    def run(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        """Its outputs in order. Inputs are read where they lie; outputs are tensors of their own.

        Raises:
            UserError: the graph cannot run on them.
        """


class GraphRuntime(Runtime):
    """A runtime that runs graphs on the CPU.

    Attributes:
        suffix: of its files.
        packages: that an export needs.
        parity: by precision the largest gap to the student in torch, in float32, as a part of the output's scale.
    """

    suffix: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    parity: ClassVar[dict[str, float]]

    @abstractmethod
    def convert(self, traced: Path, path: Path) -> None:
        """Writes an ONNX graph as a file of this runtime's."""

    @abstractmethod
    def open(self, path: Path, *, precision: str, threads: int) -> GraphSession:
        """A session of a file that `convert` wrote.

        Raises:
            UserError: it cannot be read, or has an operator that the runtime lacks.
        """

    def __call__(self, student: Student, pixels: Tensor, *, precision: str = "float32", threads: int = 0) -> Deployed:
        if pixels.device.type != "cpu":
            raise UserError(
                f"runtime {self.name} runs on the CPU, got device {pixels.device.type}; choose eager or compiled"
            )
        size = None if isinstance(student.view, ClipView) else (pixels.shape[-3], pixels.shape[-2])
        with TemporaryDirectory() as work:
            return self._write(student, Path(work), size=size, precision=precision, threads=threads)[0]

    def export(
        self, student: Student, folder: Path, *, size: tuple[int, int] | None = None, precision: str = "float32"
    ) -> Exported:
        """Writes a graph for each kind of frame, and `card.json`.

        `frame` is (1, H, W, 3) uint8 RGB, as it comes: the graph normalises it. The key graph gives the outputs and the
        state. The others take the state of the frame before, of which a network may need only some, and give the
        outputs and, as `next/…`, what they change of the state; `card.json` says what each takes and leaves.

        A network of clips takes squares of its view's `crop`, which `ClipView.cut` cuts, every `view.stride`-th frame:
        the key graph the first one, the delta graph those that follow. A network of windows takes whole windows
        (1, T, H, W, 3).

        Before any file takes its place, the runtime runs two key frames and some delta frames beside the student in
        torch as it is given, with nothing fused.

        Raises:
            UserError: packages are missing, the size is not the network's, it cannot be traced, or the outputs differ.
        """
        with writing(folder), TemporaryDirectory() as work:
            _, gap = self._write(student, Path(work), size=size, precision=precision, threads=0)
            return Exported(_moved(Path(work), folder), gap)

    def _write(
        self, student: Student, folder: Path, *, size: tuple[int, int] | None, precision: str, threads: int
    ) -> tuple[Deployed, float]:
        """Writes the files of an export to an empty folder; returns the student opened from them, and its gap."""
        missing = [package for package in self.packages if find_spec(package) is None]
        if missing:
            raise UserError(f"runtime {self.name} needs {', '.join(missing)}; pip install 'vidistill[export]'")
        student = copied(student).cpu().float().eval()
        pixels = _example(student, size)
        with TemporaryDirectory() as work:
            graphs, paths = trace(student, pixels, Path(work))
            for name in graphs:
                self.convert(Path(work) / f"{name}.onnx", folder / f"{name}{self.suffix}")
        card = json.loads(student.card.to_json())
        values = ExportedCard.model_validate(
            {"runtime": self.name, "precision": precision, "outputs": paths, "graphs": graphs, "card": card}
        )
        (folder / "card.json").write_text(values.model_dump_json(indent=2), encoding="utf-8")
        deployed = self.load(folder, threads=threads)
        gap = parity(student, deployed, pixels)
        if not gap < self.parity[precision]:
            raise UserError(
                f"the outputs of {self.name} in {precision} differ from torch's by {gap:.1e} of their scale, expected "
                f"less than {self.parity[precision]:.0e}; nothing was written, please report the network"
            )
        return deployed, gap

    def load(self, folder: Path, *, threads: int = 0) -> Deployed:
        where = folder / "card.json"
        not_one, again = f"{where}: is not the card of an exported student", "export it again"
        try:
            text = where.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{where}: cannot be read ({error}); {again}") from error
        values = validate_json(ExportedCard, text, where=not_one, advice=again)
        if values.precision not in self.precisions or "key" not in values.graphs:
            raise UserError(f"{not_one} in {self.name}, of precision {values.precision}; {again}")
        card = Card.from_json(json.dumps(values.card), where=str(where))
        files = {name: folder / f"{name}{self.suffix}" for name in values.graphs}
        opened = [
            (graph, self.open(files[name], precision=values.precision, threads=threads))
            for name, graph in values.graphs.items()
        ]
        _check_graphs(opened, len(values.outputs), where=str(folder))
        # all files of the graphs: some runtimes keep the weights beside them
        contents = digest(text, {path.name: _bytes_of(path) for path in sorted(folder.iterdir()) if path.stem in files})
        student = GraphStudent(
            opened, card, values.outputs, runtime=self.name, precision=values.precision, identity=contents
        )
        return _AroundWindows(student) if isinstance(card.view, WindowView) else student

    def part(self, module: nn.Module, args: tuple[Tree, ...], *, precision: str = "float32") -> Callable[[], Any]:
        tensors = tensors_of(args)
        names = [f"input.{i}" for i in range(len(tensors))]
        with torch.no_grad():
            outputs = [f"{OUTPUT}.{i}" for i in range(len(_Part(module, args)(*tensors)))]
        with TemporaryDirectory() as work:
            traced, path = Path(work) / "traced.onnx", Path(work) / f"part{self.suffix}"
            inputs = export_onnx(_Part(module, args).eval(), tuple(tensors), {}, traced, names, outputs)
            self.convert(traced, path)
            session = self.open(path, precision=precision, threads=0)
        given = {name: tensor.contiguous() for name, tensor in zip(names, tensors, strict=True) if name in inputs}
        return lambda: session.run(given)


class GraphStudent(Deployed):
    """`outputs, state = student(pixels, state)`, as the student that was exported.

    opened: its graphs, that of the key frame first. paths: of the outputs' tensors, see `named_tensors`.
    """

    def __init__(
        self,
        opened: Sequence[tuple[Graph, GraphSession]],
        card: Card,
        paths: Sequence[str],
        *,
        runtime: str,
        precision: str,
        identity: bytes,
    ) -> None:
        super().__init__(nn.Identity(), card)
        self._identity = identity
        self.runtime, self.precision, self.has_one_size = runtime, precision, True
        self._by_state = {frozenset(graph.takes): (graph, session) for graph, session in opened}
        self._paths = paths
        self._shape = opened[0][1].inputs[FRAME].shape
        self._has_window = any(WINDOW in graph.takes for graph, _ in opened)

    def identity(self) -> bytes:
        return self._identity

    @property
    def has_key_frames(self) -> bool:
        return self.sees_clips or any(name.startswith(KEY) for names in self._by_state for name in names)

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

    def forward(self, pixels: Tensor, state: State | None = None) -> tuple[NetworkOutputs, State]:
        if not isinstance(self.view, ClipView):
            return self._step(pixels, state or {})
        if pixels.ndim == 5:
            return self._whole(pixels, self.view), {}
        return self._held(pixels, state or {}, self.view)

    def _held(self, pixels: Tensor, state: State, view: ClipView) -> tuple[NetworkOutputs, State]:
        """Of a network of clips: outputs of key frames, held between them; a window moves on every `stride` frames."""
        age = state[AGE] + 1 if AGE in state else torch.tensor([0])
        held = state.get(HELD)
        if held is not None and not (self._has_window and int(age) == view.stride):
            return held, {**state, AGE: age}
        outputs, kept = self._step(pixels, {n: t for n, t in state.items() if n not in (HELD, AGE)})
        logits = logits_of(outputs) if held is None else held
        return logits, {**kept, HELD: logits, AGE: torch.tensor([0])}

    def _whole(self, clip: Tensor, view: ClipView) -> NetworkOutputs:
        """The outputs of a clip (1, T, H, W, 3), frame by frame."""
        outputs: NetworkOutputs = None
        state: State = {}
        for pixels in view.chosen(clip).unbind(dim=1):
            outputs, state = self._step(pixels, state)
        return outputs

    def _step(self, pixels: Tensor, state: State) -> tuple[NetworkOutputs, State]:
        if tuple(pixels.shape) != self._shape:
            size, expected = (f"{shape[-2]}x{shape[-3]}" for shape in (pixels.shape, self._shape))
            raise UserError(
                f"the exported student takes frames of {expected}, got {size}; export it again with --size {size}"
            )
        if frozenset(state) not in self._by_state:
            raise UserError("the state is of another student; begin with a key frame")
        graph, session = self._by_state[frozenset(state)]
        given = {FRAME: pixels, **state}
        made = session.run({name: given[name] for name in graph.inputs})
        results: dict[str, Tensor] = dict(zip(graph.outputs, made, strict=True))
        own = [name for name in graph.outputs if name.split(".")[0] == OUTPUT]
        outputs = from_named({path: results[name] for path, name in zip(self._paths, own, strict=True)}, OUTPUT)
        changed = {name.removeprefix(NEXT): results[name] for name in graph.outputs if name.startswith(NEXT)}
        return outputs, {name: changed[name] if name in changed else state[name] for name in graph.leaves}


def _check_graphs(opened: Sequence[tuple[Graph, GraphSession]], num_outputs: int, *, where: str) -> None:
    """Raises a UserError unless the sessions are what a card says of them, and each state is made as it is taken."""

    def require(fits: bool, expected: str) -> None:
        if not fits:
            raise UserError(f"{where}: its graphs are not those of its card, expected {expected}; export it again")

    frame = opened[0][1].inputs.get(FRAME)
    require(opened[0][0].takes == () and frame is not None and frame.dtype == torch.uint8, f"a key graph of '{FRAME}'")
    assert frame is not None
    is_frame = len(frame.shape) in (4, 5) and frame.shape[0] == 1 and frame.shape[-1] == 3
    require(is_frame and all(side and 1 <= side <= MOST_SIDE for side in frame.shape), "frames of one size")
    made: dict[str, TensorSpec] = {FRAME: frame}
    for graph, session in opened:
        own = [name for name in graph.outputs if name.split(".")[0] == OUTPUT]
        require(len(graph.outputs) == len(session.outputs) and len(own) == num_outputs, f"{num_outputs} outputs")
        made |= {name.removeprefix(NEXT): spec for name, spec in zip(graph.outputs, session.outputs, strict=True)}
        require(all(None not in spec.shape and spec.dtype for spec in session.outputs), "tensors of one size")
        changed = {name.removeprefix(NEXT) for name in graph.outputs if name.startswith(NEXT)}
        require(set(graph.leaves) <= changed | set(graph.takes), "a state that the graphs make")
    for graph, session in opened:
        require(set(session.inputs) <= set(graph.inputs) <= {FRAME, *graph.takes}, "inputs that the state has")
        require(all(made.get(name) == spec for name, spec in session.inputs.items()), "inputs as the outputs before")


class _AroundWindows(LookAhead, Deployed):
    """An exported network of windows, which keeps the window for its graphs."""

    def __init__(self, student: GraphStudent) -> None:
        super().__init__(student, student.card)
        self.runtime, self.precision, self.has_one_size = student.runtime, student.precision, True


def trace(student: Student, pixels: Tensor, folder: Path) -> tuple[dict[str, Graph], list[str]]:
    """Writes an ONNX graph to the folder for each kind of frame; returns what each takes, and the outputs' paths.

    student: on the CPU, in float32 and evaluation mode. pixels: (1, H, W, 3) uint8, of the size that will come.
    """
    ready = fused_copy(student, as_frames(student, pixels))
    ready.prepare_for_graphs()
    if isinstance(ready, LookAhead):
        pixels = _window_of(ready, pixels)
        ready = ready.network if isinstance(ready.network, Student) else ready
    graphs: dict[str, Graph] = {}
    state: State = {}
    paths: list[str] = []
    while True:
        with torch.no_grad():
            outputs, after = ready(as_frames(ready, pixels), state or None)
        paths = paths or list(named_tensors(outputs, OUTPUT))
        changed = [key for key, tensor in after.items() if state.get(key) is not tensor]
        names = [f"{OUTPUT}.{i}" if i else OUTPUT for i in range(len(paths))] + [f"{NEXT}{key}" for key in changed]
        name = "key" if not graphs else "delta" if after.keys() == state.keys() else "first_delta"
        kwargs = {"state": state} if state else {}
        inputs = export_onnx(
            _GraphOf(ready, changed).eval(), (pixels,), kwargs, folder / f"{name}.onnx", [FRAME, *state], names
        )
        graphs[name] = Graph(inputs=tuple(inputs), outputs=tuple(names), takes=tuple(state), leaves=tuple(after))
        if after.keys() == state.keys():  # every further frame is like this one
            return graphs, paths
        state = after


class _GraphOf(nn.Module):
    """pixels and the state → outputs and what the frame changes of the state, as flat tensors in a fixed order."""

    def __init__(self, student: Student, changed: Sequence[str]) -> None:
        super().__init__()
        self.student = student
        self.changed = changed

    def forward(self, pixels: Tensor, state: State | None = None) -> tuple[Tensor, ...]:
        outputs, after = self.student(as_frames(self.student, pixels), state)
        return (*named_tensors(outputs, OUTPUT).values(), *(after[name] for name in self.changed))


def _window_of(student: LookAhead, pixels: Tensor) -> Tensor:
    """(1, T, H, W, 3): a window that stands still."""
    return pixels[:, None].expand(-1, student.view.window, -1, -1, -1).contiguous()


def _example(student: Student, size: tuple[int, int] | None) -> Tensor:
    """(1, H, W, 3) noise of the size that is asked for, or that the student's view decides."""
    if isinstance(student.view, ClipView):
        square = (student.view.crop, student.view.crop)
        if size not in (None, square):
            raise UserError(
                f"size: a network of clips takes the squares that its view cuts, {square[0]}x{square[1]}, got "
                f"{size[1]}x{size[0]}; leave the size out"
            )
        size = square
    return torch.randint(0, 256, (1, *(size or FRAME_SIZE), 3), generator=_generator(0)).to(torch.uint8)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def export_onnx(
    graph: nn.Module,
    args: tuple[Tensor, ...],
    kwargs: dict[str, State],
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> list[str]:
    """Writes a traced module; returns the names of the inputs that are left.

    Raises:
        UserError: it cannot be traced, or ONNX lacks one of its operators.
    """
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # or it names each tensor that it leaves as it is
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph, args, str(path), kwargs=kwargs, input_names=list(inputs), output_names=list(outputs),
                dynamo=True, external_data=False, verbose=False, custom_translation_table=translations(),
            )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0].rstrip(".")  # not how to go about it
        raise UserError(f"the network cannot be exported to ONNX: {reason}; run it with runtime eager") from error
    assert program is not None
    return [str(value.name) for value in program.model.graph.inputs]


def _bytes_of(path: Path) -> Tensor:
    return torch.frombuffer(bytearray(path.read_bytes() or b"0"), dtype=torch.uint8)


def _moved(ready: Path, folder: Path) -> tuple[Path, ...]:
    """Puts the files of an export in their place, the card last; without a card they are no student."""
    files = [*sorted(path.name for path in ready.iterdir() if path.name != "card.json"), "card.json"]
    if not folder.exists():
        with new_folder(folder) as whole:
            for name in files:
                shutil.copyfile(ready / name, whole / name)
    else:
        (folder / "card.json").unlink(missing_ok=True)
        for name in files:
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(ready / name, temporary)
    return tuple(folder / name for name in files)


def parity(student: Student, exported: Student, pixels: Tensor) -> float:
    """The largest gap over a stream with two key frames or more, as a part of the output's scale.

    student: in torch, nothing fused. pixels: (1, H, W, 3) uint8.
    """
    generator = _generator(1)
    student.expect_key_frames(student.view.stride if isinstance(student.view, ClipView) else 1)
    states: list[State | None] = [None, None]
    now, gaps = pixels, [0.0]
    with torch.inference_mode():
        for is_key in PARITY_KEYS:
            states = [without_key_frame(state) if is_key or student.sees_clips else state for state in states]
            outputs, states[0] = student(as_frames(student, now), states[0])
            others, states[1] = exported(now, states[1])
            gaps += [] if outputs is None else [largest_gap(outputs, others)]
            moved = now.int() + torch.randint(-25, 26, now.shape, generator=generator)
            now = moved.clamp(0, 255).to(torch.uint8)
        late = zip(student.flush(states[0]), exported.flush(states[1]), strict=True)
        return max(gaps + [largest_gap(outputs, others) for outputs, others in late])


class _Part(nn.Module):
    """A module on fixed arguments, with its tensors as flat arguments."""

    def __init__(self, module: nn.Module, args: Tree) -> None:
        super().__init__()
        self.module = module
        self.leaves, self.spec = tree_flatten(args)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        return tuple(tensors_of(self.module(*tree_unflatten(leaves, self.spec))))
