from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from vidistill.errors import UserError
from vidistill.models.outputs import from_named, largest_gap, logits_of, named_tensors

LOGITS = torch.zeros(1, 2)
OTHER = torch.ones(1, 2)


class Named:
    logits = LOGITS


class Pair(NamedTuple):
    logits: Tensor
    aux: Tensor | None


@dataclass
class Data:
    features: list[Tensor]
    out: Tensor


UNAMBIGUOUS = [
    LOGITS, {"out": LOGITS, "aux": OTHER}, {"logits": LOGITS, "aux": None}, OrderedDict(out=LOGITS), Named(),
    Pair(LOGITS, OTHER), Data([OTHER], LOGITS), (LOGITS,), [LOGITS], (LOGITS, None), (LOGITS, [OTHER, OTHER]),
    {"segmentation": LOGITS}, ({"out": LOGITS},),
]  # fmt: skip


@pytest.mark.parametrize("outputs", UNAMBIGUOUS, ids=lambda outputs: type(outputs).__name__)
def test_outputs_of_every_kind(outputs) -> None:
    assert logits_of(outputs) is LOGITS


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ((LOGITS, OTHER), "2 tensors in a tuple of 0, 1; return the logits alone"),
        ({"main": LOGITS, "aux": OTHER}, "2 tensors in a dict of main, aux"),
        ({}, "0 tensors in a dict of nothing"),
        ((None,), "0 tensors in a tuple of 0"),
        (None, "as a tensor, got NoneType"),
        ("logits", "as a tensor, got str"),
        (torch.complex(LOGITS, LOGITS), "complex"),
    ],
)
def test_outputs_whose_logits_are_unclear_are_refused(outputs, said) -> None:
    with pytest.raises(UserError, match=said):
        logits_of(outputs)


@pytest.mark.parametrize("outputs", [*UNAMBIGUOUS, Data([OTHER], LOGITS)], ids=lambda outputs: type(outputs).__name__)
def test_named_outputs_come_back_with_the_same_logits(outputs) -> None:
    """As an exported graph gives them."""
    assert torch.equal(logits_of(from_named(named_tensors(outputs, "output"), "output")), LOGITS)


def test_gaps() -> None:
    nan = torch.tensor([1.0, float("nan"), 2.0])
    assert largest_gap({"a": nan}, {"a": nan.clone()}) == 0
    assert largest_gap(nan, torch.tensor([1.0, float("nan"), 1.0])) == 0.5  # of the largest value, 2
    assert not largest_gap(nan, torch.zeros(3)) < 1e9
    assert largest_gap({"a": nan}, {"b": nan}) == float("inf")
    assert largest_gap(torch.zeros(2), torch.zeros(3)) == float("inf")
    assert largest_gap(torch.tensor([2, 4]), torch.tensor([2, 3])) == 0.25
