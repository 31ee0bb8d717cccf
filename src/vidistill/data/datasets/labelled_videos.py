"""Lists of videos with their classes, in the layouts of Kinetics, Something-Something, ActivityNet and the like."""

import csv
import itertools
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from vidistill.config import Pixels, Whole, whole
from vidistill.data.class_names import read_class_names
from vidistill.data.clip import FrameSequence, Image, VideoDataset
from vidistill.data.foreign import listed_path, read_rows, safe_name, whole_number
from vidistill.data.image_files import images_in, natural_key, write_image
from vidistill.data.resized import ResizedSequence, check_height
from vidistill.data.sequences.classified import ClassifiedVideo, classes_of
from vidistill.data.sequences.images import ImageSequence
from vidistill.data.sequences.videos import OpenReaders, VideoSequence
from vidistill.errors import UserError, nearest
from vidistill.files import atomic_path
from vidistill.progress import track

MOST_CLASSES = 100_000  # that the largest label of a list may imply
FILE_COLUMNS = ("file", "path", "video", "clip")


def labelled_videos(
    root: str | Path,
    *,
    list_file: str = "list.txt",
    class_names: Sequence[str] | None = None,
    num_classes: Annotated[int, *whole(1, MOST_CLASSES)] | None = None,
    group: str | None = None,
    folds: Whole = 0,
    fold: Whole = 0,
    split: Literal["train", "test"] = "train",
    height: Pixels | None = None,
) -> VideoDataset:
    """The videos of a list, with their class ids from 0.

    Args:
        root: The folder that paths in the list are relative to.
        list_file: The list, in `root`. Either lines `path label [label …]`, for a folder of frames
            `folder total_frames label …`, divided by spaces, tabs, commas or semicolons, where paths may contain spaces
            or be in quotes; or a table with a header that has the columns `file` and `label`, and optionally `name`,
            that of the class, its cells divided by commas, semicolons or tabs. Blank lines and those that begin with #
            are left out.
        class_names: By default from `classes.json` beside the list, a list of names, or from the list's column `name`.
        num_classes: Where neither of these tells; by default one more than the largest label.
        group: A CSV column for cross-validation: its values are dealt to `folds` parts in natural order. Videos
            without a value are for training only.
        folds: The number of parts.
        fold: The part that is tested on, from 0.
        split: "test" gives the videos of part `fold`, "train" all others.
        height: Resizes frames to this height in pixels, the width in proportion; None keeps their size.

    Returns:
        One sequence per line of the list.

    Raises:
        UserError: For a line that cannot be read, with its number, or an impossible option.
    """
    path = Path(root) / list_file
    entries = _read(path, Path(root))
    check_height(height)
    names = _class_names(entries, path.parent / "classes.json", class_names, num_classes)
    for entry in entries:
        too_large = [c for c in entry.classes if c >= len(names)]
        if too_large:
            raise UserError(
                f"{entry.where}: label must be below {len(names)}, got {too_large[0]}; correct it or add classes"
            )
    if group is not None:
        entries = _choose_fold(entries, path, group, folds, fold, split)
    elif split == "test":
        raise UserError(f"{path}: split: test needs group and folds, which say what is for training; set both")
    readers = OpenReaders()
    videos = [
        ClassifiedVideo(_frames(Path(root), entry, readers, height), entry.classes, entry.row, entry.num_frames)
        for entry in entries
    ]
    return VideoDataset(Path(root).name or "videos", videos, names)


@dataclass(frozen=True)
class _Entry:
    """A line of a list. where: for errors. row: its columns, if any. num_frames: of a folder, as the list says."""

    path: str
    classes: tuple[int, ...]
    where: str
    row: dict[str, str] = field(default_factory=dict)
    num_frames: int | None = None


def _read(path: Path, root: Path) -> list[_Entry]:
    """The entries of the list at `path`, whose videos are in `root`."""
    if not path.is_file():
        raise UserError(f"{path}: the list of videos cannot be read; check root and list_file")
    lines = read_rows(path)
    if not lines:
        raise UserError(f"{path}: the list of videos is empty; add lines `path label`")
    known = (*FILE_COLUMNS, "label", "name")
    header = [name.lower() if name.lower() in known else name for name in lines[0].cells]
    if "label" not in header:
        return [_line(row.text, where=row.where, root=root) for row in lines]
    column = next((name for name in FILE_COLUMNS if name in header), None)
    if column is None:
        raise UserError(f"{path}: its header has no column for the file; name it one of {', '.join(FILE_COLUMNS)}")
    if len(lines) == 1:
        raise UserError(f"{path}: the list of videos is empty; add rows below the header")
    entries = []
    for where, _, cells in lines[1:]:
        row = dict(itertools.zip_longest(header, cells[: len(header)], fillvalue=""))
        if not row[column]:
            raise UserError(f"{where}: has no file in the column '{column}'; add it or remove the row")
        labels = _labels(re.split(r"[ ;]+", row["label"]), where)
        entries.append(_Entry(row[column], labels, where, row))
    return entries


def _labels(texts: Sequence[str], where: str) -> tuple[int, ...]:
    """Class ids from text. Errors: UserError for anything but whole numbers from 0."""
    try:
        labels = tuple(whole_number(text) for text in texts)
    except ValueError:
        labels = (-1,)
    if min(labels) < 0:
        raise UserError(f"{where}: label must be whole numbers from 0, got '{' '.join(texts)}'; correct the row")
    return labels


def _line(line: str, *, where: str, root: Path) -> _Entry:
    """The entry of a line `path label …` or `folder total_frames label …`. The path may end in numbers itself."""
    # wherever only numbers follow, the path may end
    number = r"[0-9]{1,18}(?:\.0+)?"
    ends = [m.start() for m in re.finditer(rf"[\s,;]+{number}(?=(?:[\s,;]+{number})*$)", line) if m.start()]
    if not ends:
        raise UserError(f"{where}: has no label; a line is `path label`, the label a whole number from 0")
    splits = [(_unquoted(line[:end]), [whole_number(text) for text in re.findall(number, line[end:])]) for end in ends]
    existing = [split for split in splits if listed_path(root, split[0], where=where).exists()] or splits[:1]
    path, numbers = existing[0]
    if len(existing) > 1:  # prefer a folder with as many frames as the first number says
        folders = [(listed_path(root, path, where=where), path, numbers) for path, numbers in existing]
        fitting = (f for f in folders if f[0].is_dir() and len(images_in(f[0])) == f[2][0])
        _, path, numbers = next(fitting, folders[0])
    if not listed_path(root, path, where=where).is_dir():
        return _Entry(path, tuple(numbers), where)
    num_frames, *labels = numbers
    if not labels:
        raise UserError(f"{where}: has no label; a line for a folder of frames is `folder total_frames label`")
    return _Entry(path, tuple(labels), where, num_frames=num_frames)


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'" else text


def _class_names(
    entries: Sequence[_Entry], beside: Path, class_names: Sequence[str] | None, num_classes: int | None
) -> tuple[str, ...]:
    """Names as given, or of the file `beside` the list, or of its column `name`, else numbers."""
    if class_names is not None:
        return tuple(class_names)
    if beside.exists():
        return read_class_names(beside)
    known = {entry.classes[0]: entry.row["name"] for entry in entries if "name" in entry.row}
    count = num_classes or max(c for entry in entries for c in entry.classes) + 1
    if count > MOST_CLASSES:
        where = max(entries, key=lambda entry: max(entry.classes)).where
        raise UserError(
            f"{where}: label must be below {MOST_CLASSES}, got {count - 1}; set class_names if there are so many"
        )
    return tuple(known.get(i, str(i)) for i in range(count))


def _choose_fold(
    entries: Sequence[_Entry], path: Path, column: str, folds: int, fold: int, split: Literal["train", "test"]
) -> list[_Entry]:
    """The entries of a fold. Groups are dealt to `folds` parts in natural order; no group means training only."""
    if not any(column in entry.row for entry in entries):
        raise UserError(f"{path}: has no column '{column}' to make folds by; {nearest(column, entries[0].row)}")
    values = sorted({entry.row[column] for entry in entries} - {""})  # a set has another order in each process
    groups = sorted(values, key=natural_key)
    if not 0 <= fold < folds <= len(groups):
        raise UserError(
            f"{path}: fold must be from 0 to folds - 1 and folds at most {len(groups)}, the number of groups, got fold "
            f"{fold} of {folds}"
        )
    tested = set(groups[fold::folds])
    return [entry for entry in entries if (entry.row[column] in tested) == (split == "test")]


def _frames(root: Path, entry: _Entry, readers: OpenReaders, height: int | None) -> FrameSequence:
    """The frames of an entry: a video file, or a folder of images."""
    path = listed_path(root, entry.path, where=entry.where)
    if not path.exists():
        raise UserError(f"{entry.where}: {path} not found; check the list and root")
    frames: FrameSequence
    if path.is_dir():
        images = images_in(path)
        if not images:
            raise UserError(f"{entry.where}: the folder {path} has no frames; copy them there or remove the line")
        frames = ImageSequence(entry.path, images)
    else:
        frames = VideoSequence(entry.path, path, None, readers)
    return frames if height is None else ResizedSequence(frames, height)


def write_labelled_frames(dataset: VideoDataset, root: str | Path) -> list[str]:
    """Writes each video as a folder of JPEG frames, and `labels.csv`, with the list's columns, and `classes.json`.

    `labelled_videos` reads them: frames that are files are read far faster than frames from the middle of a video.
    Folders get new names, as the paths of a list may lead anywhere.

    Args:
        dataset: Videos with classes.
        root: The folder to write into.

    Returns:
        One sentence for each video that cannot be decoded and is left out.

    Raises:
        UserError: For a video without a class, if no video can be decoded, or where writing fails.
    """
    left_out, rows = [], []
    listed = [_list_row(video, dataset.class_names) for video in dataset.sequences]
    pairs = zip(dataset.sequences, listed, strict=True)
    for number, (video, row) in enumerate(track(pairs, "writing", total=len(listed))):
        folder = f"{number:06d}_{safe_name(Path(video.name).stem)}"
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
    """An error in decoding a video, to tell it from one in writing."""


def _decoded(video: FrameSequence) -> Iterator[Image]:
    try:
        yield from video.images()
    except UserError as error:
        raise _Undecodable(str(error)) from error


def _list_row(video: FrameSequence, class_names: Sequence[str]) -> dict[str, str]:
    """The columns of `labels.csv`, but for the file: label, name, and the other columns of the video's list."""
    classes = classes_of(video)
    if not classes:
        raise UserError(f"{video.name}: has no class to write; choose a data set of labelled videos")
    others = video.columns if isinstance(video, ClassifiedVideo) else {}
    known = {"label": " ".join(map(str, classes)), "name": class_names[classes[0]]}
    return known | {name: text for name, text in others.items() if name not in (*FILE_COLUMNS, *known)}
