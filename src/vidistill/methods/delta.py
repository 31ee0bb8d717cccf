"""Delta distillation: between key frames, cheap students predict how each block's output changes.

Source: Habibian et al., "Delta Distillation for Efficient Video Processing", ECCV 2022 (arXiv 2203.09594); see
docs/delta.md for the equations and for where we differ.
"""

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from vidistill.config import Count, Share, Values, Weight, Whole, check_numbers
from vidistill.data.clip import Batch
from vidistill.errors import UserError
from vidistill.methods.delta_reference import Reference, captured_features, delta_gaps, feature_blocks, feature_gap
from vidistill.methods.latency_table import block_costs
from vidistill.methods.processes import mean_over_processes
from vidistill.methods.teacher import FrozenTeacher
from vidistill.ops.modules import trainable
from vidistill.report.figures import Picture
from vidistill.runtimes import choose_runtime
from vidistill.students.card import Card
from vidistill.students.delta.calls import Tree
from vidistill.students.delta.conversion import Granularity, Selection, plan_conversion
from vidistill.students.delta.kinds import StudentSpec
from vidistill.students.delta.network import DeltaNetwork, delta_network, keep_chosen, set_costs
from vidistill.students.delta.search import Search, SearchedStudent
from vidistill.students.delta.trial import tried
from vidistill.students.main_output import with_main_output
from vidistill.students.networks import bare
from vidistill.students.norms import freeze_norms
from vidistill.students.student import Student
from vidistill.students.windows import refuse_clips, require_whole_windows
from vidistill.tasks import Task


@dataclass(kw_only=True)
class Delta:
    """Blocks with students; by default each convolution and linear layer with a separable one of γ = 4.

    Args:
        student: The student of every block.
        search: Several candidates instead, among which the run chooses.
        granularity: What a block is; this, `convert`, `leave`, `leave_first`, `leave_last` and `others` are those of
            `Selection`.
        convert: Path patterns of what is converted; None for all.
        leave: Path patterns of what is not.
        leave_first: How many of the first layers are left.
        leave_last: How many of the last layers are left.
        others: The student of the layers outside larger blocks; without one they are left. [ours]
        key_frame_interval: The default for streaming and evaluation; it does not change training.
        train_key_path: Train the key frames' network too, at the recipe's learning rate, the students at
            `student_learning_rate_factor` times that, as published. False keeps it frozen, equal to the teacher to the
            bit, and trains about twice as fast. [ours]
        student_learning_rate_factor: The students' learning rate over the recipe's.
        freeze_norms: Keep the trained batch normalisations' statistics, as short runs with small batches want. [ours]
        delta_until: The part of the run, 0…1, in which the delta loss counts; published: the first third.
        delta_scale: What the gaps of the delta loss are divided by: their mean at the first step ("mean", published for
            segmentation), each by its own there ("layer", published for EfficientDet), or nothing ("none", published
            for Faster R-CNN).
    """

    name: ClassVar[str] = "delta"
    default_losses: ClassVar[dict[str, float]] = {
        "task": 1.0, "teacher": 1.0, "delta": 0.01, "feature": 0.1, "cost": 0.1
    }  # fmt: skip
    observed: ClassVar[tuple[str, ...]] = ()

    student: StudentSpec = field(default_factory=StudentSpec)
    search: Search | None = None
    granularity: Granularity = "layer"
    convert: tuple[str, ...] | None = None
    leave: tuple[str, ...] = ()
    leave_first: Whole = 1
    leave_last: Whole = 1
    others: StudentSpec | None = None
    key_frame_interval: Count = 10
    train_key_path: bool = True
    student_learning_rate_factor: Weight = 10.0
    freeze_norms: bool = True
    delta_until: Share = 1 / 3
    delta_scale: Literal["mean", "layer", "none"] = "mean"
    _first: dict[str, list[float]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_numbers(self)

    @property
    def is_own_teacher(self) -> bool:
        """Whether the key path stays as it is and teaches the students."""
        return not self.train_key_path

    def for_run(self, folder: Path, *, optimiser: str = "adamw", measures: bool = True) -> Self:
        """With a place for the latencies that a search reads or measures; without measuring, MACs stand in for them."""
        settings = copy.deepcopy(self)
        if self.search is None:
            return settings
        choose_runtime(self.search.runtime, self.search.precision, where="method.search.runtime")
        if optimiser != "adamw" and self.search.gate_learning_rate is None:
            raise UserError(
                f"method.search: the gates' own rate suits adamw, optim.name is {optimiser}; give "
                "method.search.gate_learning_rate"
            )
        table = self.search.table or folder / "latency_table.json"
        cost = "macs" if not measures and not table.exists() else self.search.cost
        settings.search = replace(self.search, table=table, cost=cost)
        return settings

    def prepare(
        self, network: nn.Module, example: Tensor, *, card: Card | None = None, teacher: FrozenTeacher | None = None
    ) -> DeltaNetwork:
        card = card or Card()
        refuse_clips(card.view, self.name)
        require_whole_windows(card.view, self.name, example)
        if not self.train_key_path and teacher is not None and not _same_weights(network, teacher.network):
            raise UserError(
                "method.train_key_path: false keeps the student's own network on key frames, which then is the only "
                "teacher; train it, or let the student start from the teacher with student: {from: teacher}"
            )
        selection = Selection(
            self.granularity, self.convert, self.leave, self.leave_first, self.leave_last, self.others
        )
        candidates = [self.student] if self.search is None else self.search.candidates
        network = with_main_output(bare(network), example)
        plan = tried(network, plan_conversion(network, example, selection, candidates), example)
        if not plan.converted:
            raise UserError(f"no block of the network can have a student: {'; '.join(str(plan).splitlines())}")
        student = delta_network(network, plan, card)
        if self.search is not None:
            costs = block_costs(network, student, self.search, selection, (example.shape[-2], example.shape[-1]))
            set_costs(student, costs)
        trainable(student) if self.train_key_path else student.requires_grad_(False)
        for block in student.blocks().values():
            trainable(block.student)
        return student

    def parameter_groups(self, student: Student, learning_rate: float, *, steps: int) -> list[Values]:
        cheap = {id(p) for block in _delta(student).blocks().values() for p in block.student.parameters()}
        gates = [searched.gates for searched in _searched(student)]
        own = {id(gate) for gate in gates}
        trained = [p for p in student.parameters() if p.requires_grad and id(p) not in own]
        rate = learning_rate * self.student_learning_rate_factor
        groups = [
            {"params": [p for p in trained if id(p) in cheap], "lr": rate, "weight_decay": 0.0},
            {"params": [p for p in trained if id(p) not in cheap], "lr": learning_rate},
        ]
        if self.search is not None:
            groups.append({"params": gates, "lr": self.search.rate(steps), "weight_decay": 0.0})
        return [group for group in groups if group["params"]]

    def set_training(self, student: Student) -> None:
        student.train()
        _freeze_random_layers(student)
        if self.freeze_norms or not self.train_key_path:
            freeze_norms(student)
        for block in _delta(student).blocks().values():
            block.student.set_training()

    def losses(
        self, student: Student, teacher: FrozenTeacher | None, task: Task, batch: Batch, *, progress: float
    ) -> dict[str, Tensor]:
        """The losses of clips (B, T, 3, H, W). The first frame of each is its key frame; task losses are means over the
        frames that are trained.

        With a frozen key path the student is its own teacher: the key path's outputs on every frame are the reference
        network's, so they cost one pass and not two.
        """
        network = _delta(student)
        searches = self.search is not None and progress < self.search.until
        for searched in _searched(network):
            searched.draw() if searches else searched.settle()
        frames = batch.student
        wants_delta, wants_features = progress < self.delta_until, bool(feature_blocks(network))
        needs_reference = wants_delta or wants_features or not self.train_key_path
        reference = Reference.of(network, frames) if needs_reference else None
        if self.train_key_path:
            key_outputs, state = network(frames[:, 0])
            outputs = {0: key_outputs}
        else:
            assert reference is not None
            state, outputs = reference.state(0), {}
        gaps: dict[str, list[Tensor]] = {"delta": [], "feature": []}
        for t in range(1, frames.shape[1]):
            with (
                network.tape.recording() as changes,
                captured_features(network, {} if reference is None else reference.last_layers) as features,
            ):
                outputs[t], _ = network(frames[:, t], state)
            if reference is not None and wants_delta:
                gaps["delta"].append(delta_gaps(changes, reference, t))
            if reference is not None and wants_features:
                gaps["feature"].append(feature_gap(features, reference, t))
        losses = self._task_losses(outputs, reference, teacher, task, batch)
        losses |= {name: self._scaled(name, torch.stack(by_frame)) for name, by_frame in gaps.items() if by_frame}
        if searches:
            losses["cost"] = sum((searched.cost() for searched in _searched(network)), start=frames.new_zeros(()))
        return losses

    def _task_losses(
        self, outputs: dict[int, Tree], reference: Reference | None, teacher: FrozenTeacher | None, task: Task,
        batch: Batch,
    ) -> dict[str, Tensor]:  # fmt: skip
        sums: dict[str, Tensor] = {}
        for t, frame_outputs in outputs.items():
            if not self.train_key_path and reference is not None:
                teacher_outputs = reference.outputs(t)
            else:
                teacher_outputs = None if teacher is None else teacher(batch.teacher[:, t])
            losses = task.supervise(frame_outputs, batch.labels[:, t], teacher_outputs)
            if teacher_outputs is not None:
                losses |= task.compare(frame_outputs, teacher_outputs)
            for name, loss in losses.items():
                sums[name] = sums.get(name, torch.zeros_like(loss)) + loss / len(outputs)
        return sums

    def _scaled(self, name: str, gaps: Tensor) -> Tensor:
        """The mean of gaps (T,) or (T, L), divided by values of the first step, averaged over the processes.

        A layer's own value counts as a thousandth of the mean at least, for a layer that hardly changes. [ours]
        """
        if name == "delta" and self.delta_scale == "none":
            return gaps.mean()
        per_layer = name == "delta" and self.delta_scale == "layer"
        means = gaps.mean(dim=0) if per_layer else gaps.mean()[None]
        if name not in self._first:
            first = [mean_over_processes(mean) for mean in means]
            least = max(1e-3 * sum(first) / len(first), 1e-12)
            self._first[name] = [max(value, least) for value in first]
        return (means / means.new_tensor(self._first[name])).mean()

    def observations(self) -> dict[str, float]:
        return {}

    @staticmethod
    def figures(log: list[dict[str, float]]) -> list[Picture]:
        return []

    def finish(self, student: Student) -> Student:
        network = _delta(student)
        keep_chosen(network)
        network.folding = "later"
        return network.eval().requires_grad_(False)

    def state_dict(self) -> Values:
        return {"first": {name: list(values) for name, values in self._first.items()}}

    def load_state_dict(self, state: Values) -> None:
        self._first = {name: list(values) for name, values in state["first"].items()}


def _searched(student: Student) -> list[SearchedStudent]:
    return [b.student for b in _delta(student).blocks().values() if isinstance(b.student, SearchedStudent)]


def _freeze_random_layers(module: nn.Module) -> None:
    """Switches dropout and stochastic depth off: with other draws for the two frames a still clip would move. [ours]

    They are known by the names of their classes, as libraries have many.
    """
    for part in module.modules():
        if any(word in type(part).__name__.lower() for word in ("dropout", "droppath", "stochasticdepth")):
            part.eval()


def _same_weights(network: nn.Module, other: nn.Module) -> bool:
    own, others = network.state_dict(), other.state_dict()
    return own.keys() == others.keys() and all(torch.equal(own[name], others[name].to(own[name])) for name in own)


def _delta(student: Student) -> DeltaNetwork:
    if not isinstance(student, DeltaNetwork):
        raise TypeError(f"delta distillation trains what its prepare() returned, not a {type(student).__name__}")
    return student
