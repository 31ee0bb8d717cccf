"""Cross-resolution distillation: a student that sees small frames learns from a teacher that sees large ones.

Source: Ma et al., "Rethinking Resolution in the Context of Efficient Video Recognition", NeurIPS 2022 (arXiv
2209.12797), called ResKD there; see docs/cross_resolution.md for the equations and for where we differ.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidistill.data.clip import Batch
from vidistill.errors import UserError
from vidistill.methods.features import adapted, aligned, make_adapters
from vidistill.methods.stage_method import StageFeatures, StageMethod, parts_of
from vidistill.methods.teacher import FrozenTeacher
from vidistill.models.declares import declared
from vidistill.students.norms import batch_norms
from vidistill.students.student import StatefulNetwork


@dataclass(kw_only=True)
class CrossResolution(StageMethod):
    """The student's last features, upsampled to the teacher's grid, against the teacher's.

    gap: "features", mean squared error of the features, where the published weight is 100; a training-only 1×1
        projection where channels differ [ours]. "locations", T² · KL of the class logits at every location, each
        network's classifier applied to its own features, published for networks of different width with weight 200.
    temperature: T of "locations". classifier: whose reads the student's locations; the teacher's needs its channels.
    stages: which to compare, as pairs of module paths, or how many of the last ones; published: the last one.
    teacher_norms: "batch", the teacher's batch normalisation on the statistics of the batch, as published; "stored",
        on its own. What it has stored stays as it is either way.
    """

    name: ClassVar[str] = "cross_resolution"
    default_losses: ClassVar[dict[str, float]] = {"task": 1.0, "feature": 100.0, "location": 200.0}

    gap: Literal["features", "locations"] = "features"
    temperature: float = 2.0
    classifier: Literal["own", "teacher"] = "own"
    stages: int | list[tuple[str, str]] | None = 1
    teacher_norms: Literal["batch", "stored"] = "batch"

    def make_parts(self, network: nn.Module, teacher: FrozenTeacher, shapes: list[StageFeatures]) -> nn.ModuleDict:
        if teacher.cache is not None and self.teacher_norms == "batch" and batch_norms(teacher.network):
            raise UserError(
                "method.teacher_norms is batch, so what the teacher says of a clip depends on the others of its batch "
                "and cannot be cached; set it to stored, or leave teacher.cache out"
            )
        if self.gap == "features":
            return make_adapters({found.pair: (found.student[2], found.teacher[2]) for found in shapes})
        for found in shapes:
            _require_channels(found.student[2], self._reader(network, teacher.network))
            _require_channels(found.teacher[2], classifier_of(teacher.network))
        return nn.ModuleDict()

    def _reader(self, student: nn.Module, teacher: nn.Module) -> nn.Linear:
        """The classifier of the student's locations."""
        return classifier_of(student if self.classifier == "own" else teacher)

    def losses(
        self, student: StatefulNetwork, teacher: FrozenTeacher | None, task: Any, batch: Batch, *, progress: float
    ) -> dict[str, Tensor]:
        assert teacher is not None
        with self._norms_of(teacher.network):
            outputs, teacher_outputs, stages = self.features(student, teacher, batch)
        losses = task.supervise(outputs, batch.labels, teacher_outputs)
        gap = torch.stack([self._gap(student, teacher, found) for found in stages]).mean()
        return {**losses, "feature" if self.gap == "features" else "location": gap}

    def _gap(self, student: StatefulNetwork, teacher: FrozenTeacher, found: StageFeatures) -> Tensor:
        if self.gap == "features":
            ours = adapted(found.student, found.pair, parts_of(student))
            return F.mse_loss(aligned(ours, found.teacher), found.teacher)
        return location_gap(
            location_logits(aligned(found.student, found.teacher), self._reader(student.network, teacher.network)),
            location_logits(found.teacher, classifier_of(teacher.network)),
            temperature=self.temperature,
        )

    def _norms_of(self, network: nn.Module) -> Any:
        return batch_statistics(network) if self.teacher_norms == "batch" else nullcontext()


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
    """(B, T, K, h, w): the classifier at every location of features (B, T, C, h, w)."""
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
    found = (student.float() / temperature).log_softmax(dim=2)
    return F.kl_div(found, target, reduction="none", log_target=True).mean() * temperature**2


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Batch normalisation on the statistics of the batch; what is stored is neither used nor changed."""
    norms = batch_norms(network)
    modes = [(norm.training, norm.track_running_stats) for norm in norms]
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm, (training, tracking) in zip(norms, modes, strict=True):
            norm.training, norm.track_running_stats = training, tracking
