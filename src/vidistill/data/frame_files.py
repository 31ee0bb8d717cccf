"""Where the frames of a sequence lie as image files, or come to lie."""

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image as PillowImage

from vidistill.data.boxes import BoxedSequence
from vidistill.data.clip import FrameSequence
from vidistill.data.images import ImageSequence
from vidistill.errors import UserError
from vidistill.files import atomic_path


def frame_files(sequence: FrameSequence, folder: Path, names: Sequence[str] | None) -> list[str]:
    """Paths of the frames relative to `folder`: written there under `names`, or of the files that they are.

    Errors: UserError where nothing is to be written and the frames are no files.
    """
    if names is not None:
        for name, image in zip(names, sequence.images(), strict=True):
            with atomic_path(folder / name) as temporary:
                PillowImage.fromarray(image).save(temporary)
        return list(names)
    frames = sequence.frames if isinstance(sequence, BoxedSequence) else sequence
    if not isinstance(frames, ImageSequence):
        raise UserError(f"{sequence.name}: its frames are no image files; write them with write_frames=True")
    return [Path(os.path.relpath(path, folder)).as_posix() for path in frames.image_paths]
