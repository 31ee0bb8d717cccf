import torch
from torch import nn

from vidistill.ops.macs import count_macs, layer_macs, without_values


class Attending(nn.Module):
    """A linear layer, and a product of its output with itself."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        return y @ y.mT


def test_a_product_of_activations_belongs_to_no_layer() -> None:
    network, x = Attending(), torch.zeros(2, 7, 3)
    assert layer_macs(network, x) == 2 * 7 * 3 * 5
    assert count_macs(network, x) == 2 * 7 * 3 * 5 + 2 * 7 * 7 * 5


def test_a_call_without_layers_counts_0() -> None:
    assert count_macs(torch.sigmoid, torch.zeros(3)) == 0
    assert layer_macs(torch.sigmoid, torch.zeros(3)) == 0


def test_a_network_that_looks_at_values_runs_with_them() -> None:
    class Looking(Attending):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) if float(x.sum()) == 0 else x

    seen = []
    for network in (Attending(), Looking()):

        def count(copy: nn.Module, device: str) -> int:
            seen.append(device)
            return count_macs(copy, torch.zeros(2, 7, 3, device=device))

        assert without_values(count, network) == 2 * 7 * 3 * 5 + 2 * 7 * 7 * 5
    assert seen == ["meta", "meta", "cpu"]
