"""COCO-VID: one JSON file of videos, images, annotations and categories, and images in or below its folder."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidistill.config import Pixels, Values
from vidistill.data.clip import FrameSequence, VideoDataset
from vidistill.data.foreign import listed_path, read_json, whole_number
from vidistill.data.sampling import FrameRange, frame_slice
from vidistill.data.sequences.boxes import BoxedSequence, Boxes, all_boxes
from vidistill.data.sequences.frame_files import folder_name, frame_paths, source_video, unique_name, write_images
from vidistill.data.sequences.images import ImageSequence
from vidistill.data.sequences.videos import OpenReaders, VideoSequence
from vidistill.data.video.reader import VIDEO_SUFFIXES
from vidistill.errors import UserError
from vidistill.files import atomic_path, json_text, relative_path

Record = Values  # an object of the JSON file
Key = int | str  # an id

PARTS = ("videos", "images", "annotations", "categories")


def coco_video(
    root: str | Path,
    *,
    annotations: str = "annotations.json",
    frames: FrameRange | None = None,
    height: Pixels | None = None,
) -> VideoDataset:
    """The videos of a COCO-VID file.

    Class ids follow the order of the categories' ids. An image without annotations shows nothing; a video without
    images is left out. A video whose own `file_name` is a video file, and whose images do not exist, is read from that
    file. Missing images are listed by `problems`.

    Numbers may be written as 10, 10.0 or "10"; ids may be other text. Records that are equal throughout count once.
    Masks, keypoints and areas are not read. The same thing in several frames has one `instance_id`, `track_id`, or
    `track_id` among its `attributes`.

    Args:
        root: The folder that `file_name`s are relative to.
        annotations: The JSON file, in `root`.
        frames: [first, end) of each video; None takes all.
        height: Resizes frames and boxes to this height in pixels, the width in proportion; None keeps their size.

    Returns:
        Sequences with boxes, instance ids and crowds, and with scores where annotations have them.

    Raises:
        UserError: If the file is not COCO-VID: an id that is missing or that different records have, frame ids that do
            not count from 0, an image of an unknown video, an annotation of an unknown image or category, a box that is
            not finite or is empty, a score outside 0…1, or scores for some annotations only.
    """
    path, part = Path(root) / annotations, frame_slice(frames)
    contents = _read(path)
    videos, images, categories = (_by_id(contents, name, path) for name in ("videos", "images", "categories"))
    ordered_ids = sorted(categories, key=lambda key: (isinstance(key, str), key))  # numbers, then text
    labels = {category: label for label, category in enumerate(ordered_ids)}
    names = [str(categories[category].get("name") or category) for category in ordered_ids]
    images_of = _grouped(list(images.values()), "video_id", videos, f"{path}, image")
    records_of = _grouped(contents["annotations"], "image_id", images, f"{path}, annotation")
    _check_annotations(contents["annotations"], labels, path)
    numbers = _instance_numbers(contents["annotations"], path)
    sequences, readers = [], OpenReaders()
    for video_id, video in videos.items():
        ordered = _in_order(images_of[video_id], video, path)[part]
        if ordered:
            where = f"{path}, video '{_name(video)}'"
            boxes = [
                _boxes(image, records_of[_key(image, "id", where)], labels, numbers, f"{path}, image {image['id']}")
                for image in ordered
            ]
            sequences.append(BoxedSequence(_frames(video, ordered, Path(root), readers, where), boxes, height))
    if not sequences:
        raise UserError(f"{path}: has no frames to take; check its videos, its images, and the range in frames")
    return VideoDataset(Path(root).name or "coco_video", sequences, tuple(names))


def _read(path: Path) -> dict[str, list[Record]]:
    """The four lists of records."""
    contents = read_json(path, "JSON", advice="give the path with annotations=")
    for name in PARTS:
        if not isinstance(contents, dict) or not isinstance(contents.get(name), list):
            raise UserError(f"{path}: has no list '{name}'; COCO-VID needs videos, images, annotations and categories")
        for place, record in enumerate(contents[name]):
            if not isinstance(record, dict):
                raise UserError(
                    f"{path}, {name}: entry {place} must be an object with an id, got {record!r:.40}; correct it"
                )
    return contents


def _whole(record: Record, key: str, where: str) -> int:
    """The whole number at `key`."""
    value = record.get(key)
    try:
        return whole_number(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {key} must be a whole number, got {value!r:.60}; correct it") from error


def _key(record: Record, key: str, where: str) -> Key:
    """The id at `key`: a number, however it is written, or other text."""
    value = record.get(key)
    try:
        return whole_number(value)
    except (TypeError, ValueError) as error:
        if isinstance(value, str) and value.strip():
            return value.strip()
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)  # beyond 64 bits
        raise UserError(f"{where}: {key} must be a whole number or text, got {value!r:.60}; correct it") from error


def _by_id(contents: dict[str, list[Record]], name: str, path: Path) -> dict[Key, Record]:
    records: dict[Key, Record] = {}
    for record in contents[name]:
        key = _key(record, "id", f"{path}, {name}")
        if records.setdefault(key, record) != record:
            raise UserError(f"{path}, {name}: the id {key} comes twice; give each record its own")
    return records


def _grouped(
    records: Sequence[Record], key: str, owners: dict[Key, Record], where: str
) -> defaultdict[Key, list[Record]]:
    """The records by their owner: the video or image whose id is at `key`."""
    groups: defaultdict[Key, list[Record]] = defaultdict(list)
    for record in records:
        which = f"{where} {record.get('id', '?')}"
        owner = _key(record, key, which)
        if owner not in owners:
            raise UserError(f"{which}: there is no {key.removesuffix('_id')} {owner} in the file; remove the record")
        groups[owner].append(record)
    return groups


def _check_annotations(records: Sequence[Record], labels: dict[Key, int], path: Path) -> None:
    """Errors: UserError for an annotation of an unknown category, or without a score where others have one."""
    is_scored = any(record.get("score") is not None for record in records)
    for record in records:
        where = f"{path}, annotation {record.get('id', '?')}"
        category = _key(record, "category_id", where)
        if category not in labels:
            raise UserError(f"{where}: category_id must be among {list(labels)}, got {category}; correct it")
        if is_scored and record.get("score") is None:
            raise UserError(f"{where}: has no score, although others have; add one, 1 for a box drawn by a person")


def _instance_numbers(records: Sequence[Record], path: Path) -> dict[Key | None, int]:
    """The number of each instance: its id, or where some ids are no numbers of 64 bits, its place in the file."""
    keys: dict[Key | None, int] = {}
    for record in records:
        key = _instance(record, f"{path}, annotation {record.get('id', '?')}")
        keys.setdefault(key, len(keys))
    if not any(isinstance(key, str) for key in keys):
        keys = {key: key for key in keys if isinstance(key, int)}
    return keys | {None: -1}


def _instance(record: Record, where: str) -> Key | None:
    """What identifies the thing from frame to frame; None where nothing does."""
    attributes = record.get("attributes")
    values: Record = {
        "instance_id": record.get("instance_id"),
        "track_id": record.get("track_id"),
        "attributes.track_id": attributes.get("track_id") if isinstance(attributes, dict) else None,
    }
    name = next((name for name, value in values.items() if value is not None), None)
    return None if name is None else _key(values, name, where)


def _is_crowd(value: object) -> bool:
    """Whether `iscrowd` says so: a truth value, a number, or text of either. Errors: ValueError, TypeError."""
    if isinstance(value, str):
        value = {"true": True, "false": False, "": False}.get(value.strip().lower(), value)
    return bool(value) if value is None or isinstance(value, bool) else whole_number(value) != 0


def _name(video: Record) -> str:
    """The video's name, or what else identifies it."""
    return str(video.get("name") or video.get("file_name") or video.get("id"))


def _frames(video: Record, images: list[Record], root: Path, readers: OpenReaders, where: str) -> FrameSequence:
    """The frames of consecutive images: image files, or part of the video file that the video names."""
    paths = [listed_path(root, image["file_name"], where=where) for image in images]
    named = video.get("file_name")
    file = listed_path(root, named, where=where) if named else root
    if paths[0].exists() or file.suffix.lower() not in VIDEO_SUFFIXES:
        return ImageSequence(_name(video), paths)
    first, end = _whole(images[0], "frame_id", where), _whole(images[-1], "frame_id", where) + 1
    if not file.is_file():
        raise UserError(f"{file}: video not found, nor {paths[0]}; copy it there again")
    if readers[file].num_frames < end:
        raise UserError(
            f"{file}: has {readers[file].num_frames} frames, expected {end} by its frame_ids; copy it again"
        )
    return VideoSequence(_name(video), file, (first, end), readers)


def _in_order(images: list[Record], video: Record, path: Path) -> list[Record]:
    """A video's images in the order of `frame_id`, which must count from 0 without gaps."""
    where = f"{path}, video '{_name(video)}'"
    images = sorted(images, key=lambda image: _whole(image, "frame_id", where))
    frame_ids = [_whole(image, "frame_id", where) for image in images]
    if frame_ids and (frame_ids[0] == 1 or frame_ids[0] < 0):
        advice = "subtract 1 from each" if frame_ids[0] == 1 else "number the frames 0, 1, 2, …"
        raise UserError(f"{where}: frame_ids must count from 0, the first is {frame_ids[0]}; {advice}")
    for place, frame_id in enumerate(frame_ids):
        if frame_id != place:
            fault = f"has frame_id {frame_id} twice" if frame_id < place else f"has no frame_id {place}"
            raise UserError(f"{where}: {fault}; number the frames 0, 1, 2, …")
    for image in images:
        if not image.get("file_name"):
            raise UserError(f"{where}: frame {image['frame_id']} has no file_name; add it")
    return images


def _boxes(
    image: Record, records: Sequence[Record], labels: dict[Key, int], numbers: dict[Key | None, int], where: str
) -> Boxes:
    """The boxes of an image. labels: from category ids to class ids. numbers: of the instances."""
    where = f"{where} ({image['file_name']})"
    height, width = _whole(image, "height", where), _whole(image, "width", where)
    if min(height, width) < 1:
        raise UserError(f"{where}: height and width must be at least 1, got {height} and {width}; correct them")
    is_scored = bool(records) and records[0].get("score") is not None
    try:
        xywh = np.array([record["bbox"] for record in records], dtype=np.float64).reshape(len(records), 4)
        scores = [float(record["score"]) for record in records] if is_scored else None
        crowd = [_is_crowd(record.get("iscrowd")) for record in records]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        fault = "an annotation is incomplete, or its bbox is not four numbers"
        raise UserError(f"{where}: {fault} ({error}); correct it") from error
    boxes = Boxes.of(
        np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
        [labels[_key(record, "category_id", where)] for record in records],
        instances=[numbers[_instance(record, where)] for record in records],
        scores=scores,
        crowd=crowd,
    )
    return boxes.checked(num_classes=len(labels), where=where).clipped((height, width))


class CocoContents:
    """The records of a COCO-VID file. Category k + 1 is class k; ids count from 1, the frames of a video from 0."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.videos: list[Record] = []
        self.images: list[Record] = []
        self.annotations: list[Record] = []
        self.categories = [{"id": label, "name": name} for label, name in enumerate(class_names, 1)]
        self._num_frames = 0
        self._folders = {"annotations.json"}

    def add_video(self, name: str, file_name: str | None = None) -> str:
        """Starts a video, which gets the frames added from now on, its name a new one if it is taken.

        file_name: the video file, where its frames are not image files.

        Returns:
            The folder, beside the file, for its frames.
        """
        name = unique_name(name, {video["name"] for video in self.videos})
        place = {} if file_name is None else {"file_name": file_name}
        self.videos.append({"id": len(self.videos) + 1, "name": name} | place)
        self._num_frames, self.folder = 0, folder_name(name, self._folders)
        return self.folder

    def add_frame(self, files: Sequence[str], size: tuple[int, int], boxes: Boxes) -> None:
        """Adds the next frame of the video, of `size` (height, width).

        files: the image files of all frames of the video; empty where the frames are not image files.
        """
        frame_id = self._num_frames
        self._num_frames += 1
        image_id = len(self.images) + 1
        file_name = files[frame_id] if files else f"{self.folder}/{frame_id:06d}.png"
        self.images.append(
            {
                "id": image_id, "video_id": len(self.videos), "frame_id": frame_id, "file_name": file_name,
                "height": size[0], "width": size[1],
            }
        )  # fmt: skip
        for place, (left, top, right, bottom) in enumerate(boxes.xyxy.astype(np.float64).tolist()):
            record: Record = {
                "id": len(self.annotations) + 1, "image_id": image_id, "category_id": int(boxes.labels[place]) + 1,
                "bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top),
                "iscrowd": int(boxes.crowd[place]) if boxes.crowd is not None else 0,
            }  # fmt: skip
            if boxes.instances is not None:
                record["instance_id"] = int(boxes.instances[place])
            if boxes.scores is not None:
                record["score"] = float(boxes.scores[place])
            self.annotations.append(record)

    def write(self, path: Path) -> None:
        """Writes the JSON file atomically."""
        contents = {name: getattr(self, name) for name in PARTS}
        with atomic_path(path) as temporary:
            temporary.write_text(json_text(contents), encoding="utf-8")


def write_coco_video(dataset: VideoDataset, path: str | Path) -> None:
    """Writes a data set's boxes as a COCO-VID file; category k + 1 is class k, and every frame is listed.

    Frames that are image files, or the first frames of a video file, stay where they are, by paths relative to the
    JSON file; others are written beside it as `{sequence}/000000.png`.

    Args:
        dataset: Sequences with boxes; those of the same name get names numbered by `unique_name`.
        path: A .json file, or a folder for `annotations.json`.

    Raises:
        UserError: For a sequence without boxes, or where writing fails.
    """
    path = Path(path) if Path(path).suffix == ".json" else Path(path) / "annotations.json"
    contents = CocoContents(dataset.class_names)
    for sequence in dataset.sequences:
        annotations = all_boxes(sequence)  # before anything is written, as it fails without boxes
        files = _add_video(contents, sequence, path.parent)
        height, width = sequence.image(0).shape[:2]
        for boxes in annotations:
            contents.add_frame(files, (height, width), boxes)
    contents.write(path)


def _add_video(contents: CocoContents, sequence: FrameSequence, folder: Path) -> Sequence[str]:
    """Adds the sequence's video. Returns the files of its frames, none where they are in a video file."""
    video, images = source_video(sequence), frame_paths(sequence)
    own_folder = contents.add_video(sequence.name, None if video is None else relative_path(video, folder))
    if video is not None:
        return ()
    if images:
        return [relative_path(image, folder) for image in images]
    names = [f"{own_folder}/{index:06d}.png" for index in range(len(sequence))]
    write_images(sequence, folder, names)
    return names
