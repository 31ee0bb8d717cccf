"""Batches from worker processes, as many as the machine has cores and shared memory for."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from vidistill.data.clip import Batch, SampleKey, TrainingSamples
from vidistill.data.sampling import EpochSampler
from vidistill.errors import UserError, as_user_error
from vidistill.runs.interrupts import start_worker

SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps the batches that workers hand over
PREFETCHED = 2  # batches that a worker has ready, torch's default


def load_batches(
    clips: TrainingSamples, sampler: EpochSampler, *, num_workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """Endless batches. num_workers: the most.

    Errors: UserError of a sample that cannot be drawn, and where a worker was killed.
    """
    loader: DataLoader[Any] = DataLoader(
        clips,  # type: ignore[arg-type]  # a Dataset by its methods
        batch_sampler=sampler,
        num_workers=affordable_workers(clips, sampler, num_workers),
        collate_fn=clips.collate,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
    )
    return _unwrapped(iter(loader))


def first_batch(clips: TrainingSamples, *, seed: int, num_samples: int) -> Batch:
    """The first samples in their order, drawn in this process."""
    keys = [SampleKey(seed, 0, number % len(clips)) for number in range(num_samples)]
    with as_user_error("a training clip cannot be drawn", "look at data.train with `vidistill check`"):
        return clips.collate([clips[key] for key in keys])


def affordable_workers(clips: TrainingSamples, sampler: EpochSampler, wanted: int) -> int:
    """Not more than cores, nor than shared memory holds the batches of; it says so where that is too small."""
    workers = min(wanted, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    if not workers or not SHARED_MEMORY.is_dir():
        return workers
    size = sampler.batch_size // sampler.world_size * _bytes_of(first_batch(clips, seed=sampler.seed, num_samples=1))
    free = shutil.disk_usage(SHARED_MEMORY).free
    fitting = free // (PREFETCHED * max(1, size)) - 1  # one more that is in use
    if fitting >= workers:
        return workers
    workers = max(0, fitting)
    print(
        f"note: {SHARED_MEMORY} has {free / 1e6:.0f} MB free and a batch takes {size / 1e6:.1f} MB, so that "
        f"{workers or 'no'} worker{'s' * (workers != 1)} can read ahead; a container gets more with --shm-size=2g",
        file=sys.stderr,
    )
    return workers


def _bytes_of(batch: Batch) -> int:
    tensors = [batch.student, batch.labels] + ([] if batch.teacher is batch.student else [batch.teacher])
    return sum(tensor.nbytes for tensor in tensors)


def _unwrapped(batches: Iterator[Batch]) -> Iterator[Batch]:
    """A worker's UserError arrives as a traceback in one string; its last line is the sentence."""
    try:
        with as_user_error(
            "a batch cannot be read", "look at data.train with `vidistill check`, and try optim.num_workers: 0"
        ):
            yield from batches
    except UserError as error:
        raise UserError(str(error).strip().splitlines()[-1].removeprefix("vidistill.errors.UserError: ")) from None


def _start_worker(worker: int) -> None:
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    start_worker()
