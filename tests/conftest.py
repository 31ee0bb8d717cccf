"""What all tests share: one thread a process, a seed, a tiny network, a tiny labelled set."""

import os

import pytest
import torch
from hypothesis import settings

from tests.networks import TinySegmenter
from vidistill.data.datasets.synthetic import synthetic

# shared cores make deadlines fail at random; where a change lands, the examples are the same in every run
settings.register_profile("vidistill", deadline=None, max_examples=50, derandomize="CI" in os.environ)
settings.load_profile("vidistill")


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def network() -> TinySegmenter:
    return TinySegmenter(num_classes=4).eval()


@pytest.fixture
def dataset():
    return synthetic(num_sequences=2, num_frames=5, size=(32, 48), num_classes=4, seed=0)
