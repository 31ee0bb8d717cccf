"""What all tests share: one thread a process, a seed, a tiny network, a tiny labelled set."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from tests.networks import TinySegmenter
from vidistill.data.datasets.synthetic import synthetic
from vidistill.runtimes import graphs
from vidistill.students.student import Student

# shared cores make deadlines fail at random; where a change lands, the examples are the same in every run
settings.register_profile("vidistill", deadline=None, max_examples=50, derandomize="CI" in os.environ)
settings.load_profile("vidistill")


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traced")


@pytest.fixture(autouse=True)
def _traced_once(traced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One student is traced once for all runtimes and tests: a trace takes seconds."""
    trace = graphs.trace

    def remembered(student: Student, pixels: Tensor, folder: Path) -> tuple[dict[str, graphs.Graph], list[str]]:
        key = student.identity().hex(), repr(student), student.spacing, tuple(pixels.shape)
        if key not in TRACES:
            place = Path(tempfile.mkdtemp(dir=traced))  # a trace may fail and leave it
            TRACES[key] = place, trace(student, pixels, place)
        place, result = TRACES[key]
        for file in place.iterdir():
            shutil.copyfile(file, folder / file.name)
        return result

    monkeypatch.setattr(graphs, "trace", remembered)


TRACES: dict[tuple[object, ...], tuple[Path, tuple[dict[str, graphs.Graph], list[str]]]] = {}


@pytest.fixture
def network() -> TinySegmenter:
    return TinySegmenter(num_classes=4).eval()


@pytest.fixture
def dataset():
    return synthetic(num_sequences=2, num_frames=5, size=(32, 48), num_classes=4, seed=0)
