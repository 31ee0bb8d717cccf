import pytest
import torch
from torch import nn

from tests.networks import TinySegmenter
from vidistill.errors import UserError
from vidistill.students.card import Card
from vidistill.students.delta.conversion import FUNCTIONAL, Selection, plan_conversion, replace_blocks
from vidistill.students.delta.kinds import StudentSpec
from vidistill.students.delta.plan import Plan

FRAME = torch.zeros(1, 3, 16, 24)


def planned(network: nn.Module, *students: StudentSpec, **selection: object) -> Plan:
    return plan_conversion(network, FRAME, Selection(**selection), students or [StudentSpec()])


def reasons(plan: Plan) -> dict[str, str]:
    return {block.path: block.reason for block in plan.blocks}


def test_first_and_last_are_left_and_macs_are_right(network: TinySegmenter) -> None:
    plan = planned(network)
    assert reasons(plan) == {"stem.0": "first or last layer", "body.0": "", "mix": "", "head": "first or last layer"}
    by_path = {block.path: block for block in plan.blocks}
    pixels = 8 * 12
    assert by_path["body.0"].macs == pixels * 8 * 16 * 9
    # (3×1, 8 → 4) on 8 rows and 12 columns, then (1×3, 4 → 16): padding 2 at dilation 2 keeps the size
    assert by_path["body.0"].candidates[0].macs == pixels * (8 * 4 * 3 + 4 * 16 * 3)
    assert by_path["stem.0"].macs == pixels * 3 * 8 * 9
    whole = pixels * (3 * 8 * 9 + 8 * 16 * 9 + 16 * 16 + 16 * 4)
    assert plan.share == pytest.approx(pixels * (8 * 16 * 9 + 16 * 16) / whole)


def test_patterns_choose(network: TinySegmenter) -> None:
    plan = planned(network, convert=("body.*", "stem.*"), leave_first=0, leave_last=0)
    assert [block.path for block in plan.converted] == ["stem.0", "body.0"]
    assert reasons(plan)["mix"] == "left by the recipe's patterns"


def test_layers_outside_larger_blocks_have_students_of_their_own(network: TinySegmenter) -> None:
    block = {"granularity": "block", "convert": ("body",)}
    narrow, half = StudentSpec("bottleneck"), StudentSpec(rank=2)
    assert reasons(planned(network, narrow, **block))["mix"] == "outside the converted blocks"
    plan = planned(network, narrow, **block, others=half)
    assert {entry.path: entry.student and entry.student.kind for entry in plan.blocks} == {
        "stem.0": None, "body": "bottleneck", "mix": "separable", "head": None,
    }  # fmt: skip
    network.leave = ("mi*",)
    assert reasons(planned(network, narrow, **block, others=half)) == {
        "stem.0": "", "body": "", "mix": "left by the network itself", "head": "",
    }  # fmt: skip


def test_a_pattern_without_a_match_shows_what_exists(network: TinySegmenter) -> None:
    with pytest.raises(UserError, match=r"'boddy\.\*' matches nothing.*body\.0"):
        planned(network, convert=("boddy.*",))


class Odd(nn.Module):
    """One layer of every kind that must be left."""

    class Custom(nn.Conv2d):
        pass

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 1)
        self.custom = self.Custom(16, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.reflected = nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect")
        self.narrow = nn.Conv2d(16, 3, 3, padding=1)
        self.costly = nn.Conv2d(3, 16, 1)
        self.grouped = nn.Conv2d(16, 24, 3, padding=1, groups=4)
        self.linear = nn.Linear(24, 24)
        self.spare = nn.Conv2d(3, 3, 1)
        self.last = nn.Conv2d(24, 2, 1)

    def forward(self, x):
        x = self.reflected(self.depthwise(self.custom(self.first(x))))
        x = self.grouped(self.costly(self.narrow(x)))
        return self.last(self.linear(x.movedim(1, -1)).movedim(-1, 1))


def test_everything_left_has_its_reason() -> None:
    found = reasons(planned(Odd()))
    assert found == {
        "first": "first or last layer",
        "custom": "a Custom, not exactly Conv2d or Linear",
        "depthwise": "depthwise",
        "reflected": "",
        "narrow": "too few channels for a reduction of 4",
        "costly": "the student would cost as much",
        "grouped": "its 4 groups do not divide the bottleneck's 6 channels",
        "linear": "",
        "spare": "never called as a module in a run of the network",
        "last": "first or last layer",
    }


def test_a_layer_with_two_parents_is_replaced_in_both(network: TinySegmenter) -> None:
    network.again = network.mix
    plan = planned(network)
    replace_blocks(network, plan, lambda entry, block: nn.Identity())
    assert network.again is network.mix
    assert isinstance(network.mix, nn.Identity)


def read_again(plan: Plan) -> Plan | None:
    """As a card keeps it."""
    return Card.from_json(Card(plan=plan).to_json(), where="card").plan


def test_a_plan_survives_its_card(network: TinySegmenter) -> None:
    plan = planned(network)
    assert read_again(plan) == plan
    assert "2 of 4 blocks converted" in str(plan)
    share = sum(block.macs for block in plan.left) / sum(block.macs for block in plan.blocks)
    assert f"  first or last layer ({share:.1%}): stem.0, head" in str(plan).splitlines()


def test_a_plan_for_another_network_is_refused(network: TinySegmenter) -> None:
    plan = planned(network)
    with pytest.raises(UserError, match=r"no block 'body\.0'"):
        replace_blocks(nn.Sequential(nn.Conv2d(3, 4, 1)), plan, lambda entry, block: block)


def test_every_name_of_a_shared_layer_counts(network: TinySegmenter) -> None:
    network.again = network.mix
    plan = planned(network)
    entry = {block.path: block for block in plan.blocks}["mix"]
    assert entry.also == ("again",)
    assert "held by several parents, with one student:\n  mix = again" in str(plan)
    assert read_again(plan) == plan
    assert reasons(planned(network, leave=("again",)))["mix"] == "left by the recipe's patterns"


def test_patterns_hold_for_layers_outside_larger_blocks_too(network: TinySegmenter) -> None:
    thin = StudentSpec(reduction=4)
    selection = Selection("block", ("body",), ("mix",), others=thin)
    assert reasons(plan_conversion(network, FRAME, selection, [StudentSpec("bottleneck")]))["mix"].startswith("left by")
    inside = Selection("block", ("head",), ("body",), others=thin)
    found = reasons(plan_conversion(network, FRAME, inside, [StudentSpec("copy", scale=0.5)]))
    assert found["body.0"] == "left by the recipe's patterns"
    assert found["mix"] == ""


def test_leaving_more_layers_than_there_are(network: TinySegmenter) -> None:
    assert not planned(network, leave_first=0, leave_last=6).converted


class Functions(nn.Module):
    """A kernel applied by a function, a product of activations, a transposed convolution, and two plain ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.kernel = nn.Parameter(torch.randn(8, 8, 3, 3))
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)

    def forward(self, x):
        x = nn.functional.conv2d(self.first(x), self.kernel, padding=1)
        attended = torch.softmax(x.flatten(2).mT @ x.flatten(2), dim=-1)
        x = (x.flatten(2) @ attended.mT).unflatten(2, x.shape[-2:])
        return self.last(self.up(x))


def test_the_share_is_of_functional_and_transposed_layers_too() -> None:
    example = torch.zeros(1, 3, 6, 10)
    plan = plan_conversion(Functions(), example, Selection(leave_first=0, leave_last=0), [StudentSpec(rank=1)])
    macs = {block.path: block.macs for block in plan.blocks}
    assert macs == {"first": 60 * 3 * 8, "last": 240 * 8 * 2, "up": 60 * 8 * 8 * 4, FUNCTIONAL: 60 * 8 * 8 * 9}
    assert plan.share == (macs["first"] + macs["last"]) / sum(macs.values())


@pytest.mark.parametrize("message", ["only 16 rows fit", ""])
def test_a_student_that_cannot_run_is_left_with_what_went_wrong(message: str) -> None:
    class Rigid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x):
            if x.shape[-2] != 16:
                raise ArithmeticError(message)
            return self.conv(x)

    network = nn.Sequential(Rigid(), nn.Conv2d(3, 3, 1))
    plan = planned(network, StudentSpec("copy", scale=0.5), granularity="block", convert=("0",))
    assert reasons(plan)["0"] == f"its copy at 0.5 cannot run ({message or 'ArithmeticError'})"
