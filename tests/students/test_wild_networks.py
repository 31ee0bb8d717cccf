"""Networks as people write them: each converts, or is left with a reason, or is refused in a sentence."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from tests.networks import settle_norms
from vidistill import Card, Stream
from vidistill.errors import UserError
from vidistill.methods.delta import Delta
from vidistill.methods.low_rank import LowRank
from vidistill.methods.supervised import Supervised
from vidistill.students.delta.trial import NEVER_RUN
from vidistill.students.norms import fused_copy
from vidistill.students.student import PerFrame
from vidistill.tasks.segmentation import Segmentation

EXAMPLE = torch.zeros(1, 3, 16, 24)


def block(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU())


class Chain(nn.Module):
    """Three convolutions with norms and one without; `second` is what the tests change."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third, self.last = block(3, 16), block(16, 16), block(16, 16), nn.Conv2d(16, 4, 1)
        settle_norms(self).eval()

    def forward(self, x: Tensor) -> Any:
        return self.last(self.third(self.second(self.first(x))))


@pytest.fixture
def frame() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(EXAMPLE.shape)


# Norms and the layers ahead of them


def tie(network: Chain) -> None:
    network.third[0].weight = network.second[0].weight


def share_memory(network: Chain) -> None:
    both = torch.randn(24, 16, 3, 3) / 10
    network.second[0].weight, network.third[0].weight = nn.Parameter(both[:16]), nn.Parameter(both[8:])


def keep_as_buffer(network: Chain) -> None:
    kernel = network.second[0].weight.detach()
    del network.second[0].weight
    network.second[0].register_buffer("weight", kernel)


def derive(network: Chain) -> None:
    raw = network.second[0].weight.detach().clone()
    network.second[0].register_forward_pre_hook(lambda layer, args: (layer.weight.data.copy_(raw), None)[1])


def override(network: Chain) -> None:
    conv = network.second[0]
    conv.forward = lambda x: F.conv2d(x, conv.weight, padding=1) + 1


def reuse(network: Chain) -> None:
    network.third = nn.Sequential(network.second[0], network.second[1], network.second[0])


CHANGES: dict[str, Callable[[Chain], object]] = {
    "weight_norm": lambda network: nn.utils.weight_norm(network.second[0]),
    "weight_norm, new": lambda network: parametrizations.weight_norm(network.second[0]),
    "spectral_norm": lambda network: nn.utils.spectral_norm(network.second[0]),
    "spectral_norm, new": lambda network: parametrizations.spectral_norm(network.second[0]),
    "pruned": lambda network: torch.nn.utils.prune.l1_unstructured(network.second[0], "weight", 0.5),
    "tied": tie,
    "parts of one tensor": share_memory,
    "buffer": keep_as_buffer,
    "derived in a hook": derive,
    "own forward": override,
    "hook": lambda network: network.second[0].register_forward_hook(lambda layer, args, output: output + 1),
    "hook of the norm": lambda network: network.second[1].register_forward_pre_hook(lambda layer, args: args[0] + 1),
    "without statistics": lambda network: network.second.__setitem__(1, nn.BatchNorm2d(16, track_running_stats=False)),
    "called twice": reuse,
}


@torch.no_grad()
@pytest.mark.parametrize("name", CHANGES)
def test_norms_are_fused_only_where_nothing_changes(name: str, frame: Tensor) -> None:
    network = Chain()
    CHANGES[name](network)
    network.eval()
    wanted = network(frame)
    torch.testing.assert_close(fused_copy(PerFrame(network), EXAMPLE)(frame)[0], wanted, rtol=1e-4, atol=1e-5)
    student = Delta().prepare(network, EXAMPLE, card=Card(task=Segmentation(num_classes=4)))
    fused = fused_copy(student.eval(), EXAMPLE)
    torch.testing.assert_close(fused(frame)[0], wanted, rtol=1e-4, atol=1e-5)


def test_what_can_be_fused_is() -> None:
    def norms(network: Chain) -> int:
        return sum(isinstance(module, nn.BatchNorm2d) for module in fused_copy(PerFrame(network), EXAMPLE).modules())

    network = Chain()
    assert norms(network) == 0
    tie(network)
    assert norms(network) == 0, "each norm scales a kernel of its own"
    CHANGES["hook"](network)
    assert norms(network) == 1


# Activation checkpointing


class Checkpointed(Chain):
    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        both = nn.Sequential(self.second, self.third)
        return self.last(both(x) if self.reentrant is None else checkpoint(both, x, use_reentrant=self.reentrant))


def gradients(reentrant: bool | None, frame: Tensor) -> dict[str, Tensor | None]:
    torch.manual_seed(0)
    method = Delta()
    student = method.prepare(Checkpointed(reentrant), EXAMPLE)
    method.set_training(student)
    key, state = student(frame)
    later, _ = student(frame.flip(3), state)
    (key.square().mean() + later.square().mean()).backward()
    return {name: parameter.grad for name, parameter in student.named_parameters()}


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradients_are_those_without_checkpointing(reentrant: bool, frame: Tensor) -> None:
    wanted, found = gradients(None, frame), gradients(reentrant, frame)
    assert any(gradient is not None and gradient.any() for name, gradient in wanted.items() if "student" in name)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient)


class RunAgain(torch.autograd.Function):
    """Another library's checkpointing."""

    @staticmethod
    def forward(ctx: Any, part: nn.Module, x: Tensor) -> Tensor:
        ctx.part = part
        ctx.save_for_backward(x)
        return part(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor | None]:
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            ctx.part(x).backward(gradient)
        return None, x.grad


def test_other_checkpointing_is_refused(frame: Tensor) -> None:
    class Other(Chain):
        def forward(self, x: Tensor) -> Any:
            return self.last(RunAgain.apply(nn.Sequential(self.second, self.third), self.first(x)))

    student = Delta().prepare(Other(), EXAMPLE)
    outputs, _ = student(frame)
    with pytest.raises(UserError, match=r"'second\.0' runs again in backward.*switch that checkpointing off"):
        outputs.sum().backward()


# Layers that are read, or called by another way


class Reads(Chain):
    def forward(self, x: Tensor) -> Any:
        conv, norm, relu = self.second
        x = self.first(x)[:, : conv.in_channels].to(conv.weight.device, conv.weight.dtype)
        assert (conv.kernel_size, conv.stride, conv.bias) == ((3, 3), (1, 1), None)
        return self.last(self.third(relu(norm(conv(x) + F.conv2d(x, conv.weight, padding=conv.padding)))))


@torch.no_grad()
def test_a_converted_layer_answers_for_the_layer(frame: Tensor) -> None:
    network = Reads()
    student = Delta().prepare(network, EXAMPLE).eval()
    assert "second.0" in student.blocks()
    assert torch.equal(student(frame)[0], network(frame))
    assert "second.0" not in LowRank().prepare(network, EXAMPLE).plan.converted, "a factorised layer has no weight"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        student.blocks()["second.0"].nothing  # noqa: B018


class Encoder(nn.Module):
    """torch's own encoder: it reads the weights of its layers while nothing trains, and calls them while it does."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.mix, self.last = nn.Conv2d(3, 16, 4, 4), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 4, 1)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(self.patch(x))
        return self.last(self.encoder(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape))


class Held(Chain):
    """Layers that a list and a saved method hold too."""

    def __init__(self) -> None:
        super().__init__()
        self.held = [self.second[0]]
        self.method = self.third[0].__call__

    def forward(self, x: Tensor) -> Any:
        return self.last(self.third[1:](self.method(self.second[1:](self.held[0](self.first(x))))))


class Chosen(Chain):
    """A layer that is only run where it is what it was."""

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        x = self.second[0](x) if isinstance(self.second[0], nn.Conv2d) else x
        return self.last(self.third(x))


class Adds(Chain):
    """A layer's output changed in place."""

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        y = self.second[0](x)
        y += x
        return self.last(self.third(y))


@torch.no_grad()
@pytest.mark.parametrize(
    ("build", "left"),
    [
        (Encoder, {"encoder.linear1": NEVER_RUN, "encoder.linear2": NEVER_RUN}),
        (Held, {"second.0": NEVER_RUN, "third.0": NEVER_RUN}),
        (Chosen, {"second.0": NEVER_RUN}),
        (Adds, {"second.0": "the network changes its input or output in place"}),
    ],
)
def test_layers_whose_student_could_not_run_are_left(build: type[nn.Module], left: dict[str, str], frame) -> None:
    network = build().eval()
    selection = {"leave_first": 0} if build is Held else {}
    student = Delta(**selection).prepare(network, EXAMPLE).eval()
    found = {entry.path: entry.reason for entry in student.plan.left}
    assert {path: found[path] for path in left} == left
    outputs, state = student(frame)
    torch.testing.assert_close(outputs, network(frame))
    assert {name.split("/")[1] for name in state} == set(student.blocks()), "all that converts runs"


class Listed(Chain):
    def __init__(self) -> None:
        super().__init__()
        self.more = [block(16, 16)]

    def forward(self, x: Tensor) -> Any:
        return self.last(self.more[0](self.first(x)))


class Enclosed(Chain):
    def __init__(self) -> None:
        super().__init__()
        self.run = lambda x: self.second(x)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.run(self.first(x)))


class Two(Chain):
    def forward(self, x: Tensor, y: Tensor) -> Any:
        return super().forward(x + y)


class Locked(Chain):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Unclear(Chain):
    def forward(self, x: Tensor) -> Any:
        x = super().forward(x)
        return [x + 1, x + 2] if self.training else x


REFUSED = {
    "a plain list": (Listed, "runs a Sequential that is not among its modules"),
    "a lambda": (Enclosed, "runs a Sequential that is not among its modules"),
    "two arguments": (Two, "missing 1 required positional argument"),
    "a lock": (Locked, "cannot be copied .*lock"),
    "half precision": (lambda: Chain().half(), "cannot run on a frame of 1x3x16x24 in float32"),
    "no values": (lambda: Chain().to("meta"), "'first.0.weight' has no values"),
    "lazy": (lambda: nn.Sequential(nn.LazyConv2d(8, 1), nn.Conv2d(8, 4, 1)), "'0.weight' is of a lazy layer"),
    "unclear in training": (Unclear, "list of 2 in training"),
}


@pytest.mark.parametrize("method", [Delta(), LowRank(), Supervised()], ids=lambda method: method.name)
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_student_is_refused_before_anything_trains(name: str, method: Any) -> None:
    build, said = REFUSED[name]
    with pytest.raises(UserError, match=said):
        method.prepare(build(), EXAMPLE)


@pytest.mark.parametrize("make", [torch.jit.script, lambda n: torch.jit.trace(n, EXAMPLE)], ids=["script", "trace"])
def test_torchscript_keeps_its_layers(make: Callable[[nn.Module], nn.Module]) -> None:
    network = make(Chain())
    with pytest.raises(UserError, match="is TorchScript"):
        Delta().prepare(network, EXAMPLE)


# Wrappers, copies and outputs


def wrapped(network: Chain, inside: bool) -> nn.Module:
    if inside:
        network.second[0] = torch.compile(network.second[0])
        network.second = nn.DataParallel(network.second)
    return torch.compile(nn.DataParallel(network))


@torch.no_grad()
@pytest.mark.parametrize("inside", [False, True])
def test_wrappers_are_taken_off(inside: bool, frame: Tensor) -> None:
    network = Chain()
    wanted = network(frame)
    names = set(Delta().prepare(network, EXAMPLE).state_dict())
    student = Delta().prepare(wrapped(network, inside), EXAMPLE).eval()
    assert set(student.state_dict()) == names
    assert torch.equal(student(frame)[0], wanted)


def test_tensors_with_a_history_are_copied_without_it(frame: Tensor) -> None:
    network = Chain()
    nn.utils.weight_norm(network.second[0])
    network.seen = [network.first(frame)]
    student = Delta().prepare(network, EXAMPLE).eval()
    torch.testing.assert_close(student(frame)[0], network(frame))


class Heads(Chain):
    """An auxiliary head that only trains, ahead of the main one or behind it."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.aux, self.order = nn.Conv2d(16, 4, 1), order

    def forward(self, x: Tensor) -> Any:
        x = self.second(self.first(x))
        main = self.last(self.third(x))
        if not self.training:
            return {"out": main} if self.order == "named" else main
        aux = self.aux(x)
        return {"out": main, "aux": aux} if self.order == "named" else [(main, aux), (aux, main)][self.order == "last"]


@pytest.mark.parametrize("order", ["first", "last", "named"])
@pytest.mark.parametrize("method", [Delta(freeze_norms=True), Supervised(freeze_norms=True)], ids=lambda m: m.name)
def test_auxiliary_heads_are_told_from_the_main_one(order: str, method: Any, frame: Tensor) -> None:
    network = Heads(order)
    student = method.prepare(network, EXAMPLE)
    method.set_training(student)
    found, _ = student(frame)
    wanted = network.eval()(frame)
    assert torch.equal(*(o["out"] if order == "named" else o for o in (found, wanted)))


# Layouts


class Views(nn.Module):
    """`.view()` of features, which cannot be where they are laid out channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        groups = x.view(x.shape[0], 4, -1)
        return self.last((groups / (groups.std(dim=-1, keepdim=True) + 1e-5)).view(x.shape))


@torch.no_grad()
@pytest.mark.parametrize(("build", "layout"), [(Views, torch.contiguous_format), (Chain, torch.channels_last)])
def test_a_stream_falls_back_to_the_layout_that_runs(build, layout) -> None:
    network = build().eval()
    stream = Stream(PerFrame(network, Card(task=Segmentation(num_classes=4))))
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    frame = stream.student.normalisation(torch.from_numpy(image).permute(2, 0, 1)[None])
    np.testing.assert_array_equal(stream.step(image).prediction, network(frame).argmax(dim=1)[0].numpy())
    assert stream._deployed is not None
    assert stream._deployed.layout == layout
