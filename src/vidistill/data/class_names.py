"""Class names: those of COCO, reading them from a file, and comparing those of several data sets."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from vidistill.data.clip import VideoDataset
from vidistill.data.foreign import read_json
from vidistill.errors import UserError

# in the order of their category ids
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
    """The list of names in a JSON file. Errors: UserError where the file is not such a list."""
    names = read_json(path, "a list of class names", advice="check the path")
    if not isinstance(names, list):
        raise UserError(f"{path}: must be a JSON list of class names, got {type(names).__name__}; correct the file")
    for place, name in enumerate(names):
        if not isinstance(name, str | int) or not str(name).strip() or name in names[:place]:
            expected = "must be a class name, and each name another one"
            raise UserError(f"{path}: entry {place} {expected}, got {name!r:.40}; correct the file")
    return tuple(str(name).strip() for name in names)


def require_classes(names: Sequence[str], owner: str, datasets: Iterable[VideoDataset]) -> None:
    """Errors: UserError for a labelled data set whose classes are not `names`, those of `owner`, in the same order.

    A class named by its own number counts as unnamed; a data set without named classes may have fewer.
    """
    for dataset in datasets:
        difference = _difference(dataset.class_names, names, owner) if names else None
        if difference is not None:
            raise UserError(
                f"{dataset.name} has {difference}; class ids follow the order of the names, so use data with the same "
                "classes in the same order"
            )


def _difference(own: Sequence[str], names: Sequence[str], owner: str) -> str | None:
    """The first difference between a data set's `own` names and `names`, as a phrase; None where they agree."""
    is_named = any(name != str(class_id) for class_id, name in enumerate(own))
    if len(own) > len(names) or (is_named and len(own) < len(names)):
        return f"{len(own)} classes and {owner} {len(names)}"
    for class_id, (one, other) in enumerate(zip(own, names, strict=False)):
        if one != other and str(class_id) not in (one, other):
            return f"'{one}' for class {class_id} where {owner} has '{other}'"
    return None
