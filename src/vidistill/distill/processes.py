"""What the processes of a distributed run agree on."""

import torch
from torch import Tensor


def mean_over_processes(value: Tensor) -> float:
    """The mean of a value over all processes, the same on each."""
    mean = value.detach().clone().float()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(mean)
        mean /= torch.distributed.get_world_size()
    return float(mean)
