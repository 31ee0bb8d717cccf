"""Student architecture search: which of its candidates each block gets is learned while the candidates train.

Source: Habibian et al., "Delta Distillation for Efficient Video Processing", ECCV 2022 (arXiv 2203.09594): a gate per
block, sampled by a hard straight-through Gumbel relaxation with τ = 2/3, started at −1, and a cost loss. More than two
candidates, none or several of them at full cost, measured latency as the cost, and a last part of the run in which
the choice is settled and trains undisturbed are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only

from vidistill.config import LearningRate, Pixels, check_numbers, real
from vidistill.students.delta.calls import Call, Tree, map_outputs
from vidistill.students.delta.kinds import CANDIDATES, BlockStudent, StudentSpec, make_student
from vidistill.students.delta.plan import BlockPlan
from vidistill.students.state import State

TEMPERATURE = 2 / 3
START = -1.0  # the gate of a candidate at full cost; the cheap candidates' are 0
TRAVEL = 12.0  # how far Adam may move a gate in a whole search at a constant rate


@dataclass(frozen=True)
class Search:
    """What is searched, and for which cost.

    Args:
        candidates: The students among which every block that can have them chooses, two different ones or more.
        cost: "macs", or "latency" from a table measured on this machine for `runtime`, `precision` and `size`.
        size: (height, width) at which the latency is measured; by default that of the training clips.
        runtime: How the candidates run when they are measured, a key of `RUNTIMES`.
        precision: One of the runtime's.
        table: The file that keeps the latencies.
        until: The part of the run that searches, 0.001 to 1; in the rest the chosen candidates alone are
            trained.
        gate_learning_rate: By default such that a gate can travel the same way in a run of any length, for an
            optimiser whose steps do not depend on the gradient's size.

    Raises:
        ValueError: Where `until` lies outside its range, or there are too few candidates.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    candidates: tuple[StudentSpec, ...] = CANDIDATES
    cost: Literal["macs", "latency"] = "macs"
    size: tuple[Pixels, Pixels] | None = None
    runtime: str = "eager"
    precision: Literal["float32", "bfloat16"] = "float32"
    table: Path | None = None
    until: Annotated[float, *real(0.001, 1)] = 0.6
    gate_learning_rate: LearningRate | None = None

    def __post_init__(self) -> None:
        check_numbers(self)
        different = len(set(self.candidates))
        if different < 2:
            raise ValueError(
                f"search.candidates must hold two different ones or more, among which the run can choose, "
                f"got {different}"
            )

    def rate(self, steps: int) -> float:
        """The gates' learning rate in a run of so many steps."""
        return TRAVEL / (self.until * steps) if self.gate_learning_rate is None else self.gate_learning_rate


class SearchedStudent(BlockStudent):
    """All candidates of one block and the gates that choose among them.

    While the search lasts, training samples one a step, `draw`; after `settle`, and wherever nothing is trained, the
    candidate of the largest gate acts alone.
    """

    costs: Tensor  # (candidates,), each as a part of the whole network's blocks at full cost

    def __init__(self, candidates: Sequence[BlockStudent]) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(candidates)
        is_full_cost = torch.tensor([candidate.is_full_cost for candidate in candidates])
        self.gates = nn.Parameter(torch.where(is_full_cost, START, 0.0))  # (candidates,)
        self.register_buffer("costs", torch.zeros(len(candidates)), persistent=False)
        self._sample: Tensor | None = None  # (candidates,), one-hot

    def draw(self) -> None:
        """Chooses this step's candidate: one-hot, with the gradient of the relaxed choice."""
        noise = -torch.empty_like(self.gates).exponential_().log()
        soft = torch.softmax((self.gates + noise) / TEMPERATURE, dim=0)
        hard = F.one_hot(soft.argmax(), len(soft)).to(soft.dtype)
        self._sample = hard + (soft - soft.detach())

    def settle(self) -> None:
        """Ends the sampling: training goes on with the candidate of the largest gate."""
        self._sample = None

    def cost(self) -> Tensor:
        """(), the cost of this step's candidate."""
        assert self._sample is not None
        return (self._sample * self.costs).sum()

    @property
    def choice(self) -> int:
        """The candidate that would be kept now."""
        return int(self.gates.argmax())

    @property
    def chosen(self) -> BlockStudent:
        return self.students()[self.choice]

    def students(self) -> list[BlockStudent]:
        return [student for student in self.candidates if isinstance(student, BlockStudent)]

    def change(self, key: Call, now: Call, key_output: Tree) -> Tree:
        sample = self._sample
        if sample is None or not torch.is_grad_enabled():
            return self.chosen.change(key, now, key_output)
        drawn, total = int(sample.argmax()), None
        for index, (part, student) in enumerate(zip(sample, self.students(), strict=True)):
            with torch.set_grad_enabled(index == drawn):  # the others count 0: only the gates learn of them
                change = student.change(key, now, key_output)
            weighted = tree_map_only(Tensor, partial(torch.mul, part), change)
            total = weighted if total is None else map_outputs(torch.add, total, weighted)
        return total

    def fold(self, key: Call, key_output: Tree) -> State:
        return self.chosen.fold(key, key_output)

    def follow(self, now: Call, folded: State) -> Tree:
        return self.chosen.follow(now, folded)

    def start(self, block: nn.Module) -> None:
        for student in self.students():
            student.start(block)

    def set_training(self) -> None:
        for student in self.students():
            student.set_training()


def make_block_student(entry: BlockPlan, block: nn.Module) -> BlockStudent:
    """The student of a plan's block, or all its candidates where there is more than one."""
    students = [make_student(candidate.student, block, entry.channels) for candidate in entry.candidates]
    return students[0] if len(students) == 1 else SearchedStudent(students)
