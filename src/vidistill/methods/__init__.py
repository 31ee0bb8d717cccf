"""How a student learns: what a method promises, and `METHODS`. A new method is a file here and one line below."""

from pathlib import Path
from typing import ClassVar, Protocol, Self

from torch import Tensor, nn

from vidistill.config import Values
from vidistill.data.clip import Batch
from vidistill.methods.collaborative import Collaborative
from vidistill.methods.cross_resolution import CrossResolution
from vidistill.methods.delta import Delta
from vidistill.methods.low_rank import LowRank
from vidistill.methods.space_time import SpaceTime
from vidistill.methods.supervised import Supervised
from vidistill.methods.teacher import FrozenTeacher
from vidistill.report.figures import Picture
from vidistill.students.card import Card
from vidistill.students.student import Student
from vidistill.tasks import Task


class Method(Protocol):
    """A method knows student, teacher and time; it asks the task what outputs mean. Its settings are its fields.

    Its life is three verbs: `prepare` rewrites a network into a student before training, `losses` is asked at each
    step, `finish` leaves a plain module to deploy, with the same outputs and no training part.
    """

    name: ClassVar[str]
    default_losses: ClassVar[dict[str, float]]
    observed: ClassVar[tuple[str, ...]]  # patterns of what it logs beside losses

    @property
    def key_frame_interval(self) -> int:
        """The default for streams, in frames; 1 for students that are alike on every frame."""
        ...

    @property
    def is_own_teacher(self) -> bool:
        """Whether students learn from their own key frames, so that they need neither labels nor a teacher."""
        ...

    def for_run(self, folder: Path, *, optimiser: str = "adamw", measures: bool = True) -> Self:
        """A copy of the settings for a run in `folder`, with what the run decides filled in.

        measures: False stands in for what would have to be measured on this machine first.

        Raises:
            UserError: the settings need another optimiser.
        """
        ...

    def prepare(
        self, network: nn.Module, example: Tensor, *, card: Card | None = None, teacher: FrozenTeacher | None = None
    ) -> Student:
        """A student that obeys `outputs, state = student(frame, state)`.

        Args:
            network: to start from.
            example: (1, 3, H, W), a normalised frame, or (1, T, 3, H, W), a clip or window, of which it sees the
                card's view.
            card: what is known of the student before; the method adds form and plan.
        """
        ...

    def parameter_groups(self, student: Student, learning_rate: float, *, steps: int) -> list[Values]:
        """The student's trained parameters as optimiser groups, for a run of so many steps."""
        ...

    def set_training(self, student: Student) -> None:
        """Puts the student into training mode; called before every step."""
        ...

    def losses(
        self, student: Student, teacher: FrozenTeacher | None, task: Task, batch: Batch, *, progress: float
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

    def finish(self, student: Student) -> Student:
        """The deployable student."""
        ...

    def state_dict(self) -> Values:
        """What the method itself must remember to resume."""
        ...

    def load_state_dict(self, state: Values) -> None: ...


METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
    "low_rank": LowRank,
    "delta": Delta,
    "cross_resolution": CrossResolution,
    "collaborative": Collaborative,
    "space_time": SpaceTime,
}
