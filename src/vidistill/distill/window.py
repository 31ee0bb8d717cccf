"""A clip network on a stream: it sees the last frames through a window."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from vidistill.distill.frame_by_frame import FrameByFrame
from vidistill.distill.look_ahead import LookAhead
from vidistill.distill.stateful import KEY, PerFrame, State, StatefulNetwork
from vidistill.errors import UserError
from vidistill.models.clips import size_errors
from vidistill.ops.clip_view import ClipView, View, WindowView
from vidistill.tasks.outputs import logits_of

HELD = f"{KEY}outputs"
AGE = "age"  # frames since the last one that the window kept


class Windowed(StatefulNetwork):
    """A network of clips (B, T, 3, S, S), behind the contract of one that keeps state.

    Of whole clips (B, T, 3, H, W) it gives the outputs and an empty state. Of one frame (B, 3, H, W) at a time it gives
    the logits of the window that ends there, in which the first frame stands for those before it. The window is the
    state's recurrent part; the logits are its key part and are held until the next key frame, so that a key frame
    every K frames runs the network once in K.

    The window keeps every `spacing`-th frame, counted from the first: all of them, or fewer where key frames come at
    regular intervals. holds: False to run the network on every frame that it is given and keep no logits, as an
    exported graph does, which is given every `view.stride`-th one.
    """

    view: ClipView

    def __init__(self, network: nn.Module, view: ClipView) -> None:
        super().__init__()
        self.network = network
        self.view = view
        self.holds = True

    def expect_key_frames(self, interval: int) -> None:
        """Keeps no frame that no key frame will look at."""
        self.spacing = math.gcd(self.view.stride, interval)

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[Any, State]:
        if frame.ndim == 5:
            return self._run(self.view(frame)), {}
        step = self.view.stride // self.spacing if self.holds else 1
        age = None if state is None or AGE not in state else state[AGE] + 1
        if state is not None and HELD in state and age is not None and int(age[0]) < self.spacing:
            return state[HELD], {**state, AGE: age}
        frame = self.view.resize(frame)[:, None]
        if state is None:
            window = frame.expand(-1, (self.view.num_frames - 1) * step + 1, -1, -1, -1)
        else:
            window = torch.cat([state["window"][:, 1:], frame], dim=1)
        kept = {"window": window}
        if self.spacing > 1:
            kept[AGE] = torch.zeros(len(frame), dtype=torch.int64, device=frame.device)
        if state is not None and HELD in state:
            return state[HELD], {**kept, HELD: state[HELD]}
        logits = logits_of(self._run(window[:, ::step]))
        return logits, {**kept, **({HELD: logits} if self.holds else {})}

    def _run(self, clips: Tensor) -> Any:
        with size_errors(self.network, clips):
            return self.network(clips)


def stateful(network: nn.Module, view: View | None) -> StatefulNetwork:
    """The network behind the contract: of single frames, of the clips that `view` describes, or of windows.

    A causal one of clips that can `step` from frame to frame does so on a stream; any other sees it through a window.
    """
    if view is None:
        return PerFrame(network)
    if isinstance(view, WindowView):
        return LookAhead(network, view)
    can_step = getattr(network, "causal", False) and hasattr(network, "step")
    return FrameByFrame(network, view) if can_step else Windowed(network, view)


def require_clips(view: View | None, method: str) -> None:
    """Errors: UserError where a method for networks of clips is given one of single frames or windows."""
    if not isinstance(view, ClipView):
        raise UserError(
            f"method {method} is for networks of clips, in a recipe with task: {{name: recognition}}; for a network of "
            "single frames take supervised, low_rank or delta"
        )


def require_windows(view: View | None, method: str) -> None:
    """Errors: UserError where a method for networks that restore a frame from several is given another."""
    if not isinstance(view, WindowView):
        raise UserError(
            f"method {method} is for networks that look at windows of frames, in a recipe with task: "
            "{name: super_resolution}; take supervised"
        )


def refuse_clips(view: View | None, method: str) -> None:
    """Errors: UserError where a method for networks of single frames is given one of clips."""
    if isinstance(view, ClipView):
        raise UserError(
            f"method {method} is for networks that see single frames; for a network of clips take supervised, "
            "cross_resolution or collaborative"
        )


def require_whole_windows(view: View | None, method: str, example: Tensor) -> None:
    """Errors: UserError where a method whose students see all that is drawn is given one of shorter windows.

    example: what is drawn for training.
    """
    if isinstance(view, WindowView) and view.window != example.shape[1]:
        raise UserError(
            f"data.clip.window is {example.shape[1]} and the student's {view.window}; method {method} needs them alike"
        )
