"""What our code adds to what must be done: a training step and a stream beside their floors, side by side in one run.

Usage: python benchmarks/overhead.py
Step: the floor is the teacher's forward on both frames, the student's on a key and a delta frame, its backward and the
optimiser's step; ours adds losses, clipping, checks and logging. Data are apart on both sides. Stream: the floor is the
student's forward on frames that are ready; a second floor adds what any user of it needs, normalisation before and
class ids at the frame's size after.
"""

from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from accelerate import Accelerator

from vidistill.data.clip import SampleKey
from vidistill.runs.build import build
from vidistill.runs.recipe import Recipe
from vidistill.runs.train import Learner, _optimizer, _step
from vidistill.runtimes.measure import describe_device, median_milliseconds
from vidistill.stream.stream import Stream
from vidistill.students.norms import running_copy

SIZE = (360, 480)
CROP = (256, 336)
INTERVAL = 10


def recipe(out: str) -> Recipe:
    return Recipe.model_validate(
        {
            "task": {"name": "segmentation", "num_classes": 11},
            "teacher": {"name": "ddrnet_23_slim"},
            "method": {"name": "delta", "key_frame_interval": INTERVAL, "delta_until": 0.0},
            "data": {
                "train": [{"name": "synthetic", "size": SIZE}],
                "clip": {"crop": CROP},
                "labels": "none",
            },
            "optim": {"name": "adamw", "batch_size": 4, "clip_norm": 5.0},
            "out": out,
        }
    )


def step_times(out: str) -> dict[str, float]:
    training = build(recipe(out)).training
    accelerator = Accelerator()
    optimizer = _optimizer(training)
    learner, optimizer = accelerator.prepare(Learner(training), optimizer)
    batch = training.clips.collate([training.clips[key] for key in _keys(4)])
    normalised = training.normalisation(batch.student)
    batches = repeat(batch)

    def floor() -> None:
        with torch.enable_grad(), torch.inference_mode(mode=False):
            for t in range(2):
                training.teacher(normalised[:, t])
            outputs, state = training.student(normalised[:, 0])
            later, _ = training.student(normalised[:, 1], state)
            (outputs.square().mean() + later.square().mean()).backward()
            optimizer.step()
            optimizer.zero_grad()

    def ours() -> None:
        with torch.enable_grad(), torch.inference_mode(mode=False):
            _step(learner, accelerator, optimizer, batches, training, 0)

    return median_milliseconds({"floor": floor, "ours": ours}, repeats=10)


def _keys(count: int) -> list[SampleKey]:
    return [SampleKey(0, 0, sample) for sample in range(count)]


def stream_times(out: str) -> dict[str, float]:
    run = build(recipe(out))
    student = run.training.method.finish(run.training.student)
    image = torch.randint(0, 256, (*SIZE, 3), dtype=torch.uint8).numpy()
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    ready = run.training.normalisation(pixels).contiguous(memory_format=torch.channels_last)
    fused = running_copy(student, ready)

    def cycle(normalise: bool) -> None:
        state = None
        for _ in range(INTERVAL):
            frame = ready
            if normalise:
                frame = run.training.normalisation(pixels).contiguous(memory_format=torch.channels_last)
            outputs, state = fused(frame, state)
            if normalise:
                run.task.decode(outputs, size=SIZE)[0].cpu().numpy()

    stream = Stream(student)
    times = median_milliseconds(
        {
            "forward": lambda: cycle(False),
            "forward, normalisation and class ids": lambda: cycle(True),
            "Stream": lambda: list(stream(repeat(image, INTERVAL))),
        },
        repeats=10,
    )
    return {name: time / INTERVAL for name, time in times.items()}


def main() -> None:
    print(f"{describe_device(torch.device('cpu'))}; DDRNet-23-slim, float32, eager; medians of 10\n")
    with TemporaryDirectory() as folder:
        step = step_times(str(Path(folder) / "step"))
        stream = stream_times(str(Path(folder) / "stream"))
    print("| what | milliseconds | × its floor |\n|---|---|---|")
    print(f"| training step, 4 pairs of {CROP[1]}×{CROP[0]}: floor | {step['floor']:.0f} | 1 |")
    print(f"| … ours | {step['ours']:.0f} | {step['ours'] / step['floor']:.2f} |")
    bare = stream["forward"]
    for name, time in stream.items():
        print(
            f"| a frame of {SIZE[1]}×{SIZE[0]}, key frame every {INTERVAL}: {name} | {time:.1f} | {time / bare:.2f} |"
        )


if __name__ == "__main__":
    main()
