"""Which blocks of a network get a cheap student, and why the others do not."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Literal, TypeGuard

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from vidistill.errors import UserError, nearest
from vidistill.models.declares import declared
from vidistill.ops.macs import count_macs, layer_macs, without_values
from vidistill.ops.modules import evaluating, first_line
from vidistill.students.delta.calls import Call, Tree, tensors_of
from vidistill.students.delta.kinds import BlockStudent, StudentSpec, make_student, resolve
from vidistill.students.delta.layers import is_convertible_layer
from vidistill.students.delta.plan import WHOLE, BlockPlan, Candidate, Plan
from vidistill.students.networks import bare, require_python, running_on

Granularity = Literal["layer", "block", "stage", "network"]
FUNCTIONAL = "(functional layers)"


@dataclass(frozen=True)
class Selection:
    """What to convert. The defaults are the published ones for segmentation: all but the first and last convolution.

    Where layers are converted, a network may say itself what it leaves, by patterns in an attribute `leave`, as
    detectors do: these count beside the recipe's, and its first and last layers are then like any others.

    Args:
        granularity: "layer", each convolution and linear layer is a block; "block" and "stage", what the network's
            `granularities` declares, or what `convert` names; "network", the whole network is one block.
        convert: Path patterns of what is converted; None for all. For layers `*` also stands for dots, as in
            `stage3.*`, for blocks it does not. A pattern that matches nothing is an error.
        leave: Path patterns of what is not.
        leave_first: How many of the first layers are left, counted in the order of running.
        leave_last: How many of the last layers are left.
        others: The student of the layers outside larger blocks; without one they are left.
    """

    granularity: Granularity = "layer"
    convert: Sequence[str] | None = None
    leave: Sequence[str] = ()
    leave_first: int = 1
    leave_last: int = 1
    others: StudentSpec | None = None


@dataclass
class Seen:
    """What one run of the network shows of a module: its MACs, and its calls and their outputs without values."""

    macs: int = 0
    calls: list[tuple[Call, Tree]] = field(default_factory=list)


def plan_conversion(network: nn.Module, example: Tensor, selection: Selection, students: Sequence[StudentSpec]) -> Plan:
    """Runs the network once on `example` and decides for each block which of `students` it may have.

    Of one student, only what is cheaper than its block is kept; of several, as in a search, only blocks with a cheaper
    one. Errors: UserError for a pattern that matches nothing, a block inside another, blocks that are not declared.
    """
    network = bare(network)
    require_python(network)
    modules = dict(network.named_modules())
    layers = {path: module for path, module in modules.items() if _has_kernel(module)}
    also = {first: tuple(others) for first, *others in _all_paths(network).values() if others}
    targets = _targets(network, modules, layers, also, selection)
    seen = observe(network, {*layers, *targets}, example)
    order = [path for path in seen if path in layers and seen[path].calls]
    own_leave = _own_patterns(network, selection)
    ends = set(order[: selection.leave_first]) | set(order[max(0, len(order) - selection.leave_last) :])
    blocks: list[BlockPlan] = []
    for path in _in_order(order, targets, layers):
        facts = seen.get(path, Seen())
        inside = [facts.macs] if path in layers else [seen[p].macs for p in order if _is_inside(p, path)]
        reason = _unsuitable(path, modules[path], facts, targets, selection, is_end=path in ends and not own_leave)
        if path not in targets and _any(path, own_leave, fnmatchcase):
            reason = "left by the network itself"
        if path not in targets and selection.others is not None and _is_left(path, selection):
            reason = "left by the recipe's patterns"
        plan = BlockPlan(path, sum(inside), reason=reason, also=also.get(path, ()))
        wanted = students if path in targets or selection.others is None else [selection.others]
        blocks.append(plan if reason else _with_candidates(plan, modules[path], facts, wanted))
    rest = without_values(lambda shadow, device: layer_macs(shadow.eval(), example.to(device)), network)
    rest -= sum(seen[path].macs for path in order)
    if rest > 0 and selection.granularity != "network":
        blocks.append(BlockPlan(FUNCTIONAL, rest, reason="run by functions, not by modules of their own"))
    return Plan(tuple(blocks))


def _targets(
    network: nn.Module, modules: dict[str, nn.Module], layers: Collection[str], also: dict[str, tuple[str, ...]],
    selection: Selection,
) -> list[str]:  # fmt: skip
    """The paths of the blocks that are asked for, by any of their paths."""

    def names(path: str) -> tuple[str, ...]:
        return (path, *also.get(path, ()))

    if selection.granularity == "network":
        return [WHOLE]
    if selection.granularity == "layer":
        patterns = ["*"] if selection.convert is None else list(selection.convert)
        _check_patterns([*patterns, *selection.leave], [name for path in layers for name in names(path)], fnmatchcase)
        leave = [*selection.leave, *_own_patterns(network, selection)]

        def any_of(path: str, wanted: Sequence[str]) -> bool:
            return any(_any(name, wanted, fnmatchcase) for name in names(path))

        return [p for p in layers if any_of(p, patterns) and not any_of(p, leave)]
    own = declared(network).granularities.get(selection.granularity)
    if selection.convert is None and own is None:
        raise UserError(
            f"{type(network).__name__} does not say what its {selection.granularity}s are; name their paths with "
            f"method.convert; {nearest('', [p for p in modules if p])}"
        )
    patterns = list(own or ()) if selection.convert is None else list(selection.convert)
    _check_patterns([*patterns, *selection.leave], [p for p in modules if p], _same_depth)
    paths = [p for p in modules if _any(p, patterns, _same_depth) and not _any(p, selection.leave, _same_depth)]
    for path in paths:
        outer = next((other for other in paths if other != path and _is_inside(path, other)), None)
        if outer is not None:
            raise UserError(f"the block '{path}' lies inside the block '{outer}'; convert one of the two")
    return paths


def _all_paths(network: nn.Module) -> dict[int, list[str]]:
    """The paths of each module, several where several parents hold it, by its id, in the network's order."""
    paths: dict[int, list[str]] = {}
    for path, module in network.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).append(path)
    return paths


def _own_patterns(network: nn.Module, selection: Selection) -> tuple[str, ...]:
    """What the network itself says to leave of its layers; patterns may match nothing in this variant of it."""
    if selection.granularity != "layer" and selection.others is None:
        return ()
    return declared(network).leave


def _is_left(path: str, selection: Selection) -> bool:
    """Whether a pattern of `leave` matches the layer, or a block around it."""
    parts = path.split(".")
    return any(_any(".".join(parts[:depth]), selection.leave, _same_depth) for depth in range(1, len(parts) + 1))


def _same_depth(path: str, pattern: str) -> bool:
    return path.count(".") == pattern.count(".") and fnmatchcase(path, pattern)


def _any(path: str, patterns: Sequence[str], matches: Callable[[str, str], bool]) -> bool:
    return any(matches(path, pattern) for pattern in patterns)


def _check_patterns(patterns: Sequence[str], paths: list[str], matches: Callable[[str, str], bool]) -> None:
    for pattern in patterns:
        if not any(matches(path, pattern) for path in paths):
            raise UserError(f"the path pattern '{pattern}' matches nothing in the network; {nearest(pattern, paths)}")


def _is_inside(path: str, outer: str) -> bool:
    return outer == WHOLE or path.startswith(f"{outer}.")


def _in_order(order: list[str], targets: list[str], layers: Collection[str]) -> list[str]:
    """Every layer outside the blocks, and every block where its first layer runs; what never runs comes last."""
    blocks: dict[str, None] = {}
    for path in [*order, *layers]:
        outer = next((t for t in targets if t not in layers and _is_inside(path, t)), path)
        blocks[outer] = None
    return list(blocks | dict.fromkeys(targets))


def _unsuitable(
    path: str, module: nn.Module, seen: Seen, targets: list[str], selection: Selection, *, is_end: bool
) -> str:
    """Why the block is left, as far as it does not depend on the student."""
    is_layer = selection.granularity == "layer" or (selection.others is not None and path not in targets)
    if is_layer and _has_kernel(module) and not is_convertible_layer(module):
        return f"a {_class(module)}, not exactly Conv2d or Linear"
    if not seen.calls:
        return "never called as a module in a run of the network"
    if is_layer and is_end:
        return "first or last layer"
    if path not in targets and (selection.granularity == "layer" or selection.others is None):
        return "left by the recipe's patterns" if selection.granularity == "layer" else "outside the converted blocks"
    return ""


def _class(module: nn.Module) -> str:
    """The name of its class, with the module that defines it where torch has a layer of that name."""
    kind = type(module)
    return f"{kind.__module__}.{kind.__name__}" if kind.__name__ in ("Conv2d", "Linear") else kind.__name__


def _with_candidates(plan: BlockPlan, block: nn.Module, seen: Seen, students: Sequence[StudentSpec]) -> BlockPlan:
    call, output = seen.calls[0]
    if not call.tensors() or not tensors_of(output):
        kind = type(output).__name__
        return replace(plan, reason=f"takes or returns no tensors that can be followed, but a {kind}")
    channels = _channels(call), _channels(Call((output,), {}))
    candidates: list[Candidate] = []
    reasons: list[str] = []
    for spec in students:
        resolved = resolve(spec, block, call, output)
        if isinstance(resolved, str):
            reasons.append(resolved)
        elif all(resolved != candidate.student for candidate in candidates):
            try:
                candidates.append(Candidate(resolved, _student_macs(resolved, block, channels, seen)))
            except Exception as error:  # a user's block on another size, or without values, may fail in any way
                reasons.append(f"its {resolved} cannot run ({first_line(error)})")
    is_free = all(spec.rank is None for spec in students)  # a rank that is asked for is meant
    if candidates and is_free and min(candidate.macs for candidate in candidates) >= _block_macs(block, seen):
        candidates, reasons = [], ["the student would cost as much"]
    if not candidates:
        return replace(plan, reason=reasons[0])
    return replace(plan, candidates=tuple(candidates), channels=channels)


def _channels(call: Call) -> int:
    """The channels of a call's first tensor: the second axis of an image, the last of anything else; 0 without one."""
    tensors = call.tensors()
    return tensors[0].shape[1 if tensors[0].ndim == 4 else -1] if tensors else 0


def _student_macs(spec: StudentSpec, block: nn.Module, channels: tuple[int, int], seen: Seen) -> int:
    """The MACs of a folded frame, all calls of the block together."""

    def count(student: BlockStudent, device: str) -> int:
        total = 0
        for call, output in seen.calls:
            zeros = partial(_zeros, device=device)
            key, key_output = call.map(zeros), tree_map_only(Tensor, zeros, output)
            with torch.no_grad():
                folded = student.fold(key, key_output)
            total += count_macs(student.follow, key, folded)
        return total

    return without_values(count, make_student(spec, block, channels).eval())


def _block_macs(block: nn.Module, seen: Seen) -> int:
    """The block's own MACs, all calls together, counted as its students' are."""

    def count(block: nn.Module, device: str) -> int:
        calls = [call.map(partial(_zeros, device=device)) for call, _ in seen.calls]
        return sum(count_macs(lambda call=call: block.eval()(*call.args, **call.kwargs)) for call in calls)

    return without_values(count, block)


def _zeros(tensor: Tensor, *, device: str) -> Tensor:
    return torch.zeros_like(tensor, device=device)


def _has_kernel(module: nn.Module) -> TypeGuard[nn.modules.conv._ConvNd | nn.Linear]:
    return isinstance(module, nn.modules.conv._ConvNd | nn.Linear)


def observe(network: nn.Module, paths: Collection[str], example: Tensor) -> dict[str, Seen]:
    """Calls and MACs of the modules at `paths` in a run in evaluation mode, in the order of their first call."""
    modules = {path: module for path, module in network.named_modules() if path in paths}
    seen: dict[str, Seen] = {}

    def hook(path: str) -> Callable[..., None]:
        def note(module: nn.Module, args: tuple[Tree, ...], kwargs: dict[str, Tree], output: Tree) -> None:
            facts = seen.setdefault(path, Seen())
            call = Call(args, kwargs)
            facts.macs += _layer_macs(module, call, output)
            facts.calls.append((call.map(_shape), tree_map_only(Tensor, _shape, output)))

        return note

    handles = [module.register_forward_hook(hook(path), with_kwargs=True) for path, module in modules.items()]
    try:
        with evaluating(network), torch.no_grad(), running_on(network, example):
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _shape(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta")


def _layer_macs(module: nn.Module, call: Call, output: Tree) -> int:
    """The MACs of one call of a convolution or linear layer, 0 of anything else.

    A kernel's first axis is the outputs', a transposed one's the inputs'.
    """
    if not _has_kernel(module):
        return 0
    sized = call.tensors() if isinstance(module, nn.modules.conv._ConvTransposeNd) else tensors_of(output)
    return int(sized[0].numel() * module.weight[0].numel()) if sized else 0


def replace_blocks(network: nn.Module, plan: Plan, make: Callable[[BlockPlan, nn.Module], nn.Module]) -> nn.Module:
    """Puts make(its plan, block) in the place of every converted block; returns the network, itself maybe replaced.

    A block that several parents hold is replaced in all of them by one and the same module. Errors: UserError for a
    path that the network does not have.
    """
    places = _all_paths(network)
    modules = dict(network.named_modules())
    for entry in plan.converted:
        if entry.path == WHOLE:
            return make(entry, network)
        block = modules.get(entry.path)
        if block is None:
            raise UserError(f"the network has no block '{entry.path}'; {nearest(entry.path, modules)}")
        new = make(entry, block)
        for place in places[id(block)]:
            network.set_submodule(place, new)
    return network
