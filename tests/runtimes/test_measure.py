import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vidistill.methods.delta import Delta
from vidistill.ops.macs import count_macs
from vidistill.runtimes.measure import PeakMemory, count_parameters, measure_latency, peak_memory_mb, stateful_gmacs
from vidistill.students.student import PerFrame


def test_macs_by_hand() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 6, (3, 1), stride=2, groups=2)
            self.norm = nn.BatchNorm2d(6)

        def forward(self, x):
            y = self.norm(self.conv(x)).flatten(2)  # (1, 6, 4·5)
            return F.linear(y, torch.ones(7, 20, device=x.device))

    macs = count_macs(Mixed().eval(), torch.zeros(1, 4, 9, 9))
    assert macs == 4 * 5 * 6 * (2 * 3) + 6 * 20 * 7


def test_published_and_deployed_count(network) -> None:
    method = Delta()
    student = method.finish(method.prepare(network, torch.zeros(1, 3, 16, 24)))
    pixels = 8 * 12
    ends = pixels * (3 * 8 * 9 + 16 * 4)
    teacher = ends + pixels * (8 * 16 * 9 + 16 * 16)
    students = pixels * (8 * 4 * 3 + 4 * 16 * 3) + pixels * (16 * 4 + 4 * 16)
    gmacs = stateful_gmacs(student, (16, 24), key_frame_interval=5)
    assert gmacs["key"] == pytest.approx(teacher / 1e9)
    assert gmacs["delta"] == pytest.approx((ends + students) / 1e9)
    assert gmacs["amortised"] == pytest.approx((teacher + 4 * (ends + students)) / 5 / 1e9)
    assert gmacs["amortised_deployed"] == pytest.approx(gmacs["amortised"] + students / 5 / 1e9)
    plain = stateful_gmacs(PerFrame(network), (16, 24), key_frame_interval=5)
    assert set(plain.values()) == {teacher / 1e9}


def test_parameters_are_counted_once(network) -> None:
    shared = nn.Sequential(network.mix, network.mix)
    assert count_parameters(shared) == 16 * 16 + 16


def test_peak_memory_by_hand() -> None:
    with PeakMemory() as memory:
        first = torch.zeros(1000)  # 4000 bytes
        second = first + 1  # 8000 alive
        del first
        third = second + 1  # 8000 alive
        del second, third
        torch.zeros(10)
    assert memory.peak == 8000
    assert memory.alive == 0


def test_views_and_in_place_results_take_no_memory() -> None:
    with PeakMemory() as memory:
        x = torch.zeros(100)
        x.view(10, 10).add_(1)
    assert memory.peak == 400


def test_latency_has_what_the_model_has(network) -> None:
    method = Delta()
    student = method.finish(method.prepare(network, torch.zeros(1, 3, 16, 24)))
    students, frames = {"student": student, "teacher": PerFrame(network)}, torch.zeros(2, 3, 16, 24)
    times = measure_latency(students, dict.fromkeys(students, frames), intervals=dict.fromkeys(students, 4), cycles=3)
    assert times["teacher"]["delta"] is None
    for part in ("key", "first_delta", "delta"):
        percentiles = times["student"][part]
        assert 0 < percentiles["p50"] <= percentiles["p95"] <= percentiles["p99"]


def test_a_students_memory_holds_its_state(network) -> None:
    method = Delta()
    student = method.finish(method.prepare(network, torch.zeros(1, 3, 16, 24)))
    memory = peak_memory_mb(student, torch.zeros(1, 3, 16, 24))
    offsets = 2 * 16 * 8 * 12 * 4 / 1e6
    assert memory["delta"] >= offsets
    assert memory["key"] > 0
    assert peak_memory_mb(PerFrame(network), torch.zeros(1, 3, 16, 24))["delta"] is None


def test_macs_do_not_depend_on_the_precision(network) -> None:
    whole = stateful_gmacs(PerFrame(network), (16, 24), key_frame_interval=1)
    assert stateful_gmacs(PerFrame(network.bfloat16()), (16, 24), key_frame_interval=1) == whole


class Looks(nn.Module):
    """Looks at its frame's values, and holds a tensor that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.layer = torch.full((1, 3, 1, 1), 0.5), nn.Conv2d(3, 4, 1, bias=False)

    def forward(self, x):
        x = x - self.mean
        return self.layer(x if x.mean() > 0 else -x)


def test_a_network_that_cannot_do_without_values_is_counted_too() -> None:
    gmacs = stateful_gmacs(PerFrame(Looks()), (16, 24), key_frame_interval=1)
    assert gmacs["key"] * 1e9 == pytest.approx(16 * 24 * 3 * 4)
