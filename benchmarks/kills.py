"""Kills verbs at random moments, fills disks and gives odd places, and looks at what is left.

Usage: python benchmarks/kills.py --kills 200 [--seed 0]
Tiny networks on a made video. A verb runs in a forked process, gets SIGKILL, SIGTERM or SIGINT at a moment drawn from
the length of an undisturbed run, and is then run again. What must hold:
- after SIGTERM and SIGINT: exit code 143 and 130 (or 0: it was done), no part file;
- an earlier file of the output's name is as it was, or a readable new one stands in its place;
- a stream's output is whole up to its last frame, any other output is whole or not there;
- the next run sweeps what SIGKILL left and gives what the undisturbed run gave: of training, the same weights and
  losses.
Then each verb with files limited to a random size, and in a folder that cannot be written to. Exit code 1 for a fault.
"""

import argparse
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image as PillowImage
from torch import Tensor, nn

from vidistill import cli
from vidistill.data.video.reader import VideoReader
from vidistill.data.video.writer import VideoWriter
from vidistill.files import PART_NAME
from vidistill.models import MODELS
from vidistill.runs import run as _run_is_loaded_before_any_fork  # noqa: F401
from vidistill.students.card import Card
from vidistill.students.files import save_student
from vidistill.students.student import PerFrame
from vidistill.tasks.segmentation import Segmentation

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
NUM_FRAMES = 24
EARLIER = b'{"earlier": true}\n'
SYNTHETIC = {"name": "synthetic", "size": [32, 32], "num_classes": 3}
LONGEST = 120  # seconds that a run may take


class Tiny(nn.Module):
    """A segmenter of a few thousand parameters; it draws nothing at random."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Conv2d(16, num_classes, 1)

    def forward(self, frames: Tensor) -> Tensor:
        return self.head(self.body(self.stem(frames)))


@dataclass(frozen=True)
class Job:
    """A verb with one output. arguments, readable: of the output's path; readable gives what two whole runs share.

    grows: whether what was done until a stop is kept.
    """

    name: str
    out: str
    arguments: Callable[[Path], list[str]]
    readable: Callable[[Path], Any]
    grows: bool = False
    replaces: bool = False
    share: int = 1  # of the kills


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kills", type=int, default=200)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    MODELS["tiny"] = Tiny
    draw = random.Random(options.seed)
    with TemporaryDirectory() as folder:
        jobs = make_place(Path(folder))
        faults = []
        for fault in chain(
            kills(jobs, Path(folder), options.kills, draw),
            full_disks(jobs, Path(folder), draw),
            read_only(jobs, Path(folder)),
        ):
            faults.append(fault)
            print(f"FAULT {fault}", flush=True)
    print(f"{len(faults)} faults")
    sys.exit(1 if faults else 0)


def make_place(place: Path) -> list[Job]:
    """The files that verbs read, in `place`; the verbs."""
    noise = np.random.default_rng(0)
    with VideoWriter(place / "clip.mp4", fps=10) as writer:
        for _ in range(NUM_FRAMES):
            writer.write(noise.integers(0, 256, (64, 96, 3), dtype=np.uint8))
    torch.manual_seed(0)
    spec = {"name": "tiny", "library": "vidistill", "options": {"num_classes": 3}}
    student = place / "student.safetensors"
    save_student(student, PerFrame(Tiny(3).eval(), Card(network=spec, task=Segmentation(num_classes=3))))
    recipe = {
        "task": {"name": "segmentation", "num_classes": 3},
        "teacher": {"name": "tiny"},
        "method": {"name": "delta", "key_frame_interval": 3},
        "data": {
            "train": [SYNTHETIC],
            "evaluate": [
                {"name": "synthetic", "num_sequences": 1, "num_frames": 4, "size": [32, 32], "num_classes": 3}
            ],
            "clip": {"max_gap": 2, "crop": [32, 32]},
        },
        "optim": {"name": "adamw", "steps": 30, "batch_size": 2, "num_workers": 0, "checkpoint_every": 4},
    }
    (place / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    clip = str(place / "clip.mp4")
    stream = ["stream", str(student), clip, "--out"]
    boxes = "synthetic,num_sequences=2,num_frames=6,num_classes=3"
    return [
        Job("train", "run", lambda out: ["train", str(place / "recipe.yaml"), f"out={out}"], of_run, share=2),
        Job("stream to .jsonl", "out.jsonl", lambda out: [*stream, str(out)], of_lines, True, True, share=3),
        Job("stream to .mp4", "out.mp4", lambda out: [*stream, str(out)], of_video, True, True, share=3),
        Job("stream to a folder", "masks", lambda out: [*stream, str(out)], of_folder, True, share=2),
        Job(
            "label",
            "labels",
            lambda out: ["label", clip, "--teacher", str(student), "--out", str(out)],
            of_folder,
            share=3,
        ),
        Job("convert", "coco", lambda out: ["convert", boxes, str(out)], of_folder, share=3),
        Job("convert to mot", "mot", lambda out: ["convert", boxes, str(out), "--layout", "mot"], of_folder, share=2),
        Job("export", "onnx", lambda out: ["export", str(student), "--out", str(out), "--size", "32x32"], of_export),
    ]


# ---- what is left, read; errors where it cannot be


def of_lines(path: Path) -> list[Any]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "milliseconds"} for line in lines]


def of_video(path: Path) -> int:
    with VideoReader(path) as reader:
        return sum(1 for _ in reader)


def of_folder(path: Path) -> list[str]:
    for file in path.rglob("*.png"):
        with PillowImage.open(file) as image:
            image.load()
    for file in path.rglob("*.json"):
        json.loads(file.read_text())
    return sorted(str(file.relative_to(path)) for file in path.rglob("*"))


def of_export(path: Path) -> list[str]:
    from vidistill.runtimes import open_student

    open_student(path)
    return of_folder(path)


def of_run(path: Path) -> tuple[bytes, list[Any], list[str]]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    untimed = [{name: value for name, value in line.items() if name != "samples_per_second"} for line in lines]
    json.loads((path / "results.json").read_text())
    return (path / "student.safetensors").read_bytes(), untimed, of_folder(path)


def parts(folder: Path) -> list[str]:
    return [file.name for file in folder.rglob("*") if PART_NAME.fullmatch(file.name)]


# ---- runs


def start(arguments: list[str], log: Path, *, most_bytes: int | None = None) -> int:
    """Forks a process that runs the command line; gives its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        sys.argv = ["vidistill", *arguments]
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        sys.stdout.flush()
        os._exit(code)


def finish(child: int) -> int:
    """Waits; the exit code, negative for the signal that ended it."""
    until = time.monotonic() + LONGEST
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError(f"still running after {LONGEST} s")


def kills(jobs: list[Job], place: Path, count: int, draw: random.Random) -> Iterator[str]:
    """Faults of `count` kills, spread over the jobs."""
    whole: dict[str, tuple[float, Any]] = {}
    for job in jobs:
        folder = place / "undisturbed"
        folder.mkdir(exist_ok=True)
        began = time.monotonic()
        code = finish(start(job.arguments(folder / job.out), place / "log"))
        if code != 0:
            yield f"{job.name}: undisturbed, exit {code}: {(place / 'log').read_text()[-300:]}"
            return
        whole[job.name] = time.monotonic() - began, job.readable(folder / job.out)
    shares = [job for job in jobs for _ in range(job.share)]
    draw.shuffle(shares)
    met: dict[str, list[int]] = {job.name: [0, 0, 0] for job in jobs}  # kills, while running, with a part left
    for number in range(count):
        job, wanted = shares[number % len(shares)], SIGNALS[number // len(shares) % len(SIGNALS)]
        folder = place / f"kill_{number}"
        folder.mkdir()
        out = folder / job.out
        if job.replaces and draw.random() < 0.5 and job.name.endswith(".jsonl"):
            out.write_bytes(EARLIER)
        where = f"{job.name}, {wanted.name}, kill {number}"
        length, expected = whole[job.name]
        child = start(job.arguments(out), place / "log")
        time.sleep(draw.uniform(0.02, 1.1) * length)
        os.kill(child, wanted)
        code = finish(child)
        said = (place / "log").read_text()
        left = parts(folder)
        met[job.name] = [a + b for a, b in zip(met[job.name], (1, code != 0, bool(left)), strict=True)]
        if code not in (0, -wanted if wanted == signal.SIGKILL else 128 + wanted, -signal.SIGTERM):
            yield f"{where}: exit {code}: {said[-1500:]}"
        if "Traceback" in said:
            yield f"{where}: traceback: {said[-1500:]}"
        if wanted != signal.SIGKILL and left:
            yield f"{where}: left {left}"
        print(f"{where}: exit {code}", flush=True)
        yield from of_stopped(job, out, expected, where, is_done=code == 0)
        if out.exists() and not (job.replaces or job.name in ("train", "export")):
            continue  # a new folder is there and whole; the verb refuses to write it again
        code = finish(start(job.arguments(out), place / "log"))
        if code != 0:
            yield f"{where}: run again, exit {code}: {(place / 'log').read_text()[-1500:]}"
        elif job.readable(out) != expected:
            yield f"{where}: run again, it is not what the undisturbed run gave"
        if parts(folder):
            yield f"{where}: the next run left {parts(folder)}"
    for name, (all_of, running, with_part) in met.items():
        print(f"{name}: {all_of} kills, {running} while it ran, {with_part} left a part for the next run to sweep")


def of_stopped(job: Job, out: Path, expected: Any, where: str, *, is_done: bool) -> Iterator[str]:
    """Faults of what a stopped run left."""
    if not out.exists() or (job.replaces and out.read_bytes() == EARLIER):
        if is_done:
            yield f"{where}: exit 0 and no output"
        return
    if job.name in ("train", "export") and not is_done:
        return  # folders that are filled file by file; the next run tells
    try:
        found = job.readable(out)
    except Exception as error:
        if job.name.endswith(".jsonl") and out.read_bytes()[-1:] != b"\n":
            return  # SIGKILL within the last line
        yield f"{where}: unreadable: {type(error).__name__}: {error}"
        return
    if found != expected and (is_done or not job.grows):
        yield f"{where}: not whole"


def full_disks(jobs: list[Job], place: Path, draw: random.Random, *, each: int = 4) -> Iterator[str]:
    """Faults where no file may grow beyond a random size."""
    count = 0
    for job in jobs:
        for number in range(each):
            folder = place / f"full_{job.name}_{number}".replace(" ", "_")
            folder.mkdir()
            out = folder / job.out
            if job.replaces:
                out.write_bytes(EARLIER)
            most = int(10 ** draw.uniform(0, 4.5))
            code = finish(start(job.arguments(out), place / "log", most_bytes=most))
            said, where = (place / "log").read_text(), f"{job.name}, files of at most {most} bytes"
            count += code != 0
            if code != 0 and ("Traceback" in said or not said.strip().splitlines()[-1:][0:1]):
                yield f"{where}: exit {code}: {said[-1500:]}"
            if parts(folder):
                yield f"{where}: left {parts(folder)}"
            yield from of_stopped(job, out, None, where, is_done=False) if job.grows else ()
            if not job.grows and job.name not in ("train", "export") and code != 0 and out.exists():
                yield f"{where}: left {out.name}"
    print(f"full disk: {count} runs of {each * len(jobs)} met one")


def read_only(jobs: list[Job], place: Path) -> Iterator[str]:
    """Faults where the output's folder is a file, or, for who is not root, cannot be written to."""
    for number, job in enumerate(jobs):
        folder = place / f"closed_{number}"
        if os.getuid() == 0:
            folder.write_bytes(b"")  # root may write into every folder, but not into a file
        else:
            folder.mkdir(mode=0o555)
        code = finish(start(job.arguments(folder / job.out), place / "log"))
        said = (place / "log").read_text()
        if code != 1 or "Traceback" in said or "cannot be written" not in said:
            yield f"{job.name}, a folder that cannot be written to: exit {code}: {said[-500:]}"
    print(f"folders that cannot be written to: {len(jobs)} runs")


if __name__ == "__main__":
    main()
