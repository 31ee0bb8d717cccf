"""A network whose layers are their separable approximations, on every frame."""

from dataclasses import replace

from torch import Tensor, nn

from vidistill.ops.modules import copied
from vidistill.students.card import Card
from vidistill.students.delta.conversion import replace_blocks
from vidistill.students.delta.kinds.separable import separable, start_from
from vidistill.students.delta.layers import is_convertible_layer
from vidistill.students.delta.plan import BlockPlan, Plan
from vidistill.students.networks import bare
from vidistill.students.student import PerFrame, Student
from vidistill.students.trial import modules_that_run, noisy, settled, stream_outputs
from vidistill.students.windows import as_student


def tried(network: nn.Module, plan: Plan, example: Tensor) -> Plan:
    """The plan without the layers whose approximation would never run, or lacks what the network reads of them."""
    frames = noisy(example, 1)

    def attempt(plan: Plan) -> dict[str, str]:
        student = PerFrame(factorise(network, plan, Card(), start=False).network).eval()
        with modules_that_run() as ran:
            stream_outputs(student, frames)
        idle = [e.path for e in plan.converted if id(student.network.get_submodule(e.path)) not in ran]
        return dict.fromkeys(idle, "the network calls the layer itself, not what stands in its place")

    return settled(plan, attempt)


def factorise(network: nn.Module, plan: Plan, card: Card, *, start: bool = True) -> Student:
    """A copy of `network` whose converted layers are their separable approximations, for good.

    start: whether they start from the layers' weights; their biases are the layers' in any case.
    """
    network = copied(bare(network))

    def make(entry: BlockPlan, layer: nn.Module) -> nn.Module:
        assert is_convertible_layer(layer)
        assert entry.student is not None
        assert entry.student.rank is not None
        pair = separable(layer, entry.student.rank).to(layer.weight.device, layer.weight.dtype)
        if layer.bias is not None:
            pair[1].register_parameter("bias", nn.Parameter(layer.bias.detach().clone()))
        if start:
            start_from(pair, layer)
        return pair

    return as_student(replace_blocks(network, plan, make), replace(card, form="low_rank", plan=plan))
