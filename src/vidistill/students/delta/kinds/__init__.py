"""The kinds of cheap students, `KINDS`: a new kind is one file beside these and one line here.

Whatever plans, trains, folds, fuses, searches or times students asks a kind through `BlockStudent`, which says what a
kind must have and what it may. `tests/students/delta/test_kinds.py` tests every kind that is registered, and expects a
row in the table of `docs/delta.md`.
"""

from torch import nn

from vidistill.students.delta.calls import Call, Tree
from vidistill.students.delta.kinds.block_student import KINDS, BlockStudent, Policy, StudentSpec
from vidistill.students.delta.kinds.bottleneck import TwoFrameBottleneck
from vidistill.students.delta.kinds.coarse_copy import CoarseCopy
from vidistill.students.delta.kinds.nothing import Nothing
from vidistill.students.delta.kinds.separable import Separable

__all__ = ["CANDIDATES", "KINDS", "BlockStudent", "Policy", "StudentSpec", "make_student", "resolve"]

KINDS.update(
    {
        "separable": Separable,  # two thin convolutions in the place of one convolution or linear layer
        "copy": CoarseCopy,  # the block's own copy, which only pays with a scale below 1
        "bottleneck": TwoFrameBottleneck,  # a small non-linear network of both frames, for any block
        "nothing": Nothing,  # the key frame's output stays
    }
)

CANDIDATES = (  # of a search whose recipe names none
    StudentSpec("copy"), StudentSpec("separable"), StudentSpec("separable", reduction=8),
    StudentSpec("copy", scale=0.5), StudentSpec("nothing"),
)  # fmt: skip


def resolve(spec: StudentSpec, block: nn.Module, call: Call, output: Tree) -> StudentSpec | str:
    """The spec as `block` would have it, or why it cannot; see `BlockStudent.resolve`."""
    return KINDS[spec.kind].resolve(spec, block, call, output)


def make_student(spec: StudentSpec, block: nn.Module, channels: tuple[int, int]) -> BlockStudent:
    """The student of `block` that a resolved spec describes; see `BlockStudent.make`."""
    return KINDS[spec.kind].make(spec, block, channels)
