"""Activation checkpointing, which runs parts of a network again in `backward`, when what they read and wrote is gone.

A block of a student reads the key frame's tensors and leaves its own; taps collect features. Run again, it would be
another block on another frame; and the reentrant form gives what is left behind no gradient in the first place.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.checkpoint


class _RunOnce:
    """In the place of the reentrant form's autograd function."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        return function(*args)


def _run_once(*args: Any, **kwargs: Any) -> Iterator[None]:
    """In the place of the other form, a generator around the call of the function."""
    yield


@contextmanager
def without_checkpointing() -> Iterator[None]:
    """Has `torch.utils.checkpoint` run its functions once and keep their activations, as without it.

    The two names replaced are those that `checkpoint` looks up when it is called, so it does not matter where a network
    has imported it from. Other libraries' own forms are seen by `DeltaBlock`, which refuses to run again.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        yield
        return
    module: Any = torch.utils.checkpoint
    names = ("CheckpointFunction", "_checkpoint_without_reentrant_generator")
    own = [getattr(module, name) for name in names]
    module.CheckpointFunction, module._checkpoint_without_reentrant_generator = _RunOnce, _run_once
    try:
        yield
    finally:
        for name, value in zip(names, own, strict=True):
            setattr(module, name, value)


def is_running_backward() -> bool:
    """Whether autograd is calling, as where it recomputes."""
    return int(torch._C._current_graph_task_id()) >= 0
