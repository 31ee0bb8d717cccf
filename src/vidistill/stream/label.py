"""A teacher as a labeller: what it says of unlabelled video, in a layout that a recipe can train on."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PillowImage
from torch import Tensor, nn

from vidistill.data.class_names import COCO_CLASSES
from vidistill.data.clip import Image
from vidistill.data.datasets.coco_video import CocoContents
from vidistill.data.resized import resize_image, resized_width
from vidistill.data.sequences.boxes import Boxes
from vidistill.data.video.reader import VideoReader
from vidistill.errors import UserError, nearest
from vidistill.files import new_folder, require_new
from vidistill.models.detectors import Detector
from vidistill.models.libraries import torchvision_classes, torchvision_with_weights
from vidistill.models.onnx_networks import LevelsDetector, onnx_network
from vidistill.ops.normalise import Normalisation
from vidistill.progress import track
from vidistill.students.card import Card
from vidistill.students.files import load_checkpoint, load_student
from vidistill.students.student import PerFrame, StatefulNetwork
from vidistill.tasks.detection.files import add_video
from vidistill.tasks.detection.task import Detection
from vidistill.tasks.segmentation.task import Segmentation

LEVELS = Normalisation((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # frames as levels 0…255
TORCHVISION = "torchvision:"
CPU = torch.device("cpu")


def open_teacher(teacher: str, weights: Path | None = None) -> StatefulNetwork:
    """A network with its card: a student or teacher of ours, an ONNX file, or torchvision's by `torchvision:name`.

    weights: torchvision's file for its network, a .pth. Errors: UserError where there is no such network.
    """
    if teacher.startswith(TORCHVISION):
        return _torchvision_teacher(teacher.removeprefix(TORCHVISION), weights)
    if weights is not None:
        raise UserError(f"--weights {weights}: goes with {TORCHVISION}name; {teacher} has its own")
    path = Path(teacher)
    if path.suffix == ".onnx":
        network = onnx_network(path)
        names = COCO_CLASSES if network.num_classes == len(COCO_CLASSES) else ()
        levels = isinstance(network, LevelsDetector)
        return _with_card(network, network.num_classes, names, LEVELS if levels else Normalisation())
    return load_student(path / "student.safetensors" if path.is_dir() else path)


def _torchvision_teacher(name: str, weights: Path | None) -> StatefulNetwork:
    if weights is None:
        raise UserError(f"{TORCHVISION}{name}: give its weights, a .pth of torchvision's, with --weights")
    names = torchvision_classes(name)
    network, normalisation = torchvision_with_weights(name, load_checkpoint(weights), where=str(weights))
    count = network.num_classes if isinstance(network, Detector) else len(names)  # with the background or without
    return _with_card(network, count, names[len(names) - count :], normalisation)


def _with_card(
    network: nn.Module, num_classes: int, class_names: Sequence[str], normalisation: Normalisation
) -> StatefulNetwork:
    teacher = PerFrame(network)
    options = {"name": "detection" if isinstance(network, Detector) else "segmentation", "num_classes": num_classes}
    teacher.card = Card({}, "per_frame", options, normalisation=normalisation, class_names=tuple(class_names))
    return teacher.eval().requires_grad_(False)


@dataclass(frozen=True)
class Labeller:
    """A teacher, whose card is known, and what is kept of what it says.

    score: the least. kept: the teacher's ids of the classes kept by name, in their new order. height: of the frames
    that it sees, None for the videos' own; boxes and classes are told in the videos' pixels. device: where it runs.
    """

    teacher: StatefulNetwork
    score: float
    kept: dict[str, int]
    height: int | None = None
    device: torch.device = CPU

    @property
    def card(self) -> Card:
        assert self.teacher.card is not None
        return self.teacher.card

    @torch.inference_mode()
    def said(self, video: str) -> Iterator[tuple[Image, Any]]:
        """Every frame of a video with the teacher's outputs, key frames at its own interval."""
        teacher = self.teacher.to(self.device)
        state: dict[str, Tensor] | None = None
        with VideoReader(video) as reader:
            for frame in track(reader, f"labelling {Path(video).name}", total=reader.num_frames or None):
                seen = frame.image if self.height is None else resize_image(frame.image, self.height)
                planes = torch.from_numpy(seen).permute(2, 0, 1)[None].to(self.device)
                is_key = frame.index % self.card.key_frame_interval == 0
                outputs, state = teacher(self.card.normalisation(planes), None if is_key else state or None)
                yield frame.image, outputs


def label_videos(
    videos: Sequence[str],
    teacher: StatefulNetwork,
    out: Path,
    *,
    score: float = 0.3,
    classes: Sequence[str] = (),
    height: int | None = None,
    device: str | torch.device = "cpu",
) -> Path:
    """Labels videos, or folders of frames, and returns what was written, whole or not at all.

    Of a detector `out`, a .json file or a folder for `annotations.json`: COCO-VID with the boxes of `score` or more,
    which `data.coco_video` reads with the videos where they are. Of a segmenter the new folder `out`, which
    `data.label_maps` reads: frames and class ids as PNG, 255 where the class's probability is below `score`.
    classes: those to keep, all by default; then class ids follow their order. teacher: must have its card.
    height, device: see `Labeller`. Errors: UserError for a teacher of another task, a class that it does not know, a
    video that cannot be read, an `out` that is there already.
    """
    assert teacher.card is not None
    task = teacher.card.task["name"]
    if task not in LABELLERS:
        raise UserError(f"the teacher's task is {task}; only teachers of {' and '.join(LABELLERS)} label frames")
    labeller = Labeller(teacher, score, _kept(teacher.card, classes), height, torch.device(device))
    return LABELLERS[task](videos, labeller, out)


def _kept(card: Card, classes: Sequence[str]) -> dict[str, int]:
    """The names of the classes to keep with the teacher's ids, in their new order."""
    names = card.class_names or tuple(str(label) for label in range(card.task["num_classes"]))
    for name in classes:
        if name not in names:
            raise UserError(f"--classes: the teacher knows no '{name}'; {nearest(name, names)}")
    return {name: names.index(name) for name in classes or names}


def _label_boxes(videos: Sequence[str], labeller: Labeller, out: Path) -> Path:
    path = out if out.suffix == ".json" else out / "annotations.json"
    require_new(path)
    options = {k: v for k, v in labeller.card.task.items() if k != "name"}
    task = Detection(**options | {"score_threshold": labeller.score})
    new_ids = {old: new for new, old in enumerate(labeller.kept.values())}
    contents = CocoContents(tuple(labeller.kept))
    for video in videos:
        files = add_video(contents, video, path.parent)
        for image, outputs in labeller.said(video):
            size = image.shape[0], image.shape[1]
            seen = None if labeller.height is None else (labeller.height, resized_width(size, labeller.height))
            found = Boxes.of_rows(task.decode(outputs, size=size, seen=seen)[0].cpu().numpy())
            found = found.chosen(np.isin(found.labels, list(new_ids)))
            labels = np.array([new_ids[label] for label in found.labels.tolist()], np.int64)
            contents.add_frame(files, size, replace(found, labels=labels))
    contents.write(path)
    return path


def _label_masks(videos: Sequence[str], labeller: Labeller, out: Path) -> Path:
    table = torch.full((256,), 255, dtype=torch.uint8)
    for new, old in enumerate(labeller.kept.values()):
        table[old] = new
    with new_folder(out) as folder:
        (folder / "classes.json").write_text(json.dumps(list(labeller.kept)), encoding="utf-8")
        for number, video in enumerate(videos):
            name = f"{number:04d}_{Path(video).stem}"
            for part in ("frames", "labels"):
                (folder / name / part).mkdir(parents=True)
            for index, (image, outputs) in enumerate(labeller.said(video)):
                unknown = torch.full((1, *image.shape[:2]), 255, device=labeller.device)
                mask = Segmentation.with_pseudo_labels(unknown, outputs, labeller.score)[0].cpu()
                PillowImage.fromarray(image).save(folder / name / "frames" / f"{index:06d}.png")
                PillowImage.fromarray(table[mask].numpy()).save(folder / name / "labels" / f"{index:06d}.png")
    return out


LABELLERS: dict[str, Callable[[Sequence[str], Labeller, Path], Path]] = {
    "detection": _label_boxes,
    "segmentation": _label_masks,
}
