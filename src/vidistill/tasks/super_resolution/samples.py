"""Training clips of super-resolution: windows of low-resolution patches and the high-resolution frames they show."""

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vidistill.config import Pixels, Settings, Values, whole
from vidistill.data.clip import Batch, FrameSequence, Image, SampleKey, VideoDataset
from vidistill.data.degradation import Degradation
from vidistill.data.dense_clips import ClipLength, FrameCache
from vidistill.data.sequences.high_resolution import (
    MOST_LOOKED_AT,
    HighResolutionSequence,
    as_high_resolution,
    check_length,
    of_one_size,
)
from vidistill.errors import UserError
from vidistill.ops.clip_view import WindowView

Sample = tuple[SampleKey, NDArray[np.uint8], NDArray[np.uint8]]


class SuperResolutionClipSettings(Settings):
    """How training clips are drawn.

    num_frames: consecutive frames that are restored. window: frames around each, the most that a network looks at, odd.
    patch: side in low-resolution pixels. Every patch is turned at random, and half of them run backwards in time.
    """

    num_frames: ClipLength = 1
    window: Annotated[int, *whole(1, 99)] = 5
    patch: Pixels = 64

    @pydantic.field_validator("window")
    @classmethod
    def _has_a_centre(cls, window: int) -> int:
        if window % 2 == 0:
            raise ValueError("give an odd number of frames, for a window has a centre")
        return window


class SuperResolutionClips(Dataset[Sample]):
    """One sample a frame, with which the restored frames begin; a video's first and last frame stand for those beyond.

    Indexed by a `SampleKey`, on which every draw depends and on nothing else. use_labels: False to leave the
    high-resolution frames out.
    Errors: UserError for a sequence of fewer frames than a window or a clip has, or of more or fewer than its stored
    low-resolution counterpart, or whose first frame holds no patch or is not `scale` times its counterpart's size; of a
    large data set only the first are looked into.
    """

    def __init__(
        self,
        datasets: Sequence[VideoDataset],
        settings: SuperResolutionClipSettings,
        *,
        degradation: Degradation,
        use_labels: bool = True,
    ) -> None:
        self.settings = settings
        self.degradation = degradation
        self.use_labels = use_labels
        self.cache = FrameCache()
        self.anchors: list[tuple[HighResolutionSequence, int]] = []
        for dataset in datasets:
            for number, sequence in enumerate(dataset.sequences):
                check_length(sequence, max(settings.window, settings.num_frames))
                truth = as_high_resolution(sequence, degradation.scale)
                truth.check_numbers()
                if number < MOST_LOOKED_AT:
                    # `pair` also refuses a first frame that does not fit the stored low resolution
                    height, width = (length // truth.scale for length in truth.pair(0)[1].shape[:2])
                    check_patch(settings.patch, height, width, where=f"{truth.name}: ")
                self.anchors += [(truth, start) for start in range(len(sequence) - settings.num_frames + 1)]
        if not self.anchors:
            raise UserError("the training data has no videos; check data.train with `vidistill check`")

    def __len__(self) -> int:
        return len(self.anchors)

    def __getitem__(self, key: SampleKey) -> Sample:
        rng, (sequence, start) = key.generator(), self.anchors[key.sample]
        margin, length = self.settings.window // 2, self.settings.num_frames
        indices = np.arange(start - margin, start + length + margin).clip(0, len(sequence) - 1).tolist()
        high = self._images(sequence, indices)
        options: Values = {"size": self.settings.patch, "scale": self.degradation.scale, "rng": rng}
        if sequence.low is None:
            low, truth = draw_degraded_patch(high, self.degradation, **options)
        else:
            stored = np.stack(self._images(sequence.low, indices))
            sequence.check_sizes(stored[0], high[0])
            low, truth = draw_patch(stored, np.stack(high), **options)
        return key, low, truth[margin : margin + length]

    def _images(self, sequence: FrameSequence, indices: Sequence[int]) -> list[Image]:
        return list(of_one_size(sequence.name, ((index, self.cache.image(sequence, index)) for index in indices)))

    def view_of(self, changes: Values) -> WindowView:
        """The window of a network that says how long its is.

        Errors: UserError where it says nothing, or no odd number, or more than are drawn.
        """
        if set(changes) != {"window"}:
            raise UserError(
                "a network for super-resolution says how many frames it looks at by an attribute `window`, and has no "
                "view of its own"
            )
        try:
            view = WindowView(int(changes["window"]))
        except ValueError as error:
            raise UserError(f"a network's attribute {error}") from error
        if view.window > self.settings.window:
            raise UserError(
                f"a network looks at {view.window} frames and data.clip.window is {self.settings.window}; raise it"
            )
        return view

    def example(self) -> Tensor:
        """(1, window, 3, h, w) zeros."""
        return torch.zeros(1, self.settings.window, 3, self.settings.patch, self.settings.patch)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """One batch: windows (B, T, window, 3, h, w) and truth (B, T, 3, scale·h, scale·w), (B, T, 3, 0, 0) without."""
        keys, lows, truths = zip(*samples, strict=True)
        low, truth = (torch.from_numpy(np.stack(frames)).permute(0, 1, 4, 2, 3) for frames in (lows, truths))
        window = self.settings.window
        windows = torch.stack([low[:, t : t + window] for t in range(truth.shape[1])], dim=1)
        return Batch(windows, windows, truth.contiguous() if self.use_labels else truth[..., :0, :0], list(keys))


Frames = NDArray[np.uint8]  # (T, H, W, 3)
Turn = NDArray[np.bool_]  # whether upside down, left to right, transposed, backwards in time

MARGIN = 4  # low-resolution pixels: farther than any of our degradations' kernels reaches


def draw_patch(low: Frames, high: Frames, *, size: int, scale: int, rng: np.random.Generator) -> tuple[Frames, Frames]:
    """The same random place of both clips, turned alike: (T, size, size, 3) and (T', scale·size, scale·size, 3).

    low: (T, h, w, 3); high: (T', scale·h, scale·w, 3), T' being T, or 1 for the centre frame alone. One of the eight
    symmetries of the square, and half of the draws run backwards in time.
    Errors: UserError where the sizes do not match, or the frames are smaller than the patch.
    """
    height, width = low.shape[1:3]
    if high.shape[1:3] != (scale * height, scale * width):
        raise UserError(
            f"low-resolution frames are {width}x{height}, high-resolution ones {high.shape[2]}x{high.shape[1]}, "
            f"which is not {scale} times as large; check the scale and the low-resolution set"
        )
    top, left, turn = _draw(height, width, size, rng)
    return _patch(low, top, left, size, turn), _patch(high, scale * top, scale * left, scale * size, turn)


def draw_degraded_patch(
    high: Sequence[Image], degrade: Callable[[Frames], Frames], *, size: int, scale: int, rng: np.random.Generator
) -> tuple[Frames, Frames]:
    """As `draw_patch`, from high-resolution frames (scale·h, scale·w, 3) alone.

    degrade: makes frames `scale` times smaller. It is given turned frames, so that a shift of its own stays, and more
    than the patch where the frames have more, so that the patch equals that of whole frames.
    Errors: UserError where the frames are smaller than the patch.
    """
    height, width = (length // scale for length in high[0].shape[:2])
    top, left, turn = _draw(height, width, size, rng)
    above, before = min(MARGIN, top), min(MARGIN, left)
    below, after = min(MARGIN, height - top - size), min(MARGIN, width - left - size)
    rows = slice(scale * (top - above), scale * (top + size + below))
    columns = slice(scale * (left - before), scale * (left + size + after))
    turned = _turned(np.stack([image[rows, columns] for image in high]), turn)
    above, before = below if turn[0] else above, after if turn[1] else before
    above, before = (before, above) if turn[2] else (above, before)
    low = degrade(turned)[:, above : above + size, before : before + size]
    places = (slice(scale * start, scale * (start + size)) for start in (above, before))
    return np.ascontiguousarray(low), np.ascontiguousarray(turned[(slice(None), *places)])


def check_patch(size: int, height: int, width: int, *, where: str = "") -> None:
    """Errors: UserError, which begins with `where`, where low-resolution frames are smaller than a patch."""
    if min(height, width) < size:
        raise UserError(f"{where}a patch of {size} does not fit frames of {width}x{height}; take a smaller patch")


def _draw(height: int, width: int, size: int, rng: np.random.Generator) -> tuple[int, int, Turn]:
    """Top, left and turn of a patch."""
    check_patch(size, height, width)
    top, left = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
    return top, left, rng.integers(2, size=4).astype(bool)


def _patch(frames: Frames, top: int, left: int, size: int, turn: Turn) -> Frames:
    """A square of every frame, turned."""
    return _turned(frames[:, top : top + size, left : left + size], turn)


def _turned(frames: Frames, turn: Turn) -> Frames:
    upside_down, left_to_right, transposed, backwards = turn
    if upside_down:
        frames = frames[:, ::-1]
    if left_to_right:
        frames = frames[:, :, ::-1]
    if transposed:
        frames = frames.swapaxes(1, 2)
    if backwards:
        frames = frames[::-1]
    return np.ascontiguousarray(frames)
