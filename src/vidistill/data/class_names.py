"""The names of classes: read from a file, and whether data sets mean the same by their ids."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from vidistill.data.clip import VideoDataset
from vidistill.errors import UserError

COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator",
    "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip


def read_class_names(path: Path) -> tuple[str, ...]:
    """The list of names in a JSON file. Errors: UserError where it is none."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a list of class names ({error})") from error
    if not isinstance(names, list):
        raise UserError(f"{path}: is no list of class names; write one, or give class_names where a recipe can")
    return tuple(map(str, names))


def require_classes(names: Sequence[str], owner: str, datasets: Iterable[VideoDataset]) -> None:
    """Errors: UserError for a labelled data set whose classes are not `names`, those of `owner`, in their order.

    A class that is called by its number has no name; a data set without names may show fewer classes.
    """
    for dataset in datasets:
        fault = _difference(dataset.class_names, names, owner) if names else None
        if fault is not None:
            raise UserError(
                f"{dataset.name} has {fault}; class ids follow their order, so give data of the same classes in the "
                "same order"
            )


def _difference(found: Sequence[str], names: Sequence[str], owner: str) -> str | None:
    is_named = any(_is_name(name, place) for place, name in enumerate(found))
    if len(found) > len(names) or (is_named and len(found) < len(names)):
        return f"{len(found)} classes and {owner} {len(names)}"
    for place, (one, other) in enumerate(zip(found, names, strict=False)):
        if one != other and _is_name(one, place) and _is_name(other, place):
            return f"'{one}' for class {place} where {owner} has '{other}'"
    return None


def _is_name(name: str, place: int) -> bool:
    return name != str(place)
