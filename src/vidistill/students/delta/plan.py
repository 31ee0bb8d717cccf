"""What becomes of each block of a network, as plain values that a student's card keeps."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from vidistill.students.delta.separable import Policy

Kind = Literal["separable", "copy", "bottleneck", "nothing"]
WHOLE = ""  # the path of the network itself


@dataclass(frozen=True)
class StudentSpec:
    """What a block's student is.

    kind: "separable", two thin convolutions in the place of one convolution or linear layer; "copy", the block's own
    copy, which only pays with a scale below 1; "bottleneck", a small non-linear network that sees the key frame's input
    and this frame's, for any block; "nothing": the key frame's output stays.
    reduction: γ, by which separable and bottleneck students are narrower than the block; policy: see `bottleneck_rank`.
    rank: the bottleneck's channels, instead of γ. scale: the part of the input's height and width on which it works.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    kind: Kind = "separable"
    reduction: int = 4
    policy: Policy = "out"
    rank: int | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 1:
            raise ValueError(f"a student's scale is above 0 and at most 1, not {self.scale}")
        if self.reduction < 1:
            raise ValueError(f"a student's reduction is at least 1, not {self.reduction}")

    def __str__(self) -> str:
        width = ""
        if self.kind in ("separable", "bottleneck"):
            width = f" of {self.rank} channels" if self.rank else f" γ={self.reduction}"
        return f"{self.kind}{width}" + (f" at {self.scale:g}" if self.scale < 1 else "")


@dataclass(frozen=True)
class Candidate:
    """A student that a block could have, and the MACs of one example frame."""

    student: StudentSpec
    macs: int


@dataclass(frozen=True)
class BlockPlan:
    """What becomes of one block. Without candidates it is left as it is, for `reason`; several mean a search.

    macs: of its convolutions and linear layers on one example frame. channels: of its input and output. also: its other
    paths, where several parents hold it.
    """

    path: str
    macs: int
    candidates: tuple[Candidate, ...] = ()
    channels: tuple[int, int] = (0, 0)
    reason: str = ""
    also: tuple[str, ...] = ()

    @property
    def student(self) -> StudentSpec | None:
        """The chosen student; None for a block that is left."""
        return self.candidates[0].student if self.candidates else None

    @property
    def title(self) -> str:
        return " = ".join([self.path, *self.also]) or "the whole network"


@dataclass(frozen=True)
class Plan:
    """What becomes of every convolution and linear layer, alone or as a part of a larger block, in running order."""

    blocks: tuple[BlockPlan, ...]

    @property
    def converted(self) -> tuple[BlockPlan, ...]:
        return tuple(block for block in self.blocks if block.candidates)

    @property
    def left(self) -> tuple[BlockPlan, ...]:
        return tuple(block for block in self.blocks if not block.candidates)

    @property
    def share(self) -> float:
        """The part of all convolution and linear MACs that is converted, 0…1."""
        return sum(block.macs for block in self.converted) / max(1, sum(block.macs for block in self.blocks))

    def to_list(self) -> list[dict[str, Any]]:
        return [_plain(asdict(block)) for block in self.blocks]

    @classmethod
    def from_list(cls, blocks: Sequence[dict[str, Any]]) -> "Plan":
        return cls(tuple(_block_from(values) for values in blocks))

    def __str__(self) -> str:
        head = f"{len(self.converted)} of {len(self.blocks)} blocks converted, {self.share:.1%} of the MACs"
        left = [self._left_in_words(reason) for reason in dict.fromkeys(block.reason for block in self.left)]
        shared = [f"  {block.title}" for block in self.converted if block.also]
        shown = [head, *(["left as they are:", *left] if left else [])]
        return "\n".join([*shown, *(["held by several parents, with one student:", *shared] if shared else [])])

    def _left_in_words(self, reason: str) -> str:
        """The blocks that are left for this reason, with their share of the MACs."""
        blocks = [block for block in self.left if block.reason == reason]
        share = sum(block.macs for block in blocks) / max(1, sum(block.macs for block in self.blocks))
        text = f"{reason} ({share:.1%}): {', '.join(block.title for block in blocks)}"
        return textwrap.fill(
            text, 110, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Lists for tuples, as a file gives them back."""
    return values | {name: list(values[name]) for name in ("candidates", "channels", "also")}


def _block_from(values: dict[str, Any]) -> BlockPlan:
    candidates = tuple(Candidate(StudentSpec(**c["student"]), c["macs"]) for c in values["candidates"])
    lists = {"candidates": candidates, "channels": tuple(values["channels"]), "also": tuple(values.get("also", ()))}
    return BlockPlan(**values | lists)
