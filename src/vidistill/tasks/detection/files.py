"""Boxes in the forms that other programs read, COCO-VID and MOT: of a stream, and as labels. Each has its score."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vidistill.data.clip import Image
from vidistill.data.datasets.coco_video import CocoContents
from vidistill.data.datasets.mot import box_text
from vidistill.data.image_files import images_in
from vidistill.data.sequences.boxes import Boxes
from vidistill.files import GrowingText, relative_path, require_new, require_writable
from vidistill.tasks.contract import LabelFiles, Naming, Prediction, ResultFile, StreamOutput


class CocoVideoFile(ResultFile):
    """COCO-VID of one video, which `data.coco_video` reads back with the frames of `source`.

    Frames are counted as they come. The few numbers of each box wait in memory for the file's end.
    """

    def __init__(self, path: Path, naming: Naming, source: str) -> None:
        self.path = path
        self.contents = CocoContents(naming.class_names)
        require_writable(path)
        self._frame_names = add_video(self.contents, source, path.parent)

    def write(self, output: StreamOutput) -> None:
        height, width = output.image.shape[:2]
        self.contents.add_frame(self._frame_names, (height, width), Boxes.of_rows(output.prediction))

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is None:
            self.contents.write(self.path)


def add_video(contents: CocoContents, source: str, folder: Path) -> Sequence[str]:
    """Adds the video or folder of frames `source`, by its path relative to `folder`.

    Returns the names of its frames' files, none where it is a video.
    """
    name = Path(source).name or source
    if Path(source).is_dir():
        contents.add_video(name)
        return [relative_path(path, folder) for path in images_in(Path(source))]
    contents.add_video(name, relative_path(Path(source), folder) if Path(source).exists() else source)
    return ()


class MotFile(ResultFile):
    """MOTChallenge's form of detections: frame from 1, -1 for no track, left, top, width, height, score, class from 1.

    Pixels count from 1, as its annotations' do. `data.mot` reads the lines as ground truth.
    """

    def __init__(self, path: Path, naming: Naming, source: str) -> None:
        self._file = GrowingText(path)

    def write(self, output: StreamOutput) -> None:
        for *xyxy, label, score in output.prediction.tolist():
            self._file.write(f"{output.index + 1},-1,{box_text(*xyxy)},{score:.6f},{int(label) + 1},-1,-1")

    def __enter__(self) -> "MotFile":
        self._file.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.__exit__(*exception)  # type: ignore[arg-type]


class CocoVideoLabels(LabelFiles):
    """COCO-VID of several videos where they are, which `data.coco_video` reads.

    out: a .json file, or a folder for `annotations.json`.
    """

    def __init__(self, out: Path, kept: Mapping[str, int]) -> None:
        self.path = out if out.suffix == ".json" else out / "annotations.json"
        require_new(self.path)
        require_writable(self.path)
        self._new_ids = {old: new for new, old in enumerate(kept.values())}
        self._contents = CocoContents(tuple(kept))

    def begin(self, video: str) -> None:
        self._frame_names = add_video(self._contents, video, self.path.parent)

    def add(self, image: Image, prediction: Prediction) -> None:
        boxes = Boxes.of_rows(prediction)
        boxes = boxes.chosen(np.isin(boxes.labels, list(self._new_ids)))
        labels = np.array([self._new_ids[label] for label in boxes.labels.tolist()], np.int64)
        size = image.shape[0], image.shape[1]
        self._contents.add_frame(self._frame_names, size, replace(boxes, labels=labels))

    def __enter__(self) -> "CocoVideoLabels":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is None:
            self._contents.write(self.path)
