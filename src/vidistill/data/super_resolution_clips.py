"""Training clips of super-resolution: windows of low-resolution patches and the high-resolution frames they show."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vidistill.config import Settings
from vidistill.data.clip import Batch, FrameSequence, Image, SampleKey, VideoDataset
from vidistill.data.degradation import Degradation
from vidistill.data.high_resolution import (
    MOST_LOOKED_AT,
    HighResolutionSequence,
    as_high_resolution,
    check_length,
    of_one_size,
)
from vidistill.data.patches import check_patch, draw_degraded_patch, draw_patch
from vidistill.data.training import FrameCache
from vidistill.errors import UserError
from vidistill.ops.clip_view import WindowView

Sample = tuple[SampleKey, NDArray[np.uint8], NDArray[np.uint8]]


class SuperResolutionClipSettings(Settings):
    """How training clips are drawn.

    num_frames: consecutive frames that are restored. window: frames around each, the most that a network looks at, odd.
    patch: side in low-resolution pixels. Every patch is turned at random, and half of them run backwards in time.
    """

    num_frames: int = pydantic.Field(default=1, ge=1)
    window: int = pydantic.Field(default=5, ge=1)
    patch: int = pydantic.Field(default=64, ge=1)

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
                    self._check_first(truth)
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
        options: dict[str, Any] = {"size": self.settings.patch, "scale": self.degradation.scale, "rng": rng}
        if sequence.low is None:
            low, truth = draw_degraded_patch(high, self.degradation, **options)
        else:
            stored = np.stack(self._images(sequence.low, indices))
            sequence.check_sizes(stored[0], high[0])
            low, truth = draw_patch(stored, np.stack(high), **options)
        return key, low, truth[margin : margin + length]

    def _images(self, sequence: FrameSequence, indices: Sequence[int]) -> list[Image]:
        return list(of_one_size(sequence.name, ((index, self.cache.image(sequence, index)) for index in indices)))

    def _check_first(self, sequence: HighResolutionSequence) -> None:
        """Errors: UserError where the first frame is smaller than a patch, or is no pair with the stored one."""
        height, width = (length // sequence.scale for length in sequence.pair(0)[1].shape[:2])
        check_patch(self.settings.patch, height, width, where=f"{sequence.name}: ")

    def view_of(self, changes: dict[str, Any]) -> WindowView:
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
