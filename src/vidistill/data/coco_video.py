"""COCO-VID: one JSON file of videos, images, annotations and categories, and images anywhere below a folder."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidistill.data.boxes import Boxes, boxed, boxes_of, check_range
from vidistill.data.clip import FrameSequence, VideoDataset
from vidistill.data.coco_contents import CocoContents, Record
from vidistill.data.frame_files import frame_files
from vidistill.data.images import ImageSequence
from vidistill.data.video import VIDEO_SUFFIXES
from vidistill.data.videos import OpenReaders, VideoSequence
from vidistill.errors import UserError


def coco_video(
    root: str | Path,
    *,
    annotations: str = "annotations.json",
    frames: tuple[int, int] | None = None,
    height: int | None = None,
) -> VideoDataset:
    """The videos of a COCO-VID file, with boxes, instance ids, crowds, and scores where annotations have one.

    annotations: in `root`, the folder that `file_name`s are relative to. A video whose own `file_name` is a video file,
    and whose images are not there, is read from that file. Class ids follow the order of the categories'
    ids. frames: [first, end) of each video, by place. height: resizes frames and boxes. An image without annotations
    shows nothing; a video without images is left out.
    Errors: UserError for a file that is no COCO-VID, frame ids from 1 or twice, an annotation of an unknown image or
    category, a box that is not finite or empty. Missing images are listed by `problems`.
    """
    path, part = Path(root) / annotations, check_range(frames)
    contents = _read(path)
    names = {_whole(c, "id", f"{path}, categories"): str(c.get("name", c["id"])) for c in contents["categories"]}
    labels = {category: label for label, category in enumerate(sorted(names))}
    images = {_whole(image, "id", f"{path}, images"): image for image in contents["images"]}
    found: dict[int, list[Record]] = defaultdict(list)
    for record in contents["annotations"]:
        where = f"{path}, annotation {record.get('id', '?')}"
        if _whole(record, "category_id", where) not in labels:
            raise UserError(
                f"{where}: its category {record['category_id']} is not among the categories {sorted(names)}"
            )
        if _whole(record, "image_id", where) not in images:
            raise UserError(f"{where}: there is no image {record['image_id']} in the file; take the annotation out")
        found[record["image_id"]].append(record)
    sequences, readers = [], OpenReaders()
    for video in contents["videos"]:
        ordered = _in_order([i for i in images.values() if i.get("video_id") == video.get("id")], video, path)[part]
        if ordered:
            boxes = [_boxes(image, found[image["id"]], labels, path) for image in ordered]
            sequence = _frames(video, ordered, Path(root), readers)
            sequences.append(boxed(sequence, boxes, size=_size(ordered[0], path), height=height))
    if not sequences:
        raise UserError(f"{path}: there are no frames to take from it; check its videos, its images and frames")
    return VideoDataset(Path(root).name or "coco_video", sequences, tuple(names[c] for c in sorted(names)))


def _read(path: Path) -> dict[str, list[Record]]:
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); give the path with annotations=") from error
    for name in ("videos", "images", "annotations", "categories"):
        if not isinstance(contents, dict) or not isinstance(contents.get(name), list):
            raise UserError(f"{path}: has no list '{name}'; COCO-VID has videos, images, annotations and categories")
    return contents


def _whole(record: Record, key: str, where: str) -> int:
    value = record.get(key)
    if not isinstance(value, int):
        raise UserError(f"{where}: its {key} is {value!r}, not a whole number; mend it")
    return value


def _name(video: Record) -> str:
    return str(video.get("name") or video.get("file_name") or video.get("id"))


def _frames(video: Record, images: list[Record], root: Path, readers: OpenReaders) -> FrameSequence:
    """The frames of consecutive images: image files, or of the video file that the video names."""
    paths = [root / image["file_name"] for image in images]
    file = root / str(video.get("file_name", ""))
    if paths[0].exists() or file.suffix.lower() not in VIDEO_SUFFIXES:
        return ImageSequence(_name(video), paths)
    first, end = images[0]["frame_id"], images[-1]["frame_id"] + 1
    if not file.exists():
        raise UserError(f"{file}: there is no such video, nor {paths[0]}; copy it there again")
    if readers[file].num_frames < end:
        raise UserError(f"{file}: has {readers[file].num_frames} frames, and frame_ids go to {end - 1}; copy it again")
    return VideoSequence(_name(video), file, (first, end), readers)


def _in_order(images: list[Record], video: Record, path: Path) -> list[Record]:
    """A video's images by `frame_id`, which must count from 0, without gaps."""
    where = f"{path}, video '{_name(video)}'"
    images = sorted(images, key=lambda image: _whole(image, "frame_id", where))
    frame_ids = [image["frame_id"] for image in images]
    if frame_ids and frame_ids[0] == 1:
        raise UserError(f"{where}: its frame_ids begin with 1; COCO-VID counts from 0, so subtract 1 from each")
    for place, frame_id in enumerate(frame_ids):
        if frame_id != place:
            fault = f"has frame_id {frame_id} twice" if frame_id < place else f"has no frame_id {place}"
            raise UserError(f"{where}: {fault}; number its frames 0, 1, 2, …")
    for image in images:
        if not isinstance(image.get("file_name"), str):
            raise UserError(f"{where}: its frame {image['frame_id']} has no file_name; add it")
    return images


def _size(image: Record, path: Path) -> tuple[int, int]:
    where = f"{path}, image {image['id']}"
    return _whole(image, "height", where), _whole(image, "width", where)


def _boxes(image: Record, records: Sequence[Record], labels: dict[int, int], path: Path) -> Boxes:
    where = f"{path}, image {image['id']} ({image['file_name']})"
    try:
        xywh = np.array([record["bbox"] for record in records], dtype=np.float64).reshape(len(records), 4)
        instances = [int(record.get("instance_id", -1)) for record in records]
        scores = [float(record["score"]) for record in records] if records and "score" in records[0] else None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: an annotation has no bbox of four numbers, or is incomplete ({error})") from error
    boxes = Boxes.of(
        np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
        [labels[record["category_id"]] for record in records],
        instances=instances,
        scores=scores,
        crowd=[bool(record.get("iscrowd", 0)) for record in records],
    )
    return boxes.checked(num_classes=len(labels), where=where).clipped(_size(image, path))


def write_coco_video(dataset: VideoDataset, path: str | Path, *, write_frames: bool = False) -> None:
    """Writes the data set's boxes as a COCO-VID file; category k + 1 is class k, and every frame is listed.

    Paths of images are relative to the file's folder. write_frames: writes them there as PNG, `{sequence}/000000.png`,
    which frames that are no files need. Errors: UserError for a sequence without boxes or files.
    """
    path = Path(path)
    contents = CocoContents(dataset.class_names)
    for sequence in dataset.sequences:
        contents.add_video(sequence.name)
        names = [f"{sequence.name}/{index:06d}.png" for index in range(len(sequence))]
        files = frame_files(sequence, path.parent, names if write_frames else None)
        for index, image in enumerate(sequence.images()):
            boxes = boxes_of(sequence, index)
            if boxes is None:
                raise UserError(f"{sequence.name}: has no boxes to write; give a data set with boxes")
            contents.add_frame(files, (image.shape[0], image.shape[1]), boxes)
    contents.write(path)
