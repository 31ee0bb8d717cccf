"""The delta student's cheap layers alone, on every frame: the baseline without key frames."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from vidistill.config import Count, Values, Weight, Whole
from vidistill.methods.supervised import Supervised
from vidistill.methods.teacher import FrozenTeacher
from vidistill.students.card import Card
from vidistill.students.delta.conversion import Selection, plan_conversion
from vidistill.students.delta.kinds import Policy, StudentSpec
from vidistill.students.low_rank import factorise, tried
from vidistill.students.main_output import with_main_output
from vidistill.students.networks import bare
from vidistill.students.student import Student
from vidistill.students.windows import refuse_clips, require_whole_windows


@dataclass(kw_only=True)
class LowRank(Supervised):
    """Every converted layer becomes its separable bottleneck with the layer's bias, for good.

    Args:
        reduction: γ, by which a bottleneck is narrower than its layer; this, `policy` and `rank` are those of
            `StudentSpec`.
        policy: What γ divides, "out" or "min".
        rank: The bottleneck's channels, instead of γ.
        convert: Path patterns of what is converted, None for all; this, `leave`, `leave_first` and `leave_last` are
            those of `Selection`.
        leave: Path patterns of what is not.
        leave_first: How many of the first layers are left.
        leave_last: How many of the last layers are left.
        student_learning_rate_factor: The bottlenecks' rate over that of the rest, as for delta students: they start far
            from what they replace, the rest is trained.
    """

    name: ClassVar[str] = "low_rank"

    reduction: Count = 4
    policy: Policy = "out"
    rank: Count | None = None
    convert: tuple[str, ...] | None = None
    leave: tuple[str, ...] = ()
    leave_first: Whole = 1
    leave_last: Whole = 1
    student_learning_rate_factor: Weight = 10.0

    def prepare(
        self, network: nn.Module, example: Tensor, *, card: Card | None = None, teacher: FrozenTeacher | None = None
    ) -> Student:
        card = card or Card()
        refuse_clips(card.view, self.name)
        require_whole_windows(card.view, self.name, example)
        selection = Selection("layer", self.convert, self.leave, self.leave_first, self.leave_last)
        spec = StudentSpec(reduction=self.reduction, policy=self.policy, rank=self.rank)  # the default is separable
        network = with_main_output(bare(network), example)
        plan = tried(network, plan_conversion(network, example, selection, [spec]), example)
        return factorise(network, plan, card)

    def parameter_groups(self, student: Student, learning_rate: float, *, steps: int) -> list[Values]:
        assert student.plan is not None
        bottlenecks = [student.network.get_submodule(entry.path) for entry in student.plan.converted]
        cheap = {id(p) for bottleneck in bottlenecks for p in bottleneck.parameters()}
        trained = [p for p in student.parameters() if p.requires_grad]
        rate = learning_rate * self.student_learning_rate_factor
        return [
            {"params": [p for p in trained if id(p) in cheap], "lr": rate, "weight_decay": 0.0},
            {"params": [p for p in trained if id(p) not in cheap], "lr": learning_rate},
        ]
