"""The delta student's cheap layers alone, on every frame: the baseline without key frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from vidistill.methods.supervised import Supervised
from vidistill.methods.teacher import FrozenTeacher
from vidistill.ops.clip_view import View
from vidistill.students.delta.conversion import Selection, plan_conversion
from vidistill.students.delta.plan import StudentSpec
from vidistill.students.delta.separable import Policy
from vidistill.students.low_rank import factorise
from vidistill.students.student import StatefulNetwork
from vidistill.students.windows import refuse_clips, require_whole_windows


@dataclass(kw_only=True)
class LowRank(Supervised):
    """Replaces each converted layer by its separable bottleneck, with the layer's bias, for good.

    Args:
        reduction: γ, by which a bottleneck is narrower than its layer.
        policy: "out": γ divides the layer's output channels; "min": the smaller of its input and output channels.
        rank: Channels of the bottleneck, instead of γ.
        convert: Path patterns of the layers to replace, see `Selection`; None for all.
        leave: Path patterns of layers that stay as they are.
        leave_first: How many layers stay at the start, in the order of running.
        leave_last: How many layers stay at the end.
        student_learning_rate_factor: Times the learning rate: of the bottlenecks. As for delta students, they start far
            from what they replace, while the rest is trained already.
    """

    name: ClassVar[str] = "low_rank"
    form: ClassVar[str] = "low_rank"

    reduction: int = 4
    policy: Policy = "out"
    rank: int | None = None
    convert: Sequence[str] | None = None
    leave: Sequence[str] = ()
    leave_first: int = 1
    leave_last: int = 1
    student_learning_rate_factor: float = 10.0

    def prepare(
        self,
        network: nn.Module,
        example: Tensor,
        *,
        view: View | None = None,
        teacher: FrozenTeacher | None = None,
    ) -> StatefulNetwork:
        refuse_clips(view, self.name)
        require_whole_windows(view, self.name, example)
        selection = Selection("layer", self.convert, self.leave, self.leave_first, self.leave_last)
        spec = StudentSpec("separable", self.reduction, self.policy, self.rank)
        return factorise(network, plan_conversion(network, example, selection, [spec]))

    def parameter_groups(self, student: StatefulNetwork, learning_rate: float, *, steps: int) -> list[dict[str, Any]]:
        assert student.plan is not None
        bottlenecks = [student.network.get_submodule(entry.path) for entry in student.plan.converted]
        cheap = {id(p) for bottleneck in bottlenecks for p in bottleneck.parameters()}
        trained = [p for p in student.parameters() if p.requires_grad]
        rate = learning_rate * self.student_learning_rate_factor
        return [
            {"params": [p for p in trained if id(p) in cheap], "lr": rate, "weight_decay": 0.0},
            {"params": [p for p in trained if id(p) not in cheap], "lr": learning_rate},
        ]
