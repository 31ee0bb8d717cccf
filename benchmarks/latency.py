"""Latency of a student and its teacher, side by side in one run: sizes × runtimes × precisions, as Markdown.

Usage: python benchmarks/latency.py [STUDENT] [--sizes 480x360 1024x512] [--runtimes eager compiled onnx]
    [--precisions float32]
STUDENT: a student.safetensors, beside the network it came from; without one, DDRNet-23-slim and its delta student fresh
from its SVD start, since weights do not change the time.
"""

import argparse
from pathlib import Path

import torch

from vidistill.methods.delta import Delta
from vidistill.models import MODELS, build_network
from vidistill.runtimes.measure import describe_device, noise_frames, profile_students
from vidistill.students.card import Card
from vidistill.students.files import load_student
from vidistill.students.student import PerFrame, Student
from vidistill.students.windows import as_student

INTERVAL = 10
HEAD = "| size | runtime | precision | teacher p50 / p99 | key | first delta | delta p50 / p99 | delta: teacher ÷ | "
HEAD += "amortised at 10: teacher ÷ | worst frame: teacher × |"


def pair(student: Path | None) -> dict[str, Student]:
    if student is not None:
        model = load_student(student)
        teacher = as_student(build_network(**model.card.network), Card(view=model.view))
        return {"teacher": teacher.eval(), "student": model}
    network = MODELS["ddrnet_23_slim"](num_classes=19).eval()
    method = Delta(key_frame_interval=INTERVAL)
    return {
        "teacher": PerFrame(network).eval(),
        "student": method.finish(method.prepare(network, torch.zeros(1, 3, 128, 128))),
    }


def row(student: Path | None, size: str, runtime: str, precision: str) -> str:
    width, height = map(int, size.split("x"))
    frames = noise_frames(4, (height, width))
    measured = profile_students(pair(student), frames, interval=INTERVAL, runtime=runtime, precision=precision)
    teacher, times = measured["teacher"]["latency_ms"], measured["student"]["latency_ms"]
    base = teacher["key"]["p50"]
    worst = max(times[kind]["p50"] for kind in ("key", "first_delta", "delta"))
    cells = [
        size, runtime, precision, f"{base:.1f} / {teacher['key']['p99']:.1f}", f"{times['key']['p50']:.1f}",
        f"{times['first_delta']['p50']:.1f}", f"{times['delta']['p50']:.1f} / {times['delta']['p99']:.1f}",
        f"{base / times['delta']['p50']:.2f}", f"{base / times['amortised']:.2f}", f"{worst / base:.2f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", nargs="?", type=Path)
    parser.add_argument("--sizes", nargs="+", default=["480x360", "1024x512"])
    parser.add_argument("--runtimes", nargs="+", default=["eager", "compiled", "onnx"])
    parser.add_argument("--precisions", nargs="+", default=["float32"])
    arguments = parser.parse_args()
    print(f"{describe_device(torch.device('cpu'))}; milliseconds, batch 1")
    print("norms fused and channels last on both sides\n")
    print(HEAD + "\n" + "|---" * HEAD.count(" | ") + "|---|", flush=True)
    for size in arguments.sizes:
        for runtime in arguments.runtimes:
            for precision in arguments.precisions:
                torch.compiler.reset()
                print(row(arguments.student, size, runtime, precision), flush=True)


if __name__ == "__main__":
    main()
