"""How a student learns: what a method promises, and the registry `METHODS`."""

from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from vidistill.data.clip import Batch
from vidistill.methods.collaborative import Collaborative
from vidistill.methods.cross_resolution import CrossResolution
from vidistill.methods.delta import Delta
from vidistill.methods.low_rank import LowRank
from vidistill.methods.space_time import SpaceTime
from vidistill.methods.supervised import Supervised
from vidistill.methods.teacher import FrozenTeacher
from vidistill.ops.clip_view import View
from vidistill.report.figures import Picture
from vidistill.students.student import StatefulNetwork


class Method(Protocol):
    """A method knows student, teacher and time; what outputs mean it asks the task.

    Its life is three verbs: `prepare` rewrites a network into a student before training, `losses` is asked at each
    step, `finish` leaves a plain module to deploy, with the same outputs and no training part.
    """

    name: ClassVar[str]
    form: ClassVar[str]  # of the finished student, see Card
    default_losses: ClassVar[dict[str, float]]
    observed: ClassVar[tuple[str, ...]]  # the names that `observations` may log

    def prepare(
        self,
        network: nn.Module,
        example: Tensor,
        *,
        view: View | None = None,
        teacher: FrozenTeacher | None = None,
    ) -> StatefulNetwork:
        """A student that obeys `outputs, state = student(frame, state)`.

        example: (1, 3, H, W), a normalised frame, or (1, T, 3, H, W), a clip or window, of which it sees `view`.
        """
        ...

    def parameter_groups(self, student: StatefulNetwork, learning_rate: float, *, steps: int) -> list[dict[str, Any]]:
        """The student's trained parameters as optimiser groups, for a run of so many steps."""
        ...

    def set_training(self, student: StatefulNetwork) -> None:
        """Puts the student into training mode; called before every step."""
        ...

    def losses(
        self, student: StatefulNetwork, teacher: FrozenTeacher | None, task: Any, batch: Batch, *, progress: float
    ) -> dict[str, Tensor]:
        """Named, unweighted losses of one batch of normalised clips; progress: 0…1 of the run."""
        ...

    def observations(self) -> dict[str, float]:
        """What the log should keep beside the losses, by names of `observed`."""
        ...

    @staticmethod
    def figures(log: list[dict[str, float]]) -> list[Picture]:
        """The method's own figures of a run, from its log: one dict for each logged step."""
        ...

    def finish(self, student: StatefulNetwork) -> StatefulNetwork:
        """The deployable student."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What the method itself must remember to resume."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
    "low_rank": LowRank,
    "delta": Delta,
    "cross_resolution": CrossResolution,
    "collaborative": Collaborative,
    "space_time": SpaceTime,
}
