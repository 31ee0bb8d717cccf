"""Whole modules: copied, put into evaluation mode for a while, and run on the same frames to be compared."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vidistill.errors import UserError

Module = TypeVar("Module", bound=nn.Module)


def copied(module: Module) -> Module:
    """A deep copy; tensors that a module keeps with their history, as old `weight_norm` its kernel, come without it.

    Raises:
        UserError: the module holds something that cannot be copied.
    """
    memo: dict[int, object] = {}
    for part in module.modules():
        for value in tree_leaves(list(vars(part).values())):
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:  # whatever it holds may fail in any way
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{type(module).__name__} cannot be copied ({first_line(error)}); keep what is no module, tensor or plain "
            "value outside of it"
        ) from error


def trainable(module: Module) -> Module:
    """The module with all its parameters to be trained, but those of whole numbers, as quantised layers have them."""
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
    return module


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for the length of a `with`; every part's own mode comes back after it."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def same_draws() -> Iterator[None]:
    """The same random numbers in every such `with`, for networks that draw some; those outside go on undisturbed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says nothing of a network, but of the machine."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def first_line(error: BaseException) -> str:
    """What an error says, short enough to stand in a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:160]
