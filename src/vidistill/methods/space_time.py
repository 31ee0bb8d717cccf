"""Space-time distillation: a student learns where its teacher's features are active, and how they change.

Source: Xiao et al., "Space-Time Distillation for Video Super-Resolution", CVPR 2021; see docs/space_time.md for the
equations and for where we differ.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from vidistill.data.clip import Batch
from vidistill.errors import UserError
from vidistill.methods.features import tapped
from vidistill.methods.processes import mean_over_processes
from vidistill.methods.supervised import Supervised
from vidistill.methods.teacher import FrozenTeacher
from vidistill.models.declares import declared
from vidistill.ops.clip_view import View
from vidistill.students.student import StatefulNetwork
from vidistill.students.windows import require_windows


class ConvLSTM(nn.Module):
    """One 3×3 layer whose hidden state has as many channels as its input; no peepholes, zero start.

    Called with a clip (B, T, C, H, W) it gives the memory cell after the last frame, (B, C, H, W).
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
    """Mean squared gap between two clips' attention maps; 0 for equal features.

    student, teacher: (…, C, H, W), alike but for the channels. No gradient reaches the teacher's. Mean over pixels,
    frames and clips [ours]. normalised: each map is scaled to unit L2 norm first, and the squares are summed over
    its pixels, so that the gap is in 0…2 and neither size, scale nor number of channels counts
    (after Zagoruyko & Komodakis 2017).
    """
    ours, theirs = attention_map(student), attention_map(teacher.detach())
    if ours.shape != theirs.shape:
        raise ValueError(f"attention maps of {tuple(ours.shape)} and {tuple(theirs.shape)} cannot be compared")
    if not normalised:
        return F.mse_loss(ours, theirs)
    ours, theirs = (F.normalize(maps.flatten(-2), dim=-1) for maps in (ours, theirs))
    return (ours - theirs).square().sum(dim=-1).mean()


def space_energy(teacher: Tensor, *, normalised: bool = False) -> Tensor:
    """What `space_gap` would be of a student whose maps are 0: mean square of the teacher's (…, C, H, W), or 1."""
    return teacher.new_ones(()) if normalised else attention_map(teacher.detach()).square().mean()


def time_gap(student_cell: Tensor, teacher_cell: Tensor) -> Tensor:
    """Mean squared gap between two memory cells (B, C, H, W) of one shared `ConvLSTM`; 0 for equal cells.

    The ConvLSTM learns through both cells, so neither is detached here. The caller detaches the teacher's features
    before they enter it: then the gradient reaches the student and the ConvLSTM, never the teacher.
    """
    if student_cell.shape != teacher_cell.shape:
        raise ValueError(f"cells of {tuple(student_cell.shape)} and {tuple(teacher_cell.shape)} cannot be compared")
    return F.mse_loss(student_cell, teacher_cell)


SHARE = 0.1  # of the reconstruction loss, that a balanced loss begins with
BALANCED_BATCHES = 20
LEAST_GAP = 1e-4  # of the teacher's energy, that a gap counts as in the balance: features alike to a hundredth


@dataclass(kw_only=True)
class SpaceTime(Supervised):
    """Charbonnier loss + λ1 · space + λ2 · time, on the feature before the last convolution of both networks.

    The distance to the teacher's frames is logged too; `losses.teacher` may give it a weight [ours].

    space, time: λ1 and λ2; by default each is such that its loss was a tenth of the reconstruction loss over the first
    batches, and is held from then on [ours]; 0 leaves the loss out. A gap that begins near 0, as that of a copy of the
    teacher does, counts as `LEAST_GAP` there, so that λ stays steady; where the teacher's features are 0, λ is 1.
    normalised: compare attention maps of unit norm; by default where the channel counts differ [ours].
    pool: average-pooling before the ConvLSTM, whose cost falls with its square [ours].
    freeze_below: the mean time gap below which the ConvLSTM is frozen for good; None never to.
    random_cell: a ConvLSTM that is frozen as it starts, as a control [ours].
    """

    name: ClassVar[str] = "space_time"
    default_losses: ClassVar[dict[str, float]] = {"task": 1.0, "space": 1.0, "time": 1.0, "teacher": 0.0}

    space: float | None = None
    time: float | None = None
    normalised: bool | None = None
    pool: int = 1
    freeze_below: float | None = 1e-8
    random_cell: bool = False
    _sums: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    _batches: int = field(default=0, init=False, repr=False)
    _frozen: dict[str, Tensor] | None = field(default=None, init=False, repr=False)
    _seen: dict[str, float] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("space", "time", "freeze_below"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} is {value}; it is 0 or more")
        if self.pool < 1:
            raise ValueError(f"pool is {self.pool}; it is 1 for none, or more")

    def prepare(
        self,
        network: nn.Module,
        example: Tensor,
        *,
        view: View | None = None,
        teacher: FrozenTeacher | None = None,
    ) -> StatefulNetwork:
        require_windows(view, self.name)
        student = super().prepare(network, example, view=view)
        if teacher is None:
            raise UserError("space_time distillation needs a teacher; name one in the recipe")
        ours, theirs = feature_of(network)[1], feature_of(teacher.network)[1]
        if self.normalised is None:
            self.normalised = ours != theirs
        if self.time != 0:
            side = min(example.shape[-2:]) * declared(network).scale
            if self.pool > side:
                raise UserError(
                    f"method.pool is {self.pool} and the feature of a training patch {side} pixels wide; pool less"
                )
            cell = ConvLSTM(theirs).requires_grad_(not self.random_cell)
            adapter = nn.Conv2d(ours, theirs, 1) if ours != theirs else nn.Identity()
            student.training_parts = nn.ModuleDict({"cell": cell, "adapter": adapter})
        return student

    def losses(
        self, student: StatefulNetwork, teacher: FrozenTeacher | None, task: Any, batch: Batch, *, progress: float
    ) -> dict[str, Tensor]:
        assert teacher is not None
        inputs, labels = task.examples(batch.student, batch.labels)
        teacher_inputs, _ = task.examples(batch.teacher, batch.labels)
        if not labels.numel():
            raise UserError(
                "data.labels: none leaves nothing for the last convolution to learn from, for the space and time "
                "losses end before it; take method supervised with this teacher"
            )
        outputs, ours = run_with_feature(student.network, student.seen(inputs))
        with torch.no_grad():
            teacher_outputs, theirs = run_with_feature(teacher.network, teacher.seen(teacher_inputs))
        clips = batch.student.shape[:2]
        ours, theirs = ours.float().unflatten(0, clips), theirs.float().unflatten(0, clips)
        losses: dict[str, Tensor] = {**task.supervise(outputs, labels), **task.compare(outputs, teacher_outputs)}
        gaps, energies = {}, {}
        with torch.autocast(ours.device.type, enabled=False):  # in half precision 1e-8 is nothing
            if self.space != 0:
                gaps["space"] = space_gap(ours, theirs, normalised=bool(self.normalised))
                energies["space"] = space_energy(theirs, normalised=bool(self.normalised))
            if self.time != 0:
                gaps["time"], energies["time"] = self._time_gap(student, ours, theirs)
        floors = {name: torch.maximum(gap.detach(), LEAST_GAP * energies[name]) for name, gap in gaps.items()}
        self._balance({"task": losses["task"], **floors})
        return losses | {name: self._weight(name) * gap for name, gap in gaps.items()}

    def _time_gap(self, student: StatefulNetwork, ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        """L_TD, unweighted, and the energy of the teacher's cell, its mean square.

        Freezes the ConvLSTM once L_TD's mean over all processes is small enough.
        """
        parts = student.training_parts
        assert isinstance(parts, nn.ModuleDict)
        cell = parts["cell"]
        adapted = parts["adapter"](ours.flatten(0, 1)).unflatten(0, ours.shape[:2])
        cells = [self._remember(cell, self._pooled(features)) for features in (adapted, theirs)]
        gap = time_gap(*cells)
        self._seen = {"time_gap": mean_over_processes(gap), "cell_variance": cell_variance(cells[1])}
        if self.freeze_below is not None and self._frozen is None and self._seen["time_gap"] < self.freeze_below:
            self._frozen = {name: tensor.detach().clone() for name, tensor in cell.named_parameters()}
        return gap, cells[1].detach().square().mean()

    def _remember(self, cell: nn.Module, features: Tensor) -> Tensor:
        if self._frozen is None:
            found: Tensor = cell(features)
            return found
        # the module's own parameters keep a gradient, of 0: other processes wait for one
        kept = {name: tensor.to(features.device) for name, tensor in self._frozen.items()}
        idle = torch.stack([parameter.sum() for parameter in cell.parameters()]).sum() * 0.0
        frozen: Tensor = functional_call(cell, kept, (features,))
        return frozen + idle

    def _pooled(self, features: Tensor) -> Tensor:
        if self.pool == 1:
            return features
        return F.avg_pool2d(features.flatten(0, 1), self.pool).unflatten(0, features.shape[:2])

    def _balance(self, values: dict[str, Tensor]) -> None:
        """Adds the reconstruction loss and the gaps of one of the first batches to what λ is made of."""
        if self._batches == BALANCED_BATCHES:
            return
        self._batches += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + mean_over_processes(value)

    def _weight(self, name: str) -> float:
        given: float | None = getattr(self, name)
        if given is not None:
            return given
        return SHARE * self._sums["task"] / self._sums[name] if self._sums[name] > 0 else 1.0

    def observations(self) -> dict[str, float]:
        weights = {f"{name}_weight": self._weight(name) for name in ("space", "time") if name in self._sums}
        return {**self._seen, **weights, "cell_frozen": float(self.random_cell or self._frozen is not None)}

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self._sums), "batches": self._batches, "frozen": self._frozen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sums, self._batches, self._frozen = dict(state["sums"]), state["batches"], state["frozen"]


def cell_variance(cell: Tensor) -> float:
    """The variance of a cell (B, C, h, w) over clips and places, mean over channels: 0 where it says nothing any more.

    Channels apart: those of a collapsed cell are constant, and differ from each other.
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
    """Frames (N, 3, H, W) of windows, and the feature (N, C, H, W), without what was padded to a multiple.

    Errors: UserError where the network's `feature` and `feature_channels` are not those of such a feature.
    """
    path, channels = feature_of(network)
    with tapped(network, [path], inputs=True) as found:
        outputs: Tensor = network(windows)
    height, width = outputs.shape[-2:]
    feature = found[path][-1]
    cropped = feature[..., :height, :width]
    if cropped.shape[-3:] != (channels, height, width):
        given, height_given, width_given = feature.shape[-3:]
        raise UserError(
            f"{type(network).__name__}: its feature '{path}' is given {given} channels of {width_given}×{height_given} "
            f"pixels, where feature_channels is {channels} and its frames are {width}×{height}; name the module behind "
            "the last enlargement that is given the last feature, and its channels"
        )
    return outputs, cropped
