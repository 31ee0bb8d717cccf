"""Lists of videos with their classes, in the layouts of Kinetics, Something-Something, ActivityNet and the like."""

import csv
import itertools
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vidistill.data.class_names import read_class_names
from vidistill.data.clip import FrameSequence, Image, VideoDataset
from vidistill.data.image_files import images_in, natural_key, write_image
from vidistill.data.resized import ResizedSequence, check_height
from vidistill.data.sequences.classified import ClassifiedVideo, classes_of
from vidistill.data.sequences.images import ImageSequence
from vidistill.data.sequences.videos import OpenReaders, VideoSequence
from vidistill.errors import UserError, nearest
from vidistill.files import atomic_path
from vidistill.progress import track

MOST_CLASSES = 100_000  # that a list may imply by its largest label
FILE_COLUMNS = ("file", "path", "video", "clip")


@dataclass(frozen=True)
class _Entry:
    """A line of a list; row: its columns, where it has any."""

    path: str
    classes: tuple[int, ...]
    where: str
    row: dict[str, str] = field(default_factory=dict)
    num_frames: int | None = None  # as the list says it of a folder of frames


@dataclass(frozen=True)
class _Folds:
    """Groups dealt to `folds` parts in natural order; what has no group is for training only."""

    column: str
    folds: int
    fold: int
    is_test: bool

    def choose(self, entries: Sequence[_Entry], path: Path) -> list[_Entry]:
        if not any(self.column in entry.row for entry in entries):
            near = nearest(self.column, entries[0].row)
            raise UserError(f"{path}: has no column '{self.column}' to make folds by; {near}")
        named = sorted({entry.row[self.column] for entry in entries} - {""})  # a set has another order in each process
        groups = sorted(named, key=lambda group: natural_key(Path(group)))
        if not 0 <= self.fold < self.folds <= len(groups):
            raise UserError(f"fold {self.fold} of {self.folds} folds: there are {len(groups)} groups in {path}")
        tested = set(groups[self.fold :: self.folds])
        return [entry for entry in entries if (entry.row[self.column] in tested) == self.is_test]


def labelled_videos(
    root: str | Path,
    *,
    list_file: str = "list.txt",
    class_names: Sequence[str] | None = None,
    num_classes: int | None = None,
    group: str | None = None,
    folds: int = 0,
    fold: int = 0,
    split: Literal["train", "test"] = "train",
    height: int | None = None,
) -> VideoDataset:
    """The videos of a list, with their class ids from 0.

    list_file: in `root`; lines `path label [label …]`, for folders of frames `folder total_frames label …`, divided by
    spaces, tabs or commas, paths may hold spaces; or a CSV with a header that has the columns `file` and `label`, and
    perhaps `name`, the class's. class_names, num_classes: where neither the list nor `classes.json`, a list of names
    beside it, tells.
    group, folds, fold, split: cross-validation: the groups, values of that CSV column, are dealt to `folds` parts in
    natural order; "test" is part `fold`, "train" all others. What has no group is for training only.
    height: resizes all frames to that height. Errors: UserError that names the list's line.
    """
    path = Path(root) / list_file
    entries = _read(path, Path(root))
    check_height(height)
    names = _class_names(entries, path.parent / "classes.json", class_names, num_classes)
    for entry in entries:
        wrong = [c for c in entry.classes if c >= len(names)]
        if wrong:
            raise UserError(f"{entry.where}: the label {wrong[0]} is out of range; there are {len(names)} classes")
    if group is not None:
        entries = _Folds(group, folds, fold, split == "test").choose(entries, path)
    elif split == "test":
        raise UserError(f"{path}: split: test needs group and folds, which say what is for training; give those")
    readers = OpenReaders()
    videos = [
        ClassifiedVideo(_frames(Path(root), entry, readers, height), entry.classes, entry.row, entry.num_frames)
        for entry in entries
    ]
    return VideoDataset(Path(root).name or "videos", videos, names)


def write_labelled_frames(dataset: VideoDataset, root: str | Path) -> list[str]:
    """Writes each video as a folder of JPEG frames, `labels.csv` with the list's columns, and `classes.json`.

    `labelled_videos` reads them; frames that are files are read far faster than picked out of a video. Folders have
    names of our own, for a list's paths may lead anywhere. Returns what is wrong with each video that cannot be decoded
    and is left out. Errors: UserError for a video without a class, and where none can be decoded.
    """
    left_out, rows = [], []
    listed = [_list_row(video, dataset.class_names) for video in dataset.sequences]
    for number, (video, row) in enumerate(
        track(zip(dataset.sequences, listed, strict=True), "writing", total=len(listed))
    ):
        folder = f"{number:06d}_{Path(video.name).stem}"
        try:
            for index, image in enumerate(_decoded(video)):
                write_image(image, Path(root) / folder / f"{index:06d}.jpg")
            rows.append({"file": folder} | row)
        except _Undecodable as error:
            left_out.append(str(error))
            shutil.rmtree(Path(root) / folder, ignore_errors=True)
    if not rows:
        raise UserError(f"none of the {len(listed)} videos can be decoded: {left_out[0]}")
    with atomic_path(Path(root) / "classes.json") as temporary:
        temporary.write_text(json.dumps(dataset.class_names), encoding="utf-8")
    header = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_path(Path(root) / "labels.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return left_out


class _Undecodable(Exception):
    """What is wrong with a video, where an error in writing is not."""


def _decoded(video: FrameSequence) -> Iterator[Image]:
    try:
        yield from video.images()
    except UserError as error:
        raise _Undecodable(str(error)) from error


def _list_row(video: FrameSequence, class_names: Sequence[str]) -> dict[str, str]:
    classes = classes_of(video)
    if not classes:
        raise UserError(f"{video.name}: has no class to write; give a data set of labelled videos")
    others = video.columns if isinstance(video, ClassifiedVideo) else {}
    known = {"label": " ".join(map(str, classes)), "name": class_names[classes[0]]}
    return known | {name: text for name, text in others.items() if name not in (*FILE_COLUMNS, *known)}


def _read(path: Path, root: Path) -> list[_Entry]:
    """The lines of the list at `path`, whose videos lie in `root`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the list of videos cannot be read ({error}); check root and list_file") from error
    lines = [(f"{path}:{number}", line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise UserError(f"{path}: the list of videos is empty")
    header = next(csv.reader([lines[0][1]]))
    if "label" not in header:
        return [_line(line, where=where, root=root) for where, line in lines]
    column = next((name for name in FILE_COLUMNS if name in header), None)
    if column is None:
        raise UserError(f"{path}: its header names no file column; call it one of {', '.join(FILE_COLUMNS)}")
    if len(lines) == 1:
        raise UserError(f"{path}: the list of videos is empty")
    rows = [(where, next(csv.reader([line]))) for where, line in lines[1:]]
    return [_row(dict(itertools.zip_longest(header, row[: len(header)], fillvalue="")), column, w) for w, row in rows]


def _row(row: dict[str, str], column: str, where: str) -> _Entry:
    labels = re.split(r"[ ;]+", row["label"].strip())
    if not all(label.isdecimal() for label in labels):
        raise UserError(f"{where}: the label '{row['label']}' is no class id; give whole numbers from 0")
    if not row[column]:
        raise UserError(f"{where}: names no file in the column '{column}'")
    return _Entry(row[column], tuple(map(int, labels)), where, row)


def _line(line: str, *, where: str, root: Path) -> _Entry:
    ends = [match.start() for match in re.finditer(r"[\s,]+\d+(?=(?:[\s,]+\d+)*$)", line) if match.start()]
    if not ends:
        raise UserError(f"{where}: has no label; a line is `path label`, the label a whole number from 0")
    splits = [(line[:end], [int(number) for number in re.findall(r"\d+", line[end:])]) for end in ends]
    there = [split for split in splits if (root / split[0]).exists()] or splits[:1]
    path, numbers = there[0]
    if len(there) > 1:  # names too may end in numbers
        path, numbers = next((split for split in there if _tells_length(root, *split)), there[0])
    if not (root / path).is_dir():
        return _Entry(path, tuple(numbers), where)
    num_frames, *labels = numbers  # folder total_frames label …
    if not labels:
        raise UserError(f"{where}: has no label; a line of a folder of frames is `folder total_frames label`")
    return _Entry(path, tuple(labels), where, num_frames=num_frames)


def _tells_length(root: Path, path: str, numbers: list[int]) -> bool:
    """Whether `path` is a folder of as many frames as the first number says."""
    return (root / path).is_dir() and len(images_in(root / path)) == numbers[0]


def _class_names(
    entries: Sequence[_Entry], beside: Path, class_names: Sequence[str] | None, num_classes: int | None
) -> tuple[str, ...]:
    if class_names is not None:
        return tuple(class_names)
    if beside.exists():
        return read_class_names(beside)
    known = {entry.classes[0]: entry.row["name"] for entry in entries if "name" in entry.row}
    count = num_classes or max(c for entry in entries for c in entry.classes) + 1
    if count > MOST_CLASSES:
        where = max(entries, key=lambda entry: max(entry.classes)).where
        raise UserError(f"{where}: the label {count - 1} is out of range; give num_classes if there are so many")
    return tuple(known.get(i, str(i)) for i in range(count))


def _frames(root: Path, entry: _Entry, readers: OpenReaders, height: int | None) -> FrameSequence:
    path = root / entry.path
    if not path.exists():
        raise UserError(f"{entry.where}: there is no {path}; check the list and root")
    frames: FrameSequence
    if path.is_dir():
        images = images_in(path)
        if not images:
            raise UserError(f"{entry.where}: the folder {path} holds no frames")
        frames = ImageSequence(entry.path, images)
    else:
        frames = VideoSequence(entry.path, path, None, readers)
    return frames if height is None else ResizedSequence(frames, height)
