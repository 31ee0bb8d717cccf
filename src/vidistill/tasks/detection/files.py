"""A stream's boxes in the forms that other programs read: COCO-VID and MOT. Every box has its score."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from vidistill.data.datasets.coco_video import CocoContents
from vidistill.data.datasets.mot import box_text
from vidistill.data.image_files import images_in
from vidistill.data.sequences.boxes import Boxes
from vidistill.files import atomic_path, relative_path
from vidistill.stream.sinks import Sink
from vidistill.stream.stream import StreamOutput


class CocoVideoFile(Sink):
    """COCO-VID, of one video, which `data.coco_video` reads back with the frames of `source`.

    Frames are counted as they come. The few numbers of each box wait in memory for the file's end.
    """

    def __init__(self, path: Path, class_names: Sequence[str], source: str) -> None:
        super().__init__()
        self.path = path
        self.contents = CocoContents(class_names)
        self._frame_names = add_video(self.contents, source, path.parent)

    def write(self, output: StreamOutput) -> None:
        height, width = output.image.shape[:2]
        self.contents.add_frame(self._frame_names, (height, width), Boxes.of_rows(output.prediction))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.contents.write(self.path)


def add_video(contents: CocoContents, source: str, folder: Path) -> Sequence[str]:
    """Adds the video or folder of frames `source`, told relative to `folder`; returns the names of its frames' files,
    none where it is a video.
    """
    name = Path(source).name or source
    if Path(source).is_dir():
        contents.add_video(name)
        return [relative_path(path, folder) for path in images_in(Path(source))]
    contents.add_video(name, relative_path(Path(source), folder) if Path(source).exists() else source)
    return ()


class MotFile(Sink):
    """MOTChallenge's form of detections: frame from 1, -1 for no track, left, top, width, height, score, class from 1.

    Pixels count from 1, as its annotations' do. `data.mot` reads the lines as ground truth.
    """

    def __init__(self, path: Path, class_names: Sequence[str], source: str) -> None:
        super().__init__()
        self.path = path
        self._file: IO[str]

    def write(self, output: StreamOutput) -> None:
        for *xyxy, label, score in output.prediction.tolist():
            self._file.write(f"{output.index + 1},-1,{box_text(*xyxy)},{score:.6f},{int(label) + 1},-1,-1\n")

    def __enter__(self) -> "MotFile":
        temporary = self._stack.enter_context(atomic_path(self.path))
        self._file = self._stack.enter_context(open(temporary, "w", encoding="utf-8"))
        return self
