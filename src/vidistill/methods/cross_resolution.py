"""Cross-resolution distillation: a student that sees small frames learns from a teacher that sees large ones.

Source: Ma et al., "Rethinking Resolution in the Context of Efficient Video Recognition", NeurIPS 2022 (arXiv
2209.12797), called ResKD there; see docs/cross_resolution.md for the equations and for where we differ.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidistill.config import Positive, Whole
from vidistill.data.clip import Batch
from vidistill.errors import UserError
from vidistill.methods.features import adapted, aligned, make_adapters
from vidistill.methods.stage_method import StageFeatures, StageMethod, parts_of
from vidistill.methods.teacher import FrozenTeacher
from vidistill.models.declares import declared
from vidistill.students.norms import batch_norms
from vidistill.students.student import Student
from vidistill.tasks import Task


@dataclass(kw_only=True)
class CrossResolution(StageMethod):
    """Compares the student's last features, upsampled to the teacher's grid, with the teacher's.

    Args:
        gap: "features": mean squared error of the features, published with weight 100; a training-only 1×1 projection
            where channels differ [ours]. "locations": T² · KL of the class logits at every location, each network's
            classifier applied to its own features, published for networks of different width with weight 200.
        temperature: T of "locations".
        classifier: Whose classifier reads the student's locations; the teacher's needs features of its channels.
        stages: Which to compare: pairs of module paths (student's, teacher's), or how many of the last stages;
            published: the last one.
        teacher_norms: What the teacher's batch normalisation uses: "batch", the statistics of the batch, as published;
            "stored", its own. Either way its own do not change.
    """

    name: ClassVar[str] = "cross_resolution"
    default_losses: ClassVar[dict[str, float]] = {"task": 1.0, "feature": 100.0, "location": 200.0}

    gap: Literal["features", "locations"] = "features"
    temperature: Positive = 2.0
    classifier: Literal["own", "teacher"] = "own"
    stages: Whole | list[tuple[str, str]] | None = 1
    teacher_norms: Literal["batch", "stored"] = "batch"

    def make_parts(
        self, network: nn.Module, teacher: FrozenTeacher, shapes: list[StageFeatures[torch.Size]]
    ) -> nn.ModuleDict:
        if teacher.cache is not None and self.teacher_norms == "batch" and batch_norms(teacher.network):
            raise UserError(
                "method.teacher_norms is batch, so the teacher's outputs for a clip depend on the rest of the batch "
                "and cannot be cached; set it to stored, or leave teacher.cache out"
            )
        if self.gap == "features":
            return make_adapters({shape.pair: (shape.student[2], shape.teacher[2]) for shape in shapes})
        for shape in shapes:
            _require_channels(shape.student[2], self._student_classifier(network, teacher.network))
            _require_channels(shape.teacher[2], classifier_of(teacher.network))
        return nn.ModuleDict()

    def _student_classifier(self, student: nn.Module, teacher: nn.Module) -> nn.Linear:
        """The layer that reads the student's locations."""
        return classifier_of(student if self.classifier == "own" else teacher)

    def losses(
        self, student: Student, teacher: FrozenTeacher | None, task: Task, batch: Batch, *, progress: float
    ) -> dict[str, Tensor]:
        assert teacher is not None
        with batch_statistics(teacher.network) if self.teacher_norms == "batch" else nullcontext():
            outputs, teacher_outputs, stages = self.features(student, teacher, batch)
        losses = task.supervise(outputs, batch.labels, teacher_outputs)
        gap = torch.stack([self._gap(student, teacher, stage) for stage in stages]).mean()
        return {**losses, "feature" if self.gap == "features" else "location": gap}

    def _gap(self, student: Student, teacher: FrozenTeacher, stage: StageFeatures[Tensor]) -> Tensor:
        if self.gap == "features":
            ours = adapted(stage.student, stage.pair, parts_of(student))
            return F.mse_loss(aligned(ours, stage.teacher), stage.teacher)
        reader = self._student_classifier(student.network, teacher.network)
        ours = location_logits(aligned(stage.student, stage.teacher), reader)
        theirs = location_logits(stage.teacher, classifier_of(teacher.network))
        return location_gap(ours, theirs, temperature=self.temperature)


def classifier_of(network: nn.Module) -> nn.Linear:
    """The network's last layer. Errors: UserError where it does not say which, or it is no linear layer."""
    path = declared(network).classifier
    layer = network.get_submodule(path) if path is not None else None
    if not isinstance(layer, nn.Linear):
        raise UserError(
            f"{type(network).__name__} does not say which linear layer its classifier is, so it has no class logits at "
            "locations; use gap: features"
        )
    return layer


def location_logits(features: Tensor, classifier: nn.Linear) -> Tensor:
    """(B, T, K, h, w): the classifier's logits at every location of features (B, T, C, h, w)."""
    _require_channels(features.shape[2], classifier)
    return classifier(features.movedim(2, -1)).movedim(-1, 2)


def _require_channels(num_channels: int, classifier: nn.Linear) -> None:
    if num_channels != classifier.in_features:
        raise UserError(
            f"the classifier reads {classifier.in_features} channels, the features have {num_channels}; compare the "
            "last stages, with classifier: own"
        )


def location_gap(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student) of class logits (B, T, K, h, w), mean over locations and classes; 0 for equal ones."""
    target = (teacher.detach().float() / temperature).log_softmax(dim=2)
    ours = (student.float() / temperature).log_softmax(dim=2)
    return F.kl_div(ours, target, reduction="none", log_target=True).mean() * temperature**2


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Batch normalisation by the statistics of the batch; the stored ones are neither used nor changed."""
    norms = batch_norms(network)
    modes = [(norm.training, norm.track_running_stats) for norm in norms]
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm, (training, tracking) in zip(norms, modes, strict=True):
            norm.training, norm.track_running_stats = training, tracking
