"""The frozen reference network: never trained, never changed, not even by batch normalisation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidistill.distill.stages import run_with_features
from vidistill.distill.teacher_cache import TeacherCache
from vidistill.ops.clip_view import View


class FrozenTeacher:
    """A network in evaluation mode that takes no gradient.

    Not a module on purpose: it is no part of the student, its optimiser, its checkpoint or its process group.
    view: what it sees of a clip; None for a network of single frames. cache: remembers what it said of clips.
    """

    def __init__(self, network: nn.Module, view: View | None = None, cache: TeacherCache | None = None) -> None:
        self.network = network.eval().requires_grad_(False)
        self.view = view
        self.cache = cache

    def seen(self, clips: Tensor) -> Tensor:
        """What the network is given of a batch."""
        return clips if self.view is None else self.view(clips)

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Any:
        """The network's outputs for normalised frames (B, 3, H, W), or clips (B, T, 3, H, W)."""
        return self.network(inputs) if self.view is None else self.run(inputs, ())[0]

    @torch.no_grad()
    def run(self, clips: Tensor, paths: Sequence[str]) -> tuple[Any, dict[str, Tensor]]:
        """The outputs of normalised clips (B, T, 3, H, W), and the features (B, T', C, h, w) of the stages `paths`."""
        seen = self.seen(clips)
        if self.cache is None:
            return run_with_features(self.network, seen, paths)
        return self.cache.run(self.network, seen, paths)

    def observations(self) -> dict[str, float]:
        """For the log: the share of clips so far that the cache knew, where there is one."""
        if self.cache is None or not self.cache.hits + self.cache.misses:
            return {}
        return {"cache_hits": self.cache.hits / (self.cache.hits + self.cache.misses)}

    def to(self, device: torch.device) -> "FrozenTeacher":
        self.network.to(device)
        return self
