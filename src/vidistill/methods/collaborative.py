"""Collaborative distillation in the parameter and spectrum domains.

After the abstract of Su et al., "Collaborative Distillation in the Parameter and Spectrum Domains for Video Action
Recognition", 2020 (arXiv 2009.06902): the temporal spectrum of features, the frequency distribution of parameters, and
a probabilistic strategy that optimises them together. Only the abstract is public to us, so every formula is our
choice; see docs/collaborative.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vidistill.data.clip import Batch
from vidistill.errors import UserError
from vidistill.methods.features import StagePair, adapted, aligned, make_adapters
from vidistill.methods.stage_method import StageFeatures, StageMethod, parts_of
from vidistill.methods.teacher import FrozenTeacher
from vidistill.models.declares import declared
from vidistill.ops.spectrum import (
    Kind,
    Transform,
    distribution_gap,
    frequency_distribution,
    num_frequencies,
    spectrum_gap,
)
from vidistill.students.student import StatefulNetwork

BOUND = 6.0  # of the learned log variances
REGRESSIONS = ("spectrum",)  # terms that are squared distances, which Kendall et al. weigh by a half


@dataclass(frozen=True)
class SpectrumSpec:
    """Which spectrum of the features is compared, see `spectrum_gap`. pooled: of their mean over space."""

    transform: Transform = "fft"
    kind: Kind = "amplitude"
    frequency_weights: tuple[float, ...] | None = None
    normalised: bool = True
    pooled: bool = False

    def check(self, *, num_frames: int) -> None:
        """Errors: UserError for another number of weights than of frequencies, or a negative one."""
        expected, weights = num_frequencies(num_frames, self.transform), self.frequency_weights
        if weights is not None and (len(weights) != expected or min(weights) < 0):
            raise UserError(
                f"method.spectrum has {len(weights)} frequency_weights for {num_frames} frames, which have {expected}; "
                "give one each, from the mean over time upward, none negative"
            )

    def gap(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Of features (B, T, C, h, w) in the teacher's channels."""
        student = aligned(student, teacher)
        if self.pooled:
            student, teacher = (f.mean(dim=(-2, -1), keepdim=True) for f in (student, teacher))
        return spectrum_gap(
            student,
            teacher,
            transform=self.transform,
            kind=self.kind,
            frequency_weights=self.frequency_weights,
            normalised=self.normalised,
        )


class LearnedWeights(nn.Module):
    """Σ c · exp(−s) · L + s / 2 over the losses, with s learned: the log variance of each, from 0, within ±6.

    c is a half for squared distances and 1 for the others. Source: Kendall, Gal & Cipolla, "Multi-Task Learning Using
    Uncertainty to Weigh Losses", CVPR 2018.
    """

    factors: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.log_variances = nn.Parameter(torch.zeros(len(self.names)))
        factors = torch.tensor([0.5 if name in REGRESSIONS else 1.0 for name in self.names])
        self.register_buffer("factors", factors, persistent=False)

    def forward(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """The losses, weighted, and `balance`, the sum of s / 2."""
        with (
            torch.no_grad()
        ):  # the parameter itself, for a clamp in the formula would leave no gradient to come back by
            self.log_variances.clamp_(-BOUND, BOUND)
        weights = dict(zip(self.names, self._weights(), strict=True))
        weighted = {name: weights[name] * loss for name, loss in losses.items()}
        return {**weighted, "balance": self.log_variances.sum() / 2}

    def _weights(self) -> Tensor:
        return self.factors * torch.exp(-self.log_variances)

    def weights(self) -> dict[str, float]:
        """c · exp(−s) of each loss."""
        return dict(zip(self.names, self._weights().tolist(), strict=True))


@dataclass(kw_only=True)
class Collaborative(StageMethod):
    """Labels, a teacher's feature spectra and its kernels' frequency distribution.

    spectrum: None to leave it out. parameters: whether kernels are compared. logits: whether the teacher's predictions
    are, as in `supervised`. stages: which are compared, as pairs of module paths, or how many of the last ones; by
    default as many as both networks have. weighting: "learned", see `LearnedWeights`, or "fixed", the recipe's weights
    alone. weights_learning_rate: of the learned ones; None for the recipe's, which in a short run hardly moves them.
    """

    name: ClassVar[str] = "collaborative"
    default_losses: ClassVar[dict[str, float]] = {
        "task": 1.0, "teacher": 1.0, "spectrum": 1.0, "parameters": 1.0, "balance": 1.0
    }  # fmt: skip

    spectrum: SpectrumSpec | None = field(default_factory=SpectrumSpec)
    parameters: bool = True
    logits: bool = False
    weighting: Literal["learned", "fixed"] = "learned"
    weights_learning_rate: float | None = None
    _weights: LearnedWeights | None = field(default=None, init=False, repr=False)

    def make_parts(self, network: nn.Module, teacher: FrozenTeacher, shapes: list[StageFeatures]) -> nn.ModuleDict:
        parts = nn.ModuleDict()
        if self.spectrum is not None:
            for found in shapes:
                self.spectrum.check(num_frames=found.teacher[1])
            parts["adapters"] = make_adapters({found.pair: (found.student[2], found.teacher[2]) for found in shapes})
        if self.parameters:
            comparable_kernels(network, teacher.network, [found.pair for found in shapes])
        if self.weighting == "learned":
            self._weights = LearnedWeights(self._names())
            parts["weights"] = self._weights
        return parts

    def _names(self) -> list[str]:
        chosen = {"teacher": self.logits, "spectrum": self.spectrum is not None, "parameters": self.parameters}
        return ["task", *(name for name, is_chosen in chosen.items() if is_chosen)]

    def losses(
        self, student: StatefulNetwork, teacher: FrozenTeacher | None, task: Any, batch: Batch, *, progress: float
    ) -> dict[str, Tensor]:
        assert teacher is not None
        outputs, teacher_outputs, stages = self.features(student, teacher, batch)
        parts: Any = parts_of(student)
        losses = task.supervise(outputs, batch.labels, teacher_outputs)
        if self.logits:
            losses |= task.compare(outputs, teacher_outputs)
        if self.spectrum is not None:
            ours = [adapted(found.student, found.pair, parts["adapters"]) for found in stages]
            gaps = [self.spectrum.gap(own, found.teacher) for own, found in zip(ours, stages, strict=True)]
            losses["spectrum"] = torch.stack(gaps).mean()
        if self.parameters:
            losses["parameters"] = parameter_gap(student.network, teacher.network, [found.pair for found in stages])
        return parts["weights"](losses) if self.weighting == "learned" else losses

    def parameter_groups(self, student: StatefulNetwork, learning_rate: float, *, steps: int) -> list[dict[str, Any]]:
        groups = super().parameter_groups(student, learning_rate, steps=steps)
        own = set() if self._weights is None else {id(p) for p in self._weights.parameters()}
        for group in groups:
            group["params"] = [p for p in group["params"] if id(p) not in own]
        if self._weights is not None:
            rate = self.weights_learning_rate or learning_rate
            groups.append({"params": list(self._weights.parameters()), "lr": rate, "weight_decay": 0.0})
        return [group for group in groups if group["params"]]

    def observations(self) -> dict[str, float]:
        """The weight that each loss has now, where they are learned."""
        weights = {} if self._weights is None else self._weights.weights()
        return {f"weight_{name}": weight for name, weight in weights.items()}


def spatial_kernels(network: nn.Module, stage: str) -> dict[int, list[Tensor]]:
    """The weights of a stage's convolutions with k×k kernels, k > 1, by k; those of one over time too, slice by slice.

    A stage that the network declares is all that it holds behind the stage before, up to this path: a MobileNet's last
    one ends at a norm. Any other path is that module alone. 1×1 kernels have no spatial spectrum, and other shapes no
    square one.
    """
    found: dict[int, list[Tensor]] = {}
    for part in _parts_of_stage(network, stage):
        if isinstance(part, nn.Conv2d | nn.Conv3d) and part.kernel_size[-1] == part.kernel_size[-2] > 1:
            found.setdefault(part.kernel_size[-1], []).append(part.weight)
    return found


def _parts_of_stage(network: nn.Module, stage: str) -> list[nn.Module]:
    stages = declared(network).stages
    if stage not in stages:
        return list(network.get_submodule(stage).modules())
    modules = dict(network.named_modules())

    def end(path: str) -> int:
        return max(place for place, name in enumerate(modules, 1) if f"{name}.".startswith(f"{path}."))

    earlier = stages[: stages.index(stage)]
    return list(modules.values())[end(earlier[-1]) if earlier else 0 : end(stage)]


def comparable_kernels(
    student: nn.Module, teacher: nn.Module, pairs: Sequence[StagePair]
) -> list[tuple[list[Tensor], list[Tensor]]]:
    """For every pair of stages and every kernel size that both have, the student's and the teacher's kernels.

    Errors: UserError where there are none.
    """
    found = []
    for pair in pairs:
        ours, theirs = (
            spatial_kernels(network, path) for network, path in ((student, pair.student), (teacher, pair.teacher))
        )
        found += [(ours[k], theirs[k]) for k in sorted(ours.keys() & theirs.keys())]
    if not found:
        raise UserError(
            "student and teacher have no kernels of one size in the stages that are compared, so there is no parameter "
            "distribution; set method.parameters: false"
        )
    return found


def parameter_gap(student: nn.Module, teacher: nn.Module, pairs: Sequence[StagePair]) -> Tensor:
    """KL of the frequency distributions of the stages' kernels, mean over stages and kernel sizes."""
    gaps = [
        distribution_gap(frequency_distribution(ours), frequency_distribution(theirs))
        for ours, theirs in comparable_kernels(student, teacher, pairs)
    ]
    return torch.stack(gaps).mean()
