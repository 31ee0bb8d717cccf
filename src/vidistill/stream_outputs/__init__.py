"""Where a stream's results go. The one place that tells tasks apart for that."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from vidistill.data.video.reader import VIDEO_SUFFIXES
from vidistill.data.video.writer import SQUARE
from vidistill.errors import UserError
from vidistill.stream.sinks import DrawnVideo, ImageFolder, JsonLines, Sink
from vidistill.stream_outputs.looks import DetectionLook, Look, RecognitionLook, SegmentationLook, SuperResolutionLook
from vidistill.students.card import Card
from vidistill.tasks.detection.files import CocoVideoFile, MotFile

LOOKS: dict[str, Callable[[Card], Look]] = {
    "segmentation": SegmentationLook,
    "recognition": RecognitionLook,
    "super_resolution": SuperResolutionLook,
    "detection": DetectionLook,
}
BOX_FILES: dict[str, type[CocoVideoFile | MotFile]] = {".json": CocoVideoFile, ".txt": MotFile}


def open_sink(
    out: str,
    *,
    fps: float | Fraction,
    card: Card,
    source: str | None = None,
    first: int = 0,
    pixel_aspect: Fraction = SQUARE,
) -> Sink:
    """By the name of `out`: a video file, a .jsonl file, "-" for JSON lines on standard output, else a new folder.

    source: the video that comes in, whose sound a restored video keeps; first: index of its first frame, after those
    of an earlier video. pixel_aspect: of the source, which a video keeps.
    Detections also go to a .json file in COCO-VID's form, and to a .txt file in MOT's.
    Errors: UserError where `out` has another file suffix, is a folder that is there already, or the student's task has
    no images.
    """
    path, look = Path(out), LOOKS[card.task["name"]](card)
    if out == "-" or path.suffix == ".jsonl":
        return JsonLines(None if out == "-" else path, look)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        heard = source if look.restores else None
        return DrawnVideo(path, fps, look, source=heard, first=first, pixel_aspect=pixel_aspect)
    if look.boxes and path.suffix in BOX_FILES:
        return BOX_FILES[path.suffix](path, card.class_names, source or "stream")
    choices = f"a video ({' '.join(VIDEO_SUFFIXES)}) or a .jsonl file"
    if look.boxes:
        choices += f" or a {' or '.join(BOX_FILES)} file"
    if not look.images:
        raise UserError(f"{out}: write {choices}")
    if path.suffix:
        raise UserError(f"{out}: write {choices}, or a folder of {look.images}")
    return ImageFolder(path)
