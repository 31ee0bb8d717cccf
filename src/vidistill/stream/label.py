"""A teacher as a labeller: its predictions for unlabelled video, in a layout that a recipe can train on."""

import sys
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from vidistill.data.class_names import COCO_CLASSES
from vidistill.data.video.reader import VideoReader
from vidistill.errors import UserError, nearest
from vidistill.models.libraries import torchvision_classes, torchvision_with_weights
from vidistill.models.onnx_networks import LevelsDetector, onnx_network
from vidistill.ops.normalise import Normalisation
from vidistill.progress import track
from vidistill.runtimes import open_student
from vidistill.stream.stream import Running, Stream
from vidistill.students.card import Card
from vidistill.students.student import PerFrame, Student
from vidistill.tasks import TASKS, task_of
from vidistill.tasks.contract import ClassTask

LEVELS = Normalisation((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # frames as levels 0…255
TORCHVISION = "torchvision:"


def open_teacher(teacher: str, weights: Path | None = None, *, threads: int = 0) -> Student:
    """A network with its card.

    Args:
        teacher: a student or run of ours, an exported folder, a network in an ONNX file, or torchvision's by
            `torchvision:name`.
        weights: torchvision's file for its network, a .pth.

    Raises:
        UserError: none of these can be read.
    """
    if teacher.startswith(TORCHVISION):
        return _torchvision_teacher(teacher.removeprefix(TORCHVISION), weights)
    if weights is not None:
        raise UserError(f"--weights {weights}: goes with {TORCHVISION}name, {teacher} has its own; leave it out")
    path = Path(teacher)
    if path.suffix == ".onnx":
        network = onnx_network(path, threads=threads)
        names = COCO_CLASSES if network.num_classes == len(COCO_CLASSES) else ()
        levels = isinstance(network, LevelsDetector)
        return _with_card(network, network.num_classes, names, LEVELS if levels else Normalisation())
    return open_student(path, threads=threads)


def _torchvision_teacher(name: str, weights: Path | None) -> Student:
    if weights is None:
        raise UserError(f"{TORCHVISION}{name}: needs its weights, a .pth of torchvision's; give them with --weights")
    names = torchvision_classes(name)
    network, normalisation = torchvision_with_weights(name, weights)
    own = getattr(network, "num_classes", None)  # of a detector, which counts no background
    count = own if isinstance(own, int) else len(names)
    return _with_card(network, count, names[len(names) - count :], normalisation)


def _with_card(
    network: nn.Module, num_classes: int, class_names: Sequence[str], normalisation: Normalisation
) -> Student:
    default = next(iter(TASKS))
    name = next((name for name, task in TASKS.items() if task().is_for(network)), default)
    task = task_of({"name": name, "num_classes": num_classes})
    card = Card(task=task, normalisation=normalisation, class_names=tuple(class_names))
    return PerFrame(network, card).eval().requires_grad_(False)


def label_videos(
    videos: Sequence[str],
    teacher: Student,
    out: Path,
    *,
    score: float = 0.3,
    classes: Sequence[str] = (),
    height: int | None = None,
    running: Running | None = None,
) -> Path:
    """Labels videos, or folders of frames, and returns what was written, whole or not at all.

    The teacher's task decides the layout, see `Task.label_files`: boxes as COCO-VID with the videos where they are, or
    a new folder of frames and maps. A file must be whole; of a pipe or a live stream what is damaged is left out.

    Args:
        videos: paths.
        teacher: key frames come as its card says.
        out: what to write.
        score: the least, 0…1.
        classes: those to keep, all by default; then class ids follow their order.
        height: of the frames that the teacher sees, in pixels; labels are in the videos' own.
        running: where and how the teacher runs.

    Raises:
        UserError: the teacher's task has no labels, a class is unknown, a video cannot be read, or `out` exists.
    """
    task = teacher.task.as_labeller(score)
    names = teacher.card.naming.names(task.known_ids()) if isinstance(task, ClassTask) else []
    for name in classes:
        if name not in names:
            raise UserError(f"--classes: the teacher does not know '{name}'; {nearest(name, names)}")
    kept = {name: names.index(name) for name in classes or names}
    stream = Stream(teacher, height=height, running=running, task=task)
    with task.label_files(out, kept) as files:
        for video in videos:
            files.begin(video)
            stream.restart()
            is_live = not (Path(video).is_file() or Path(video).is_dir())  # a pipe or an address
            with VideoReader(video, damage="skip" if is_live else "refuse") as reader:
                total = None if is_live else reader.num_frames
                for output in stream(track(reader, f"labelling {Path(video).name}", total=total)):
                    files.add(output.image, output.prediction)
                if reader.damage.count:
                    print(reader.damage.sentence(video), file=sys.stderr)
    return files.path
