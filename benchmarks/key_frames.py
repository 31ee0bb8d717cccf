"""Adaptive key frames beside fixed ones at equal cost, on clips with and without cuts, as a Markdown table.

Usage: python benchmarks/key_frames.py STUDENT TEACHER --videos a.mp4 b.mp4
Each policy runs over every clip, and over all of them cut into pieces and strung together. An adaptive policy is
compared with fixed intervals that make as many key frames: the next shorter and the next longer one, each averaged over
its phases and weighted so that their key frames are as many. Agreement: share of pixels with the teacher's class.
"""

import argparse
from collections.abc import Sequence

import cv2
import numpy as np

from vidistill.data.clip import Image, LabelMap
from vidistill.data.video.reader import VideoReader
from vidistill.progress import track
from vidistill.stream.key_frames import Adaptive, Fixed, KeyFramePolicy
from vidistill.stream.stream import Stream
from vidistill.students.files import load_student

HEIGHT = 272
PIECE = 23  # frames between two cuts of the strung clip


def frames_of(path: str, limit: int) -> list[Image]:
    with VideoReader(path) as reader:
        return [_resized(frame.image) for frame, _ in zip(reader, range(limit), strict=False)]


def _resized(image: Image) -> Image:
    width = round(image.shape[1] * HEIGHT / image.shape[0] / 2) * 2
    return cv2.resize(image, (width, HEIGHT), interpolation=cv2.INTER_AREA)


def strung(clips: Sequence[list[Image]]) -> list[Image]:
    """Pieces of the clips in turn, cropped to one width: a film with cuts."""
    width = min(clip[0].shape[1] for clip in clips)
    pieces = [clip[i : i + PIECE] for i in range(0, min(map(len, clips)) - PIECE, PIECE) for clip in clips]
    return [np.ascontiguousarray(image[:, :width]) for piece in pieces for image in piece]


def run(student: str, clip: list[Image], policy: KeyFramePolicy, reference: list[LabelMap]) -> tuple[int, float]:
    """Key frames made, and agreement with the reference."""
    outputs = Stream(load_student(student), key_frames=policy)(clip)
    frames = [
        (output.is_key_frame, (output.prediction == labels).mean())
        for output, labels in zip(outputs, reference, strict=True)
    ]
    return sum(is_key for is_key, _ in frames), float(np.mean([share for _, share in frames]))


def fixed_at(student: str, clip: list[Image], interval: int, reference: list[LabelMap]) -> float:
    """Agreement with a key frame every `interval` frames, mean over three phases."""
    phases = sorted({0, interval // 3, 2 * interval // 3})
    return float(np.mean([run(student, clip[p:], Fixed(interval), reference[p:])[1] for p in phases]))


def fixed_with(student: str, clip: list[Image], keys: int, reference: list[LabelMap]) -> float:
    """Agreement with `keys` key frames at fixed intervals, between those of the two nearest intervals."""
    shorter = len(clip) // keys
    more, fewer = (fixed_at(student, clip, interval, reference) for interval in (shorter, shorter + 1))
    weight = (keys / len(clip) - 1 / (shorter + 1)) / (1 / shorter - 1 / (shorter + 1))
    return weight * more + (1 - weight) * fewer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("student")
    parser.add_argument("teacher")
    parser.add_argument("--videos", nargs="+", required=True)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--drift", nargs="+", type=float, default=[0.03, 0.06])
    arguments = parser.parse_args()
    clips = {path.rsplit("/", 1)[-1]: frames_of(path, arguments.frames) for path in arguments.videos}
    if len(clips) > 1:
        clips["strung together"] = strung(list(clips.values()))
    print(
        "| clip | frames | policy | key frames | agreement, adaptive | fixed at equal cost |\n|---|---|---|---|---|---|"
    )
    for name, clip in track(clips.items(), "clips", total=len(clips)):
        reference = [output.prediction for output in Stream(load_student(arguments.teacher))(clip)]
        for drift in arguments.drift:
            keys, adaptive = run(arguments.student, clip, Adaptive(drift=drift), reference)
            fixed = fixed_with(arguments.student, clip, keys, reference)
            print(f"| {name} | {len(clip)} | drift {drift} | {keys} | {adaptive:.4f} | {fixed:.4f} |", flush=True)


if __name__ == "__main__":
    main()
