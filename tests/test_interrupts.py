"""Stops: what a signal raises, when, and what streams leave behind."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.command_line import run
from tests.networks import TinySegmenter
from vidistill.data.video.reader import VideoReader
from vidistill.data.video.writer import VideoWriter
from vidistill.errors import UserError
from vidistill.interrupts import Stopped, uninterrupted
from vidistill.interrupts import raise_signals as raise_them
from vidistill.stream.record import AHEAD, in_background, record
from vidistill.stream.stream import Stream
from vidistill.students.card import Card
from vidistill.students.student import PerFrame
from vidistill.tasks.segmentation import Segmentation


@pytest.fixture
def raise_signals():
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    raise_them()
    yield
    for number, handler in earlier.items():
        signal.signal(number, handler)


def stream() -> Stream:
    return Stream(PerFrame(TinySegmenter(3).eval(), Card(task=Segmentation(num_classes=3))))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    with VideoWriter(tmp_path / "clip.mkv", fps=10) as writer:
        for level in range(12):
            writer.write(np.full((32, 48, 3), 20 * level, np.uint8))
    return tmp_path / "clip.mkv"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_raise_at_once_or_at_the_end_of_a_block(raise_signals, number: int) -> None:
    with pytest.raises(KeyboardInterrupt) as stopped:
        signal.raise_signal(number)
    assert isinstance(stopped.value, Stopped)
    assert stopped.value.number == number
    reached = []
    with pytest.raises(Stopped, match="halfway"), uninterrupted() as stop:  # noqa: PT012 - the order is what is tested
        with uninterrupted():
            signal.raise_signal(number)
        reached.append(stop.is_asked)
        stop.kept = "halfway"
    assert reached == [True], "an inner block waits for the outer one"


def test_what_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    others = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        raise_them()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        for number, handler in {signal.SIGHUP: earlier, **others}.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("out", ["out.mp4", "out.jsonl", "masks"])
def test_a_silent_camera_can_be_stopped(raise_signals, tmp_path: Path, out: str) -> None:
    """The pipe gives frames and then nothing, without an end; what came is written, and the file is whole."""
    os.mkfifo(tmp_path / "camera")
    noise = np.random.default_rng(0)  # more than libav reads ahead
    with VideoWriter(tmp_path / "clip.mkv", fps=10, crf=5) as writer:
        for _ in range(12):
            writer.write(noise.integers(0, 256, (64, 96, 3), dtype=np.uint8))

    def feed() -> None:
        with open(tmp_path / "camera", "wb") as pipe:
            pipe.write((tmp_path / "clip.mkv").read_bytes())
            pipe.flush()
            released.wait(20)

    def interrupt() -> None:
        has_results.wait(20)
        os.kill(os.getpid(), signal.SIGTERM)

    released, has_results, one = threading.Event(), threading.Event(), stream()
    threads = [threading.Thread(target=target, daemon=True) for target in (feed, interrupt)]
    push = one.push

    def counting(*given, **named):
        if one.index == 3:  # three frames have results
            has_results.set()
        return push(*given, **named)

    one.push = counting  # type: ignore[method-assign]
    for thread in threads:
        thread.start()
    with pytest.raises(Stopped, match=r"stopped; .* holds the results of \d+ frames") as stopped:
        record(str(tmp_path / "camera"), one, str(tmp_path / out))
    released.set()
    assert stopped.value.number == signal.SIGTERM
    if out == "out.jsonl":
        lines = [json.loads(line) for line in (tmp_path / out).read_text().splitlines()]
        found = [line["index"] for line in lines]
    elif out == "masks":
        found = [int(file.stem) for file in sorted((tmp_path / out).iterdir())]
    else:
        with VideoReader(tmp_path / out) as reader:
            found = [frame.index for frame in reader]
    assert len(found) >= 3
    assert found == list(range(len(found)))
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_a_camera_that_never_begins_can_be_stopped(raise_signals, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "camera")
    released = threading.Event()

    def open_and_interrupt() -> None:
        with open(tmp_path / "camera", "wb"):  # waits until the reader has opened it, too
            os.kill(os.getpid(), signal.SIGINT)
            released.wait(20)

    threading.Thread(target=open_and_interrupt, daemon=True).start()
    with pytest.raises(Stopped):
        record(str(tmp_path / "camera"), stream(), str(tmp_path / "out.jsonl"))
    released.set()
    assert not (tmp_path / "out.jsonl").exists()


def test_json_lines_are_read_while_they_grow(clip: Path, tmp_path: Path) -> None:
    """And an earlier file stays until the first line is there. The network is AHEAD + 2 results ahead at most."""
    out, seen, one = tmp_path / "out.jsonl", [], stream()
    out.write_text("earlier")
    push = one.push

    def looking(*given, **named):
        seen.append(out.read_text().count("\n") if out.read_text() != "earlier" else "earlier")
        return push(*given, **named)

    one.push = looking  # type: ignore[method-assign]
    record(str(clip), one, str(out))
    assert seen[0] == "earlier"
    lines = [0 if number == "earlier" else number for number in seen]
    assert lines == sorted(lines)
    assert all(frame - AHEAD - 2 <= number <= frame for frame, number in enumerate(lines))
    assert len(out.read_text().splitlines()) == 12


def test_a_failing_network_keeps_what_came_before(clip: Path, tmp_path: Path) -> None:
    one, push = stream(), Stream.push

    def fails(*given, **named):
        if one.index == 5:
            raise RuntimeError("out of memory")
        return push(one, *given, **named)

    one.push = fails  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="out of memory"):
        record(str(clip), one, str(tmp_path / "out.mp4"))
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert reader.num_frames == 5


def test_nothing_before_the_first_result_replaces_nothing(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("earlier")
    one = stream()

    def fails(*given, **named):
        raise UserError("it does not run here")

    one.push = fails  # type: ignore[method-assign]
    with pytest.raises(UserError, match="it does not run here"):
        record(str(clip), one, str(tmp_path / "out.jsonl"))
    assert (tmp_path / "out.jsonl").read_text() == "earlier"


def test_items_in_the_background_are_the_same_and_so_are_their_errors() -> None:
    def items():
        yield from range(5)
        raise ValueError("the end")

    found = []
    with pytest.raises(ValueError, match="the end"):
        found.extend(iter_into(found, in_background(items())))
    assert found == [0, 1, 2, 3, 4]


def iter_into(found: list, items) -> list:
    for item in items:
        found.append(item)
    return []


def test_drawn_results_keep_the_frames_times(tmp_path: Path) -> None:
    """Of a camera whose rate changes; in avi at the nearest 1/25 s."""
    times = [0, 0.04, 0.2, 0.24, 0.28, 0.68, 0.72]
    with VideoWriter(tmp_path / "in.mkv", fps=25) as writer:
        for i, time_ in enumerate(times):
            writer.write(np.full((32, 48, 3), 30 * i, np.uint8), time_)
    for name, within in (("out.mp4", 1e-3), ("out.mkv", 2e-3), ("out.webm", 2e-3)):
        record(str(tmp_path / "in.mkv"), stream(), str(tmp_path / name))
        with VideoReader(tmp_path / name) as reader:
            assert [frame.pts_seconds for frame in reader] == pytest.approx(times, abs=within)
    with VideoWriter(tmp_path / "out.avi", fps=25) as writer:
        for i, time_ in enumerate(times):
            writer.write(np.full((32, 48, 3), 30 * i, np.uint8), 5 + time_)
    import av

    with av.open(str(tmp_path / "out.avi")) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        assert [float(p.dts * p.time_base) for p in packets] == pytest.approx(times, abs=1e-6)


@pytest.mark.parametrize("link", ["same", "symbolic", "hard", "spelling", "address", "inside"])
def test_an_output_is_never_an_input(clip: Path, tmp_path: Path, monkeypatch, capsys, link: str) -> None:
    monkeypatch.chdir(tmp_path)
    before, video, out = clip.read_bytes(), str(clip), "other.mkv"
    if link == "same":
        out = str(clip)
    elif link == "symbolic":
        os.symlink(clip, out)
    elif link == "hard":
        os.link(clip, out)
    elif link == "spelling":
        (tmp_path / "folder").mkdir()
        out = "folder/../clip.mkv"
    elif link == "address":
        video, out = f"file://{clip}", str(clip)
    else:
        (tmp_path / "frames").mkdir()
        (tmp_path / "frames" / "1.png").write_bytes(b"")
        video, out = "frames", "frames/out.mp4"
    assert run("stream", "student.safetensors", video, "--out", out) == 1
    assert "an input" in capsys.readouterr().err
    assert clip.read_bytes() == before


def test_a_state_or_a_run_is_no_place_for_an_output(clip: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "student.safetensors").write_bytes(b"student")
    student, state = str(tmp_path / "run"), tmp_path / "run" / "student.safetensors"
    for arguments in (
        ["stream", student, str(clip), "--out", "-", "--save-state", str(state)],
        ["stream", student, str(clip), "--out", "-", "--save-state", str(clip)],
        ["export", student, "--out", student],
        ["demo", "--video", str(clip), "--out", str(tmp_path)],
        ["convert", f"videos,root={tmp_path / 'run'}", str(tmp_path / "run" / "new")],
    ):
        assert run(*arguments) == 1
        assert "input" in capsys.readouterr().err
    assert state.read_bytes() == b"student"


def test_a_terminated_program_says_so_and_leaves_no_part(tmp_path: Path) -> None:
    program = f"""
import os, signal, sys
from vidistill import cli
from vidistill.files import atomic_path
def verb(arguments):
    with atomic_path({str(tmp_path / "out")!r}):
        os.kill(os.getpid(), int(arguments[0]))
cli.app = verb
cli.main()
"""
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        done = subprocess.run([sys.executable, "-c", program, str(int(number))], capture_output=True, text=True)
        assert (done.returncode, done.stderr[:7]) == (code, "stopped")
        assert list(tmp_path.iterdir()) == []
    done = subprocess.run([sys.executable, "-c", program, str(int(signal.SIGKILL))], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    program = (
        f"from vidistill.files import atomic_path\nwith atomic_path({str(tmp_path / 'b')!r}) as p: p.write_text('')"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert [file.name for file in tmp_path.iterdir()] == ["b"], "the next write has swept it"
