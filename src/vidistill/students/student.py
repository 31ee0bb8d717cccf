"""State is an argument: `outputs, state = model(frame, state)`."""

from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from vidistill.ops.clip_view import View
from vidistill.ops.normalise import Normalisation
from vidistill.students.card import Card
from vidistill.students.delta.plan import Plan

State = dict[str, Tensor]  # every tensor has the batch first; entries under "key/" live until the next key frame


KEY = "key/"


class StatefulNetwork(nn.Module):
    """`outputs, state = model(frame, state)`, (B, 3, H, W) frames, state=None to start or for a key frame.

    Nothing is left behind on the module between calls. `network` is the network inside. `card` says what a stream or
    report needs to know of a saved student; None for one that was never saved. `plan`: of its converted layers,
    if any. `view`: what a network of clips or windows sees, None for a network of single frames. `delay`: how many
    frames its outputs come late; those of the first `delay` calls of a stream are None. `spacing`: of the frames
    that its state keeps.
    """

    network: nn.Module
    plan: Plan | None = None
    view: View | None = None
    normalisation: Normalisation | None = None  # what its frames want, where that is not the run's
    card: Card | None = None
    delay: int = 0
    spacing: int = 1
    training_parts: nn.Module | None  # what trains with the student and is gone when it is finished

    def __init__(self) -> None:
        super().__init__()
        self.training_parts = None

    def seen(self, clips: Tensor) -> Tensor:
        """What the network inside is given of a batch."""
        return clips if self.view is None else self.view(clips)

    def whole(self, frame: Tensor) -> Tensor:
        """What has outputs at once, of one frame: the frame itself, or a window that stands still."""
        return frame

    def expect_key_frames(self, interval: int) -> None:
        """Says that a stream's key frames come `interval` frames apart, or with 1 at any; it may then keep less."""

    def flush(self, state: State | None) -> list[Any]:
        """The outputs that are still to come when a stream ends."""
        return []

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[Any, State]:
        raise NotImplementedError


class PerFrame(StatefulNetwork):
    """A network that sees each frame alone, behind the contract of one that keeps state: its state is empty."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[Any, State]:
        return self.network(frame), {}


def without_key_frame(state: State) -> State | None:
    """What a key frame leaves of a state: the recurrent entries; None where there are none."""
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(KEY)}
    return kept or None


class HeldOutput(StatefulNetwork):
    """A network on key frames, its last output on the frames between them, at no cost."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._structure: Any = None

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[Any, State]:
        if state is None:
            outputs = self.network(frame)
            leaves, self._structure = tree_flatten(outputs)
            return outputs, {f"{KEY}held.{i}": leaf for i, leaf in enumerate(leaves)}
        return tree_unflatten([state[f"{KEY}held.{i}"] for i in range(len(state))], self._structure), state
