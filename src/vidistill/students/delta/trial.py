"""Trying a delta conversion before anything trains: does every block run, and is a key frame the network's own?"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vidistill.models.outputs import largest_gap, named_tensors
from vidistill.ops.modules import same_draws
from vidistill.students.delta.network import OverwrittenError, delta_network
from vidistill.students.delta.plan import Plan
from vidistill.students.delta.tape import WHOLE_SLOT
from vidistill.students.state import KEY
from vidistill.students.trial import TOLERANCE, noisy, reference_outputs, settled

NEVER_RUN = "its student would never run: the network calls the layer itself, not what stands in its place"


def tried(network: nn.Module, plan: Plan, example: Tensor) -> Plan:
    """The plan without the blocks that cannot be converted after all, each with its reason.

    Their student never runs, as where a list or a saved method holds the layer too; the network changes what they keep
    in place; or with them converted it does not run, or gives other outputs on a key frame.
    """
    frames = noisy(example, 2)
    (wanted,) = reference_outputs(network, frames[:1])

    def attempt(plan: Plan) -> dict[str, str]:
        student = delta_network(network, plan, start=False).eval()
        paths = {entry.path or WHOLE_SLOT: entry.path for entry in plan.converted}
        try:
            with same_draws():
                outputs, state = student(frames[0])
            later, _ = student(frames[1], state)
            student.folding = "later"
            student(frames[1], state)
        except OverwrittenError as error:
            return {paths[slot]: "the network changes its input or output in place" for slot in _slots(error.names)}
        if idle := set(paths) - _slots(state):
            return {paths[slot]: NEVER_RUN for slot in idle}
        if not largest_gap(wanted, outputs) < TOLERANCE:
            raise ValueError("a key frame's outputs are not the network's")
        if {*named_tensors(outputs, "output")} != {*named_tensors(later, "output")}:
            raise ValueError("a later frame's outputs have another form")
        return {}

    with torch.no_grad():
        return settled(plan, attempt)


def _slots(names: Iterable[str]) -> set[str]:
    """The slots, without the number of the call, of tensors of a state."""
    return {name.removeprefix(KEY).rpartition("/")[0].partition("#")[0] for name in names}
