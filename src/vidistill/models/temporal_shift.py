"""The shift of channels along time, over a clip or from one frame of a stream to the next, without keeping anything.

Source: Lin, Gan & Han, "TSM: Temporal Shift Module for Efficient Video Understanding", 2019 (arXiv 1811.08383).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = dict[str, Tensor]


def temporal_shift(features: Tensor, *, num_shifted: int, causal: bool = False) -> Tensor:
    """`features` with the first channels taken from the next frame, as many more from the frame before.

    features: (B, T, C, h, w). Zeros come in where there is no such frame. causal: the first channels come from the
    frame before, no others move.
    """
    first, second = features[:, :, :num_shifted], features[:, :, num_shifted : 2 * num_shifted]
    if causal:
        return torch.cat([_earlier(first), features[:, :, num_shifted:]], dim=2)
    later = F.pad(first, (0, 0, 0, 0, 0, 0, 0, 1))[:, 1:]
    return torch.cat([later, _earlier(second), features[:, :, 2 * num_shifted :]], dim=2)


def _earlier(features: Tensor) -> Tensor:
    return F.pad(features, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1]


class ShiftTape:
    """What a network's shifts share for the length of one call: how many clips there are, or the frame before.

    A plain object, no module and no buffer; only the network binds it.
    """

    def __init__(self) -> None:
        self.num_clips: int | None = None
        self.read: State | None = None
        self.written: State | None = None

    @contextmanager
    def over_clips(self, num_clips: int) -> Iterator[None]:
        """Lends the shifts the number of clips that the frames (B·T, …) are of."""
        self.num_clips = num_clips
        try:
            yield
        finally:
            self.num_clips = None

    @contextmanager
    def over_stream(self, state: State | None) -> Iterator[State]:
        """Lends the shifts what the frame before left, nothing at a stream's start; yields what this frame leaves."""
        written: State = {}
        self.read, self.written = state, written
        try:
            yield written
        finally:
            self.read = self.written = None


class Shift:
    """Called ahead of the layer at `path` with its input, whose shifted form it returns; a forward pre-hook.

    share: one part in this many of the channels moves each way. Errors: ValueError outside of the network's call.
    """

    def __init__(self, tape: ShiftTape, path: str, *, share: int, causal: bool) -> None:
        self.tape = tape
        self.path = path
        self.share = share
        self.causal = causal

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        (x,) = inputs
        num_shifted = x.shape[1] // self.share
        if self.tape.num_clips is not None:
            clips = x.unflatten(0, (self.tape.num_clips, x.shape[0] // self.tape.num_clips))
            return temporal_shift(clips, num_shifted=num_shifted, causal=self.causal).flatten(0, 1)
        if self.tape.written is None:
            raise ValueError(f"'{self.path}' shifts along time: call the network, which knows the clips, not a part")
        return self._follow(x, num_shifted, self.tape.written)

    def _follow(self, x: Tensor, num_shifted: int, written: State) -> Tensor:
        own = x[:, :num_shifted]
        before = torch.zeros_like(own) if self.tape.read is None else self.tape.read[self.path]
        written[self.path] = own.clone()  # a view would keep all of x alive
        return torch.cat([before, x[:, num_shifted:]], dim=1)
