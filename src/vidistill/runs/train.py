"""The one training loop. Every draw is a function of (seed, epoch, sample) and of the step, so that a killed run
resumes bit for bit, and two processes train what one would."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vidistill.config import Settings
from vidistill.data.clip import Batch, TrainingSamples
from vidistill.data.sampling import EpochSampler
from vidistill.errors import UserError
from vidistill.methods import Method
from vidistill.methods.teacher import FrozenTeacher
from vidistill.ops.normalise import Normalisation
from vidistill.progress import track
from vidistill.students.files import load_checkpoint, save_checkpoint
from vidistill.students.norms import channels_last
from vidistill.students.student import Student
from vidistill.tasks import Task
from vidistill.training_log import TrainingLog


class OptimSettings(Settings):
    """How long, how fast and how precisely a run trains. batch_size counts clips over all processes and steps of
    accumulation together; clip_norm 0 means no gradient clipping.
    schedule: of the learning rate after the warm-up: "polynomial" with `power` or "cosine", to 0 at the last step, or
    "steps", a tenth at each of the `milestones`, parts of the run.
    channels_last: kernels so laid out; on a CPU networks of depthwise convolutions train up to 1.6 times as fast so,
    others as fast or a little slower.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 1e-3
    steps: int = 1000
    batch_size: int = 4
    accumulate: int = 1
    momentum: float = 0.9
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: Literal["polynomial", "cosine", "steps"] = "polynomial"
    power: float = 0.9
    milestones: tuple[float, ...] = ()
    clip_norm: float = 0.0
    precision: Literal["no", "bf16", "fp16"] = "no"
    channels_last: bool = False
    num_workers: int = 1
    checkpoint_every: int = 100


@dataclass(kw_only=True)
class Training:
    """All that a run trains with; `vidistill.runs.build.build` makes it from a recipe."""

    student: Student
    teacher: FrozenTeacher | None
    method: Method
    task: Task
    clips: TrainingSamples
    loss_weights: dict[str, float]
    optim: OptimSettings
    normalisation: Normalisation
    seed: int
    folder: Path
    tensorboard: bool = False
    teacher_normalisation: Normalisation | None = None  # where it is not the student's


class Learner(nn.Module):
    """One step's losses as a module's forward, which is what distributed training wraps."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.student: Student = training.student
        self.training_parts = training

    def forward(self, batch: Batch, *, progress: float) -> dict[str, Tensor]:
        parts = self.training_parts
        student = parts.normalisation(batch.student)
        wanted = parts.teacher_normalisation or parts.normalisation
        is_same = batch.teacher is batch.student and wanted == parts.normalisation
        teacher = student if is_same else wanted(batch.teacher)
        seen = replace(batch, student=student, teacher=teacher)
        return parts.method.losses(self.student, parts.teacher, parts.task, seen, progress=progress)


def train(training: Training, *, should_stop: Callable[[int], bool] = lambda step: False) -> Student:
    """Trains the student to the last step, from the run folder's checkpoint where there is one; returns the student.

    Writes `metrics.jsonl` and `checkpoint.pt`. should_stop(step) ends the run early, after a checkpoint.
    Errors: UserError when a loss is not finite (it names the loss and the batch) or a checkpoint does not fit.
    """
    optim = training.optim
    AcceleratorState._reset_state()  # accelerate's settings outlive a run: a second one may want another precision
    may_rest = DistributedDataParallelKwargs(find_unused_parameters=True)  # candidates not chosen, a frozen memory
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # stated, or several processes would each train alone
        mixed_precision=optim.precision,
        gradient_accumulation_steps=optim.accumulate,
        kwargs_handlers=[may_rest],
    )
    if optim.channels_last:
        example = training.clips.example()
        channels_last(training.student, example)
        if training.teacher is not None:
            channels_last(training.teacher.network, training.teacher.seen(example))
    learner = Learner(training)
    optimizer = _optimizer(training)
    path = training.folder / "checkpoint.pt"
    step = _resume(training, optimizer, path) if path.exists() else 0
    if training.teacher is not None:
        training.teacher.to(accelerator.device)
    learner, optimizer = accelerator.prepare(learner, optimizer)
    batches = _batches(training, accelerator, start_step=step)
    with TrainingLog(training.folder, step, accelerator.is_main_process, training.tensorboard) as log:
        steps = track(
            range(step, optim.steps), "training", total=optim.steps - step, quiet=not accelerator.is_main_process
        )
        for step in steps:
            began = time.perf_counter()
            losses = _step(learner, accelerator, optimizer, batches, training, step)
            rate = optim.batch_size / (time.perf_counter() - began)
            losses |= training.method.observations()
            losses |= {} if training.teacher is None else training.teacher.observations()
            log.write(step + 1, losses, learning_rate=optimizer.param_groups[0]["lr"], samples_per_second=rate)
            last = step + 1 == optim.steps or should_stop(step + 1)
            if accelerator.is_main_process and (last or (step + 1) % optim.checkpoint_every == 0):
                contents = {
                    "step": step + 1,
                    "student": training.student.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "method": training.method.state_dict(),
                }
                save_checkpoint(path, contents)
            if last:
                break
    accelerator.wait_for_everyone()
    return training.student


def _step(
    learner: nn.Module,
    accelerator: Accelerator,
    optimizer: Any,
    batches: Iterator[Batch],
    training: Training,
    step: int,
) -> dict[str, float]:
    """One optimiser step; returns each loss, averaged over the accumulated batches."""
    optim = training.optim
    torch.manual_seed(training.seed * 1_000_003 + step * accelerator.num_processes + accelerator.process_index)
    training.method.set_training(training.student)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * learning_rate_factor(step, optim)
    sums: dict[str, float] = {}
    for _ in range(optim.accumulate):
        batch = next(batches).to(accelerator.device)
        with accelerator.accumulate(learner):
            with accelerator.autocast():
                losses = learner(batch, progress=step / optim.steps)
            total = weighted_sum(losses, training.loss_weights)
            _check_finite(losses, batch, step)
            accelerator.backward(total)
            if accelerator.sync_gradients and optim.clip_norm > 0:
                accelerator.clip_grad_norm_(learner.parameters(), optim.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
        for name, value in {**losses, "loss": total}.items():
            sums[name] = sums.get(name, 0.0) + value.item() / optim.accumulate
    return sums


def weighted_sum(losses: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """Σ weight · loss. Errors: UserError where a loss has no weight, or none has."""
    missing = [name for name in losses if name not in weights]
    if missing or not losses:
        raise UserError(f"the losses {missing} have no weight; name them under losses: in the recipe")
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()


def learning_rate_factor(step: int, optim: OptimSettings) -> float:
    """Of the rate at a step: linear warm-up, then the schedule."""
    if step < optim.warmup_steps:
        return (step + 1) / optim.warmup_steps
    if optim.schedule == "steps":
        return float(0.1 ** sum(step >= part * optim.steps for part in optim.milestones))
    left = 1 - (step - optim.warmup_steps) / max(1, optim.steps - optim.warmup_steps)
    return float(left**optim.power) if optim.schedule == "polynomial" else (1 - math.cos(math.pi * left)) / 2


def _check_finite(losses: dict[str, Tensor], batch: Batch, step: int) -> None:
    for name, loss in losses.items():
        if not torch.isfinite(loss):
            samples = [f"epoch {key.epoch} sample {key.sample}" for key in batch.keys]
            raise UserError(
                f"step {step}: the loss '{name}' is {loss.item()} on the batch [{'; '.join(samples)}]; "
                "lower optim.learning_rate or look at these samples; the last checkpoint is kept"
            )


def _optimizer(training: Training) -> torch.optim.Optimizer:
    optim = training.optim
    groups = training.method.parameter_groups(training.student, optim.learning_rate, steps=optim.steps)
    for group in groups:
        group.setdefault("weight_decay", optim.weight_decay)
    if optim.name == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, lr=optim.learning_rate)
    else:
        optimizer = torch.optim.SGD(groups, lr=optim.learning_rate, momentum=optim.momentum)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def _batches(training: Training, accelerator: Accelerator, *, start_step: int) -> Iterator[Batch]:
    optim = training.optim
    sampler = EpochSampler(
        len(training.clips),
        batch_size=optim.batch_size // optim.accumulate,
        seed=training.seed,
        start_step=start_step * optim.accumulate,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    loader: DataLoader[Any] = DataLoader(
        training.clips,  # type: ignore[arg-type]  # a Dataset by its methods
        batch_sampler=sampler,
        num_workers=optim.num_workers,
        collate_fn=training.clips.collate,
        pin_memory=accelerator.device.type == "cuda",
        worker_init_fn=_one_thread,
    )
    return _unwrapped(iter(loader))


def _unwrapped(batches: Iterator[Batch]) -> Iterator[Batch]:
    """A worker's UserError arrives as a traceback in one string; its last line is the sentence."""
    try:
        yield from batches
    except UserError as error:
        raise UserError(str(error).strip().splitlines()[-1].removeprefix("vidistill.errors.UserError: ")) from None


def _one_thread(worker: int) -> None:
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _resume(training: Training, optimizer: torch.optim.Optimizer, path: Path) -> int:
    """Loads the checkpoint into the student, optimiser and method; returns the step to go on from."""
    contents = load_checkpoint(path)
    try:
        training.student.load_state_dict(contents["student"])
        optimizer.load_state_dict(contents["optimizer"])
        training.method.load_state_dict(contents["method"])
    except (KeyError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: the checkpoint does not fit this recipe ({reason}); choose another out=") from error
    return int(contents["step"])
