"""Frames a second through VideoReader and through bare PyAV with the same threads, side by side, as a Markdown table.

python benchmarks/reading.py VIDEO… [--rounds 5] [--num-threads 1]
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import av

from vidistill.data.video.reader import VideoReader


def read(path: Path, num_threads: int) -> int:
    num_frames = 0
    with VideoReader(path, num_threads=num_threads) as reader:
        for frame in reader:
            image = frame.image  # held until the next is there, as by any loop
            num_frames += len(image) > 0
    return num_frames


def read_bare(path: Path, num_threads: int) -> int:
    num_frames = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = num_threads
        stream.thread_type = "SLICE" if num_threads == 1 else "FRAME"
        for frame in container.decode(stream):
            image = frame.to_ndarray(format="rgb24", threads=num_threads)
            num_frames += len(image) > 0
    return num_frames


def seconds(run: Callable[[Path, int], int], path: Path, num_threads: int) -> float:
    start = time.perf_counter()
    run(path, num_threads)
    return time.perf_counter() - start


def row(path: Path, rounds: int, num_threads: int) -> str:
    num_frames = read(path, num_threads)
    assert num_frames == read_bare(path, num_threads)
    # In turns, so that whatever else the machine does falls on both; the ratio is taken within each turn.
    pairs = [(seconds(read, path, num_threads), seconds(read_bare, path, num_threads)) for _ in range(rounds)]
    ours, bare = (num_frames / statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    with VideoReader(path) as reader:
        size = f"{reader.width}x{reader.height}"
    return f"| {path.name} | {size} | {num_frames} | {num_threads} | {ours:.0f} | {bare:.0f} | {ratio:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num-threads", type=int, default=1)
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}; PyAV {av.__version__}; ", end="")
    print(f"medians of {args.rounds} rounds\n")
    print("| video | size | frames | threads | VideoReader, frames/s | PyAV, frames/s | time, VideoReader / PyAV |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for path in args.videos:
        print(row(path, args.rounds, args.num_threads), flush=True)


if __name__ == "__main__":
    main()
