"""The loop's promises, each on a real run of a tiny network."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.training_program import training_of
from vidistill.errors import UserError
from vidistill.runs.train import OptimSettings, learning_rate_factor, train, weighted_sum
from vidistill.students.files import load_checkpoint
from vidistill.tasks.segmentation import Segmentation
from vidistill.training_log import read_log

PROGRAM = [sys.executable, "-m", "tests.training_program"]
ROOT = Path(__file__).parents[2]


def environment(**extra: str) -> dict[str, str]:
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
        **extra,
    }


def run_in_two_processes(*arguments: str) -> str:
    """Of a module with its arguments, what it prints. Where it fails, the test shows its errors."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", *arguments]
    done = subprocess.run(
        command, env=environment(CUDA_VISIBLE_DEVICES=""), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoint.pt")["student"]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_the_loss_falls_and_every_step_is_logged(tmp_path: Path) -> None:
    training = training_of(tmp_path, steps=30)
    train(training)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 31))
    assert np.mean([line["loss"] for line in lines[-5:]]) < np.mean([line["loss"] for line in lines[:5]])
    for line in lines:
        weighted = sum(
            training.loss_weights[name] * line[name] for name in ("task", "teacher", "delta") if name in line
        )
        assert line["loss"] == pytest.approx(weighted, rel=1e-5)
    assert "delta" in lines[0]
    assert "delta" not in lines[-1]


def test_without_a_step_the_student_is_as_it_starts(tmp_path: Path) -> None:
    training = training_of(tmp_path, steps=0)
    before = {name: tensor.clone() for name, tensor in training.student.state_dict().items()}
    assert same(train(training).state_dict(), before)
    assert read_log(tmp_path / "metrics.jsonl") == []


def test_the_teacher_is_the_same_to_the_bit(tmp_path: Path) -> None:
    training = training_of(tmp_path, steps=5)
    assert training.teacher is not None
    before = {name: tensor.clone() for name, tensor in training.teacher.network.state_dict().items()}
    train(training)
    assert same(training.teacher.network.state_dict(), before)


def test_kernels_laid_out_channels_last_train_alike_and_go_on_bit_for_bit(tmp_path: Path) -> None:
    plain = train(training_of(tmp_path / "plain", steps=6)).state_dict()
    whole = train(training_of(tmp_path / "whole", steps=6, channels_last=True))
    assert any(not tensor.is_contiguous() for tensor in whole.parameters())
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(tensor, plain[name], atol=1e-4, rtol=1e-4)
    train(training_of(tmp_path / "cut", steps=6, channels_last=True), should_stop=lambda step: step == 3)
    resumed = train(training_of(tmp_path / "cut", steps=6, channels_last=True))
    assert same(resumed.state_dict(), whole.state_dict())


def test_killed_mid_epoch_with_two_workers_and_resumed_ends_bit_for_bit(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(training_of(whole, steps=14, workers=2))
    options = ["--steps", "14", "--workers", "2", "--announce", "9"]
    killed = subprocess.Popen([*PROGRAM, str(cut), *options], env=environment(), cwd=ROOT, stdout=subprocess.PIPE)
    assert killed.stdout is not None
    killed.stdout.readline()  # step 9 is done; the last checkpoint is of step 8
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert load_checkpoint(cut / "checkpoint.pt")["step"] < 14
    train(training_of(cut, steps=14, workers=2))
    assert same(weights(cut), weights(whole))
    losses = [[line["loss"] for line in read_log(folder / "metrics.jsonl")] for folder in (whole, cut)]
    assert losses[0] == losses[1]


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    train(training_of(one, steps=6))
    run_in_two_processes("tests.training_program", str(two), "--steps", "6")
    found, expected = weights(two), weights(one)
    moved = 0.0
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=1e-5)
        moved = max(moved, float((tensor - training_of(tmp_path, steps=1).student.state_dict()[name]).abs().max()))
    assert moved > 1e-3, "six steps must have changed something"


def test_of_two_processes_one_scores_and_writes(tmp_path: Path) -> None:
    recipe = {
        "task": {"name": "segmentation"},
        "student": {"name": "ddrnet_23_slim"},
        "method": {"name": "supervised", "freeze_norms": True},
        "data": {
            "train": [{"name": "synthetic", "num_sequences": 1, "num_frames": 4, "size": [64, 64]}],
            "evaluate": [{"name": "synthetic", "num_sequences": 1, "num_frames": 4, "size": [64, 64], "seed": 1}],
            "clip": {"num_frames": 1, "crop": [64, 64]},
        },
        "optim": {"steps": 1, "batch_size": 2, "num_workers": 0},
        "out": str(tmp_path / "run"),
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    printed = run_in_two_processes("vidistill", "train", str(tmp_path / "recipe.yaml"))
    assert printed.count("results:") == 1
    assert (tmp_path / "run" / "report.html").exists()


def test_two_processes_settle_a_search_and_train_on(tmp_path: Path) -> None:
    """After the search the candidates that were not chosen have no gradient on any process."""
    run_in_two_processes("tests.training_program", str(tmp_path), "--steps", "4", "--search")
    logged = read_log(tmp_path / "metrics.jsonl")
    assert ["cost" in line for line in logged] == [True, True, False, False]


def test_accumulated_batches_train_what_one_batch_does(tmp_path: Path) -> None:
    for name, accumulate in (("one", 1), ("two", 2)):
        training = training_of(tmp_path / name, steps=5, accumulate=accumulate)
        training.loss_weights = {**training.loss_weights, "delta": 0.0}  # its scale is that of the first part alone
        train(training)
    expected = weights(tmp_path / "one")
    for name, tensor in weights(tmp_path / "two").items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=1e-5)


def test_bfloat16_trains(tmp_path: Path) -> None:
    train(training_of(tmp_path, steps=3, precision="bf16"))
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights(tmp_path).values())


class Broken(Segmentation):
    def compare(self, student_outputs: torch.Tensor, teacher_outputs: torch.Tensor) -> dict[str, torch.Tensor]:
        losses = super().compare(student_outputs, teacher_outputs)
        return {name: loss * float("nan") for name, loss in losses.items()}


def test_a_loss_that_is_not_finite_names_itself_and_the_batch(tmp_path: Path) -> None:
    train(training_of(tmp_path, steps=2))
    kept = weights(tmp_path)
    training = training_of(tmp_path, steps=9)
    training.task = Broken(num_classes=4)
    with pytest.raises(UserError, match=r"step 2: the loss 'teacher' is nan on the batch \[epoch \d+ sample \d+; "):
        train(training)
    assert same(weights(tmp_path), kept)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    train(training_of(tmp_path, steps=1))
    with pytest.raises(UserError, match="does not fit this recipe"):
        train(training_of(tmp_path, steps=2, reduction=2))


def test_a_loss_without_a_weight_is_refused() -> None:
    with pytest.raises(UserError, match="'delta'"):
        weighted_sum({"delta": torch.tensor(1.0)}, {"task": 1.0})


def test_learning_rate_by_hand() -> None:
    optim = OptimSettings(steps=100, warmup_steps=10, power=1.0)
    factors = [learning_rate_factor(step, optim) for step in (0, 9, 10, 55, 99)]
    assert factors == pytest.approx([0.1, 1.0, 1.0, 0.5, 1 / 90])


def test_tensorboard_by_choice(tmp_path: Path) -> None:
    training = training_of(tmp_path, steps=1)
    training.tensorboard = True
    train(training)
    assert list((tmp_path / "tensorboard").iterdir())
