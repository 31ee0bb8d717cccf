"""What a network may declare: the optional attributes that methods and runs read, and the one place that reads them.

`declared(network).stages` is checked when it is read, not before: a library's network may use one of these names for
something else, which matters to no method that does not ask for it.
"""

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, Literal, Protocol, TypeVar

from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.ops.normalise import Normalisation

FeatureLayout = Literal["frames", "channels_first", "channels_last"]
LAYOUTS: tuple[FeatureLayout, ...] = ("frames", "channels_first", "channels_last")
Step = Callable[[Tensor, dict[str, Tensor] | None], tuple[Tensor, dict[str, Tensor]]]
T = TypeVar("T")


class Declares(Protocol):
    """The attributes that a network may have, on its class or on the object. None of them is required.

    A path is a module's dotted name, as in `network.get_submodule(path)`.
    """

    leave: tuple[str, ...]
    """Patterns of layers that layerwise conversion leaves as they are, where `*` also stands for dots; the first and
    the last layer are then like any others. Read by the methods delta and low_rank. Default: none."""

    granularities: Mapping[str, tuple[str, ...]]
    """Patterns of the paths of its "block"s and "stage"s, where `*` stays within one name. Read by the method delta.
    Default: none, and a recipe names them with `method.convert`."""

    stages: tuple[str, ...]
    """Paths of its feature stages in order; of a network of clips the last one's output is what is pooled for the
    classifier. Read by the methods cross_resolution and collaborative. Default: none."""

    feature_layout: FeatureLayout
    """What a stage returns for B clips of T frames: "frames" (B·T, C, h, w), "channels_first" (B, C, T', h, w) or
    "channels_last" (B, T', h, w, C). Read with `stages`. Default: "frames"."""

    classifier: str
    """Path of the layer that gives the class logits, for the method cross_resolution an `nn.Linear` (torchvision's S3D
    has a 1×1×1 convolution). Read by that method, and by a recipe's `backbone`, whose weights may be of other classes.
    Default: none."""

    clip_shape: tuple[int, int, int] | None
    """(T, H, W), frames and pixels, of the only clips that it takes. Read where a clip does not fit. Default: None,
    clips of any shape."""

    causal: bool
    """Whether no output depends on later frames, so that `step` gives what whole clips give. Read where a student of
    clips runs on a stream. Default: False."""

    def step(self, frame: Tensor, state: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits (B, K) of the next frame (B, 3, H, W) alone, and what the frame after it needs, batch first;
        state=None starts a stream. Read with `causal`. Default: none, and a stream gives the network whole windows."""
        ...

    window: int
    """Frames that it looks at to restore the middle one, odd. Read by runs of the task super_resolution. Default: none;
    that task needs it."""

    scale: int
    """How many times as high and wide as its input its output is. Read by the method space_time. Default: 1."""

    feature: str
    """Path of the module whose input is the last feature (B, C, H, W) at the output's size. Read by the method
    space_time, which needs it and `feature_channels`. Default: none."""

    feature_channels: int
    """C of that feature. Default: none."""

    reach: int
    """Pixels of its input, in each direction, that an output pixel depends on, beside what motion brings from further.
    Read where large frames are cut into tiles: by so much they overlap. Default: 32."""

    normalisation: Normalisation
    """The mean and standard deviation that its published weights want frames with. Read by runs, whose recipe may say
    otherwise. Default: the task's."""

    backbone_path: str
    """Path of what published weights of a backbone are for. Read by a recipe's `backbone`. Default: "backbone"."""


class _Read(Generic[T]):
    """Reads and checks one attribute. value: gives it in its declared form, or None where it has another type.

    A module, a tensor, a function or one of `others` under that name is the network's own part, and declares nothing.
    """

    def __init__(
        self, default: T, expected: str, value: Callable[[object], T | None], others: tuple[type, ...] = ()
    ) -> None:
        self.default, self.expected, self.value, self.others = default, expected, value, others

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, declared: "Declared", owner: type) -> T:
        given: object = getattr(declared.network, self.name, None)
        if given is None or isinstance(given, nn.Module | Tensor):
            return self.default
        value = self.value(given)
        if value is not None:
            return value
        if callable(given) or isinstance(given, self.others):
            return self.default
        raise UserError(
            f"{type(declared.network).__name__}: the attribute `{self.name}` must be {self.expected}, got "
            f"{reprlib.repr(given)}; correct it, or rename it if it means something else"
        )


def _string(given: object) -> str | None:
    return given if isinstance(given, str) else None


def _strings(given: object) -> tuple[str, ...] | None:
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(item, str) for item in given):
        return None
    return tuple(given)


def _string_lists(given: object) -> dict[str, tuple[str, ...]] | None:
    if not isinstance(given, Mapping):
        return None
    lists = {name: _strings(paths) for name, paths in given.items() if isinstance(name, str)}
    known = {name: paths for name, paths in lists.items() if paths is not None}
    return known if len(known) == len(given) else None


def _whole(least: int, given: object) -> int | None:
    return given if isinstance(given, int) and not isinstance(given, bool) and given >= least else None


def _odd(given: object) -> int | None:
    return given if isinstance(given, int) and _whole(1, given) and given % 2 else None


def _shape(given: object) -> tuple[int, int, int] | None:
    if isinstance(given, Sequence) and len(given) == 3 and all(_whole(1, side) for side in given):
        return (given[0], given[1], given[2])
    return None


PATH = "the path of a module, such as 'head' or 'backbone.fc'"


@dataclass(frozen=True)
class Declared:
    """What `network` declares, see `Declares` for each attribute, and the default of what it does not.

    Errors on reading an attribute: UserError where it has another type or value.
    """

    network: nn.Module

    leave = _Read[tuple[str, ...]]((), "a tuple of path patterns, such as ('backbone.conv1', 'head.*')", _strings)
    granularities = _Read[Mapping[str, tuple[str, ...]]](
        {}, "a dict of path patterns, such as {'stage': ('layer?',), 'block': ('layer?.*',)}", _string_lists
    )
    stages = _Read[tuple[str, ...]](
        (), "a tuple of module paths, such as ('backbone.layer3', 'backbone.layer4')", _strings
    )
    feature_layout = _Read[FeatureLayout](
        "frames", f"one of {', '.join(LAYOUTS)}", lambda given: next((name for name in LAYOUTS if name == given), None)
    )
    classifier = _Read[str | None](None, PATH, _string)
    clip_shape = _Read[tuple[int, int, int] | None](None, "frames, height and width, such as (16, 224, 224)", _shape)
    causal = _Read(False, "True or False", lambda given: given if isinstance(given, bool) else None)
    step = _Read[Step | None](  # in other networks often a count of training steps
        None, "a method step(frame, state)", lambda given: given if callable(given) else None, others=(int, float)
    )
    window = _Read[int | None](None, "an odd number of frames, at least 1", _odd)
    scale = _Read(1, "a whole number, at least 1", partial(_whole, 1))
    feature = _Read[str | None](None, PATH, _string)
    feature_channels = _Read[int | None](None, "a number of channels, at least 1", partial(_whole, 1))
    reach = _Read(32, "a number of pixels, at least 0", partial(_whole, 0))
    normalisation = _Read[Normalisation | None](  # in other networks often a kind of layer, or whether to use it
        None,
        "a vidistill.ops.normalise.Normalisation(mean, std)",
        lambda given: given if isinstance(given, Normalisation) else None,
        others=(str, int, float),
    )
    backbone_path = _Read("backbone", PATH, _string)


def declared(network: nn.Module) -> Declared:
    """What a network declares: typed, checked where it is read, with a default for what it does not declare.

    Args:
        network: any module; it need not have any of the attributes of `Declares`.

    Returns:
        An object with one field for each of them, such as `declared(network).stages`.

    Raises:
        UserError: on reading a field, where the network's attribute has another type or value. A module, a tensor or a
            function of that name counts as not declared.
    """
    return Declared(network)
