"""Networks of several frames on a stream: clips through a window or frame by frame, and windows around a frame."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.models.clips import size_errors
from vidistill.models.declares import declared
from vidistill.models.outputs import NetworkOutputs, logits_of
from vidistill.ops.clip_view import ClipView, View, WindowView
from vidistill.ops.tiles import run_in_tiles
from vidistill.students.card import Card
from vidistill.students.state import KEY, WINDOW, State
from vidistill.students.student import PerFrame, Student

HELD = f"{KEY}outputs"
AGE = "age"  # frames since the last one that the window kept
MEMORY = "network/"
LOGITS = "logits"
COUNT = "count"  # how many of the logits are of frames, at most all
TILE_MULTIPLE = 4


class ClipStudent(Student):
    """A network of clips on a stream. holds: False to run every frame that it is given, as an exported graph does."""

    has_key_frames = True

    def __init__(self, network: nn.Module, card: Card) -> None:
        super().__init__(network, card)
        self.holds = True

    @property
    def view(self) -> ClipView:
        assert isinstance(self.card.view, ClipView)
        return self.card.view


class Windowed(ClipStudent):
    """A network of clips (B, T, 3, S, S), behind the contract of one that keeps state.

    Of whole clips (B, T, 3, H, W) it gives the outputs and an empty state. Of one frame (B, 3, H, W) at a time it gives
    the logits of the window that ends there, in which the first frame stands for those before it. The window is the
    state's recurrent part; the logits are its key part and are held until the next key frame, so that a key frame
    every K frames runs the network once in K.

    The window keeps every `spacing`-th frame, counted from the first: all of them, or fewer where key frames come at
    regular intervals. holds: False to run the network on every frame that it is given and keep no logits, as an
    exported graph does, which is given every `view.stride`-th one.
    """

    def prepare_for_graphs(self) -> None:
        self.holds, self.spacing = False, 1

    def spacing_for(self, interval: int) -> int:
        """So that no frame is kept that no key frame will look at."""
        return math.gcd(self.view.stride, interval)

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[NetworkOutputs, State]:
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
            window = torch.cat([state[WINDOW][:, 1:], frame], dim=1)
        kept = {WINDOW: window}
        if self.spacing > 1:
            kept[AGE] = torch.zeros(len(frame), dtype=torch.int64, device=frame.device)
        if state is not None and HELD in state:
            return state[HELD], {**kept, HELD: state[HELD]}
        logits = logits_of(self._run(window[:, ::step]))
        return logits, {**kept, **({HELD: logits} if self.holds else {})}

    def _run(self, clips: Tensor) -> Any:
        with size_errors(self.network, clips):
            return self.network(clips)


class FrameByFrame(ClipStudent):
    """A network with `step(frame, state) -> (logits, state)`, behind the contract of one that keeps state.

    Of whole clips (B, T, 3, H, W) it gives the outputs and an empty state. Of one frame (B, 3, H, W) at a time, on key
    frames, it runs that frame and gives the mean logits of the last `view.num_frames` that ran, those of the clip that
    they make where the stream began with it; between key frames it holds them. A stream takes a key frame every
    `view.stride` frames. holds: False to run every frame, as an exported graph does.
    """

    def prepare_for_graphs(self) -> None:
        self.holds = False

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[NetworkOutputs, State]:
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


class LookAhead(Student):
    """A network of windows (B, T, 3, h, w) behind the contract of one that keeps state.

    Of whole windows it gives the outputs, each of its centre frame. Of one frame (B, 3, h, w) at a time it gives the
    outputs of the frame `delay` frames earlier, None until there is one; `flush` gives those of the last `delay`. The
    first and the last frame stand for those beyond a video's ends, so a stream's outputs equal its windows'.

    network: may itself keep state between key frames; then that state goes with the window.
    tile: side of the squares that large frames are cut into, see `run_in_tiles`; None for whole frames.
    """

    def __init__(self, network: nn.Module, card: Card) -> None:
        # a student inside knows its form and plan
        super().__init__(network, network.card if isinstance(network, Student) else card)
        self.delay = self.view.window // 2
        self.reach = declared(network).reach  # pixels
        self.tile: int | None = None

    @property
    def view(self) -> WindowView:
        assert isinstance(self.card.view, WindowView)
        return self.card.view

    @property
    def has_key_frames(self) -> bool:
        return isinstance(self.network, Student) and self.network.has_key_frames

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[NetworkOutputs, State]:
        if frame.ndim == 5:
            return self._run(self.view(frame), state or {})
        length = self.view.window
        if state is None:
            # as many frames as stand before the centre of the first window, and the centre
            window = frame[:, None].expand(-1, self.delay + 1, -1, -1, -1)
        else:
            held = state[WINDOW]
            if held.shape[1] == length:
                held = held[:, 1:]
            window = torch.cat([held, frame[:, None]], dim=1)
        if window.shape[1] < length:
            return None, {WINDOW: window}
        outputs, kept = self._run(window, state or {})
        return outputs, {WINDOW: window, **kept}

    def _run(self, window: Tensor, state: State) -> tuple[NetworkOutputs, State]:
        if isinstance(self.network, Student):
            return self.network(window, {name: state[name] for name in state if name != WINDOW} or None)
        if self.tile is None:
            return self.network(window), {}
        overlap = TILE_MULTIPLE * math.ceil(self.reach / TILE_MULTIPLE)
        return run_in_tiles(self.network, window, tile=self.tile, overlap=overlap), {}


def as_student(network: nn.Module, card: Card) -> Student:
    """The network behind the contract, as `card.view` has it: of single frames, of clips, or of windows.

    A causal network of clips that can `step` from frame to frame does so on a stream; others see a window of it.
    """
    if card.view is None:
        return PerFrame(network, card)
    if isinstance(card.view, WindowView):
        return LookAhead(network, card)
    can_step = declared(network).step is not None and declared(network).causal
    return FrameByFrame(network, card) if can_step else Windowed(network, card)


def set_tile(student: Student, tile: int) -> None:
    """Has the student cut large frames into squares of `tile`, a multiple of 4. Errors: UserError where it cannot."""
    if not isinstance(student, LookAhead) or student.has_key_frames:
        raise UserError("tiles are for super-resolution without key frames; leave --tile out")
    if tile < 1 or tile % TILE_MULTIPLE:
        raise UserError(f"--tile {tile}: give a multiple of {TILE_MULTIPLE}, the networks' largest stride")
    student.tile = tile


def require_clips(view: View | None, method: str) -> None:
    """Errors: UserError where a method for networks of clips is given one of single frames or windows."""
    if not isinstance(view, ClipView):
        raise UserError(
            f"method {method} is for networks of clips, and this one sees single frames or windows; take supervised, "
            "low_rank or delta"
        )


def require_windows(view: View | None, method: str) -> None:
    """Errors: UserError where a method for networks that restore a frame from several is given another."""
    if not isinstance(view, WindowView):
        raise UserError(
            f"method {method} is for networks that restore a frame from a window of frames, which this one does not; "
            "take supervised"
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
