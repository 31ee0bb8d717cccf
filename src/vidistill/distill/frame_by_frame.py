"""A causal network of clips on a stream: each frame runs once, whatever the window's length."""

from typing import Any

import torch
from torch import Tensor, nn

from vidistill.distill.stateful import KEY, State, StatefulNetwork
from vidistill.ops.clip_view import ClipView

MEMORY = "network/"
LOGITS = "logits"
COUNT = "count"  # how many of the logits are of frames, at most all
HELD = f"{KEY}outputs"


class FrameByFrame(StatefulNetwork):
    """A network with `step(frame, state) -> (logits, state)`, behind the contract of one that keeps state.

    Of whole clips (B, T, 3, H, W) it gives the outputs and an empty state. Of one frame (B, 3, H, W) at a time, on key
    frames, it runs that frame and gives the mean logits of the last `view.num_frames` that ran, those of the clip that
    they make where the stream began with it; between key frames it holds them. A stream takes a key frame every
    `view.stride` frames. holds: False to run every frame, as an exported graph does.
    """

    view: ClipView

    def __init__(self, network: nn.Module, view: ClipView) -> None:
        super().__init__()
        self.network = network
        self.view = view
        self.holds = True

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[Any, State]:
        if frame.ndim == 5:
            return self.network(self.view(frame)), {}
        if state is not None and HELD in state:
            return state[HELD], state
        network: Any = self.network
        memory = {name.removeprefix(MEMORY): t for name, t in (state or {}).items() if name.startswith(MEMORY)}
        logits, memory = network.step(self.view.resize(frame), memory or None)
        if state is None:  # of a fixed size from the start, as an exported graph needs it
            earlier = logits.new_zeros(len(logits), self.view.num_frames - 1, logits.shape[1])
            count = logits.new_ones(len(logits), 1)
        else:
            earlier, count = state[LOGITS][:, 1:], (state[COUNT] + 1).clamp(max=self.view.num_frames)
        seen = torch.cat([earlier, logits[:, None]], dim=1)
        outputs = seen.sum(dim=1) / count
        held = {HELD: outputs} if self.holds else {}
        kept = {f"{MEMORY}{name}": tensor for name, tensor in memory.items()}
        return outputs, {LOGITS: seen, COUNT: count, **kept, **held}
