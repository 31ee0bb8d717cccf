"""How long a frame takes, students beside their teacher in each runtime and precision, in one interleaved run.

Usage: python benchmarks/latency.py [STUDENT …] [--sizes 480x360 1024x512] [--threads 0] [--cycles 10]
    [--settings eager:float32 eager:bfloat16 onnx:float32 openvino:float32 openvino:bfloat16]
STUDENT: a student file or run folder, beside the network it came from; without one, DDRNet-23-slim, its copy on
half-size frames and its layerwise student, fresh from their start, since weights do not change the time.

A frame goes in as uint8 pixels and the network's outputs come out; reading, decoding and drawing are not in it. Each
row is compared with the teacher in the same setting, and with the teacher's best of all settings: what a user would
run without us.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from vidistill.methods.delta import Delta
from vidistill.models import MODELS, build_network
from vidistill.runtimes import deploy
from vidistill.runtimes.measure import describe_device, measure_latency, noise_frames
from vidistill.students.card import Card
from vidistill.students.delta.kinds import StudentSpec
from vidistill.students.files import load_student
from vidistill.students.student import PerFrame, Student
from vidistill.students.windows import as_student

INTERVAL = 10
SETTINGS = ("eager:float32", "eager:bfloat16", "onnx:float32", "openvino:float32", "openvino:bfloat16")
TEACHER = "teacher"
HEAD = (
    "setting", "network", "key", "first delta", "delta p50 / p99", f"amortised at {INTERVAL}",
    "÷ of the teacher there", "÷ of the teacher's best", "worst frame, × the teacher there",
)  # fmt: skip


def networks(paths: list[Path]) -> dict[str, Student]:
    if paths:
        students = {path.parent.name if path.suffix else path.name: load_student(path) for path in paths}
        first = next(iter(students.values()))
        return {TEACHER: as_student(build_network(**first.card.network), Card(view=first.view)).eval(), **students}
    network = MODELS["ddrnet_23_slim"](num_classes=19).eval()
    methods = {
        "copy on half-size frames": Delta(granularity="network", student=StudentSpec(kind="copy", scale=0.5)),
        "layers, γ = 4": Delta(),
    }
    example = torch.zeros(1, 3, 128, 128)
    students = {name: method.finish(method.prepare(network, example)) for name, method in methods.items()}
    return {TEACHER: PerFrame(network).eval(), **students}


def measure(
    students: dict[str, Student], size: tuple[int, int], settings: list[str], threads: int, cycles: int
) -> dict[str, dict[str, Any]]:
    """Latencies by `setting/network`, all in turn."""
    pixels = noise_frames(4, size)
    running, intervals = {}, {}
    for setting in settings:
        runtime, precision = setting.split(":")
        for name, student in students.items():
            key = f"{setting}/{name}"
            running[key] = deploy(student, pixels[:1], runtime=runtime, precision=precision, threads=threads)
            intervals[key] = INTERVAL
    return measure_latency(running, dict.fromkeys(running, pixels), intervals=intervals, cycles=cycles, warmup=2)


def rows(times: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    teachers = {key.split("/")[0]: one["key"]["p50"] for key, one in times.items() if key.endswith(f"/{TEACHER}")}
    best = min(teachers.values())
    lines = []
    for key, one in times.items():
        setting, name = key.split("/", 1)
        base, kinds = teachers[setting], [one[kind] for kind in ("key", "first_delta", "delta")]
        shown = ["–" if kind is None else f"{kind['p50']:.1f}" for kind in kinds]
        if kinds[2] is not None:
            shown[2] += f" / {kinds[2]['p99']:.1f}"
        mean, worst = one["amortised"], max(kind["p50"] for kind in kinds if kind is not None)
        lines.append(
            (setting, name, *shown, f"{mean:.1f}", f"{base / mean:.2f}", f"{best / mean:.2f}", f"{worst / base:.2f}")
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("students", nargs="*", type=Path)
    parser.add_argument("--sizes", nargs="+", default=["480x360", "1024x512"])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--cycles", type=int, default=10)
    arguments = parser.parse_args()
    students = networks(arguments.students)
    print(f"{describe_device(torch.device('cpu'))}; milliseconds, batch 1, medians of {arguments.cycles} cycles\n")
    for size in arguments.sizes:
        width, height = map(int, size.split("x"))
        print(f"{size}\n\n| {' | '.join(HEAD)} |\n{'|---' * len(HEAD)}|", flush=True)
        for line in rows(measure(students, (height, width), arguments.settings, arguments.threads, arguments.cycles)):
            print(f"| {' | '.join(line)} |", flush=True)
        print()


if __name__ == "__main__":
    main()
