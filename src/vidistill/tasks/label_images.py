"""Labels of dense tasks as images: what segmentation and depth write alike."""

from abc import abstractmethod
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from vidistill.data.clip import Image
from vidistill.data.foreign import safe_name
from vidistill.files import new_folder, require_new, writing
from vidistill.tasks.contract import LabelFiles, Prediction


class LabelImageFolder(LabelFiles):
    """A new folder with `VIDEO/frames` and `VIDEO/labels`, PNG of the same names; a task says which pixels a label is.

    It has its final name only once all of it is written.
    """

    def __init__(self, out: Path) -> None:
        require_new(out)
        self.path = out
        self._num_videos = self._index = 0

    @abstractmethod
    def pixels(self, prediction: Prediction) -> NDArray[np.generic]:
        """(H, W) uint8 or uint16, as a PNG of one channel holds them."""

    def prepare(self, folder: Path) -> None:
        """Writes what the folder holds beside its videos."""

    def begin(self, video: str) -> None:
        self._video = self._folder / f"{self._num_videos:04d}_{safe_name(Path(video).stem)}"
        with writing(self.path):
            for part in ("frames", "labels"):
                (self._video / part).mkdir(parents=True)
        self._num_videos, self._index = self._num_videos + 1, 0

    def add(self, image: Image, prediction: Prediction) -> None:
        with writing(self.path):
            for part, pixels in (("frames", image), ("labels", self.pixels(prediction))):
                PillowImage.fromarray(pixels).save(self._video / part / f"{self._index:06d}.png")
        self._index += 1

    def __enter__(self) -> Self:
        with ExitStack() as stack, writing(self.path):
            self._folder = stack.enter_context(new_folder(self.path))
            self.prepare(self._folder)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)
