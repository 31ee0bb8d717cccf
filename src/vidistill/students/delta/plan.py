"""What becomes of each block of a network, as plain values that a student's card keeps."""

import textwrap
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from vidistill.students.delta.kinds import StudentSpec

Macs = Annotated[int, Field(ge=0, lt=2**63)]

WHOLE = ""  # the path of the network itself


@dataclass(frozen=True)
class Candidate:
    """A student that a block could have, and the MACs of one example frame."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    student: StudentSpec
    macs: Macs


@dataclass(frozen=True)
class BlockPlan:
    """What becomes of one block. Without candidates it is left as it is, for `reason`; several mean a search.

    macs: of its convolutions and linear layers on one example frame. channels: of its input and output. also: its other
    paths, where several parents hold it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    path: str
    macs: Macs
    candidates: tuple[Candidate, ...] = ()
    channels: tuple[int, int] = (0, 0)
    reason: str = ""
    also: tuple[str, ...] = ()

    @property
    def student(self) -> StudentSpec | None:
        """The chosen student; None for a block that is left."""
        return self.candidates[0].student if self.candidates else None

    def choosing(self, index: int) -> "BlockPlan":
        """With this one of its candidates, as when a search has ended."""
        return replace(self, candidates=(self.candidates[index],))

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

    def __str__(self) -> str:
        lines = [f"{len(self.converted)} of {len(self.blocks)} blocks converted, {self.share:.1%} of the MACs"]
        if self.left:
            lines.append("left as they are:")
            lines += [self._left_for(reason) for reason in dict.fromkeys(block.reason for block in self.left)]
        shared = [f"  {block.title}" for block in self.converted if block.also]
        if shared:
            lines += ["held by several parents, with one student:", *shared]
        return "\n".join(lines)

    def _left_for(self, reason: str) -> str:
        """The blocks that are left for this reason, with their share of the MACs."""
        blocks = [block for block in self.left if block.reason == reason]
        share = sum(block.macs for block in blocks) / max(1, sum(block.macs for block in self.blocks))
        text = f"{reason} ({share:.1%}): {', '.join(block.title for block in blocks)}"
        return textwrap.fill(
            text, 110, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
