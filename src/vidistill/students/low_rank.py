"""A network whose layers are their separable approximations, on every frame."""

import copy
from dataclasses import replace

from torch import nn

from vidistill.students.card import Card
from vidistill.students.delta.conversion import replace_blocks
from vidistill.students.delta.plan import BlockPlan, Plan
from vidistill.students.delta.separable import is_convertible_layer, separable, start_from
from vidistill.students.student import Student
from vidistill.students.windows import as_student


def factorise(network: nn.Module, plan: Plan, card: Card, *, start: bool = True) -> Student:
    """A copy of `network` whose converted layers are their separable approximations, for good.

    start: False leaves their weights to be loaded.
    """
    network = copy.deepcopy(network)

    def make(entry: BlockPlan, layer: nn.Module) -> nn.Module:
        assert is_convertible_layer(layer)
        assert entry.student is not None
        assert entry.student.rank is not None
        student = separable(layer, entry.student.rank).to(layer.weight.device, layer.weight.dtype)
        if layer.bias is not None:
            student[1].register_parameter("bias", nn.Parameter(layer.bias.detach().clone()))
        if start:
            start_from(student, layer)
        return student

    return as_student(replace_blocks(network, plan, make), replace(card, form="low_rank", plan=plan))
