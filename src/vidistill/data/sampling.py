"""Choosing sequences and frames, the frames of a clip, and the order of samples.

Every draw is a function of (seed, epoch, sample).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from torch.utils.data import Sampler

from vidistill.config import Whole
from vidistill.data.clip import SampleKey
from vidistill.errors import UserError, nearest

T = TypeVar("T")
FrameRange = tuple[Whole, Whole]  # [first, end)


def frame_slice(frames: FrameRange | None) -> slice:
    """The slice of `frames`, [first, end); of everything for None. Errors: UserError for an empty range."""
    if frames is None:
        return slice(None)
    if not 0 <= frames[0] < frames[1]:
        raise UserError(f"frames must be [first, end) with 0 <= first < end, got {list(frames)}")
    return slice(*frames)


def select_frames(items: Sequence[T], part: slice, *, path: Path) -> Sequence[T]:
    """`items[part]`, one item for each frame of the video at `path`. Errors: UserError where nothing is left."""
    if not items[part]:
        raise UserError(
            f"{path}: has {len(items)} frames, frames [{part.start}, {part.stop}) selects none of them; change frames, "
            "or leave the video out"
        )
    return items[part]


def select_names(names: Sequence[str], wanted: Sequence[str], *, where: str) -> list[str]:
    """Those of `names` that are `wanted`, in the order of `names`. Errors: UserError for any that is not a name."""
    for name in wanted:
        if name not in names:
            raise UserError(f"{where}: unknown name '{name}'; {nearest(name, names)}")
    return [name for name in names if name in wanted]


def paired_indices(anchor: int, *, num_frames: int, max_gap: int, rng: np.random.Generator) -> list[int]:
    """`num_frames` indices that end at `anchor`, evenly spaced by one draw from 1…max_gap.

    Where the anchor has too few frames before it for the gap, the gap shrinks (to 0 at the first frame).
    """
    gap = int(rng.integers(1, max_gap + 1))
    if num_frames > 1:
        gap = min(gap, anchor // (num_frames - 1))
    return [anchor - gap * back for back in range(num_frames - 1, -1, -1)]


def segment_indices(length: int, *, num_frames: int, phase: float | Sequence[float] = 0.5) -> list[int]:
    """One frame from each of `num_frames` equal segments of a sequence.

    phase: where in its segment, 0…1, one value or one for each. Indices repeat where the sequence is shorter.
    Source: Wang et al., "Temporal Segment Networks", ECCV 2016.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    phases = np.broadcast_to(phase, num_frames)
    return [min(length - 1, int((i + p) * length / num_frames)) for i, p in enumerate(phases)]


def dense_indices(length: int, *, num_frames: int, stride: int, phase: float = 0.5) -> list[int]:
    """`num_frames` indices, `stride` apart; the last frame repeats where the sequence is too short.

    phase: where the clip starts, 0…1 from the earliest to the latest start.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    room = max(0, length - 1 - (num_frames - 1) * stride)
    start = round(room * phase)
    return [min(length - 1, start + i * stride) for i in range(num_frames)]


class EpochSampler(Sampler[list[SampleKey]]):
    """Endless batches of sample keys: epoch after epoch, each a permutation that depends on (seed, epoch).

    Process `rank` of `world_size` gets its share of every global batch, so that the number of processes does not
    change the training data. `start_step` skips the steps that a resumed run has done, without drawing. Batches run
    across the ends of epochs, so each has `batch_size` samples.
    """

    def __init__(
        self, num_samples: int, *, batch_size: int, seed: int, start_step: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        if batch_size % world_size:
            raise ValueError(f"batch_size must be a multiple of the {world_size} processes, got {batch_size}")
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.start_step = start_step
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[list[SampleKey]]:
        position = self.start_step * self.batch_size
        epoch, order = -1, np.empty(0, dtype=np.int64)
        while True:
            batch = []
            for place in range(position, position + self.batch_size):
                if place // self.num_samples != epoch:
                    epoch = place // self.num_samples
                    order = np.random.default_rng((self.seed, epoch)).permutation(self.num_samples)
                batch.append(SampleKey(self.seed, epoch, int(order[place % self.num_samples])))
            yield batch[self.rank :: self.world_size]
            position += self.batch_size
