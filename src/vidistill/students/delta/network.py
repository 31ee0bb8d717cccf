"""A network whose converted blocks predict their change since the key frame."""

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.ops.modules import copied
from vidistill.students.card import Card
from vidistill.students.checkpointing import is_running_backward, without_checkpointing
from vidistill.students.delta.calls import Call, Tree, leaves_named, map_outputs, name_leaves
from vidistill.students.delta.conversion import replace_blocks
from vidistill.students.delta.kinds import BlockStudent
from vidistill.students.delta.plan import BlockPlan, Plan
from vidistill.students.delta.search import SearchedStudent, make_block_student
from vidistill.students.delta.tape import WHOLE_SLOT, Folding, Tape
from vidistill.students.networks import bare
from vidistill.students.state import State
from vidistill.students.student import Student


class DeltaBlock(nn.Module):
    """A block: itself on a key frame, its cheap student on the frames after it.

    What the state holds decides the form: the key frame's input and output, from which the student predicts the
    change, or what the student folded them into. For what else a network reads of a layer that it calls, `weight` or
    `in_features`, the block itself answers.
    """

    def __init__(self, path: str, block: nn.Module, student: BlockStudent, tape: Tape) -> None:
        super().__init__()
        self.path = path
        self.block = block
        self.student = student
        self.tape = tape

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            block = self.__dict__.get("_modules", {}).get("block")  # there is none yet while a copy is made
            if block is None:
                raise
            return getattr(block, name)

    def forward(self, *args: Tree, **kwargs: Tree) -> Tree:
        tape, call = self.tape, Call(args, kwargs)
        if not tape.is_bound and is_running_backward():
            raise UserError(
                f"'{self.path}' runs again in backward, by an activation checkpointing other than torch's own, and the "
                "key frame that it follows from is gone; switch that checkpointing off"
            )
        slot = tape.slot(self.path or WHOLE_SLOT)
        if tape.is_key_frame:
            output = self.block(*args, **kwargs)
            tape.keep(slot, name_leaves("input", (args, kwargs)) | name_leaves("output", output))
            return output
        kept = tape.read(slot)
        if "output" not in kept:
            return self.student.follow(call, kept)
        inputs, outputs = iter(leaves_named(kept, "input")), leaves_named(kept, "output")
        key = call.map(lambda tensor: next(inputs))  # the key frame's call: this one with the tensors that were kept
        key_output = outputs[0] if len(outputs) == 1 else outputs
        if tape.folding == "later":
            folded = self.student.fold(key, key_output)
            tape.keep(slot, folded)
            return self.student.follow(call, folded)
        change = self.student.change(key, call, key_output)
        if tape.changes is not None:
            tape.changes |= {f"{slot}/{name}": tensor for name, tensor in name_leaves("output", change).items()}
        return map_outputs(lambda dz, z: z + dz, change, key_output)


class OverwrittenError(UserError):
    """The network changes tensors in place that a state keeps. names: theirs, in the state."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(
            f"the network changes the kept tensor '{names[0]}' in place; leave that block by a path pattern, or use an "
            "operation that returns a new tensor"
        )
        self.names = names


class DeltaNetwork(Student):
    """`outputs, state = network(frame, state)`; without a state the frame is a key frame.

    folding: "never", the form that trains: the state keeps each block's input and output of the key frame. "later",
    the form that runs: the first delta frame folds them as it goes, so that no frame costs more than a key frame by
    much.
    """

    has_key_frames = True

    def __init__(
        self, network: nn.Module, plan: Plan, tape: Tape, card: Card | None = None, *, folding: Folding = "never"
    ) -> None:
        super().__init__(network, replace(card or Card(), form="delta", plan=plan))
        self.tape = tape
        self.folding: Folding = folding

    @property
    def plan(self) -> Plan:
        return self.card.plan or Plan(())

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[Tree, State]:
        with without_checkpointing(), self.tape.bound(state, self.folding) as written:
            outputs = self.network(frame)
            if state is not None:
                return outputs, self.tape.carried_on(state)
            overwritten = self.tape.overwritten()
            if overwritten:
                raise OverwrittenError(overwritten)
            return outputs, written

    def prepare_for_graphs(self) -> None:
        self.folding = "later"

    def blocks(self) -> dict[str, DeltaBlock]:
        """The converted blocks by the path they had in the network."""
        return {module.path: module for module in self.network.modules() if isinstance(module, DeltaBlock)}


def delta_network(
    network: nn.Module, plan: Plan, card: Card | None = None, *, start: bool = True, folding: Folding = "never"
) -> DeltaNetwork:
    """A delta network on a copy of `network`, its students started from the blocks' weights unless `start` is False.

    Errors: UserError where the plan is for another network.
    """
    network = copied(bare(network))
    tape = Tape()
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            setattr(module, "inplace", False)  # noqa: B010 - an activation in place would overwrite what is kept

    def make(entry: BlockPlan, block: nn.Module) -> nn.Module:
        student = make_block_student(entry, block)
        if start:
            student.start(block)
        return DeltaBlock(entry.path, block, student, tape)

    return DeltaNetwork(replace_blocks(network, plan, make), plan, tape, card, folding=folding)


def set_costs(network: DeltaNetwork, costs: dict[str, Tensor]) -> None:
    """Tells every searched block what its candidates cost. costs: by path, (candidates,)."""
    for path, block in network.blocks().items():
        if isinstance(block.student, SearchedStudent):
            block.student.costs.copy_(costs[path])


def keep_chosen(network: DeltaNetwork) -> None:
    """Ends a search: every block keeps the candidate of its largest gate, and nothing else remains. In place."""
    blocks = network.blocks()
    choices: dict[str, int] = {}
    for path, block in blocks.items():
        if isinstance(block.student, SearchedStudent):
            choices[path] = block.student.choice
            block.student = block.student.chosen
    entries = network.plan.blocks
    plan = Plan(tuple(e.choosing(choices[e.path]) if e.path in choices else e for e in entries))
    network.card = replace(network.card, plan=plan)
