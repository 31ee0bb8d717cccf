"""Collaborative distillation in the parameter and spectrum domains.

After the abstract of Su et al., "Collaborative Distillation in the Parameter and Spectrum Domains for Video Action
Recognition", 2020 (arXiv 2009.06902): the temporal spectrum of features, the frequency distribution of parameters, and
a probabilistic strategy that optimises them together. Only the abstract is public to us, so every formula is our
choice; see docs/collaborative.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vidistill.config import LearningRate, Values, Weight
from vidistill.data.clip import Batch
from vidistill.errors import UserError
from vidistill.methods.features import StagePair, adapted, aligned, make_adapters
from vidistill.methods.stage_method import StageFeatures, StageMethod, parts_of
from vidistill.methods.teacher import FrozenTeacher
from vidistill.models.declares import declared
from vidistill.ops.spectrum import (
    SpectrumKind,
    Transform,
    distribution_gap,
    frequency_distribution,
    num_frequencies,
    spectrum_gap,
)
from vidistill.report.figures import BASELINES, STUDENT, Picture, picture
from vidistill.students.student import Student
from vidistill.tasks import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BOUND = 6.0  # of the learned log variances
REGRESSIONS = ("spectrum",)  # losses that are squared distances, which Kendall et al. weight by a half
WEIGHT = "weight_"  # what the names of the learned weights begin with in the log


@dataclass(frozen=True)
class SpectrumSpec:
    """Which spectrum of the features is compared.

    Args:
        transform: Over time: "fft", or "dct" for the DCT-II.
        kind: "complex" for the spectrum itself, "amplitude" for its magnitude, "power" for the square of that, "log"
            for log(1 + amplitude).
        frequency_weights: Of the squared gaps, one for each frequency from the mean over time upward; None for all 1.
        normalised: Scale each clip's spectrum to unit norm.
        pooled: Take the mean of the features over space first.
    """

    transform: Transform = "fft"
    kind: SpectrumKind = "amplitude"
    frequency_weights: tuple[Weight, ...] | None = None
    normalised: bool = True
    pooled: bool = False

    def check(self, *, num_frames: int) -> None:
        """Errors: UserError for another number of weights than of frequencies, or a negative one."""
        expected, weights = num_frequencies(num_frames, self.transform), self.frequency_weights
        if weights is not None and (len(weights) != expected or min(weights) < 0):
            raise UserError(
                f"method.spectrum.frequency_weights must be {expected} numbers for {num_frames} frames, none negative, "
                f"got {list(weights)}; give one for each frequency, from the mean over time upward"
            )

    def gap(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The gap of features (B, T, C, h, w), the student's in the teacher's channels."""
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
    """Σ c · exp(−s) · L + s / 2 over the losses L, where s, the log variance of each, is learned from 0, within ±6.

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
        # clamp the parameter itself: a clamp in the formula would leave no gradient to bring it back
        with torch.no_grad():
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
    """Learns from labels, the spectra of a teacher's features and the frequency distribution of its kernels.

    Args:
        spectrum: Which spectrum is compared; None leaves this part out.
        parameters: Whether kernels are compared.
        logits: Whether the teacher's predictions are compared, as in `supervised`.
        stages: Which stages are compared: pairs of module paths (student's, teacher's), or how many of the last ones;
            None for as many as both networks have.
        weighting: "learned", see `LearnedWeights`, or "fixed": the recipe's weights alone.
        weights_learning_rate: Learning rate of the learned weights; None for the recipe's, which hardly moves them in
            a short run.
    """

    name: ClassVar[str] = "collaborative"
    default_losses: ClassVar[dict[str, float]] = {
        "task": 1.0, "teacher": 1.0, "spectrum": 1.0, "parameters": 1.0, "balance": 1.0
    }  # fmt: skip
    observed: ClassVar[tuple[str, ...]] = (
        f"{WEIGHT}task", f"{WEIGHT}teacher", f"{WEIGHT}spectrum", f"{WEIGHT}parameters"
    )  # fmt: skip

    spectrum: SpectrumSpec | None = field(default_factory=SpectrumSpec)
    parameters: bool = True
    logits: bool = False
    weighting: Literal["learned", "fixed"] = "learned"
    weights_learning_rate: LearningRate | None = None
    _weights: LearnedWeights | None = field(default=None, init=False, repr=False)

    def make_parts(
        self, network: nn.Module, teacher: FrozenTeacher, shapes: list[StageFeatures[torch.Size]]
    ) -> nn.ModuleDict:
        parts = nn.ModuleDict()
        if self.spectrum is not None:
            for shape in shapes:
                self.spectrum.check(num_frames=shape.teacher[1])
            parts["adapters"] = make_adapters({shape.pair: (shape.student[2], shape.teacher[2]) for shape in shapes})
        if self.parameters:
            comparable_kernels(network, teacher.network, [shape.pair for shape in shapes])
        if self.weighting == "learned":
            chosen = {"teacher": self.logits, "spectrum": self.spectrum is not None, "parameters": self.parameters}
            self._weights = LearnedWeights(["task", *(name for name, is_chosen in chosen.items() if is_chosen)])
            parts["weights"] = self._weights
        return parts

    def losses(
        self, student: Student, teacher: FrozenTeacher | None, task: Task, batch: Batch, *, progress: float
    ) -> dict[str, Tensor]:
        assert teacher is not None
        outputs, teacher_outputs, stages = self.features(student, teacher, batch)
        parts = parts_of(student)
        losses = task.supervise(outputs, batch.labels, teacher_outputs)
        if self.logits:
            losses |= task.compare(outputs, teacher_outputs)
        if self.spectrum is not None:
            adapters = parts["adapters"]
            assert isinstance(adapters, nn.ModuleDict)
            ours = [adapted(stage.student, stage.pair, adapters) for stage in stages]
            gaps = [self.spectrum.gap(own, stage.teacher) for own, stage in zip(ours, stages, strict=True)]
            losses["spectrum"] = torch.stack(gaps).mean()
        if self.parameters:
            losses["parameters"] = parameter_gap(student.network, teacher.network, [stage.pair for stage in stages])
        return parts["weights"](losses) if self.weighting == "learned" else losses

    def parameter_groups(self, student: Student, learning_rate: float, *, steps: int) -> list[Values]:
        groups = super().parameter_groups(student, learning_rate, steps=steps)
        own = set() if self._weights is None else {id(p) for p in self._weights.parameters()}
        for group in groups:
            group["params"] = [p for p in group["params"] if id(p) not in own]
        if self._weights is not None:
            rate = self.weights_learning_rate or learning_rate
            groups.append({"params": list(self._weights.parameters()), "lr": rate, "weight_decay": 0.0})
        return [group for group in groups if group["params"]]

    def observations(self) -> dict[str, float]:
        """The weight that each loss has now, where the weights are learned."""
        weights = {} if self._weights is None else self._weights.weights()
        return {f"{WEIGHT}{name}": weight for name, weight in weights.items()}

    @staticmethod
    def figures(log: list[dict[str, float]]) -> list[Picture]:
        return weight_figures(log)


def spatial_kernels(network: nn.Module, stage: str) -> dict[int, list[Tensor]]:
    """The weights (…, k, k) of a stage's convolutions with k×k kernels, k > 1, by k; slices of those over time too.

    A stage that the network declares is everything behind the stage before, up to this path: the last one of a
    MobileNet ends at a norm. Any other path is that module alone. 1×1 kernels have no spatial spectrum, and other
    shapes no square one.
    """
    kernels: dict[int, list[Tensor]] = {}
    for part in _parts_of_stage(network, stage):
        if isinstance(part, nn.Conv2d | nn.Conv3d) and part.kernel_size[-1] == part.kernel_size[-2] > 1:
            kernels.setdefault(part.kernel_size[-1], []).append(part.weight)
    return kernels


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
    """The student's and the teacher's kernels, for every pair of stages and every kernel size that both have.

    Errors: UserError where they have none in common.
    """
    kernels = []
    for pair in pairs:
        ours, theirs = spatial_kernels(student, pair.student), spatial_kernels(teacher, pair.teacher)
        kernels += [(ours[k], theirs[k]) for k in sorted(ours.keys() & theirs.keys())]
    if not kernels:
        raise UserError(
            "student and teacher have no kernels of one size in the stages that are compared, so their parameters "
            "cannot be compared; set method.parameters: false"
        )
    return kernels


def parameter_gap(student: nn.Module, teacher: nn.Module, pairs: Sequence[StagePair]) -> Tensor:
    """KL(teacher ‖ student) of the frequency distributions of kernels, mean over stages and kernel sizes."""
    gaps = [
        distribution_gap(frequency_distribution(ours), frequency_distribution(theirs))
        for ours, theirs in comparable_kernels(student, teacher, pairs)
    ]
    return torch.stack(gaps).mean()


def weight_figures(log: list[dict[str, float]]) -> list[Picture]:
    """The weight that each loss had, step by step; nothing where the weights were not learned."""
    names = [name for name in (log[-1] if log else {}) if name.startswith(WEIGHT)]
    if not names:
        return []
    curves = {name.removeprefix(WEIGHT): [line.get(name, np.nan) for line in log] for name in names}
    words = "; ".join(f"{name} from {curve[0]:.3g} to {curve[-1]:.3g}" for name, curve in curves.items())
    draw = partial(_draw_weights, steps=[line["step"] for line in log], curves=curves)
    return [picture(draw, f"Learned weights of the losses: {words}", "The weights that the run gave its losses")]


def _draw_weights(axes: "Axes", *, steps: list[float], curves: dict[str, list[float]]) -> None:
    for (name, curve), colour in zip(curves.items(), cycle((STUDENT, *BASELINES)), strict=False):
        axes.plot(steps, curve, color=colour, linewidth=1.6, label=name)
    axes.set(xlabel="step", ylabel="weight")
    axes.legend()
