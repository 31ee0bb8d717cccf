"""What networks declare is read in one place, typed and checked; other parts of the same name declare nothing."""

import ast
import inspect
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import vidistill
from vidistill.errors import UserError
from vidistill.models import MODELS
from vidistill.models.declares import Declared, Declares, declared
from vidistill.ops.normalise import Normalisation

SOURCE = Path(vidistill.__file__).parent
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def step(frame: Tensor, state: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    return frame, {}


DEFAULTS = {
    "leave": (),
    "granularities": {},
    "stages": (),
    "feature_layout": "frames",
    "classifier": None,
    "clip_shape": None,
    "causal": False,
    "step": None,
    "window": None,
    "scale": 1,
    "feature": None,
    "feature_channels": None,
    "reach": 32,
    "normalisation": None,
    "backbone_path": "backbone",
}
RIGHT = [
    ("leave", ("stem", "head.*"), ("stem", "head.*")),
    ("leave", ["stem"], ("stem",)),
    ("granularities", {"stage": ("layer?",), "block": []}, {"stage": ("layer?",), "block": ()}),
    ("stages", ["layer1", "layer2"], ("layer1", "layer2")),
    ("feature_layout", "channels_last", "channels_last"),
    ("classifier", "head", "head"),
    ("clip_shape", (16, 224, 224), (16, 224, 224)),
    ("clip_shape", None, None),
    ("causal", True, True),
    ("step", step, step),
    ("window", 5, 5),
    ("scale", 4, 4),
    ("feature", "output", "output"),
    ("feature_channels", 64, 64),
    ("reach", 0, 0),
    ("normalisation", HALF, HALF),
    ("backbone_path", "backbone.body", "backbone.body"),
]
WRONG = [
    ("leave", "stem", "a tuple of path patterns"),
    ("leave", ("stem", 3), "a tuple of path patterns"),
    ("granularities", ("layer?",), "a dict of path patterns"),
    ("granularities", {"stage": "layer?"}, "a dict of path patterns"),
    ("granularities", {1: ("layer?",)}, "a dict of path patterns"),
    ("stages", 4, "a tuple of module paths"),
    ("stages", [3, 4, 6, 3], "a tuple of module paths"),
    ("feature_layout", "tokens", "one of frames, channels_first, channels_last"),
    ("classifier", 10, "the path of a module"),
    ("clip_shape", (16, 224), "frames, height and width"),
    ("clip_shape", (16, 224, 0), "frames, height and width"),
    ("causal", "left", "True or False"),
    ("causal", 1, "True or False"),
    ("step", "next", r"a method step\(frame, state\)"),
    ("window", 4, "an odd number of frames"),
    ("window", "5", "an odd number of frames"),
    ("window", True, "an odd number of frames"),
    ("scale", 0.5, "a whole number, at least 1"),
    ("scale", 0, "a whole number, at least 1"),
    ("feature", ("output",), "the path of a module"),
    ("feature_channels", -1, "a number of channels"),
    ("reach", -1, "a number of pixels, at least 0"),
    ("normalisation", {"mean": (0, 0, 0), "std": (1, 1, 1)}, r"a vidistill\.ops\.normalise\.Normalisation"),
    ("backbone_path", 3, "the path of a module"),
]


class Network(nn.Module):
    """Declares what it is given."""

    def __init__(self, **attributes: object) -> None:
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, frames: Tensor) -> Tensor:
        return frames


def fields_of(network: nn.Module) -> dict[str, object]:
    return {name: getattr(declared(network), name) for name in DEFAULTS}


def test_every_attribute_is_documented_and_read() -> None:
    documented = [*Declares.__annotations__, *(name for name in vars(Declares) if name == "step")]
    assert sorted(documented) == sorted(DEFAULTS)
    assert sorted(set(vars(Declared)) & set(DEFAULTS)) == sorted(DEFAULTS)
    page = (Path(__file__).parents[2] / "docs" / "your_network.md").read_text(encoding="utf-8")
    assert [name for name in DEFAULTS if f"`{name}`" not in page] == []


def test_a_network_need_declare_nothing() -> None:
    assert fields_of(nn.Identity()) == DEFAULTS


@pytest.mark.parametrize(("name", "value", "read"), RIGHT)
def test_what_is_declared_is_read(name: str, value: object, read: object) -> None:
    assert fields_of(Network(**{name: value})) == DEFAULTS | {name: read}


@pytest.mark.parametrize(("name", "value", "expected"), WRONG)
def test_what_is_of_another_type_is_an_error_where_it_is_read(name: str, value: object, expected: str) -> None:
    network = Network(**{name: value})
    with pytest.raises(UserError, match=rf"^Network: the attribute `{name}` must be {expected}.*, got .*; correct it"):
        getattr(declared(network), name)
    others = [getattr(declared(network), other) for other in DEFAULTS if other != name]
    assert others == [value for other, value in DEFAULTS.items() if other != name], "and nowhere else"


@pytest.mark.parametrize("name", DEFAULTS)
@pytest.mark.parametrize(
    "part", [nn.Linear(2, 2), nn.ModuleList([nn.ReLU()]), nn.Parameter(torch.zeros(2)), torch.ones(())], ids=type
)
def test_a_networks_own_part_of_that_name_declares_nothing(name: str, part: object) -> None:
    assert fields_of(Network(**{name: part})) == DEFAULTS


@pytest.mark.parametrize("name", [name for name in DEFAULTS if name != "step"])
def test_a_networks_own_method_of_that_name_declares_nothing(name: str) -> None:
    kind = type("Own", (Network,), {name: lambda self: None})
    assert fields_of(kind()) == DEFAULTS


def test_a_buffer_declares_nothing() -> None:
    network = Network()
    network.register_buffer("window", torch.hann_window(8))
    assert declared(network).window is None


@pytest.mark.parametrize(
    ("name", "value"), [("step", 0), ("step", 0.5), ("normalisation", "batch"), ("normalisation", True)]
)
def test_what_other_networks_often_call_so_declares_nothing(name: str, value: object) -> None:
    assert fields_of(Network(**{name: value})) == DEFAULTS


def test_a_compiled_network_declares_what_the_network_does() -> None:
    network = Network(stages=("first",), window=3)
    assert fields_of(torch.compile(network)) == fields_of(network)


@pytest.mark.parametrize("name", MODELS)
def test_our_networks_declare_what_can_be_read(name: str) -> None:
    options = {"num_classes": 4} if "num_classes" in inspect.signature(MODELS[name]).parameters else {"scale": 2}
    with torch.device("meta"):
        network = MODELS[name](**options)
    fields = fields_of(network)
    paths = {path for path, _ in network.named_modules()}
    for path in [*fields["stages"], fields["classifier"], fields["feature"]]:
        assert path is None or path in paths


def test_declarations_are_read_in_one_place() -> None:
    """`model` is a student: what its frames want is a field of its own."""
    probes = [
        f"{path.relative_to(SOURCE)}:{node.lineno}: {ast.unparse(node)}"
        for path in SOURCE.rglob("*.py")
        if path.name != "declares.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr")
        if isinstance(node.args[1], ast.Constant) and node.args[1].value in DEFAULTS
        if ast.unparse(node.args[0]) != "model"
    ]
    assert probes == []
