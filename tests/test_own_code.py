"""A network of the user's own, by `--import`, from training to export."""

import subprocess
import sys
from pathlib import Path

import pytest

from vidistill import cli

OWN = """
import torch
from vidistill.models import MODELS

class MyNet(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 3, padding=1),
            torch.nn.ReLU(), torch.nn.Conv2d(16, num_classes, 1),
        )

    def forward(self, frame):
        return self.layers(frame)

MODELS["my_net"] = MyNet
"""
RECIPE = """
task: {name: segmentation, num_classes: 4}
teacher: {name: my_net}
student: {from: teacher}
method: {name: delta}
data:
  train: [{name: synthetic, num_frames: 4, size: [32, 48]}]
optim: {steps: 1, batch_size: 2, num_workers: 0}
out: run
"""


def test_imports_stand_before_or_after_the_verb() -> None:
    arguments = ["train", "recipe.yaml", "--import", "a.py", "seed=1", "--import=b.py"]
    assert cli._imports_first(arguments) == ["--import", "a.py", "--import=b.py", "train", "recipe.yaml", "seed=1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_nets.py").write_text(OWN)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def vidistill(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "vidistill", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_train_and_profile_an_own_network(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = vidistill(folder, "train", "recipe.yaml", "--import", "my_nets.py")
    assert trained.returncode == 0, trained.stderr
    assert "1 of 3 blocks converted" in trained.stdout
    profiled = vidistill(folder, "profile", "run", "--size", "48x32", "--import", "my_nets.py")
    assert profiled.returncode == 0, profiled.stderr
    monkeypatch.chdir(folder)
    assert "import one of your own with --import" in error_of("profile", "run", "--size", "48x32", capsys=capsys)


def error_of(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What the verb says where it fails, here and not in a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["vidistill", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    assert stop.value.code == 1
    return capsys.readouterr().err


def test_a_missing_file_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of("train", str(folder / "recipe.yaml"), "--import", "nowhere.py", capsys=capsys)
    assert error == "error: --import nowhere.py: file not found; give a Python file of yours\n"
