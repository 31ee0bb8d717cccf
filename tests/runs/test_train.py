"""The loop's promises, each on a real run of a tiny network."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from tests.training_program import training_of
from vidistill import progress
from vidistill.data.sampling import EpochSampler
from vidistill.errors import UserError
from vidistill.runs import loader
from vidistill.runs.checkpoints import Checkpoints
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


def test_ctrl_c_ends_after_the_step_and_the_run_goes_on_bit_for_bit(tmp_path: Path, capfd) -> None:
    whole = train(training_of(tmp_path / "whole", steps=6))

    def interrupt(step: int) -> bool:
        if step == 1:
            signal.raise_signal(signal.SIGINT)
        return False

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(training_of(tmp_path / "cut", steps=6), should_stop=interrupt)
    assert signal.getsignal(signal.SIGINT) is before
    assert f"vidistill train {tmp_path / 'cut'}" in capfd.readouterr().err
    assert load_checkpoint(tmp_path / "cut" / "checkpoint.pt")["step"] == 2
    assert same(train(training_of(tmp_path / "cut", steps=6)).state_dict(), whole.state_dict())


def test_after_a_divergence_the_checkpoint_is_of_a_time_before(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    contents = {"student": {}, "optimizer": {}, "method": {}}
    for step in (4, 8):
        checkpoints.save({"step": step, **contents}, is_last=False)
    calm = {step: 1.0 + 0.1 * (step % 2) for step in range(1, 10)}
    assert checkpoints.roll_back("reason", calm) == "the checkpoint of step 8 is kept"
    assert checkpoints.has_diverged
    grown = calm | {8: 40.0, 9: 900.0}
    assert checkpoints.roll_back("reason", grown) == "the checkpoint of step 4 is kept"
    assert checkpoints.load()["step"] == 4
    assert checkpoints.roll_back("reason", {1: 1.0, 2: 2.0, 3: 3.0, 4: 90.0, 5: 4e3}).startswith(
        "no checkpoint is left"
    )
    checkpoints.save({"step": 2, **contents}, is_last=True)
    assert not checkpoints.has_diverged


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    train(training_of(tmp_path, steps=4))
    kept = weights(tmp_path)
    training = training_of(tmp_path, steps=8)
    training.optim = training.optim.model_copy(update={"learning_rate": 1e30, "clip_norm": 0.0, "checkpoint_every": 1})
    with pytest.raises(UserError, match=r"step 5: .*the checkpoint of step 4 is kept"):
        train(training)
    assert same(weights(tmp_path), kept)
    training = training_of(tmp_path, steps=8)
    training.optim = training.optim.model_copy(update={"learning_rate": 1e-4})
    train(training)  # with the rate of the recipe, not of the checkpoint
    rates = [line["learning_rate"] for line in read_log(tmp_path / "metrics.jsonl")]
    assert rates[4] == pytest.approx(1e-3 * learning_rate_factor(4, training.optim))  # of students, ten times 1e-4


@pytest.mark.parametrize("contents", [None, [], {"step": -1, "student": {}, "optimizer": {}, "method": {}}, {"a": 1}])
def test_what_is_no_checkpoint_is_one_sentence(contents, tmp_path: Path) -> None:
    torch.save(contents, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="is not the checkpoint of a run"):
        train(training_of(tmp_path, steps=2))


def test_a_batch_that_does_not_divide_is_refused() -> None:
    for accumulate in (3, 8):
        with pytest.raises(ValueError, match="must be a multiple of accumulate, got batch_size 4"):
            OptimSettings(batch_size=4, accumulate=accumulate)
    OptimSettings(batch_size=4, accumulate=2).require_whole_parts(2)
    with pytest.raises(UserError, match=r"multiple of 3 processes times optim.accumulate 2, got 4"):
        OptimSettings(batch_size=4, accumulate=2).require_whole_parts(3)


def test_workers_are_no_more_than_cores_and_shared_memory_allow(tmp_path: Path, monkeypatch, capsys) -> None:
    clips = training_of(tmp_path, steps=1).clips
    sampler = EpochSampler(len(clips), batch_size=4, seed=0)
    size = 4 * (2 * 3 * 24 * 32 + 8 * 2 * 24 * 32)  # clips of two uint8 frames and of two int64 label maps
    monkeypatch.setattr(loader.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(loader, "SHARED_MEMORY", tmp_path)
    for batches, workers in ((1000, 8), (6, 2), (5, 1), (1, 0)):  # two a worker, and two in use
        monkeypatch.setattr(loader.shutil, "disk_usage", lambda path, free=batches * size: SimpleNamespace(free=free))
        assert loader.affordable_workers(clips, sampler, 500) == workers
        assert ("--shm-size" in capsys.readouterr().err) is (workers < 8)


def test_a_log_file_gets_lines_of_progress(monkeypatch, capsys) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    assert list(progress.track(range(3), "training", total=3)) == [0, 1, 2]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["training: 1 of 3", "training: 2 of 3"]
