"""A network whose layers are their separable approximations, on every frame."""

import copy

from torch import nn

from vidistill.students.delta.conversion import replace_blocks
from vidistill.students.delta.kinds.separable import separable, start_from
from vidistill.students.delta.layers import is_convertible_layer
from vidistill.students.delta.plan import BlockPlan, Plan
from vidistill.students.student import PerFrame


class LowRankNetwork(PerFrame):
    """A per-frame network with factorised layers; `plan` says which."""

    def __init__(self, network: nn.Module, plan: Plan) -> None:
        super().__init__(network)
        self.plan = plan


def factorise(network: nn.Module, plan: Plan, *, start: bool = True) -> LowRankNetwork:
    """A copy of `network` whose converted layers are their separable approximations.

    start: whether they start from the layers' weights; their biases are the layers' in any case.
    """
    network = copy.deepcopy(network)

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

    return LowRankNetwork(replace_blocks(network, plan, make), plan)
