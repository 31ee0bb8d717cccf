"""ImageNet VID and DET (Russakovsky et al. 2015): videos of 30 classes of things, and stills of the same classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from vidistill.config import Pixels
from vidistill.data.clip import VideoDataset
from vidistill.data.foreign import whole_number
from vidistill.data.image_files import images_in
from vidistill.data.sampling import FrameRange, frame_slice, select_frames
from vidistill.data.sequences.boxes import BoxedSequence, Boxes
from vidistill.data.sequences.images import ImageSequence
from vidistill.errors import UserError

# WordNet ids in alphabetical order of the names, as in the development kit
CLASSES = {
    "n02691156": "airplane", "n02419796": "antelope", "n02131653": "bear", "n02834778": "bicycle", "n01503061": "bird",
    "n02924116": "bus", "n02958343": "car", "n02402425": "cattle", "n02084071": "dog", "n02121808": "domestic cat",
    "n02503517": "elephant", "n02118333": "fox", "n02510455": "giant panda", "n02342885": "hamster",
    "n02374451": "horse", "n02129165": "lion", "n01674464": "lizard", "n02484322": "monkey", "n03790512": "motorcycle",
    "n02324045": "rabbit", "n02509815": "red panda", "n02411705": "sheep", "n01726692": "snake",
    "n02355227": "squirrel", "n02129604": "tiger", "n04468005": "train", "n01662784": "turtle",
    "n04530566": "watercraft", "n02062744": "whale", "n02391049": "zebra",
}  # fmt: skip
IDS = {wnid: label for label, wnid in enumerate(CLASSES)}


def imagenet_vid(
    root: str | Path, *, split: str = "train", frames: FrameRange | None = None, height: Pixels | None = None
) -> VideoDataset:
    """The snippets of ImageNet VID.

    Args:
        root: Folder that holds Data/VID/{split}, with folders of frames, and Annotations/VID/{split}, named alike.
        split: Name of the split's folders.
        frames: [first, end) of each snippet; None takes all.
        height: Resizes frames and boxes to this height in pixels, the width in proportion; None keeps their size.

    Returns:
        One sequence per snippet, with boxes of 30 classes and instance ids.

    Raises:
        UserError: If the split does not exist or holds no snippets, for an empty range or a height below 1; on
            reading, for an annotation that is missing, broken or of an unknown class.
    """
    part = frame_slice(frames)
    folder = _folder(Path(root), "VID", split)
    snippets = sorted({image.parent for image in folder.rglob("*.JPEG")}, key=lambda p: p.relative_to(folder).parts)
    if not snippets:
        raise UserError(f"{folder}: has no folders of .JPEG frames; choose another split")
    sequences = []
    for snippet in snippets:
        images = select_frames(images_in(snippet), part, path=snippet)
        annotations = XmlBoxes([_annotation(Path(root), "VID", image) for image in images])
        frame_files = ImageSequence(snippet.relative_to(folder).as_posix(), images)
        sequences.append(BoxedSequence(frame_files, annotations, height))
    return VideoDataset("imagenet_vid", sequences, tuple(CLASSES.values()))


def imagenet_det(root: str | Path, *, split: str = "train", height: Pixels | None = None) -> VideoDataset:
    """The stills of ImageNet DET that show one of VID's classes. All annotations are read once to find them.

    Args:
        root: Folder that holds Data/DET/{split}, with images, and Annotations/DET/{split}, named alike.
        split: Name of the split's folders.
        height: Resizes frames and boxes to this height in pixels, the width in proportion; None keeps their size.

    Returns:
        One sequence of one frame per image, with boxes of VID's 30 classes; other objects are left out.

    Raises:
        UserError: If the split does not exist or holds no such stills, or for a height below 1; on reading, for a
            broken annotation.
    """
    folder = _folder(Path(root), "DET", split)
    pairs = [(image, _annotation(Path(root), "DET", image)) for image in sorted(folder.rglob("*.JPEG"))]
    sequences = [
        BoxedSequence(
            ImageSequence(image.relative_to(folder).with_suffix("").as_posix(), [image]), XmlBoxes([path], True), height
        )
        for image, path in pairs
        if path.exists() and _shows_known_class(path)
    ]
    if not sequences:
        raise UserError(f"{folder}: has no .JPEG images with annotations of VID's classes; choose another split")
    return VideoDataset("imagenet_det", sequences, tuple(CLASSES.values()))


def _shows_known_class(path: Path) -> bool:
    """Whether an annotation names one of the 30 classes, or is broken, which is an error when it is read."""
    try:
        return any((name.text or "").strip() in IDS for name in ElementTree.parse(path).iterfind("object/name"))
    except (OSError, ElementTree.ParseError, ValueError, LookupError):
        return True


def _folder(root: Path, kind: str, split: str) -> Path:
    """The folder of a split's images; kind: "VID" or "DET"."""
    folder = root / "Data" / kind / split
    if not folder.is_dir():
        raise UserError(f"{folder}: folder not found; ImageNet's root holds Data/{kind} and Annotations/{kind}")
    return folder


def _annotation(root: Path, kind: str, image: Path) -> Path:
    return root / "Annotations" / kind / image.relative_to(root / "Data" / kind).with_suffix(".xml")


@dataclass(frozen=True)
class XmlBoxes(Sequence[Boxes]):
    """The boxes of annotation files, each read when used, as the whole set has over a million.

    other_classes: leave out objects of none of the 30 classes, which DET's images show; otherwise they are an error.
    """

    paths: Sequence[Path]
    other_classes: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Boxes:  # type: ignore[override]  # slices are never used
        path = self.paths[index]
        things: list[tuple[str, list[float], int]] = []  # (WordNet id, box, track), track -1 where an object has none
        try:
            root = ElementTree.parse(path).getroot()
            height, width = (whole_number(_text(root, f"size/{name}")) for name in ("height", "width"))
            if min(height, width) < 1:
                raise ValueError(f"its size is {width}x{height}")
            for element in root.iter("object"):
                # corners are taken as edges, as is usual
                box = [float(_text(element, f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax")]
                things.append((_text(element, "name"), box, whole_number(element.findtext("trackid") or "-1")))
        except FileNotFoundError as error:
            raise UserError(f"{path}: annotation not found; copy it again or remove its frame") from error
        except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:  # the last: of an unknown encoding
            raise UserError(f"{path}: cannot be read as an annotation ({error}); copy it again") from error
        if self.other_classes:
            things = [thing for thing in things if thing[0] in IDS]
        unknown = next((wnid for wnid, _, _ in things if wnid not in IDS), None)
        if unknown is not None:
            raise UserError(f"{path}: must name classes of ImageNet VID's 30, got '{unknown}'; correct the annotation")
        boxes = Boxes.of(
            [box for _, box, _ in things], [IDS[wnid] for wnid, _, _ in things], instances=[i for _, _, i in things]
        )
        return boxes.checked(num_classes=len(IDS), where=str(path)).clipped((height, width))


def _text(element: ElementTree.Element, path: str) -> str:
    """The text of a descendant. Errors: ValueError where there is none."""
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"it lacks {path}")
    return text.strip()
