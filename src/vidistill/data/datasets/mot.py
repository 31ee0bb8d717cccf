"""MOTChallenge (Leal-Taixé et al. 2015, Milan et al. 2016): `img1/`, `gt/gt.txt` and `seqinfo.ini` per sequence.

Its files number frames and pixels from 1.
"""

import configparser
from collections.abc import Sequence
from pathlib import Path

from vidistill.config import Pixels
from vidistill.data.clip import VideoDataset
from vidistill.data.foreign import Row, listed_path, read_rows, whole_number
from vidistill.data.image_files import images_in, natural_key, read_image
from vidistill.data.sampling import FrameRange, frame_slice, select_frames
from vidistill.data.sequences.boxes import BoxedSequence, Boxes, all_boxes
from vidistill.data.sequences.frame_files import folder_name, frame_paths, write_images
from vidistill.data.sequences.images import ImageSequence
from vidistill.errors import UserError
from vidistill.files import atomic_path, read_lines, relative_path

MOT_CLASSES = (
    "pedestrian", "person on vehicle", "car", "bicycle", "motorbike", "non motorised vehicle", "static person",
    "distractor", "occluder", "occluder on the ground", "occluder full", "reflection", "crowd",
)  # fmt: skip
Thing = tuple[list[float], int, int, bool]  # box, class, instance, whether it is not scored
WORLD_COLUMNS = 10  # of a row of MOT15
LEAST_SIDE = 1e-6  # pixels, of a box in a file, whose numbers have six decimals


def mot(
    root: str | Path,
    *,
    class_names: Sequence[str] = ("pedestrian",),
    all_classes: Sequence[str] = MOT_CLASSES,
    frames: FrameRange | None = None,
    height: Pixels | None = None,
) -> VideoDataset:
    """The sequence in a folder, or those in the folders below it. Rows that are not scored (column 7 is 0) are crowds.

    Args:
        root: A folder that holds gt/gt.txt, img1 and seqinfo.ini, or folders of such folders.
        class_names: The classes to keep, in the order of our ids; rows without a class, as in MOT15, are of the first.
            Rows of ten columns are MOT15's, with world coordinates in the last three, unless the last two are -1.
        all_classes: The layout's classes, from its id 1 on.
        frames: [first, end) of each sequence; None takes all.
        height: Resizes frames and boxes to this height in pixels, the width in proportion; None keeps their size.

    Returns:
        Sequences with boxes and instance ids.

    Raises:
        UserError: If there is no sequence, the number of images is not seqinfo.ini's seqLength, a row cannot be read,
            or it names a frame or class that does not exist.
    """
    for name in class_names:
        if name not in all_classes:
            raise UserError(f"class_names: must be among {', '.join(all_classes)}, got '{name}'")
    labels = {number: class_names.index(n) if n in class_names else None for number, n in enumerate(all_classes, 1)}
    root = Path(root) if Path(root).name not in ("", "..") else Path(root).resolve()  # a path that ends in a name
    folders = [path.parent.parent for path in sorted(root.rglob("gt/gt.txt"), key=lambda p: natural_key(p.parts[-3]))]
    if not folders:
        raise UserError(f"{root}: has no gt/gt.txt in it or below; a MOT sequence holds img1, gt and seqinfo.ini")
    part = frame_slice(frames)
    sequences = [_sequence(folder, labels, part, height) for folder in folders]
    return VideoDataset(root.name or "mot", sequences, tuple(class_names))


def _sequence(folder: Path, labels: dict[int, int | None], part: slice, height: int | None) -> BoxedSequence:
    """labels: from the file's class ids to ours, None for classes to leave out."""
    info = _info(folder / "seqinfo.ini")
    image_folder = listed_path(folder, info.get("imdir", "img1"), where=f"{folder / 'seqinfo.ini'}: imDir")
    images = images_in(image_folder) if image_folder.is_dir() else []
    if not images:
        raise UserError(f"{image_folder}: has no frames; copy the sequence again")
    length = info.get("seqlength", str(len(images))).strip()
    try:
        is_whole = whole_number(length) == len(images)  # one missing image would shift the boxes of all others
    except ValueError:
        is_whole = False
    if not is_whole:
        raise UserError(
            f"{image_folder}: has {len(images)} images, expected {length!r:.40}, the seqLength of seqinfo.ini; copy "
            "the sequence again, or correct seqLength"
        )
    size = _size(info, folder / "seqinfo.ini") if "imheight" in info else read_image(images[0]).shape[:2]
    annotations = _read(folder / "gt" / "gt.txt", len(images), labels, size)
    chosen = select_frames(images, part, path=folder)
    return BoxedSequence(ImageSequence(folder.name, chosen), annotations[part], height)


def _info(path: Path) -> dict[str, str]:
    """The values of seqinfo.ini by names in lower case; none without the file."""
    if not path.is_file():
        return {}
    info = configparser.RawConfigParser()
    try:
        info.read_string("\n".join(read_lines(path)))
        return dict(info["Sequence"])
    except (configparser.Error, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: has no readable section [Sequence] ({reason}); correct or remove the file") from error


def _size(info: dict[str, str], path: Path) -> tuple[int, int]:
    """(height, width) of the frames according to seqinfo.ini, at `path`."""
    try:
        height, width = whole_number(info["imheight"]), whole_number(info["imwidth"])
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: imHeight and imWidth must be whole numbers ({error}); correct them") from error
    if min(height, width) < 1:
        raise UserError(
            f"{path}: imHeight and imWidth must be at least 1, got {height} and {width}; correct or remove both"
        )
    return height, width


def _read(path: Path, num_frames: int, labels: dict[int, int | None], size: tuple[int, int]) -> list[Boxes]:
    """The boxes of every frame of `size` (height, width), those outside it left out."""
    rows = read_rows(path)
    in_world = any(_is_in_world(row.cells) for row in rows)
    found: list[list[Thing]] = [[] for _ in range(num_frames)]  # by frame
    for row in rows:
        frame, thing = _thing(row, labels, has_class=not (in_world and len(row.cells) == WORLD_COLUMNS))
        if not 1 <= frame <= num_frames:
            fault = f"frame must be from 1 to {num_frames}, got {frame}"
            raise UserError(f"{row.where}: {fault}; correct or remove the row")
        if thing is not None:
            found[frame - 1].append(thing)
    annotations = []
    for frame, things in enumerate(found, 1):
        xyxy, classes, instances, crowd = (list(column) for column in zip(*things, strict=True)) if things else [[]] * 4
        boxes = Boxes.of(xyxy, classes, instances=instances, crowd=crowd)
        annotations.append(boxes.checked(num_classes=len(labels), where=f"{path}, frame {frame}").clipped(size))
    return annotations


def _is_in_world(cells: list[str]) -> bool:
    """Whether a row ends in world coordinates x, y, z, as in MOT15, and not in a detection's class, -1, -1 or -1s."""
    try:
        return len(cells) == WORLD_COLUMNS and any(float(cell) != -1 for cell in cells[8:])
    except ValueError:
        return False


def _thing(row: Row, labels: dict[int, int | None], *, has_class: bool) -> tuple[int, Thing | None]:
    """The frame, from 1, and what the row says; None for a class to leave out."""
    cells = row.cells
    try:
        frame, instance = whole_number(cells[0]), whole_number(cells[1])
        left, top, width, height = (float(value) for value in cells[2:6])
        counts = len(cells) <= 6 or float(cells[6]) != 0
        class_id = whole_number(cells[7]) if has_class and len(cells) > 7 else -1
    except (IndexError, ValueError) as error:
        raise UserError(f"{row.where}: expected frame,id,left,top,width,height,… ({error}); correct the row") from error
    if class_id != -1 and class_id not in labels:
        raise UserError(
            f"{row.where}: class must be from 1 to {len(labels)}, got {class_id}; correct the row or set all_classes"
        )
    label = 0 if class_id == -1 else labels[class_id]
    if label is None:
        return frame, None
    left, top = left - 1, top - 1  # pixels count from 1
    return frame, ([left, top, left + width, top + height], label, instance, not counts)


def write_mot(dataset: VideoDataset, root: str | Path) -> None:
    """Writes each sequence's boxes as `{sequence}/gt/gt.txt` and `{sequence}/seqinfo.ini`.

    Class k becomes k + 1, so that `mot(root, class_names=names, all_classes=names)` reads them back. A box without an
    instance id gets -1; scores are lost, as the layout has none. Frames that are all images of one folder stay there,
    and seqinfo.ini names it; others are written as `img1/000001.png`.

    Args:
        dataset: Sequences with boxes; the folders get the names of `folder_name`.
        root: The folder to write into.

    Raises:
        UserError: For a sequence without boxes, or where writing fails.
    """
    names: set[str] = set()
    for sequence in dataset.sequences:
        name = folder_name(sequence.name, names)
        folder = Path(root) / name
        lines = []
        for frame, boxes in enumerate(all_boxes(sequence), 1):
            for place, xyxy in enumerate(boxes.xyxy.astype(float).tolist()):
                instance = -1 if boxes.instances is None else int(boxes.instances[place])
                counts = int(boxes.crowd is None or not boxes.crowd[place])
                lines.append(f"{frame},{instance},{box_text(*xyxy)},{counts},{int(boxes.labels[place]) + 1},1\n")
        files = list(frame_paths(sequence))
        image_folder = relative_path(files[0].parent, folder) if files else ""
        # what a line of seqinfo.ini cannot hold is copied too
        stay = image_folder.isprintable() and image_folder == image_folder.strip()
        if not files or images_in(files[0].parent) != files or not stay:
            image_folder = "img1"
            write_images(sequence, folder, [f"img1/{index + 1:06d}.png" for index in range(len(sequence))])
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


def box_text(left: float, top: float, right: float, bottom: float) -> str:
    """`left,top,width,height` as in MOTChallenge's files: pixels from 1, six decimals.

    A side that would round to 0 is written as LEAST_SIDE, as a box without width or height could not be read back.
    """
    sides = (max(side, LEAST_SIDE) for side in (right - left, bottom - top))
    return ",".join(f"{number:.6f}".rstrip("0").rstrip(".") for number in (left + 1, top + 1, *sides))
