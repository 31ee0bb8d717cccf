"""Delta distillation: between key frames, cheap students predict how each layer's output changes.

Source: Habibian et al., "Delta Distillation for Efficient Video Processing", ECCV 2022 (arXiv 2203.09594). Linear
blocks; see docs/delta.md for the equations and for where we differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from vidistill.data.clip import Batch
from vidistill.distill.conversion import Selection, plan_conversion
from vidistill.distill.delta_network import DeltaNetwork, convert
from vidistill.distill.norms import evaluating, freeze_norms
from vidistill.distill.separable import Policy
from vidistill.distill.stateful import State, StatefulNetwork
from vidistill.distill.teacher import FrozenTeacher


@dataclass(kw_only=True)
class Delta:
    """Linear blocks with separable students of `reduction` γ.

    key_frame_interval: the default for streaming and evaluation; it does not change training.
    train_key_path: train the key frames' network too, at the recipe's learning rate, the students at
        `student_learning_rate_factor` times that, as published. False keeps it frozen, equal to the teacher to the
        bit, and trains about twice as fast. [ours]
    freeze_norms: keep batch normalisation's statistics, as short runs with small batches want. [ours]
    delta_until: the part of the run in which the delta loss counts; published: the first third.
    The rest chooses the layers, see `Selection`.
    """

    name: ClassVar[str] = "delta"
    form: ClassVar[str] = "delta"
    default_losses: ClassVar[dict[str, float]] = {"task": 1.0, "teacher": 1.0, "delta": 0.01}

    reduction: int = 4
    policy: Policy = "out"
    rank: int | None = None
    convert: Sequence[str] = ("*",)
    leave: Sequence[str] = ()
    leave_first: int = 1
    leave_last: int = 1
    key_frame_interval: int = 10
    train_key_path: bool = True
    student_learning_rate_factor: float = 10.0
    freeze_norms: bool = True
    delta_until: float = 1 / 3
    _first_delta: float | None = field(default=None, init=False, repr=False)

    def prepare(self, network: nn.Module, example: Tensor) -> DeltaNetwork:
        selection = Selection(
            self.reduction, self.policy, self.rank, self.convert, self.leave, self.leave_first, self.leave_last
        )
        student = convert(network, plan_conversion(network, example, selection))
        student.requires_grad_(self.train_key_path)
        for layer in student.delta_layers().values():
            layer.student.requires_grad_(True)
        return student

    def parameter_groups(self, student: StatefulNetwork, learning_rate: float) -> list[dict[str, Any]]:
        cheap = {id(p) for layer in _delta(student).delta_layers().values() for p in layer.student.parameters()}
        trained = [p for p in student.parameters() if p.requires_grad]
        key_path = [p for p in trained if id(p) not in cheap]
        groups = [
            {
                "params": [p for p in trained if id(p) in cheap],
                "lr": learning_rate * self.student_learning_rate_factor,
                "weight_decay": 0.0,
            }
        ]
        return [*groups, {"params": key_path, "lr": learning_rate}] if key_path else groups

    def set_training(self, student: StatefulNetwork) -> None:
        student.train()
        if self.freeze_norms or not self.train_key_path:
            freeze_norms(student)

    def losses(
        self, student: StatefulNetwork, teacher: FrozenTeacher | None, task: Any, batch: Batch, *, progress: float
    ) -> dict[str, Tensor]:
        """The first frame of each clip is its key frame. Task losses are means over the frames that are trained.

        With a frozen key path the student is its own teacher: the key path's outputs on every frame are the reference
        network's, so they cost one pass and not two.
        """
        network = _delta(student)
        frames = batch.student
        num_frames = frames.shape[1]
        wants_delta = progress < self.delta_until
        reference = _Reference.of(network, frames) if wants_delta or not self.train_key_path else None
        if self.train_key_path:
            key_outputs, state = network(frames[:, 0])
            outputs = {0: key_outputs}
        else:
            assert reference is not None
            state, outputs = reference.state(0), {}
        gaps = []
        for t in range(1, num_frames):
            with network.tape.recording() as changes:
                outputs[t], _ = network(frames[:, t], state)
            if wants_delta and reference is not None:
                gaps.append(_delta_gap(changes, reference, t))
        losses = self._task_losses(outputs, reference, teacher, task, batch)
        if gaps:
            losses["delta"] = self._scaled(torch.stack(gaps).mean())
        return losses

    def _task_losses(
        self,
        outputs: dict[int, Any],
        reference: "_Reference | None",
        teacher: FrozenTeacher | None,
        task: Any,
        batch: Batch,
    ) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for t, frame_outputs in outputs.items():
            found = task.supervise(frame_outputs, batch.labels[:, t])
            if not self.train_key_path and reference is not None:
                found |= task.compare(frame_outputs, reference.outputs(t))
            elif teacher is not None:
                found |= task.compare(frame_outputs, teacher(batch.teacher[:, t]))
            for name, loss in found.items():
                sums[name] = sums.get(name, torch.zeros_like(loss)) + loss / len(outputs)
        return sums

    def _scaled(self, gap: Tensor) -> Tensor:
        """The gap divided by its value at the first step, averaged over the processes."""
        if self._first_delta is None:
            first = gap.detach().clone()
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.all_reduce(first)
                first /= torch.distributed.get_world_size()
            self._first_delta = max(float(first), 1e-12)
        return gap / self._first_delta

    def finish(self, student: StatefulNetwork) -> StatefulNetwork:
        network = _delta(student)
        network.folds = True
        return network.eval().requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        return {"first_delta": self._first_delta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._first_delta = state["first_delta"]


class _Reference:
    """The student's own key path on every frame of the clips, in evaluation mode, without gradient."""

    def __init__(self, outputs: Any, state: State, num_frames: int) -> None:
        self._outputs = outputs
        self._state = state
        self._num_frames = num_frames

    @classmethod
    @torch.no_grad()
    def of(cls, network: DeltaNetwork, frames: Tensor) -> "_Reference":
        with evaluating(network):
            outputs, state = network(frames.flatten(0, 1))
        return cls(outputs, state, frames.shape[1])

    def _at(self, tensor: Tensor, t: int) -> Tensor:
        return tensor.unflatten(0, (-1, self._num_frames))[:, t]

    def outputs(self, t: int) -> Any:
        return tree_map_only(Tensor, lambda tensor: self._at(tensor, t), self._outputs)

    def state(self, t: int) -> State:
        return {name: self._at(tensor, t) for name, tensor in self._state.items()}

    def change(self, slot: str, t: int) -> Tensor:
        """dz_ref: how the layer's own output differs between frame t and the key frame."""
        outputs = self._state[f"{slot}.output"]
        return self._at(outputs, t) - self._at(outputs, 0)


def _delta_gap(changes: dict[str, Tensor], reference: _Reference, t: int) -> Tensor:
    """Mean over the layers of the mean squared gap between the predicted and the true change."""
    gaps = [(change - reference.change(slot, t)).square().mean() for slot, change in changes.items()]
    return torch.stack(gaps).mean()


def _delta(student: StatefulNetwork) -> DeltaNetwork:
    if not isinstance(student, DeltaNetwork):
        raise TypeError(f"delta distillation trains what its prepare() returned, not a {type(student).__name__}")
    return student
