"""What each candidate of a search costs on this machine, in measured milliseconds: MACs are not time. [ours]"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from vidistill.errors import UserError
from vidistill.files import atomic_path, json_text
from vidistill.ops.modules import copied
from vidistill.runtimes import choose_runtime
from vidistill.runtimes.measure import describe_device, median_milliseconds
from vidistill.students.delta.calls import Tree
from vidistill.students.delta.conversion import Selection, observe, plan_conversion
from vidistill.students.delta.kinds import BlockStudent, StudentSpec, make_student
from vidistill.students.delta.network import DeltaBlock, DeltaNetwork, delta_network
from vidistill.students.delta.plan import BlockPlan, Plan
from vidistill.students.delta.search import Search
from vidistill.students.delta.tape import Tape
from vidistill.students.norms import running_copy
from vidistill.students.state import State
from vidistill.students.student import PerFrame, Student

MUCH = 0.2  # a gap that says the machine was not idle
ITSELF = "itself"  # the block, not replaced


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of a settled delta frame, by block and candidate, and of the block itself.

    setting: what the figures hold for; another machine, runtime, precision or size needs a table of its own.
    whole: the network's frame, and a frame of the student with every block's cheapest candidate, as measured and as the
    table predicts it from the network's frame and the blocks' differences.
    """

    setting: dict[str, object]
    blocks: dict[str, dict[str, float]]
    whole: dict[str, float]

    @property
    def gap(self) -> float:
        """How far the prediction is from the measured whole, as a part of it."""
        return abs(self.whole["predicted"] - self.whole["measured"]) / self.whole["measured"]

    def __str__(self) -> str:
        whole = self.whole
        return (
            f"latency table of {len(self.blocks)} blocks: predicts {whole['predicted']:.1f} ms for the student of each "
            f"block's cheapest candidates, measured {whole['measured']:.1f} ms, a gap of {self.gap:.0%} (the network: "
            f"{whole['network']:.1f} ms)" + ("; measure again on an idle machine" if self.gap > MUCH else "")
        )


def block_costs(
    network: nn.Module, student: DeltaNetwork, search: Search, selection: Selection, size: tuple[int, int]
) -> dict[str, Tensor]:
    """The cost of each block's candidates by its path, (candidates,), as a part of all blocks at full cost.

    With latency as the cost the table comes from `search.table`, or is measured and left there. Errors: UserError
    where that table is for something else.
    """
    if search.cost == "macs":
        entries = student.plan.converted
        costs = {entry.path: [float(candidate.macs) for candidate in entry.candidates] for entry in entries}
        whole = float(sum(entry.macs for entry in entries))
    else:
        table = _table(network, search, selection, search.size or size)
        names = {entry.path: [str(c.student) for c in entry.candidates] for entry in student.plan.converted}
        costs = {path: [table.blocks[path][name] for name in candidates] for path, candidates in names.items()}
        whole = sum(table.blocks[path][ITSELF] for path in names)
    return {path: torch.tensor(values) / whole for path, values in costs.items()}


def _table(network: nn.Module, search: Search, selection: Selection, size: tuple[int, int]) -> LatencyTable:
    example = torch.zeros(1, 3, *size)
    plan = plan_conversion(network, example, selection, search.candidates)
    setting = _setting(plan, search, size)
    if search.table is not None and search.table.exists():
        return load_table(search.table, setting)
    table = measure_table(network, plan, search, size)
    if search.table is not None:
        with atomic_path(search.table) as temporary:
            temporary.write_text(json_text(asdict(table), indent=2))
    print(table)
    return table


def load_table(path: Path, setting: dict[str, object]) -> LatencyTable:
    """A saved table. Errors: UserError where it cannot be read, or was measured for another setting."""
    try:
        table = LatencyTable(**json.loads(path.read_text()))
        different = [name for name, value in setting.items() if table.setting[name] != value]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: cannot be read as a latency table ({error}); delete it to measure again") from error
    if different:
        name = different[0]
        what = f"{name} {table.setting[name]!r}, this run needs {setting[name]!r}"
        what = "other blocks or candidates" if name == "blocks" else what
        raise UserError(f"{path}: was measured for {what}; name another file with method.search.table")
    return table


def _setting(plan: Plan, search: Search, size: tuple[int, int]) -> dict[str, object]:
    blocks = {entry.path: [str(candidate.student) for candidate in entry.candidates] for entry in plan.converted}
    return {
        "machine": describe_device(torch.device("cpu")),
        "runtime": search.runtime,
        "precision": search.precision,
        "size": list(size),
        "blocks": blocks,
    }


def measure_table(network: nn.Module, plan: Plan, search: Search, size: tuple[int, int]) -> LatencyTable:
    """Times every candidate of every block, each as it runs on a delta frame; equal ones once, all side by side."""
    network = copied(network).eval().requires_grad_(False)
    example = torch.randn(1, 3, *size)
    seen = observe(network, [entry.path for entry in plan.converted], example)
    modules = dict(network.named_modules())
    frames: dict[str, Callable[[], Tree]] = {}
    keys: dict[str, dict[str, list[str]]] = {}  # by block and candidate, one a call
    for entry in plan.converted:
        block = modules[entry.path]
        specs: dict[str, StudentSpec | None] = {ITSELF: None}
        specs |= {str(candidate.student): candidate.student for candidate in entry.candidates}
        keys[entry.path] = {name: [] for name in specs}
        for (call, _), (name, spec) in product(seen[entry.path].calls, specs.items()):
            key = f"{name} of {block} on {[tuple(tensor.shape) for tensor in call.tensors()]}"
            keys[entry.path][name].append(key)
            if key not in frames:
                student = None if spec is None else make_student(spec, block, entry.channels)
                values = call.map(lambda tensor: torch.randn(tensor.shape))
                frames[key] = _delta_frame(_alone(block, student), (values.args, values.kwargs), search)
    times = median_milliseconds(frames, title="measuring candidates")
    blocks = {
        path: {name: sum(times[key] for key in calls) for name, calls in names.items()} for path, names in keys.items()
    }
    return LatencyTable(_setting(plan, search, size), blocks, _whole(network, plan, search, example, blocks))


def _whole(
    network: nn.Module, plan: Plan, search: Search, example: Tensor, blocks: dict[str, dict[str, float]]
) -> dict[str, float]:
    """The table's sum against the measured whole."""
    cheapest = Plan(tuple(_cheapest(entry, blocks) if entry.candidates else entry for entry in plan.blocks))
    student = delta_network(network, cheapest)
    frames = {
        "network": _delta_frame(PerFrame(network), example, search),
        "measured": _delta_frame(student.eval(), example, search),
    }
    times = median_milliseconds(frames, title="measuring the whole")
    saved = sum(blocks[entry.path][ITSELF] - blocks[entry.path][str(entry.student)] for entry in cheapest.converted)
    return times | {"predicted": times["network"] - saved}


def _cheapest(entry: BlockPlan, blocks: dict[str, dict[str, float]]) -> BlockPlan:
    """With the candidate that takes the least time of those that compute anything."""
    times = [blocks[entry.path][str(candidate.student)] for candidate in entry.candidates]
    computing = [i for i, candidate in enumerate(entry.candidates) if candidate.macs > 0]
    return entry.choosing(min(computing or range(len(times)), key=times.__getitem__))


class _Spread(nn.Module):
    """A block that takes its call's arguments as one, as a frame."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, call: tuple[tuple[Tree, ...], dict[str, Tree]]) -> Tree:
        args, kwargs = call
        return self.block(*args, **kwargs)


def _alone(block: nn.Module, student: BlockStudent | None) -> Student:
    """One block as a stateful network: itself, or with its student."""
    if student is None:
        return PerFrame(_Spread(block)).eval()
    tape = Tape()
    return DeltaNetwork(_Spread(DeltaBlock("", block, student.eval(), tape)), Plan(()), tape).eval()


def _delta_frame(model: Student, argument: Tree, search: Search) -> Callable[[], Tree]:
    """A settled delta frame of `model`, as a stream would run it, to be timed. argument: a frame, or a call's."""
    model = running_copy(model, argument)
    if isinstance(model, DeltaNetwork):
        model.folding = "later"
    argument = tree_map_only(Tensor, model.laid_out, argument)
    with torch.no_grad():
        state: State | None = None
        for _ in range(2):
            _, state = model(argument, state or None)
    runtime = choose_runtime(search.runtime, search.precision, where="method.search.runtime")
    return runtime.part(model, (argument, state or None), precision=search.precision)
