"""State is an argument: `outputs, state = student(frame, state)`."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.models.outputs import NetworkOutputs, from_named, named_tensors
from vidistill.ops.clip_view import ClipView, View, WindowView
from vidistill.ops.digest import digest
from vidistill.ops.normalise import Normalisation
from vidistill.students.card import Card
from vidistill.students.delta.plan import Plan
from vidistill.students.networks import bare
from vidistill.students.state import KEY, WINDOW, State
from vidistill.tasks import Task


class Student(nn.Module):
    """`outputs, state = student(frame, state)`, (B, 3, H, W) frames, state=None to start or for a key frame.

    Nothing is left behind on the module between calls.

    Attributes:
        network: the network inside.
        card: what a stream, a score or a report needs to know of it.
        delay: how many frames its outputs come late; those of the first `delay` calls of a stream are None.
        spacing: in frames, of the frames that its state keeps.
        layout: in which its kernels, and so its frames, lie in memory.
        training_parts: what trains with the student and is gone when it is finished.
    """

    network: nn.Module
    delay: int = 0
    spacing: int = 1
    layout: torch.memory_format = torch.contiguous_format
    training_parts: nn.Module | None

    def __init__(self, network: nn.Module, card: Card | None = None) -> None:
        super().__init__()
        self.network = bare(network)
        self.card = card or Card()
        self.training_parts = None

    @property
    def plan(self) -> Plan | None:
        """Of its converted blocks."""
        return self.card.plan

    @property
    def view(self) -> View | None:
        """What a network of clips or windows sees; None for a network of single frames."""
        return self.card.view

    @property
    def normalisation(self) -> Normalisation:
        """What its frames want."""
        return self.card.normalisation

    @property
    def task(self) -> Task:
        """What its outputs mean.

        Raises:
            UserError: its card does not say.
        """
        if self.card.task is None:
            raise UserError("the student's card has no task, so that its outputs mean nothing; give Card(task=…)")
        return self.card.task

    @property
    def device(self) -> torch.device:
        """Where its first parameter is; the CPU for one without any."""
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its frames."""
        return next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.float32)

    @property
    def has_key_frames(self) -> bool:
        """Whether some frames are cheaper than others, because they follow from a key frame."""
        return False

    @property
    def sees_clips(self) -> bool:
        """Whether its network sees whole clips, which are cut from frames at a size of their own."""
        return isinstance(self.view, ClipView)

    def seen(self, clips: Tensor) -> Tensor:
        """What the network inside is given of a batch."""
        return clips if self.view is None else self.view(clips)

    def whole(self, frame: Tensor) -> Tensor:
        """What has outputs at once, from one frame: the frame itself, or a window that stands still."""
        if not isinstance(self.view, WindowView) or frame.ndim == 5:
            return frame
        return frame[:, None].expand(-1, self.view.window, -1, -1, -1)

    def laid_out(self, tensor: Tensor) -> Tensor:
        """A frame, or an image of its state, in its layout; other tensors as they are."""
        return tensor.contiguous(memory_format=self.layout) if tensor.ndim == 4 else tensor

    def identity(self) -> bytes:
        """A hash of its tensors and of what decides how they run; equal for equal students, wherever they run."""
        inner = self.network.identity().hex() if isinstance(self.network, Student) else ""
        card = replace(self.card, class_names=(), palette=(), key_frame_interval=1)
        return digest(inner + card.to_json(), self.network.state_dict())

    def spacing_for(self, interval: int) -> int:
        """In frames, how far apart the frames are that its state keeps, where key frames come `interval` apart."""
        return 1

    def expect_key_frames(self, interval: int) -> None:
        """Says that a stream's key frames come `interval` frames apart, or with 1 at any; it may then keep less."""
        self.spacing = self.spacing_for(interval)

    def prepare_for_graphs(self) -> None:
        """Prepares for tracing as a key and a delta graph, in place: nothing is held, waited for or put off."""
        if isinstance(self.network, Student):
            self.network.prepare_for_graphs()

    def flush(self, state: State | None) -> list[NetworkOutputs]:
        """The outputs that are still to come when a stream ends: the last frame stands for those beyond it."""
        late = []
        for _ in range(self.delay if state else 0):
            assert state is not None
            outputs, state = self(state[WINDOW][:, -1], state)
            late.append(outputs)
        return [outputs for outputs in late if outputs is not None]

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[NetworkOutputs, State]:
        raise NotImplementedError


class PerFrame(Student):
    """A network that sees each frame alone, behind the contract of one that keeps state: its state is empty."""

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[NetworkOutputs, State]:
        return self.network(frame), {}


class HeldOutput(Student):
    """The control that every key-frame scheme must beat: a network on key frames, its output held until the next one.

    What it holds are tensors by their paths in the outputs, so that outputs of any library come back as plain dicts and
    lists of tensors.
    """

    has_key_frames = True

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[NetworkOutputs, State]:
        state = state or named_tensors(self.network(frame), f"{KEY}held")
        return from_named(state, f"{KEY}held"), state
