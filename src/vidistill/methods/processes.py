"""The processes of a distributed run, as torchrun or `accelerate launch` starts them; a run alone is one process."""

import os

import torch
from torch import Tensor


def is_main_process() -> bool:
    """Whether this process is the one that writes the run's files; known before the processes have joined."""
    return int(os.environ.get("RANK", "0")) == 0


def leave_processes() -> None:
    """Waits for all processes, then leaves them: one that just exits may close what another still reads."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def mean_over_processes(value: Tensor) -> float:
    """The mean of a value over all processes, the same on each."""
    mean = value.detach().clone().float()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(mean)
        mean /= torch.distributed.get_world_size()
    return float(mean)


def any_process(value: bool) -> bool:
    """Whether it is true in any process; the same answer in each."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    return mean_over_processes(torch.tensor(float(value), device=_device())) > 0


def _device() -> str:
    """Where the processes exchange tensors."""
    return "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"


def num_processes() -> int:
    """How many a launcher has started; known before the processes have joined."""
    return max(1, int(os.environ.get("WORLD_SIZE", "1")))
