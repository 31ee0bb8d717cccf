"""Training clips whose frames have a label for every pixel, class ids or values; and what all training clips share."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vidistill.config import Pixels, Settings, Share, Values, Weight, call, real, whole
from vidistill.data.augment import CameraMotion, Matrix, RandomView, ScaleRange, change_colour, warp_clip
from vidistill.data.clip import (
    CLASS_IDS,
    Batch,
    Clip,
    FrameSequence,
    Image,
    LabelForm,
    LabelMap,
    SampleKey,
    VideoDataset,
)
from vidistill.data.sampling import paired_indices
from vidistill.errors import UserError

ClipLength = Annotated[int, *whole(1, 1024)]  # in frames
GreyLevels = Annotated[float, *real(0, 255)]


class DenseClipSettings(Settings):
    """How training clips are drawn; see `RandomView` and `CameraMotion` for the units. From stills, motion makes the
    frames before the still.

    num_frames: of a clip. max_gap: its frames are 1 to this many apart. noise: standard deviation, in grey levels, of
    what a sensor adds to each frame of a moved still.
    """

    num_frames: ClipLength = 2
    max_gap: ClipLength = 9
    crop: tuple[Pixels, Pixels] | None = None
    scale: ScaleRange = (1.0, 1.0)
    flip: bool = True
    colour: Share = 0.0
    noise: GreyLevels = 1.5
    motion: dict[str, Weight] = pydantic.Field(default_factory=dict)


class FrameCache:
    """Decoded frames, the last used up to `limit` bytes: seeking in a video costs far more than a training step."""

    def __init__(self, limit: int = 256 * 2**20) -> None:
        self.limit = limit
        self._held = 0
        self._frames: OrderedDict[tuple[int, int], Image] = OrderedDict()

    def image(self, sequence: FrameSequence, index: int) -> Image:
        key = (id(sequence), index)
        image = self._frames.pop(key, None)
        if image is None:
            image = sequence.image(index)
            self._held += image.nbytes
        self._frames[key] = image
        while self._held > self.limit and len(self._frames) > 1:
            self._held -= self._frames.popitem(last=False)[1].nbytes
        return image


def find_anchors(datasets: Sequence[VideoDataset], *, num_frames: int) -> list[tuple[FrameSequence, int]]:
    """Where clips end: every labelled frame, and every frame of the sequences that have no labels at all.

    Errors: UserError where there is none.
    """
    anchors: list[tuple[FrameSequence, int]] = []
    for dataset in datasets:
        for sequence in dataset.sequences:
            labelled = sequence.labelled()
            frames = labelled if len(labelled) else range(len(sequence))
            # a video's first frames have too few before them: as stills, they would hide the video's real motion
            needed = num_frames - 1 if len(sequence) >= num_frames else 0
            anchors += [(sequence, i) for i in frames if i >= needed]
    if not anchors:
        raise UserError("the training data has no frame to end a clip with; check data.train with `vidistill check`")
    return anchors


def still_matrices(
    base: Matrix,
    motion: CameraMotion,
    size: tuple[int, int],
    *,
    num_frames: int,
    max_gap: int,
    rng: np.random.Generator,
) -> list[Matrix]:
    """The view `base` of a still of `size` on each frame of a clip that a moving camera would have seen."""
    gap = int(rng.integers(1, max_gap + 1))
    times = [float(i * gap) for i in range(num_frames)]
    return [moved @ base for moved in motion.draw(size, times, rng)]


def add_noise(frames: NDArray[np.uint8], deviation: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The frames of a moved still with what a sensor adds to each. deviation: in grey levels."""
    if deviation <= 0:
        return frames
    noisy = frames + rng.normal(0, deviation, frames.shape).astype(np.float32)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def example_frame(anchors: Sequence[tuple[FrameSequence, int]], crop: tuple[int, int] | None) -> Tensor:
    """(1, 3, H, W) zeros of the crop's size, or without one of the first anchor's frame."""
    if crop is not None:
        return torch.zeros(1, 3, *crop)
    sequence, index = anchors[0]
    return torch.zeros(1, 3, *sequence.image(index).shape[:2])


def refuse_view(changes: Values) -> None:
    """Errors: UserError for a recipe that gives a network of single frames a view."""
    if changes:
        raise UserError(f"view {sorted(changes)}: only networks of clips have one; leave it out")


class DenseClips(Dataset[tuple[SampleKey, Clip]]):
    """One sample per anchor: every labelled frame, and every frame of the sequences that have no labels at all.

    The clip ends at its anchor. Indexed by a `SampleKey`, on which every draw depends and on nothing else.
    form: of the labels. use_labels: False to leave them all out.
    """

    def __init__(
        self,
        datasets: Sequence[VideoDataset],
        settings: DenseClipSettings,
        *,
        form: LabelForm = CLASS_IDS,
        use_labels: bool = True,
    ) -> None:
        self.settings = settings
        self.form = form
        self.use_labels = use_labels
        self.view = RandomView(settings.crop, settings.scale, settings.flip, settings.colour)
        self.motion = call(CameraMotion, dict(settings.motion), where="data.clip.motion")
        self.cache = FrameCache()
        self.anchors = find_anchors(datasets, num_frames=settings.num_frames)

    def __len__(self) -> int:
        return len(self.anchors)

    def __getitem__(self, key: SampleKey) -> tuple[SampleKey, Clip]:
        rng = key.generator()
        sequence, anchor = self.anchors[key.sample]
        indices = paired_indices(anchor, num_frames=self.settings.num_frames, max_gap=self.settings.max_gap, rng=rng)
        images = [self.cache.image(sequence, i) for i in sorted(set(indices))]
        size = images[0].shape[:2]
        if any(image.shape[:2] != size for image in images):
            raise UserError(f"{sequence.name}: the frames {indices} have several sizes; `vidistill check` lists them")
        by_index = dict(zip(sorted(set(indices)), images, strict=True))
        labels = [self._labels(sequence, i, size) for i in indices]
        clip = Clip(np.stack([by_index[i] for i in indices]), np.stack(labels))
        return key, self._view(clip, is_still=len(set(indices)) < len(indices), rng=rng)

    def example(self) -> Tensor:
        """(1, 3, H, W) zeros of the frames' size."""
        return example_frame(self.anchors, self.view.crop)

    def view_of(self, changes: Values) -> None:
        """Networks of single frames see all of each. Errors: UserError for a recipe that says otherwise."""
        refuse_view(changes)

    def collate(self, samples: Sequence[tuple[SampleKey, Clip]]) -> Batch:
        """One batch of clips of one size; both views are the same."""
        sizes = sorted({clip.frames.shape[:3] for _, clip in samples})
        if len(sizes) > 1:
            raise UserError(
                f"the clips of a batch have several sizes (T, H, W) {sizes}; give them one with data.clip.crop"
            )
        frames = torch.from_numpy(np.stack([clip.frames for _, clip in samples])).permute(0, 1, 4, 2, 3).contiguous()
        labels = torch.from_numpy(np.stack([clip.labels for _, clip in samples]))
        labels = labels if labels.is_floating_point() else labels.long()
        return Batch(frames, frames, labels, [key for key, _ in samples])

    def _labels(self, sequence: FrameSequence, index: int, size: tuple[int, ...]) -> LabelMap:
        labels = sequence.labels(index) if self.use_labels else None
        if labels is None:
            return np.full(size, self.form.unknown, dtype=self.form.dtype)
        if labels.shape != size:
            raise UserError(f"{sequence.name}: the mask of frame {index} is not of the frame's size {size[::-1]}")
        return labels.astype(self.form.dtype, copy=False)

    def _view(self, clip: Clip, *, is_still: bool, rng: np.random.Generator) -> Clip:
        size = (clip.frames.shape[1], clip.frames.shape[2])
        base = self.view.draw(size, rng)
        matrices = [base] * len(clip.frames)
        if is_still:
            matrices = still_matrices(
                base, self.motion, size, num_frames=len(clip.frames), max_gap=self.settings.max_gap, rng=rng
            )
        warped = warp_clip(clip, matrices, self.view.crop or size, unknown=self.form.unknown)
        labels = warped.labels
        if self.form.is_distance:
            # (T, 1, 1) source pixels to one of the view's, along a side
            steps = np.sqrt([abs(np.linalg.det(matrix[:2, :2])) for matrix in matrices])[:, None, None]
            labels = (labels * steps).astype(self.form.dtype)
        frames = change_colour(warped.frames, self.view.colour, rng)
        if is_still:
            frames = add_noise(frames, self.settings.noise, rng)
        return Clip(frames, labels)
