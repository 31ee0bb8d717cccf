"""MOTChallenge (Leal-Taixé et al. 2015, Milan et al. 2016): `img1/`, `gt/gt.txt` and `seqinfo.ini` a sequence.

Frame numbers, and the pixels that boxes are given in, count from 1.
"""

import configparser
import csv
from collections.abc import Sequence
from pathlib import Path

from vidistill.data.clip import FrameSequence, VideoDataset
from vidistill.data.image_files import images_in, natural_key, read_image
from vidistill.data.sampling import FrameRange, frame_slice, select_frames
from vidistill.data.sequences.boxes import BoxedSequence, Boxes, all_boxes
from vidistill.data.sequences.frame_files import frame_paths, unique_name, write_images
from vidistill.data.sequences.images import ImageSequence
from vidistill.errors import UserError
from vidistill.files import atomic_path, read_lines, relative_path

MOT_CLASSES = (
    "pedestrian", "person on vehicle", "car", "bicycle", "motorbike", "non motorised vehicle", "static person",
    "distractor", "occluder", "occluder on the ground", "occluder full", "reflection", "crowd",
)  # fmt: skip

LEAST_SIDE = 1e-6  # pixels, of a box in a file


def mot(
    root: str | Path,
    *,
    class_names: Sequence[str] = ("pedestrian",),
    all_classes: Sequence[str] = MOT_CLASSES,
    frames: FrameRange | None = None,
    height: int | None = None,
) -> VideoDataset:
    """The sequence in `root`, or those in its folders, with boxes and instance ids.

    class_names: the classes wanted, in the order of our ids; boxes of the others are left out. all_classes: the
    layout's, from its id 1 on. Rows without a class, as in MOT15, are of the first. A row whose seventh column is 0 is
    not to be scored: it becomes a crowd.
    frames: [first, end) of each, by place. height: resizes frames and boxes.
    Errors: UserError for no sequence, another number of images than seqinfo.ini's seqLength, a row that cannot be
    read, a frame that is not there, an unknown class.
    """
    for name in class_names:
        if name not in all_classes:
            raise UserError(f"class_names: '{name}' is none of the classes {', '.join(all_classes)}")
    labels = {number: class_names.index(n) if n in class_names else None for number, n in enumerate(all_classes, 1)}
    root = _named(Path(root))
    folders = [path.parent.parent for path in sorted(root.rglob("gt/gt.txt"), key=lambda p: natural_key(p.parts[-3]))]
    if not folders:
        raise UserError(f"{root}: there is no gt/gt.txt in it or below; a MOT sequence holds img1, gt and seqinfo.ini")
    sequences = [_sequence(folder, labels, frame_slice(frames), height) for folder in folders]
    return VideoDataset(root.name or "mot", sequences, tuple(class_names))


def _named(folder: Path) -> Path:
    """The folder by a path that ends in its name, as `.` and `..` do not."""
    return folder.resolve() if folder.name in ("", "..") else folder


def _sequence(folder: Path, labels: dict[int, int | None], part: slice, height: int | None) -> BoxedSequence:
    known = _info(folder / "seqinfo.ini")
    image_folder = folder / known.get("imdir", "img1")
    images = images_in(image_folder) if image_folder.is_dir() else []
    if not images:
        raise UserError(f"{image_folder}: there are no frames in it; copy the sequence again")
    _check_length(known, len(images), image_folder)
    size = _size(known, folder / "seqinfo.ini") if "imheight" in known else read_image(images[0]).shape[:2]
    annotations = _read(folder / "gt" / "gt.txt", len(images), labels, size)
    chosen = select_frames(images, part, path=folder)
    return BoxedSequence(ImageSequence(folder.name, chosen), annotations[part], height)


def _info(path: Path) -> dict[str, str]:
    """The values of seqinfo.ini, by names in lower case; none where it is not there."""
    if not path.is_file():
        return {}
    info = configparser.RawConfigParser()
    try:
        info.read_string("\n".join(read_lines(path)))
        return dict(info["Sequence"])
    except (configparser.Error, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: has no readable section [Sequence] ({reason}); mend it, or remove the file"
        ) from error


def _check_length(known: dict[str, str], num_images: int, folder: Path) -> None:
    """Boxes go by place, so one missing image would shift them. Errors: UserError where seqLength says another number.

    known: may lack seqLength; then any number is right.
    """
    length = known.get("seqlength", str(num_images)).strip()
    if not length.isdecimal() or int(length) != num_images:
        raise UserError(
            f"{folder}: has {num_images} images, and seqinfo.ini's seqLength is {length!r:.40}; copy the sequence "
            "again, or mend seqLength"
        )


def _size(known: dict[str, str], path: Path) -> tuple[int, int]:
    """(height, width) of the frames as seqinfo.ini says."""
    try:
        height, width = int(known["imheight"]), int(known["imwidth"])
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: its imHeight or imWidth is no whole number ({error}); mend it") from error
    if min(height, width) < 1:
        raise UserError(f"{path}: imHeight {height} and imWidth {width} are no frame's; mend them, or remove both")
    return height, width


def _read(path: Path, num_frames: int, labels: dict[int, int | None], size: tuple[int, int]) -> list[Boxes]:
    rows: list[list[tuple[list[float], int, int, bool]]] = [[] for _ in range(num_frames)]
    for number, row in enumerate(csv.reader(read_lines(path)), 1):
        if not row:
            continue
        where = f"{path}:{number}"
        frame, thing = _row(row, labels, where)
        if not 1 <= frame <= num_frames:
            raise UserError(f"{where}: there is no frame {frame}; MOT counts from 1, and there are {num_frames}")
        if thing is not None:
            rows[frame - 1].append(thing)
    annotations = []
    for frame, found in enumerate(rows, 1):
        xyxy, classes, instances, crowd = (list(column) for column in zip(*found, strict=True)) if found else [[]] * 4
        boxes = Boxes.of(xyxy, classes, instances=instances, crowd=crowd)
        annotations.append(boxes.checked(num_classes=len(labels), where=f"{path}, frame {frame}").clipped(size))
    return annotations


def _row(
    row: list[str], labels: dict[int, int | None], where: str
) -> tuple[int, tuple[list[float], int, int, bool] | None]:
    """The frame from 1, and box, class, instance and whether it is not to be scored; None for a class not wanted."""
    try:
        frame, instance = int(row[0]), int(row[1])
        left, top, width, height = (float(value) for value in row[2:6])
        counts = len(row) <= 6 or float(row[6]) != 0
        kind = int(row[7]) if len(row) > 7 else -1
    except (IndexError, ValueError) as error:
        raise UserError(f"{where}: is no row frame,id,left,top,width,height,… ({error}); mend it") from error
    if kind != -1 and kind not in labels:
        raise UserError(f"{where}: the class {kind} is unknown; there are 1 to {len(labels)}, see all_classes")
    label = 0 if kind == -1 else labels[kind]
    left, top = left - 1, top - 1
    return frame, None if label is None else ([left, top, left + width, top + height], label, instance, not counts)


def write_mot(dataset: VideoDataset, root: str | Path) -> None:
    """Writes each sequence's boxes as `{sequence}/gt/gt.txt` and `{sequence}/seqinfo.ini` in `root`.

    Class k becomes k + 1, so `mot(root, class_names=names, all_classes=names)` reads them back; a box without an
    instance id gets -1, scores have no place and are lost. Frames that are all the images of one folder stay there, and
    seqinfo.ini names it; others are written, as `img1/000001.png`. Sequences of one name get folders of
    their own, see `unique_name`. Errors: UserError for a sequence without boxes.
    """
    names: set[str] = set()
    for sequence in dataset.sequences:
        name = unique_name(sequence.name, names)
        names.add(name)
        folder = Path(root) / name
        lines = [line for frame, boxes in enumerate(all_boxes(sequence), 1) for line in _lines(boxes, frame)]
        image_folder = _image_folder(sequence, folder)
        height, width = sequence.image(0).shape[:2]
        info = {
            "name": name, "imDir": image_folder, "frameRate": 25, "seqLength": len(sequence),
            "imWidth": width, "imHeight": height,
        }  # fmt: skip
        with atomic_path(folder / "seqinfo.ini") as temporary:
            text = "".join(f"{key}={value}\n" for key, value in info.items())
            temporary.write_text(f"[Sequence]\n{text}", encoding="utf-8")
        with atomic_path(folder / "gt" / "gt.txt") as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")


def _lines(boxes: Boxes, frame: int) -> list[str]:
    lines = []
    for place, xyxy in enumerate(boxes.xyxy.astype(float).tolist()):
        instance = -1 if boxes.instances is None else int(boxes.instances[place])
        counts = int(boxes.crowd is None or not boxes.crowd[place])
        lines.append(f"{frame},{instance},{box_text(*xyxy)},{counts},{int(boxes.labels[place]) + 1},1\n")
    return lines


def box_text(left: float, top: float, right: float, bottom: float) -> str:
    """`left,top,width,height` as MOTChallenge's files have them, in pixels counted from 1, to six decimals.

    A side too thin for those is of the least that they can say: one of 0 could not be read again.
    """
    sides = (max(side, LEAST_SIDE) for side in (right - left, bottom - top))
    return ",".join(f"{number:.6f}".rstrip("0").rstrip(".") for number in (left + 1, top + 1, *sides))


def _image_folder(sequence: FrameSequence, folder: Path) -> str:
    """The folder of the sequence's frames relative to `folder`, into which they are written if they have none."""
    files = list(frame_paths(sequence))
    if files and images_in(files[0].parent) == files:
        return relative_path(files[0].parent, folder)
    write_images(sequence, folder, [f"img1/{index + 1:06d}.png" for index in range(len(sequence))])
    return "img1"
