"""The contract of a student kind: what a recipe may ask for beside a block, and what every kind promises.

A block is any module: one convolution, a residual block, a stage, the whole network. With x_0, z_0 its input and output
on the key frame, a student gives z_t two ways, which agree. `change` predicts z_t − z_0 and is zero for a still clip to
the bit; it is what trains. `fold` computes once per key frame all that depends on the key frame alone, and `follow`
gives z_t from that and from x_t; it is what runs.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, ConfigDict
from torch import Tensor, nn

from vidistill.config import Count, check_numbers, real
from vidistill.errors import nearest
from vidistill.students.delta.calls import Call, Tree
from vidistill.students.state import State

Policy = Literal["out", "min"]  # see `StudentSpec`

# Filled by the package's `__init__`. It is here because the names in a StudentSpec are checked against it, and every
# kind needs StudentSpec.
KINDS: dict[str, type["BlockStudent"]] = {}


def known_kind(kind: str) -> str:
    """The same name. Errors: ValueError with the nearest names where no kind has it."""
    if kind not in KINDS:
        raise ValueError(f"unknown student kind '{kind}'; {nearest(kind, KINDS)}")
    return kind


@dataclass(frozen=True)
class StudentSpec:
    """What the student of a block is.

    Args:
        kind: A name in `KINDS`.
        reduction: γ, at least 1, by which a student that has a rank is narrower than its block.
        policy: What γ divides: "out", the output channels; "min", the smaller of input and output channels.
        rank: The student's inner channels, at least 1, instead of γ.
        scale: The part of the input's height and width on which it works, 0.01 to 1.

    Raises:
        ValueError: Where a value lies outside its range, or no kind has the name.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    kind: Annotated[str, AfterValidator(known_kind)] = "separable"  # checked here so that an error names this key
    reduction: Count = 4
    policy: Policy = "out"
    rank: Count | None = None
    scale: Annotated[float, *real(0.01, 1)] = 1.0

    def __post_init__(self) -> None:
        check_numbers(self)  # and the kind's name

    def __str__(self) -> str:
        width = ""
        if KINDS[self.kind].has_rank:
            width = f" of {self.rank} channels" if self.rank else f" γ={self.reduction}"
        return f"{self.kind}{width}" + (f" at {self.scale:g}" if self.scale < 1 else "")

    def ranked(self, rank: int) -> "StudentSpec | str":
        """The spec with its rank decided, or why it cannot have one so low."""
        return replace(self, rank=rank) if rank >= 1 else f"too few channels for a reduction of {self.reduction}"


class BlockStudent(nn.Module, ABC):
    """What stands beside a block. Its outputs are trees of tensors shaped as the block's own.

    All that planning, training, folding, fusing, the search and its tables need to know of a kind they ask here; none
    of them looks at the kind itself. A kind must have `make`, `change`, `fold` and `follow`; the rest has defaults.
    """

    # Planning: what becomes of a spec, before there is a student.

    has_rank: ClassVar[bool] = False  # whether `reduction` and `rank` mean anything to it
    takes_several: ClassVar[bool] = False  # whether its blocks may take or return several tensors

    @classmethod
    def resolve(cls, spec: StudentSpec, block: nn.Module, call: Call, output: Tree) -> StudentSpec | str:
        """The spec with all decided that depends on the block, or why the block cannot have such a student.

        call, output: of a run, shapes without values. This is what all kinds ask; one that asks more extends it.
        """
        if isinstance(block, nn.Conv2d) and block.groups == block.in_channels and block.groups > 1:
            return "depthwise"
        if not cls.takes_several and (len(call.tensors()) != 1 or not isinstance(output, Tensor)):
            return f"takes or returns several tensors, which the kind {spec.kind} does not"
        if spec.scale < 1 and any(tensor.ndim != 4 for tensor in call.tensors()):
            return "its input is not an image, so it cannot be made smaller"
        return StudentSpec(spec.kind, scale=spec.scale)

    @classmethod
    def make(cls, spec: StudentSpec, block: nn.Module, channels: tuple[int, int]) -> "BlockStudent":
        """A student of `block` with weights that `start` may still set; the block itself is not kept, nor changed.

        spec: as `resolve` gave it. channels: of the block's input and output.
        """
        raise NotImplementedError(f"{cls.__name__} is not made from a spec")

    def like(self, block: nn.Module) -> Self:
        """This student on the block's device and in its precision, for `make`."""
        weight = next(iter(block.parameters()), None)
        return self if weight is None else self.to(weight.device, weight.dtype)

    # Running: see the top of this file.

    @abstractmethod
    def change(self, key: Call, now: Call, key_output: Tree) -> Tree:
        """The predicted z_t − z_0, without any memory of the key frame but its input."""

    @abstractmethod
    def fold(self, key: Call, key_output: Tree) -> State:
        """All that the frames after the key frame need of it, by names other than "input" and "output"."""

    @abstractmethod
    def follow(self, now: Call, folded: State) -> Tree:
        """z_t."""

    # Training.

    def start(self, block: nn.Module) -> None:
        """Starts the weights from the trained block's where that is possible."""

    def set_training(self) -> None:
        """Puts what trains from scratch, and only that, into training mode."""

    @property
    def distils_features(self) -> bool:
        """Whether it also learns to have what enters its last layer equal what enters the block's last layer."""
        return False

    # Searching.

    @property
    def is_full_cost(self) -> bool:
        """Whether it costs as much as its block; a search then starts its gate below those of cheaper candidates."""
        return False

    # Fusing batch normalisations, for running. What fuses into the block's own layers must fuse into the student too.

    def fuse(self) -> None:
        """Fuses the student's own norms into its convolutions."""

    @property
    def block_copy(self) -> nn.Module | None:
        """A copy of the block in it, whose layers and norms fuse as the block's do; None where it has none."""
        return None

    is_scalable: ClassVar[bool] = False  # whether `scale_outputs` is possible, else no norm fuses into its block

    def scale_outputs(self, factor: Tensor) -> None:
        """Multiplies the predicted change of each output channel by a factor, for good. factor: (channels,)."""
        raise NotImplementedError(f"{type(self).__name__} is not scalable")
