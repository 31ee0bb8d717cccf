"""When to take a key frame: fixed, adaptive, or only the first. A policy is outside the model and keeps no state.

A policy is called as `is_key, memory = policy(frame, memory)`, with memory None at the start; memory is a flat dict of
tensors, saved and restored with a stream's state.
"""

import re
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from vidistill.errors import UserError

Memory = dict[str, Tensor]
THUMBNAIL = (36, 64)


class KeyFramePolicy(Protocol):
    """Decides for each frame in turn. frame: (1, 3, H, W) uint8. The first frame, with no memory, is always a key."""

    def __call__(self, frame: Tensor, memory: Memory | None) -> tuple[bool, Memory]: ...


@dataclass(frozen=True)
class Fixed:
    """A key frame every `interval` frames."""

    interval: int

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise UserError(f"the key frame interval must be at least 1, got {self.interval}; give a number of frames")

    def __call__(self, frame: Tensor, memory: Memory | None) -> tuple[bool, Memory]:
        since = self.interval if memory is None else int(memory["since"]) + 1
        is_key = since >= self.interval
        return is_key, {"since": torch.tensor(0 if is_key else since)}


@dataclass(frozen=True)
class Never:
    """The first frame alone is a key frame."""

    def __call__(self, frame: Tensor, memory: Memory | None) -> tuple[bool, Memory]:
        return memory is None, {"since": torch.tensor(0)}


@dataclass(frozen=True)
class Adaptive:
    """A key frame at a scene cut, when the picture has drifted from the key frame, or after `max_interval` frames.

    scene_cut: mean absolute luma change from the last frame; drift: from the key frame; both on a 64×36 thumbnail, as
    parts of the full range, 0…1. [ours]
    """

    scene_cut: float = 0.12
    drift: float = 0.06
    max_interval: int = 30

    def __call__(self, frame: Tensor, memory: Memory | None) -> tuple[bool, Memory]:
        seen = _thumbnail(frame)
        if memory is None:
            return True, {"since": torch.tensor(0), "key": seen, "last": seen}
        since = int(memory["since"]) + 1
        is_key = (
            since >= self.max_interval
            or _gap(seen, memory["last"]) > self.scene_cut
            or _gap(seen, memory["key"]) > self.drift
        )
        key = seen if is_key else memory["key"]
        return is_key, {"since": torch.tensor(0 if is_key else since), "key": key, "last": seen}


def parse_policy(text: str) -> KeyFramePolicy:
    """A policy from what a user types: a number of frames, "adaptive", or with a drift as adaptive:0.03, or "never".

    Errors: UserError for the rest.
    """
    name, _, drift = text.partition(":")
    if text == "never":
        return Never()
    if re.fullmatch("[0-9]{1,9}", text):
        return Fixed(int(text))
    if name == "adaptive" and re.fullmatch(r"[0-9]*\.?[0-9]{0,9}", drift) and drift != ".":
        return Adaptive(drift=float(drift)) if drift else Adaptive()
    raise UserError(f"key frames '{text}': give a number of frames, adaptive, adaptive:0.03 for a drift, or never")


def _thumbnail(frame: Tensor) -> Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114], device=frame.device).view(1, 3, 1, 1)
    return F.adaptive_avg_pool2d((frame.float() * weights).sum(dim=1, keepdim=True) / 255, THUMBNAIL)


def _gap(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().mean())
