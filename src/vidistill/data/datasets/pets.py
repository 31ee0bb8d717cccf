"""PETS 2009, S2.L1, view 1 (Ferryman & Shahrokni 2009): people who cross a campus, seen from above by one camera."""

from pathlib import Path

from vidistill.config import Pixels
from vidistill.data.clip import VideoDataset
from vidistill.data.foreign import Row, read_rows, whole_number
from vidistill.data.sampling import FrameRange, frame_slice
from vidistill.data.sequences.boxes import BoxedSequence, Boxes
from vidistill.data.sequences.videos import OpenReaders, VideoSequence
from vidistill.errors import UserError

CLASS_NAMES = ("person",)
PALETTE = ((236, 95, 103),)
VIDEO, TABLE = "vtest.avi", "gt.csv"
COLUMNS = ("frame", "id", "x", "y", "w", "h")


def pets(root: str | Path, *, frames: FrameRange | None = None, height: Pixels | None = None) -> VideoDataset:
    """The one sequence of PETS 2009 S2.L1, view 1, with boxes and instance ids.

    Args:
        root: Folder that holds `vtest.avi` and `gt.csv` (columns: frame from 0, id, x, y, w, h).
        frames: [first, end) of the video; None takes all.
        height: Resizes frames and boxes to this height in pixels, the width in proportion; None keeps their size.

    Returns:
        One sequence with boxes of one class, person.

    Raises:
        UserError: If a file is missing, a row cannot be read or names a frame that the video does not have, or for an
            empty range.
    """
    video, table = Path(root) / VIDEO, Path(root) / TABLE
    for path in (video, table):
        if not path.is_file():
            raise UserError(f"{path}: file not found; PETS's root holds {VIDEO} and {TABLE}")
    part = frame_slice(frames)
    readers = OpenReaders()
    reader = readers[video]
    annotations = _read(table, reader.num_frames, (reader.height, reader.width))[part]
    sequence = VideoSequence("pets09_s2l1", video, frames, readers)
    return VideoDataset("pets", [BoxedSequence(sequence, annotations, height)], CLASS_NAMES, PALETTE)


def _read(path: Path, num_frames: int, size: tuple[int, int]) -> list[Boxes]:
    """The boxes of every frame of `size` (height, width)."""
    rows: list[list[tuple[int, list[float]]]] = [[] for _ in range(num_frames)]  # (instance, box) by frame
    header, *table = read_rows(path) or [Row(str(path), "", [])]
    for where, _, cells in table:
        row = dict(zip(header.cells, cells, strict=False))
        try:
            frame, instance = whole_number(row["frame"]), whole_number(row["id"])
            x, y, w, h = (float(row[name]) for name in COLUMNS[2:])
        except (KeyError, ValueError) as error:
            raise UserError(f"{where}: expected {','.join(COLUMNS)} ({error}); correct the row") from error
        if not 0 <= frame < num_frames:
            raise UserError(
                f"{where}: frame must be from 0 to {num_frames - 1}, as in the video, got {frame}; correct or "
                "remove the row"
            )
        rows[frame].append((instance, [x, y, x + w, y + h]))
    annotations = []
    for frame, things in enumerate(rows):
        boxes = Boxes.of([box for _, box in things], [0] * len(things), instances=[i for i, _ in things])
        annotations.append(boxes.checked(num_classes=1, where=f"{path}, frame {frame}").clipped(size))
    return annotations
