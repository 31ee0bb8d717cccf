"""What the methods share that compare the stages of a student and a teacher on clips."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from vidistill.config import Whole
from vidistill.data.clip import Batch
from vidistill.errors import UserError
from vidistill.methods.features import StagePair, feature_shapes, match_stages, run_with_features
from vidistill.methods.supervised import Supervised
from vidistill.methods.teacher import FrozenTeacher
from vidistill.students.card import Card
from vidistill.students.student import Student
from vidistill.students.windows import require_clips

_Value = TypeVar("_Value", Tensor, torch.Size)


@dataclass(frozen=True)
class StageFeatures(Generic[_Value]):
    """What both networks give at a pair of stages: features (B, T, C, h, w), or only their shapes."""

    pair: StagePair
    student: _Value
    teacher: _Value


@dataclass(kw_only=True)
class StageMethod(Supervised, ABC):
    """Compares stages of both networks.

    Args:
        stages: Which: pairs of module paths (student's, teacher's), or how many of the last stages; None for as many
            as both networks have.
    """

    name: ClassVar[str]

    stages: Whole | list[tuple[str, str]] | None = None

    def prepare(
        self, network: nn.Module, example: Tensor, *, card: Card | None = None, teacher: FrozenTeacher | None = None
    ) -> Student:
        require_clips((card or Card()).view, self.name)
        if teacher is None:
            raise UserError(f"{self.name} distillation needs a teacher; name one in the recipe")
        student = super().prepare(network, example, card=card)
        pairs = match_stages(network, teacher.network, self.stages)
        ours = feature_shapes(network, student.seen(example), [pair.student for pair in pairs])
        theirs = feature_shapes(teacher.network, teacher.seen(example), [pair.teacher for pair in pairs])
        shapes = [StageFeatures(pair, ours[pair.student], theirs[pair.teacher]) for pair in pairs]
        student.training_parts = self.make_parts(network, teacher, shapes)
        return student

    @abstractmethod
    def make_parts(
        self, network: nn.Module, teacher: FrozenTeacher, shapes: list[StageFeatures[torch.Size]]
    ) -> nn.ModuleDict:
        """The modules that train with the student. shapes: of one clip.

        Errors: UserError for stages that cannot be compared.
        """

    def features(
        self, student: Student, teacher: FrozenTeacher, batch: Batch
    ) -> tuple[Any, Any, list[StageFeatures[Tensor]]]:
        """The student's outputs, the teacher's, and the features of both at every pair of stages."""
        pairs = match_stages(student.network, teacher.network, self.stages)
        teacher_outputs, theirs = teacher.run(batch.teacher, [pair.teacher for pair in pairs])
        clips = student.seen(batch.student)
        outputs, ours = run_with_features(student.network, clips, [pair.student for pair in pairs])
        stages = [StageFeatures(pair, ours[pair.student], theirs[pair.teacher]) for pair in pairs]
        return outputs, teacher_outputs, stages


def parts_of(student: Student) -> nn.ModuleDict:
    """What `make_parts` made."""
    assert isinstance(student.training_parts, nn.ModuleDict)
    return student.training_parts
