"""Space-time distillation: a student learns where its teacher's features are active, and how they change.

Source: Xiao et al., "Space-Time Distillation for Video Super-Resolution", CVPR 2021; see docs/space_time.md for the
equations and for where we differ.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from vidistill.config import Count, Values, Weight
from vidistill.data.clip import Batch
from vidistill.errors import UserError
from vidistill.methods.features import tapped
from vidistill.methods.processes import mean_over_processes
from vidistill.methods.supervised import Supervised
from vidistill.methods.teacher import FrozenTeacher
from vidistill.models.declares import declared
from vidistill.report.figures import INK, Picture, curve_words, draw_curves, logged, picture, steps_of
from vidistill.students.card import Card
from vidistill.students.student import Student
from vidistill.students.windows import require_windows
from vidistill.tasks import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARE = 0.1  # of the reconstruction loss: what a balanced loss begins with
BALANCED_BATCHES = 20
LEAST_GAP = 1e-4  # of the teacher's energy: what a gap counts as at least in the balance; features alike to a hundredth
CURVES = {"time_gap": "time gap, unweighted", "cell_variance": "variance of the teacher's cell"}


class ConvLSTM(nn.Module):
    """One 3×3 layer whose hidden state has as many channels as its input; no peepholes, zero start.

    A clip (B, T, C, H, W) gives the memory cell after the last frame, (B, C, H, W).
    Source: Shi et al. 2015 (arXiv 1506.04214), without the Hadamard terms. Input and hidden state are convolved
    together by `gates`, whose outputs are the input, forget and output gates and the candidate, in this order.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 4 * channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        hidden = cell = torch.zeros_like(features[:, 0])
        for frame in features.unbind(dim=1):
            gates = self.gates(torch.cat([frame, hidden], dim=1))
            admit, keep, show, candidate = gates.chunk(4, dim=1)
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(admit) * torch.tanh(candidate)
            hidden = torch.sigmoid(show) * torch.tanh(cell)
        return cell


def attention_map(features: Tensor) -> Tensor:
    """Σ_c F_c², (…, H, W), of features (…, C, H, W)."""
    return features.square().sum(dim=-3)


def space_gap(student: Tensor, teacher: Tensor, *, normalised: bool = False) -> Tensor:
    """Mean squared gap between the attention maps of two clips; 0 for equal features.

    student, teacher: (…, C, H, W), alike but for the channels. The teacher gets no gradient. Mean over pixels, frames
    and clips [ours]. normalised: each map is scaled to unit L2 norm first, and the squares are summed over its pixels,
    so that the gap is in 0…2 and neither size, scale nor number of channels counts (after Zagoruyko & Komodakis 2017).
    """
    ours, theirs = attention_map(student), attention_map(teacher.detach())
    if ours.shape != theirs.shape:
        raise ValueError(f"attention maps must have one shape, got {tuple(ours.shape)} and {tuple(theirs.shape)}")
    if not normalised:
        return F.mse_loss(ours, theirs)
    ours, theirs = (F.normalize(maps.flatten(-2), dim=-1) for maps in (ours, theirs))
    return (ours - theirs).square().sum(dim=-1).mean()


def space_energy(teacher: Tensor, *, normalised: bool = False) -> Tensor:
    """The `space_gap` to a student whose maps are 0: the mean square of the teacher's, from (…, C, H, W), or 1."""
    return teacher.new_ones(()) if normalised else attention_map(teacher.detach()).square().mean()


def time_gap(student_cell: Tensor, teacher_cell: Tensor) -> Tensor:
    """Mean squared gap between two memory cells (B, C, H, W) of one shared `ConvLSTM`; 0 for equal cells.

    The ConvLSTM learns through both cells, so neither is detached here. The caller detaches the teacher's features
    before they enter it: then the gradient reaches the student and the ConvLSTM, never the teacher.
    """
    if student_cell.shape != teacher_cell.shape:
        raise ValueError(f"cells must have one shape, got {tuple(student_cell.shape)} and {tuple(teacher_cell.shape)}")
    return F.mse_loss(student_cell, teacher_cell)


@dataclass(kw_only=True)
class SpaceTime(Supervised):
    """Charbonnier loss + λ1 · space + λ2 · time, on the feature before the last convolution of both networks.

    The distance to the teacher's frames is logged too; `losses.teacher` may give it a weight [ours].

    Args:
        space: λ1. None chooses it so that its loss is a tenth of the reconstruction loss over the first batches, and
            holds it from then on [ours]. A gap that begins near 0, as that of a copy of the teacher does, counts as
            `LEAST_GAP` there, so that λ stays steady; where the teacher's features are 0, λ is 1. 0 leaves the loss
            out.
        time: λ2, likewise.
        normalised: Whether attention maps are compared at unit norm; None: only where the channel counts differ [ours].
        pool: Average-pooling before the ConvLSTM, whose cost falls with its square [ours]; 1 for none.
        freeze_below: The mean time gap below which the ConvLSTM is frozen for good; None for never.
        random_cell: A ConvLSTM that is frozen as it starts, as a control [ours].

    Raises:
        ValueError: A number is out of its range.
    """

    name: ClassVar[str] = "space_time"
    default_losses: ClassVar[dict[str, float]] = {"task": 1.0, "space": 1.0, "time": 1.0, "teacher": 0.0}
    observed: ClassVar[tuple[str, ...]] = ("space_weight", "time_weight", "time_gap", "cell_variance", "cell_frozen")

    space: Weight | None = None
    time: Weight | None = None
    normalised: bool | None = None
    pool: Count = 1
    freeze_below: Weight | None = 1e-8
    random_cell: bool = False
    _sums: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    _batches: int = field(default=0, init=False, repr=False)
    _frozen: dict[str, Tensor] | None = field(default=None, init=False, repr=False)
    _latest: dict[str, float] = field(default_factory=dict, init=False, repr=False)

    def prepare(
        self, network: nn.Module, example: Tensor, *, card: Card | None = None, teacher: FrozenTeacher | None = None
    ) -> Student:
        require_windows((card or Card()).view, self.name)
        student = super().prepare(network, example, card=card)
        if teacher is None:
            raise UserError("space_time distillation needs a teacher; name one in the recipe")
        ours, theirs = feature_of(network)[1], feature_of(teacher.network)[1]
        if self.normalised is None:
            self.normalised = ours != theirs
        if self.time != 0:
            side = min(example.shape[-2:]) * declared(network).scale
            if self.pool > side:
                raise UserError(
                    f"method.pool must be at most {side}, the side of a training patch's feature, got {self.pool}"
                )
            cell = ConvLSTM(theirs).requires_grad_(not self.random_cell)
            adapter = nn.Conv2d(ours, theirs, 1) if ours != theirs else nn.Identity()
            student.training_parts = nn.ModuleDict({"cell": cell, "adapter": adapter})
        return student

    def losses(
        self, student: Student, teacher: FrozenTeacher | None, task: Task, batch: Batch, *, progress: float
    ) -> dict[str, Tensor]:
        assert teacher is not None
        inputs, labels = task.examples(batch.student, batch.labels)
        teacher_inputs, _ = task.examples(batch.teacher, batch.labels)
        if not labels.numel():
            raise UserError(
                "data.labels: none leaves nothing for the last convolution to learn from, as the space and time "
                "losses end before it; use method supervised with this teacher"
            )
        outputs, ours = run_with_feature(student.network, student.seen(inputs))
        with torch.no_grad():
            teacher_outputs, theirs = run_with_feature(teacher.network, teacher.seen(teacher_inputs))
        clips = batch.student.shape[:2]  # (B, T); ours and theirs are (B·T, C, H, W), each with its C
        ours, theirs = ours.float().unflatten(0, clips), theirs.float().unflatten(0, clips)
        losses: dict[str, Tensor] = {**task.supervise(outputs, labels), **task.compare(outputs, teacher_outputs)}
        gaps, energies = {}, {}
        with torch.autocast(ours.device.type, enabled=False):  # half precision loses gaps near 1e-8
            if self.space != 0:
                gaps["space"] = space_gap(ours, theirs, normalised=bool(self.normalised))
                energies["space"] = space_energy(theirs, normalised=bool(self.normalised))
            if self.time != 0:
                gaps["time"], energies["time"] = self._time_gap(student, ours, theirs)
        floors = {name: torch.maximum(gap.detach(), LEAST_GAP * energies[name]) for name, gap in gaps.items()}
        if self._batches != BALANCED_BATCHES:  # the sums that λ is made of, over the first batches
            self._batches += 1
            for name, value in {"task": losses["task"], **floors}.items():
                self._sums[name] = self._sums.get(name, 0.0) + mean_over_processes(value)
        return losses | {name: self._weight(name) * gap for name, gap in gaps.items()}

    def _time_gap(self, student: Student, ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        """L_TD, unweighted, and the energy of the teacher's cell, its mean square.

        ours, theirs: (B, T, C, H, W). Freezes the ConvLSTM once the mean of L_TD over all processes is small enough.
        """
        parts = student.training_parts
        assert isinstance(parts, nn.ModuleDict)
        cell = parts["cell"]
        adapted = parts["adapter"](ours.flatten(0, 1)).unflatten(0, ours.shape[:2])
        student_cell, teacher_cell = self._run_cell(cell, adapted), self._run_cell(cell, theirs)
        gap = time_gap(student_cell, teacher_cell)
        self._latest = {"time_gap": mean_over_processes(gap), "cell_variance": cell_variance(teacher_cell)}
        if self.freeze_below is not None and self._frozen is None and self._latest["time_gap"] < self.freeze_below:
            self._frozen = {name: tensor.detach().clone() for name, tensor in cell.named_parameters()}
        return gap, teacher_cell.detach().square().mean()

    def _run_cell(self, cell: nn.Module, features: Tensor) -> Tensor:
        """(B, C, H/pool, W/pool): the memory cell after features (B, T, C, H, W), by the frozen weights once frozen."""
        if self.pool > 1:
            features = F.avg_pool2d(features.flatten(0, 1), self.pool).unflatten(0, features.shape[:2])
        if self._frozen is None:
            return cell(features)
        # the module's own parameters keep a gradient, of 0: other processes wait for one
        frozen = {name: tensor.to(features.device) for name, tensor in self._frozen.items()}
        idle = torch.stack([parameter.sum() for parameter in cell.parameters()]).sum() * 0.0
        return functional_call(cell, frozen, (features,)) + idle

    def _weight(self, name: str) -> float:
        """λ of "space" or "time"."""
        given: float | None = getattr(self, name)
        if given is not None:
            return given
        return SHARE * self._sums["task"] / self._sums[name] if self._sums[name] > 0 else 1.0

    def observations(self) -> dict[str, float]:
        weights = {f"{name}_weight": self._weight(name) for name in ("space", "time") if name in self._sums}
        return {**self._latest, **weights, "cell_frozen": float(self.random_cell or self._frozen is not None)}

    @staticmethod
    def figures(log: list[dict[str, float]]) -> list[Picture]:
        return cell_figures(log)

    def state_dict(self) -> Values:
        return {"sums": dict(self._sums), "batches": self._batches, "frozen": self._frozen}

    def load_state_dict(self, state: Values) -> None:
        self._sums, self._batches, self._frozen = dict(state["sums"]), state["batches"], state["frozen"]


def cell_variance(cell: Tensor) -> float:
    """The variance of a cell (B, C, h, w) over clips and places, mean over channels; 0 for a collapsed one.

    Channel by channel, as those of a collapsed cell are constant but differ from each other.
    """
    return float(cell.detach().float().var(dim=(0, 2, 3), correction=0).mean())


def feature_of(network: nn.Module) -> tuple[str, int]:
    """The path of the module that is given the last high-resolution feature, and that feature's channels.

    Errors: UserError where the network does not say.
    """
    path, channels = declared(network).feature, declared(network).feature_channels
    if path is None or channels is None:
        raise UserError(
            f"{type(network).__name__} does not say what its last high-resolution feature is; give it the attributes "
            "`feature`, the path of the module whose input that is, and `feature_channels`"
        )
    return path, channels


def run_with_feature(network: nn.Module, windows: Tensor) -> tuple[Tensor, Tensor]:
    """Frames (N, 3, H, W) of windows (N, T, 3, h, w), and their feature (N, C, H, W) without padding to a multiple.

    Errors: UserError where the network's `feature` and `feature_channels` do not fit such a feature.
    """
    path, channels = feature_of(network)
    with tapped(network, [path], inputs=True) as calls:
        outputs: Tensor = network(windows)
    height, width = outputs.shape[-2:]
    feature = calls[path][-1]
    cropped = feature[..., :height, :width]
    if cropped.shape[-3:] != (channels, height, width):
        given, height_given, width_given = feature.shape[-3:]
        raise UserError(
            f"{type(network).__name__}: the input of its feature '{path}' has {given} channels of {width_given}x"
            f"{height_given} pixels, expected {channels} (feature_channels) of {width}x{height} like its frames; name "
            "the module behind the last enlargement whose input is the last feature, and its channels"
        )
    return outputs, cropped


def cell_figures(log: list[dict[str, float]]) -> list[Picture]:
    """Time gap and cell variance step by step, with a line where the cell froze; nothing where neither was logged."""
    curves = {CURVES[name]: curve for name, curve in logged(log, list(CURVES)).items()}
    if not curves:
        return []
    steps = steps_of(log)
    froze = next((float(step) for step, line in zip(steps, log, strict=True) if line.get("cell_frozen") == 1), None)
    when = "it did not freeze" if froze is None else f"frozen from step {froze:g} on"
    caption = f"The memory cell of the time loss, {when}; a variance that falls is its collapse"
    alt = f"The memory cell over {len(log)} training steps, {when}; smoothed: {curve_words(curves)}"
    return [picture(partial(_draw_cell, steps=steps, curves=curves, froze=froze), alt, caption)]


def _draw_cell(
    axes: "Axes", *, steps: NDArray[np.float64], curves: dict[str, NDArray[np.float64]], froze: float | None
) -> None:
    from matplotlib.ticker import LogLocator

    if froze is not None:
        axes.axvline(froze, color=INK, linestyle="--", label="frozen")
    draw_curves(axes, steps=steps, curves=curves, ylabel="mean square")
    axes.yaxis.set_major_locator(LogLocator(numticks=8))  # a gap falls through many decades
