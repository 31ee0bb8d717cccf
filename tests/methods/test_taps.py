import pytest
import torch
from torch import nn

from tests.networks import TinyClips
from vidistill.errors import UserError
from vidistill.methods.features import tapped


class Twice(nn.Module):
    """Calls one layer twice, and has one that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.idle = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.layer(x) + 1)


def test_every_call_in_order() -> None:
    network, x = Twice(), torch.randn(3, 2)
    with tapped(network, ["layer", ""]) as found:
        outputs = [network(x), network(2 * x)]
    expected = []
    for value in (x, 2 * x):
        first = network.layer(value)
        expected += [first, network.layer(first + 1)]
    assert len(found["layer"]) == 4
    for tensor, wanted in zip(found["layer"], expected, strict=True):
        assert torch.equal(tensor, wanted)
    assert all(torch.equal(a, b) for a, b in zip(found[""], outputs, strict=True))


def test_gradients_pass_and_no_hook_stays() -> None:
    network = Twice()
    with tapped(network, ["layer"]) as found:
        network(torch.randn(3, 2))
    sum(tensor.sum() for tensor in found["layer"]).backward()
    assert network.layer.weight.grad is not None
    network(torch.randn(3, 2))
    assert len(found["layer"]) == 2
    with pytest.raises(ZeroDivisionError), tapped(network, ["layer"]):
        raise ZeroDivisionError
    assert not network.layer._forward_hooks


def test_a_path_that_does_not_exist_lists_the_nearest() -> None:
    with (
        pytest.raises(UserError, match=r"TinyClips has no module 'secnd' to tap; did you mean second"),
        tapped(TinyClips(2), ["first", "secnd"]),
    ):
        pass
    network = TinyClips(2)
    with pytest.raises(UserError), tapped(network, ["first", "secnd"]):
        pass
    assert not network.first._forward_hooks


def test_a_module_that_never_runs_is_an_error() -> None:
    network = Twice()
    with pytest.raises(UserError, match="the module 'idle' of Twice never runs"), tapped(network, ["layer", "idle"]):
        network(torch.randn(1, 2))
