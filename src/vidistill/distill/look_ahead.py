"""A network that looks at the frames before and after the one it restores, on a stream: its outputs come late."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from vidistill.distill.stateful import State, StatefulNetwork
from vidistill.errors import UserError
from vidistill.ops.clip_view import WindowView
from vidistill.ops.tiles import run_in_tiles

WINDOW = "window"
TILE_MULTIPLE = 4
REACH = 32  # pixels that an output is taken to depend on, where the network does not say


class LookAhead(StatefulNetwork):
    """A network of windows (B, T, 3, h, w) behind the contract of one that keeps state.

    Of whole windows it gives the outputs, each of its centre frame. Of one frame (B, 3, h, w) at a time it gives the
    outputs of the frame `delay` frames earlier, None until there is one; `flush` gives those of the last `delay`. The
    first and the last frame stand for those beyond a video's ends, so a stream's outputs equal its windows'.

    network: may itself keep state between key frames; then that state goes with the window.
    waits: False for an exported graph, which cannot: its first `delay` outputs belong to no frame and are to be
    dropped. tile: side of the squares that large frames are cut into, see `run_in_tiles`; None for whole frames.
    """

    view: WindowView

    def __init__(self, network: nn.Module, view: WindowView) -> None:
        super().__init__()
        self.network = network
        self.view = view
        self.delay = view.window // 2
        self.waits = True
        self.tile: int | None = None

    @property
    def has_key_frames(self) -> bool:
        """Whether the network keeps more from frame to frame than the window."""
        return isinstance(self.network, StatefulNetwork)

    def whole(self, frame: Tensor) -> Tensor:
        return frame if frame.ndim == 5 else frame[:, None].expand(-1, self.view.window, -1, -1, -1)

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[Any, State]:
        if frame.ndim == 5:
            return self._run(self.view(frame), state or {})
        length = self.view.window
        if state is None:
            # as many frames as stand before the centre of the first window, and the centre
            window = frame[:, None].expand(-1, self.delay + 1 if self.waits else length, -1, -1, -1)
        else:
            held = state[WINDOW]
            window = torch.cat([held[:, held.shape[1] == length :], frame[:, None]], dim=1)
        if window.shape[1] < length:
            return None, {WINDOW: window}
        outputs, kept = self._run(window, state or {})
        return outputs, {WINDOW: window, **kept}

    def flush(self, state: State | None) -> list[Any]:
        found = []
        for _ in range(self.delay if state else 0):
            assert state is not None
            outputs, state = self(state[WINDOW][:, -1], state)
            found.append(outputs)
        return [outputs for outputs in found if outputs is not None]

    def _run(self, window: Tensor, state: State) -> tuple[Any, State]:
        if self.has_key_frames:
            return self.network(window, {name: state[name] for name in state if name != WINDOW} or None)
        if self.tile is None:
            return self.network(window), {}
        overlap = TILE_MULTIPLE * math.ceil(getattr(self.network, "reach", REACH) / TILE_MULTIPLE)
        return run_in_tiles(self.network, window, tile=self.tile, overlap=overlap), {}


def set_tile(student: StatefulNetwork, tile: int) -> None:
    """Has the student cut large frames into squares of `tile`, a multiple of 4. Errors: UserError where it cannot."""
    if not isinstance(student, LookAhead) or student.has_key_frames:
        raise UserError("tiles are for super-resolution without key frames; leave --tile out")
    if tile < 1 or tile % TILE_MULTIPLE:
        raise UserError(f"--tile {tile}: give a multiple of {TILE_MULTIPLE}, the networks' largest stride")
    student.tile = tile
