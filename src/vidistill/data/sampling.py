"""Which frames are used of a sequence and of a clip, and in which order samples come.

Every draw is a function of (seed, epoch, sample).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from torch.utils.data import Sampler

from vidistill.data.clip import SampleKey
from vidistill.errors import UserError

T = TypeVar("T")
FrameRange = tuple[int, int]  # [first, end)


def frame_slice(frames: FrameRange | None) -> slice:
    """The slice of [first, end), of everything for None. Errors: UserError for an empty range."""
    if frames is None:
        return slice(None)
    if not 0 <= frames[0] < frames[1]:
        raise UserError(f"frames: {list(frames)} is no range of frames; give [first, end) with 0 <= first < end")
    return slice(*frames)


def select_frames(items: Sequence[T], part: slice, *, path: Path) -> Sequence[T]:
    """The part of a video's frames, or of whatever it has one of for each. Errors: UserError where none is left."""
    if not items[part]:
        raise UserError(
            f"{path}: has {len(items)} frames, frames [{part.start}, {part.stop}) selects none of them; change frames, "
            "or leave the video out"
        )
    return items[part]


def paired_indices(anchor: int, *, num_frames: int, max_gap: int, rng: np.random.Generator) -> list[int]:
    """`num_frames` indices that end at `anchor`, evenly spaced by one draw from 1…max_gap.

    Where the sequence begins too late for the gap, the gap shrinks (to 0 when `anchor` is the first frame).
    """
    gap = int(rng.integers(1, max_gap + 1))
    if num_frames > 1:
        gap = min(gap, anchor // (num_frames - 1))
    return [anchor - gap * back for back in range(num_frames - 1, -1, -1)]


def segment_indices(length: int, *, num_frames: int, phase: float | Sequence[float] = 0.5) -> list[int]:
    """One frame of each of `num_frames` equal segments of a sequence, at `phase` (0…1, one or one a segment) of it.

    Indices repeat where the sequence is shorter. Source: Wang et al., "Temporal Segment Networks", ECCV 2016.
    """
    if length < 1:
        raise ValueError("a sequence without frames has no indices")
    phases = np.broadcast_to(phase, num_frames)
    return [min(length - 1, int((i + p) * length / num_frames)) for i, p in enumerate(phases)]


def dense_indices(length: int, *, num_frames: int, stride: int, phase: float = 0.5) -> list[int]:
    """Every `stride`-th frame from a start at `phase` (0…1) of the room there is; the last frame repeats where the
    sequence ends too early."""
    if length < 1:
        raise ValueError("a sequence without frames has no indices")
    room = max(0, length - 1 - (num_frames - 1) * stride)
    start = round(room * phase)
    return [min(length - 1, start + i * stride) for i in range(num_frames)]


class EpochSampler(Sampler[list[SampleKey]]):
    """Batches of sample keys without end: epoch after epoch, each a permutation that (seed, epoch) decides.

    Process `rank` of `world_size` gets its share of every global batch, so that the number of processes does not
    change what is trained on. `start_step` skips what a resumed run has done, drawing nothing. Batches run on across
    the ends of epochs, so each has `batch_size` samples.
    """

    def __init__(
        self, num_samples: int, *, batch_size: int, seed: int, start_step: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        if num_samples < 1:
            raise ValueError("there is nothing to sample from")
        if batch_size % world_size:
            raise ValueError(f"batch_size {batch_size} must be a multiple of the {world_size} processes")
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.start_step = start_step
        self.rank = rank
        self.world_size = world_size

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(self.num_samples)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        position = self.start_step * self.batch_size
        epoch, order = -1, np.empty(0, dtype=np.int64)
        while True:
            batch = []
            for place in range(position, position + self.batch_size):
                if place // self.num_samples != epoch:
                    epoch = place // self.num_samples
                    order = self._order(epoch)
                batch.append(SampleKey(self.seed, epoch, int(order[place % self.num_samples])))
            yield batch[self.rank :: self.world_size]
            position += self.batch_size
