"""ImageNet VID and DET (Russakovsky et al. 2015): 30 classes of things in video, and stills of the same classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from vidistill.data.clip import VideoDataset
from vidistill.data.image_files import images_in
from vidistill.data.sampling import FrameRange, frame_slice, select_frames
from vidistill.data.sequences.boxes import BoxedSequence, Boxes
from vidistill.data.sequences.images import ImageSequence
from vidistill.errors import UserError

# WordNet ids in alphabetical order of the names, as the development kit has them
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


@dataclass(frozen=True)
class XmlBoxes(Sequence[Boxes]):
    """The boxes of annotation files, read when they are asked for: the whole set has over a million.

    other_classes: leave out what is of none of the 30 classes, as DET's pictures show; otherwise that is an error.
    """

    paths: Sequence[Path]
    other_classes: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Boxes:  # type: ignore[override]  # slices are never asked for
        path = self.paths[index]
        try:
            root = ElementTree.parse(path).getroot()
            height, width = (int(_text(root, f"size/{name}")) for name in ("height", "width"))
            if min(height, width) < 1:
                raise ValueError(f"its size is {width}×{height}")
            found = [_object(element) for element in root.iter("object")]
        except FileNotFoundError as error:
            raise UserError(f"{path}: there is no such annotation; copy it again or take its frame out") from error
        except (OSError, ElementTree.ParseError, ValueError) as error:
            raise UserError(f"{path}: cannot be read as an annotation ({error}); copy it again") from error
        if self.other_classes:
            found = [thing for thing in found if thing[0] in IDS]
        unknown = next((name for name, _, _ in found if name not in IDS), None)
        if unknown is not None:
            raise UserError(f"{path}: the class '{unknown}' is none of ImageNet VID's 30; mend the annotation")
        boxes = Boxes.of(
            [box for _, box, _ in found], [IDS[name] for name, _, _ in found], instances=[i for _, _, i in found]
        )
        return boxes.checked(num_classes=len(IDS), where=str(path)).clipped((height, width))


def _object(element: ElementTree.Element) -> tuple[str, list[float], int]:
    """Class, box and track of one object; -1 where it has no track. Corners are taken as edges, as the field does."""
    box = [float(_text(element, f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax")]
    return _text(element, "name"), box, int(element.findtext("trackid", "-1"))


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"it lacks {path}")
    return text.strip()


def imagenet_vid(
    root: str | Path, *, split: str = "train", frames: FrameRange | None = None, height: int | None = None
) -> VideoDataset:
    """The split's snippets: folders of frames in `Data/VID/{split}`, and `Annotations/VID/{split}` of the same names.

    frames: [first, end) of each. height: resizes frames and boxes.
    Errors: no such split or no snippets in it; an empty range; no such height; when it is read, an annotation that is
    missing, broken or of an unknown class.
    """
    part = frame_slice(frames)
    folder = _folder(Path(root), "VID", split)
    snippets = sorted({image.parent for image in folder.rglob("*.JPEG")}, key=lambda p: p.relative_to(folder).parts)
    if not snippets:
        raise UserError(f"{folder}: there are no folders of .JPEG frames in it; give another split")
    sequences = [_sequence(Path(root), "VID", snippet, folder, part, height) for snippet in snippets]
    return VideoDataset("imagenet_vid", sequences, tuple(CLASSES.values()))


def imagenet_det(root: str | Path, *, split: str = "train", height: int | None = None) -> VideoDataset:
    """The split's stills that show one of VID's classes, a sequence of one frame each; other objects are left out.

    All annotations are read once for that. height: resizes frames and boxes. Errors: no such split or no stills in it;
    no such height; when it is read, an annotation that is broken.
    """
    folder = _folder(Path(root), "DET", split)
    images = sorted(folder.rglob("*.JPEG"))
    pairs = [(image, _annotation(Path(root), "DET", image)) for image in images]
    sequences = [
        BoxedSequence(
            ImageSequence(image.relative_to(folder).with_suffix("").as_posix(), [image]), XmlBoxes([path], True), height
        )
        for image, path in pairs
        if path.exists() and _shows_known_class(path)
    ]
    if not sequences:
        raise UserError(
            f"{folder}: there are no .JPEG images with annotations of VID's classes in it; give another split"
        )
    return VideoDataset("imagenet_det", sequences, tuple(CLASSES.values()))


def _shows_known_class(path: Path) -> bool:
    """Whether an annotation is of one of the 30 classes, or broken, which is told when it is read."""
    try:
        return any((name.text or "").strip() in IDS for name in ElementTree.parse(path).iterfind("object/name"))
    except (OSError, ElementTree.ParseError):
        return True


def _folder(root: Path, kind: str, split: str) -> Path:
    folder = root / "Data" / kind / split
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; ImageNet's root holds Data/{kind} and Annotations/{kind}")
    return folder


def _annotation(root: Path, kind: str, image: Path) -> Path:
    return root / "Annotations" / kind / image.relative_to(root / "Data" / kind).with_suffix(".xml")


def _sequence(root: Path, kind: str, snippet: Path, folder: Path, part: slice, height: int | None) -> BoxedSequence:
    images = select_frames(images_in(snippet), part, path=snippet)
    annotations = XmlBoxes([_annotation(root, kind, image) for image in images])
    return BoxedSequence(ImageSequence(snippet.relative_to(folder).as_posix(), images), annotations, height)
