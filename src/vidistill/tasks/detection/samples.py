"""Training clips of frames with boxes: every frame of a clip keeps its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vidistill.config import Pixels, Settings, Share, Values, Weight, call
from vidistill.data.augment import CameraMotion, Matrix, RandomView, ScaleRange, change_colour, warp_image
from vidistill.data.clip import Batch, FrameSequence, SampleKey, VideoDataset
from vidistill.data.dense_clips import (
    ClipLength,
    FrameCache,
    GreyLevels,
    add_noise,
    example_frame,
    find_anchors,
    refuse_view,
    still_matrices,
)
from vidistill.data.sampling import paired_indices
from vidistill.data.sequences.boxes import Boxes, boxes_of
from vidistill.errors import UserError
from vidistill.ops.boxes import not_annotated, stack_rows

BORDER = (124, 116, 104)  # beyond a frame's border: ImageNet's mean colour, 0 once normalised by it


class BoxedClipSettings(Settings):
    """How clips of frames with boxes are drawn; see `RandomView` and `CameraMotion` for the units.

    max_gap: the frames of a clip are 1 to this many apart. both_ways: half of the clips run backwards in time, so that
    a key frame is up to max_gap before or after the other frames, as published.
    visible: a box of which a crop leaves less than this part is left out. min_score: and one that a labeller was less
    sure of.
    """

    num_frames: ClipLength = 2
    max_gap: ClipLength = 9
    both_ways: bool = True
    crop: tuple[Pixels, Pixels] | None = None
    scale: ScaleRange = (1.0, 1.0)
    flip: bool = True
    colour: Share = 0.0
    visible: Share = 0.3
    min_score: Share = 0.0
    noise: GreyLevels = 1.5
    motion: dict[str, Weight] = pydantic.Field(default_factory=dict)


@dataclass(frozen=True)
class BoxedClip:
    """T frames of one size, and the rows of each, see `ops.box_rows`."""

    frames: NDArray[np.uint8]  # (T, H, W, 3)
    rows: tuple[Tensor, ...]  # T of (M_t, 6)


class BoxedClips(Dataset[tuple[SampleKey, BoxedClip]]):
    """One sample per anchor: every annotated frame, and every frame of the sequences that are not annotated at all.

    A clip ends at its anchor. Crowds are left out, as torchvision's reference training has it. Indexed by a
    `SampleKey`, on which every draw depends and on nothing else. use_labels: False to leave all boxes out.
    """

    def __init__(
        self, datasets: Sequence[VideoDataset], settings: BoxedClipSettings, *, use_labels: bool = True
    ) -> None:
        self.settings = settings
        self.use_labels = use_labels
        self.view = RandomView(settings.crop, settings.scale, settings.flip, settings.colour)
        self.motion = call(CameraMotion, dict(settings.motion), where="data.clip.motion")
        self.cache = FrameCache()
        # either way round a clip, there is a frame before the anchor or one after it
        needed = 1 if settings.both_ways else settings.num_frames
        self.anchors = find_anchors(datasets, num_frames=needed)

    def __len__(self) -> int:
        return len(self.anchors)

    def __getitem__(self, key: SampleKey) -> tuple[SampleKey, BoxedClip]:
        rng = key.generator()
        sequence, anchor = self.anchors[key.sample]
        indices = self._indices(anchor, len(sequence), rng)
        images = [self.cache.image(sequence, index) for index in indices]
        size = (images[0].shape[0], images[0].shape[1])
        if any(image.shape[:2] != size for image in images):
            raise UserError(f"{sequence.name}: the frames {indices} have several sizes; `vidistill check` lists them")
        is_still = len(set(indices)) < len(indices)
        matrices = [self.view.draw(size, rng)] * len(indices)
        if is_still:
            max_gap = self.settings.max_gap
            matrices = still_matrices(matrices[0], self.motion, size, num_frames=len(indices), max_gap=max_gap, rng=rng)
        target = self.view.crop or size
        frames = np.stack([warp_image(i, m, target, border=BORDER) for i, m in zip(images, matrices, strict=True)])
        frames = change_colour(frames, self.view.colour, rng)
        if is_still:
            frames = add_noise(frames, self.settings.noise, rng)
        rows = [self._rows(sequence, i, m, target) for i, m in zip(indices, matrices, strict=True)]
        return key, BoxedClip(frames, tuple(rows))

    def example(self) -> Tensor:
        """(1, 3, H, W) zeros of the frames' size."""
        return example_frame(self.anchors, self.view.crop)

    def view_of(self, changes: Values) -> None:
        """Detectors see all of each frame. Errors: UserError for a recipe that says otherwise."""
        refuse_view(changes)

    @staticmethod
    def collate(samples: Sequence[tuple[SampleKey, BoxedClip]]) -> Batch:
        """One batch of clips of one size, both views the same; labels (B, T, M, 6), see `ops.box_rows`."""
        sizes = sorted({clip.frames.shape[:3] for _, clip in samples})
        if len(sizes) > 1:
            raise UserError(
                f"the clips of a batch have several sizes (T, H, W) {sizes}; give them one with data.clip.crop"
            )
        frames = torch.from_numpy(np.stack([clip.frames for _, clip in samples])).permute(0, 1, 4, 2, 3).contiguous()
        rows = stack_rows([rows for _, clip in samples for rows in clip.rows])
        return Batch(frames, frames, rows.unflatten(0, frames.shape[:2]), [key for key, _ in samples])

    def _indices(self, anchor: int, length: int, rng: np.random.Generator) -> list[int]:
        """Frames that end at the anchor, forwards or backwards in time."""
        options: Values = {"num_frames": self.settings.num_frames, "max_gap": self.settings.max_gap, "rng": rng}
        if not self.settings.both_ways:
            return paired_indices(anchor, **options)
        spread = self.settings.num_frames - 1
        room = {True: length - 1 - anchor >= spread, False: anchor >= spread}  # by whether time is reversed
        backwards = bool(rng.uniform() < 0.5)
        if not room[backwards] and room[not backwards]:
            backwards = not backwards
        if not backwards:
            return paired_indices(anchor, **options)
        return [length - 1 - index for index in paired_indices(length - 1 - anchor, **options)]

    def _rows(self, sequence: FrameSequence, index: int, matrix: Matrix, size: tuple[int, int]) -> Tensor:
        boxes = boxes_of(sequence, index) if self.use_labels else None
        if boxes is None:
            return not_annotated(size)
        wanted = np.ones(len(boxes), dtype=np.bool_)
        if boxes.crowd is not None:
            wanted &= ~boxes.crowd
        if boxes.scores is not None:
            wanted &= boxes.scores >= self.settings.min_score
        return torch.from_numpy(cut_boxes(boxes.chosen(wanted), matrix, size, visible=self.settings.visible).rows())


def cut_boxes(boxes: Boxes, matrix: Matrix, size: tuple[int, int], *, visible: float) -> Boxes:
    """The boxes in a view of `size` (height, width): around what becomes of their corners, and clipped.

    matrix: from the view's pixels to those of the boxes. visible: what is left of a box by less than this part of its
    area is left out.
    """
    left, top, right, bottom = (boxes.xyxy.astype(np.float64) - 0.5).T  # from edges to places of pixel centres
    ones = np.ones_like(left)
    corners = np.stack([[left, top, ones], [right, top, ones], [left, bottom, ones], [right, bottom, ones]])
    seen = np.einsum("ij,cjn->cin", np.linalg.inv(matrix), corners)  # (4, 3, N)
    places = seen[:, :2] / seen[:, 2:] + 0.5
    xyxy = np.concatenate([places.min(axis=0), places.max(axis=0)]).T.astype(np.float32)
    moved = Boxes(xyxy, boxes.labels, boxes.instances, boxes.scores)
    height, width = size
    inside = xyxy.clip(0, np.array([width, height, width, height], np.float32))
    shares = _areas(inside) / np.maximum(_areas(xyxy), np.finfo(np.float32).tiny)
    return moved.chosen(shares >= max(visible, 1e-6)).clipped(size)


def _areas(xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
    return (xyxy[:, 2:] - xyxy[:, :2]).prod(axis=1)
