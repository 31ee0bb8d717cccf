"""The forms that a student can have: how each is put together from a network and a card, before weights are loaded."""

from collections.abc import Callable

from torch import nn

from vidistill.students.card import Card
from vidistill.students.delta.network import delta_network
from vidistill.students.delta.plan import Plan
from vidistill.students.low_rank import factorise
from vidistill.students.student import Student
from vidistill.students.windows import as_student


def _low_rank(network: nn.Module, card: Card) -> Student:
    return factorise(network, card.plan or Plan(()), card, start=False)


def _delta(network: nn.Module, card: Card) -> Student:
    return delta_network(network, card.plan or Plan(()), card, start=False, folding="later")


FORMS: dict[str, Callable[[nn.Module, Card], Student]] = {
    "per_frame": as_student,
    "low_rank": _low_rank,
    "delta": _delta,
}
