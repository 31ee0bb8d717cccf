"""Which layers of a network become cheap, at which rank, and why the others do not."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from vidistill.distill.separable import ConvertibleLayer, Policy, bottleneck_rank, channels, full_rank, separable
from vidistill.errors import UserError, nearest


@dataclass(frozen=True)
class LayerPlan:
    """What becomes of one layer. rank 0: it is left as it is, for `reason`. MACs are of one example frame."""

    path: str
    rank: int
    macs: int = 0
    student_macs: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """What becomes of each convolution and linear layer, in the order in which they run."""

    layers: tuple[LayerPlan, ...]

    @property
    def converted(self) -> tuple[LayerPlan, ...]:
        return tuple(layer for layer in self.layers if layer.rank)

    @property
    def share(self) -> float:
        """The part of all convolution and linear MACs that is converted, 0…1."""
        return sum(layer.macs for layer in self.converted) / max(1, sum(layer.macs for layer in self.layers))

    def to_list(self) -> list[dict[str, Any]]:
        return [asdict(layer) for layer in self.layers]

    @classmethod
    def from_list(cls, layers: Sequence[dict[str, Any]]) -> "Plan":
        return cls(tuple(LayerPlan(**layer) for layer in layers))

    def __str__(self) -> str:
        left = [f"  {layer.path}: {layer.reason}" for layer in self.layers if not layer.rank]
        head = f"{len(self.converted)} of {len(self.layers)} layers converted, {self.share:.1%} of their MACs"
        return "\n".join([head, *(["left as they are:", *left] if left else [])])


@dataclass(frozen=True)
class Selection:
    """What to convert. The defaults are the published ones for segmentation: all but the first and last convolution.

    rank: one rank for all layers, at most full rank, instead of the reduction's. convert, leave: path patterns, as in
    `stage3.*`; a pattern that matches no layer is an error. leave_first, leave_last: counted in the order of running.
    """

    reduction: int = 4
    policy: Policy = "out"
    rank: int | None = None
    convert: Sequence[str] = ("*",)
    leave: Sequence[str] = ()
    leave_first: int = 1
    leave_last: int = 1


@dataclass
class _Seen:
    """What one run of the network shows of a layer."""

    calls: int = 0
    macs: int = 0
    student_macs: Callable[[int], int] = field(default=lambda rank: 0)


def plan_conversion(network: nn.Module, example: Tensor, selection: Selection) -> Plan:
    """Runs the network once on `example` and decides for each convolution and linear layer.

    Errors: UserError for a pattern that matches nothing.
    """
    layers = {path: module for path, module in network.named_modules() if _has_kernel(module)}
    _check_patterns([*selection.convert, *selection.leave], list(layers))
    seen = _watch(network, layers, example)
    order = [path for path in seen if seen[path].calls]
    ends = set(order[: selection.leave_first]) | set(order[len(order) - selection.leave_last :])
    decided = []
    for path in [*order, *(path for path in layers if path not in order)]:
        layer, facts = layers[path], seen.get(path, _Seen())
        rank, reason = _decide(path, layer, facts, selection, is_end=path in ends)
        student_macs = facts.student_macs(rank) if rank else 0
        decided.append(LayerPlan(path, rank, facts.macs, student_macs, reason))
    return Plan(tuple(decided))


def _decide(path: str, layer: nn.Module, seen: _Seen, selection: Selection, *, is_end: bool) -> tuple[int, str]:
    """The layer's rank, or 0 and why it is left."""
    reason = _unsuitable(layer)
    if not seen.calls:
        reason = "never called as a module in a run of the network"
    elif is_end:
        reason = "first or last layer"
    elif not _matches(path, selection.convert) or _matches(path, selection.leave):
        reason = "left by the recipe's patterns"
    if reason:
        return 0, reason
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    rank = bottleneck_rank(layer, reduction=selection.reduction, policy=selection.policy)
    if selection.rank is not None:
        return min(selection.rank, full_rank(layer)), ""
    if rank < 1:
        return 0, f"too few channels for a reduction of {selection.reduction}"
    if isinstance(layer, nn.Conv2d) and rank % layer.groups:
        return 0, f"its {layer.groups} groups do not divide the bottleneck's {rank} channels"
    if seen.student_macs(rank) >= seen.macs:
        return 0, "the student would cost as much"
    return rank, ""


def _has_kernel(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd | nn.Linear)


def _unsuitable(layer: nn.Module) -> str:
    if type(layer) not in (nn.Conv2d, nn.Linear):
        return f"a {type(layer).__name__}, not exactly Conv2d or Linear"
    if isinstance(layer, nn.Conv2d):
        if layer.padding_mode != "zeros":
            return f"padding_mode {layer.padding_mode}"
        if layer.groups == layer.in_channels and layer.groups > 1:
            return "depthwise"
    return ""


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _check_patterns(patterns: Sequence[str], paths: list[str]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise UserError(f"the path pattern '{pattern}' matches no layer of the network; {nearest(pattern, paths)}")


def _watch(network: nn.Module, layers: dict[str, nn.Module], example: Tensor) -> dict[str, _Seen]:
    """Calls and MACs of each layer in a run in evaluation mode, in the order of their first call."""
    seen: dict[str, _Seen] = {}

    def hook(path: str) -> Callable[..., None]:
        def note(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            facts = seen.setdefault(path, _Seen())
            facts.calls += 1
            facts.macs += output.numel() * (layer.weight[0].numel() if _is_forward(layer) else 0)
            if type(layer) in (nn.Conv2d, nn.Linear):
                earlier, shapes = facts.student_macs, (inputs[0].shape, output.shape)
                facts.student_macs = lambda rank: earlier(rank) + _separable_macs(layer, rank, *shapes)

        return note

    handles = [layer.register_forward_hook(hook(path)) for path, layer in layers.items()]
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(example)
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    return seen


def _is_forward(layer: nn.Module) -> bool:
    """A transposed convolution's kernel is laid out the other way round; its MACs are not counted here."""
    return not isinstance(layer, nn.modules.conv._ConvTransposeNd)


def _separable_macs(layer: ConvertibleLayer, rank: int, input_shape: torch.Size, output_shape: torch.Size) -> int:
    in_channels, out_channels = channels(layer)
    if isinstance(layer, nn.Linear):
        return (output_shape.numel() // out_channels) * rank * (in_channels + out_channels)
    batch, _, height, width = output_shape
    middle_width = width if layer.kernel_size[1] == 1 else input_shape[3]
    first = batch * height * middle_width * rank * (in_channels // layer.groups) * layer.kernel_size[0]
    return first + batch * height * width * rank * out_channels * layer.kernel_size[1]


def replace_layers(
    network: nn.Module, plan: Plan, make: Callable[[str, ConvertibleLayer, nn.Sequential], nn.Module]
) -> None:
    """Puts make(path, layer, uninitialised separable student) in the place of every converted layer.

    A layer that several parents hold is replaced in all of them by one and the same module. Errors: UserError for a
    path that the network does not have.
    """
    places: dict[int, list[str]] = {}
    for path, module in network.named_modules(remove_duplicate=False):
        places.setdefault(id(module), []).append(path)
    paths = dict(network.named_modules())
    for entry in plan.converted:
        layer = paths.get(entry.path)
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            raise UserError(
                f"the network has no convolution or linear layer '{entry.path}'; {nearest(entry.path, paths)}"
            )
        student = separable(layer, entry.rank).to(layer.weight.device, layer.weight.dtype)
        new = make(entry.path, layer, student)
        for place in places[id(layer)]:
            network.set_submodule(place, new)
