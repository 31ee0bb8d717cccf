"""Ordinary training of a network of frames, clips or windows: how teachers are made, and every method's baseline."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vidistill.config import Values, Weight, check_numbers
from vidistill.data.clip import Batch
from vidistill.errors import UserError
from vidistill.methods.teacher import FrozenTeacher
from vidistill.models.outputs import named_tensors
from vidistill.ops.modules import evaluating
from vidistill.report.figures import Picture
from vidistill.students.card import Card
from vidistill.students.main_output import with_main_output
from vidistill.students.networks import running_on
from vidistill.students.norms import freeze_norms
from vidistill.students.student import Student
from vidistill.students.windows import as_student
from vidistill.tasks import Task

NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)


@dataclass(kw_only=True)
class Supervised:
    """Learns from labels and, with a teacher, from its soft predictions (Hinton et al. 2015).

    Args:
        freeze_norms: Keep the statistics of batch normalisation, for short runs from trained weights.
        decay_norms_and_biases: Whether weight decay applies to the norms' parameters and to biases.
        bias_learning_rate_factor: Times the learning rate: of all biases but the norms'.
        backbone_learning_rate_factor: Times the learning rate: of everything under `backbone.`, where its trained
            weights come from elsewhere.
    """

    name: ClassVar[str] = "supervised"
    key_frame_interval: ClassVar[int] = 1
    is_own_teacher: ClassVar[bool] = False
    default_losses: ClassVar[dict[str, float]] = {"task": 1.0, "teacher": 1.0}
    observed: ClassVar[tuple[str, ...]] = ()

    freeze_norms: bool = False
    decay_norms_and_biases: bool = True
    bias_learning_rate_factor: Weight = 1.0
    backbone_learning_rate_factor: Weight = 1.0

    def __post_init__(self) -> None:
        check_numbers(self)

    def for_run(self, folder: Path, *, optimiser: str = "adamw", measures: bool = True) -> Self:
        return copy.deepcopy(self)

    def prepare(
        self, network: nn.Module, example: Tensor, *, card: Card | None = None, teacher: FrozenTeacher | None = None
    ) -> Student:
        student = as_student(network, replace(card or Card(), form="per_frame", plan=None))
        seen = student.seen(example)
        student.network = with_main_output(student.network, seen)
        with torch.enable_grad(), evaluating(student.network), running_on(student.network, seen):
            outputs = student.network(seen)
        is_frozen = any(True for _ in student.parameters()) and not any(p.requires_grad for p in student.parameters())
        if not is_frozen and not any(tensor.requires_grad for tensor in named_tensors(outputs, "output").values()):
            raise UserError(
                f"{type(student.network).__name__} has no weights that its outputs could teach, as a "
                "quantised network; give it as it was before"
            )
        return student

    def parameter_groups(self, student: Student, learning_rate: float, *, steps: int) -> list[Values]:
        norms = [module for module in student.modules() if isinstance(module, NORMS)]
        in_norms = {id(parameter) for norm in norms for parameter in norm.parameters(recurse=False)}
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}  # by learning rate factor and whether it decays
        for name, parameter in student.named_parameters():
            if parameter.requires_grad:
                is_norm, is_bias = id(parameter) in in_norms, name.endswith("bias")
                factor = self.bias_learning_rate_factor if is_bias and not is_norm else 1.0
                factor *= self.backbone_learning_rate_factor if ".backbone." in f".{name}" else 1.0
                has_decay = self.decay_norms_and_biases or not (is_norm or is_bias)
                groups.setdefault((factor, has_decay), []).append(parameter)
        return [
            {"params": parameters, "lr": learning_rate * factor, **({} if has_decay else {"weight_decay": 0.0})}
            for (factor, has_decay), parameters in groups.items()
        ]

    def set_training(self, student: Student) -> None:
        student.train()
        if self.freeze_norms:
            freeze_norms(student)

    def losses(
        self, student: Student, teacher: FrozenTeacher | None, task: Task, batch: Batch, *, progress: float
    ) -> dict[str, Tensor]:
        inputs, labels = task.examples(batch.student, batch.labels)
        outputs, _ = student(inputs)
        teacher_outputs = None if teacher is None else teacher(task.examples(batch.teacher, batch.labels)[0])
        losses = task.supervise(outputs, labels, teacher_outputs)
        if teacher is not None:
            losses |= task.compare(outputs, teacher_outputs)
        return losses

    def observations(self) -> dict[str, float]:
        return {}

    @staticmethod
    def figures(log: list[dict[str, float]]) -> list[Picture]:
        return []

    def finish(self, student: Student) -> Student:
        student.training_parts = None
        return student.eval().requires_grad_(False)

    def state_dict(self) -> Values:
        return {}

    def load_state_dict(self, state: Values) -> None:
        pass
