"""The one training loop. Every draw is a function of (seed, epoch, sample) and of the step, so that a killed run
resumes bit for bit, and two processes train what one would."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from vidistill.config import Count, LearningRate, Settings, Share, Values, Weight, Whole, whole
from vidistill.data.clip import Batch, TrainingSamples
from vidistill.data.sampling import EpochSampler
from vidistill.errors import UserError, as_user_error
from vidistill.methods import Method
from vidistill.methods.processes import any_process
from vidistill.methods.teacher import FrozenTeacher
from vidistill.ops.normalise import Normalisation
from vidistill.progress import track
from vidistill.runs.checkpoints import Checkpoints, is_finite
from vidistill.runs.interrupts import Interrupts
from vidistill.runs.loader import first_batch, load_batches
from vidistill.students.norms import channels_last
from vidistill.students.student import Student
from vidistill.tasks import Task
from vidistill.training_log import TrainingLog, log_file, read_log

DIVERGED = "lower optim.learning_rate, set optim.clip_norm, or look at these samples"
ADVICE = "look at data.clip, the networks' options and optim.batch_size"


class OptimSettings(Settings):
    """How long, how fast and how precisely a run trains. batch_size counts clips over all processes and steps of
    accumulation together; clip_norm 0 means no gradient clipping.
    schedule: of the learning rate after the warm-up: "polynomial" with `power` or "cosine", to 0 at the last step, or
    "steps", a tenth at each of the `milestones`, parts of the run.
    channels_last: kernels so laid out; on a CPU networks of depthwise convolutions train up to 1.6 times as fast so,
    others as fast or a little slower.
    num_workers: the most processes that draw clips; never more than cores, nor than shared memory is there for.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: LearningRate = 1e-3
    steps: Whole = 1000
    batch_size: Count = 4
    accumulate: Count = 1
    momentum: Share = 0.9
    weight_decay: Weight = 0.0
    warmup_steps: Whole = 0
    schedule: Literal["polynomial", "cosine", "steps"] = "polynomial"
    power: Weight = 0.9
    milestones: tuple[Share, ...] = ()
    clip_norm: Weight = 0.0
    precision: Literal["no", "bf16", "fp16"] = "no"
    channels_last: bool = False
    num_workers: Annotated[int, *whole(0, 1024)] = 1
    checkpoint_every: Count = 100

    @pydantic.model_validator(mode="after")
    def _whole_parts(self) -> "OptimSettings":
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size must be a multiple of accumulate, got batch_size {self.batch_size} and accumulate "
                f"{self.accumulate}"
            )
        return self

    @property
    def part_size(self) -> int:
        """The clips that all processes together see at once."""
        return self.batch_size // self.accumulate

    def require_whole_parts(self, num_processes: int) -> None:
        """Errors: UserError where the processes, as torchrun starts them, cannot share the batch."""
        if self.part_size % num_processes:
            raise UserError(
                f"optim.batch_size must be a multiple of {num_processes} processes times optim.accumulate "
                f"{self.accumulate}, got {self.batch_size}"
            )


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

    Writes `metrics.jsonl` and `checkpoint.pt`. should_stop(step) ends the run early, after a checkpoint. Ctrl-C and
    SIGTERM do what they always do, but after the running step and a checkpoint of it; the second one does it at once.
    Errors: UserError when a loss is not finite (it names the loss and the batch) or a checkpoint does not fit.
    """
    optim = training.optim
    checkpoints = Checkpoints(training.folder)
    accelerator, learner, optimizer = _ready(training)
    step = _resume(training, optimizer, checkpoints) if checkpoints.exist() else 0
    learner, optimizer = accelerator.prepare(learner, optimizer)
    batches = _batches(training, accelerator, start_step=step)
    losses_by_step = {int(line["step"]): line.get("loss", math.inf) for line in read_log(log_file(training.folder))}
    with (
        TrainingLog(training.folder, step, accelerator.is_main_process, training.tensorboard) as log,
        Interrupts() as interrupts,
    ):
        steps = track(
            range(step, optim.steps), "training", total=optim.steps - step, quiet=not accelerator.is_main_process
        )
        for step in steps:
            began = time.perf_counter()
            losses, fault = _step(learner, accelerator, optimizer, batches, training, step)
            rate = optim.batch_size / (time.perf_counter() - began)
            losses |= training.method.observations()
            losses |= {} if training.teacher is None else training.teacher.observations()
            stops = any_process(interrupts.requested)
            last = step + 1 == optim.steps or stops or should_stop(step + 1)
            saves = last or (step + 1) % optim.checkpoint_every == 0
            contents = _contents(training, optimizer, step + 1) if saves else {}
            if not fault and not is_finite(contents):
                fault = f"step {step}: a weight is not finite any more"
            if any_process(bool(fault)):
                raise UserError(
                    _diverged(fault, step, checkpoints, losses_by_step, is_main=accelerator.is_main_process)
                )
            losses_by_step[step + 1] = losses["loss"]
            log.write(step + 1, losses, learning_rate=optimizer.param_groups[0]["lr"], samples_per_second=rate)
            if saves and accelerator.is_main_process:
                checkpoints.save(contents, is_last=step + 1 == optim.steps)
            if stops:
                _say_stopped(training, step + 1, quiet=not accelerator.is_main_process)
                interrupts.act()
            if last:
                break
    accelerator.wait_for_everyone()
    return training.student


def try_step(training: Training) -> dict[str, float]:
    """The losses of a first step, of which nothing is kept but what it changes of the student.

    Errors: UserError as `train`, and where the student is not finite after it.
    """
    accelerator, learner, optimizer = _ready(training)
    learner, optimizer = accelerator.prepare(learner, optimizer)
    optim = training.optim
    part = first_batch(training.clips, seed=training.seed, num_samples=optim.part_size // accelerator.num_processes)
    losses, fault = _step(learner, accelerator, optimizer, repeat(part), training, 0)
    if fault or not is_finite(training.student.state_dict()):
        raise UserError(f"{fault or 'a weight is not finite after the first step'}; {DIVERGED}")
    return losses


def _ready(training: Training) -> tuple[Accelerator, nn.Module, torch.optim.Optimizer]:
    """What a step needs, before it is told of the accelerator."""
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
    if training.teacher is not None:
        training.teacher.to(accelerator.device)
    return accelerator, Learner(training), _optimizer(training)


def _contents(training: Training, optimizer: torch.optim.Optimizer, step: int) -> Values:
    """Of a checkpoint after `step` steps."""
    return {
        "step": step,
        "student": training.student.state_dict(),
        "optimizer": optimizer.state_dict(),
        "method": training.method.state_dict(),
    }


def _diverged(fault: str, step: int, checkpoints: Checkpoints, losses: dict[int, float], *, is_main: bool) -> str:
    """The sentence for a run that diverged; its checkpoints go back to a time before."""
    if not is_main:
        return fault or f"step {step}: the loss of another process is not finite"
    fault = fault or f"step {step}: the loss of another process is not finite"
    return f"{fault}; {DIVERGED}; {checkpoints.roll_back(fault, losses)}"


def _say_stopped(training: Training, step: int, *, quiet: bool) -> None:
    if not quiet:
        words = f"stopped after step {step} of {training.optim.steps}, which is saved"
        print(f"{words}; to go on: vidistill train {training.folder}", file=sys.stderr)


def _step(
    learner: nn.Module,
    accelerator: Accelerator,
    optimizer: Any,
    batches: Iterator[Batch],
    training: Training,
    step: int,
) -> tuple[dict[str, float], str]:
    """One optimiser step; returns each loss, averaged over the accumulated batches, and what is not finite, or ""."""
    optim = training.optim
    torch.manual_seed(training.seed * 1_000_003 + step * accelerator.num_processes + accelerator.process_index)
    training.method.set_training(training.student)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * learning_rate_factor(step, optim)
    sums: dict[str, float] = {}
    fault = ""
    for _ in range(optim.accumulate):
        batch = next(batches).to(accelerator.device)
        with (
            as_user_error(f"step {step}: the networks cannot be trained on these clips", ADVICE),
            accelerator.accumulate(learner),
        ):
            with accelerator.autocast():
                losses = learner(batch, progress=step / max(1, optim.steps))
            total = weighted_sum(losses, training.loss_weights)
            fault = fault or _not_finite(losses, batch, step)
            accelerator.backward(total)
            if accelerator.sync_gradients and optim.clip_norm > 0:
                accelerator.clip_grad_norm_(learner.parameters(), optim.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
        for name, value in {**losses, "loss": total}.items():
            sums[name] = sums.get(name, 0.0) + value.item() / optim.accumulate
    return sums, fault


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


def _not_finite(losses: dict[str, Tensor], batch: Batch, step: int) -> str:
    """Which loss is not finite on which samples; "" for none."""
    for name, loss in losses.items():
        if not torch.isfinite(loss):
            samples = [f"epoch {key.epoch} sample {key.sample}" for key in batch.keys]
            return f"step {step}: the loss '{name}' is {loss.item()} on the batch [{'; '.join(samples)}]"
    return ""


def _optimizer(training: Training) -> torch.optim.Optimizer:
    optim = training.optim
    groups = training.method.parameter_groups(training.student, optim.learning_rate, steps=optim.steps)
    if not any(group["params"] for group in groups):
        raise UserError("the student has no parameter that could be trained; choose another network")
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
        batch_size=optim.part_size,
        seed=training.seed,
        start_step=start_step * optim.accumulate,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    is_cuda = accelerator.device.type == "cuda"
    return load_batches(training.clips, sampler, num_workers=optim.num_workers, pin_memory=is_cuda)


def _resume(training: Training, optimizer: torch.optim.Optimizer, checkpoints: Checkpoints) -> int:
    """Loads the checkpoint into the student, optimiser and method; returns the step to go on from.

    The rates stay the recipe's, which may be others after a run has diverged.
    """
    contents = checkpoints.load()
    try:
        training.student.load_state_dict(contents["student"])
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict(contents["optimizer"])
        for group, own in zip(optimizer.param_groups, groups, strict=True):
            group.update({name: value for name, value in own.items() if name != "params"})
        training.method.load_state_dict(contents["method"])
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{checkpoints.path}: the checkpoint does not fit this recipe ({reason}); choose another out="
        ) from error
    return int(contents["step"])
