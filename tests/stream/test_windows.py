"""Streams of a network that looks ahead: late outputs with the right frame, sound and times of a restored video."""

import os
import sys
import threading
import weakref
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from tests.networks import TinyWindows
from vidistill import cli
from vidistill.data.video.reader import Frame, VideoReader
from vidistill.errors import UserError
from vidistill.models.vespcn import vsrnet
from vidistill.ops.clip_view import WindowView
from vidistill.ops.normalise import Normalisation
from vidistill.runtimes.measure import PeakMemory
from vidistill.stream.sinks import Source, open_sink
from vidistill.stream.stream import Stream, load_state, save_state
from vidistill.students.card import Card
from vidistill.students.files import load_student, save_student
from vidistill.students.windows import LookAhead
from vidistill.tasks.super_resolution import SuperResolution

WINDOW = 5
TASK = SuperResolution(scale=2)
SOUND_TICKS = 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    card = Card(task=TASK, normalisation=Normalisation((0, 0, 0), (1, 1, 1)), view=WindowView(WINDOW))
    save_student(tmp_path / "student.safetensors", LookAhead(TinyWindows(window=WINDOW).eval(), card))
    return tmp_path / "student.safetensors"


def stream(path: Path, **options) -> Stream:
    return Stream(load_student(path, TinyWindows(window=WINDOW)), **options)


def images_of(num_frames: int, size: tuple[int, int] = (12, 17)) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (num_frames, *size, 3), dtype=np.uint8))


def of_windows(path: Path, images: list[np.ndarray]) -> list[np.ndarray]:
    """What the network makes of each window, one by one."""
    network = load_student(path, TinyWindows(window=WINDOW)).network
    frames = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    found = []
    for i in range(len(images)):
        around = [min(max(i + k, 0), len(images) - 1) for k in range(-(WINDOW // 2), WINDOW // 2 + 1)]
        with torch.no_grad():
            found.append(TASK.decode(network(frames[around][None]), size=(0, 0))[0].numpy())
    return found


def assert_alike(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for pixels on the edge between two levels."""
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert np.mean(found != expected) < 0.01


@pytest.mark.parametrize("num_frames", [1, 2, 3, 8])
def test_every_frame_has_its_own_output_and_time(path, num_frames: int) -> None:
    images = images_of(num_frames)
    outputs = list(stream(path)(Frame(i, 0.5 * i, image) for i, image in enumerate(images)))
    assert [output.index for output in outputs] == list(range(num_frames))
    assert [output.pts_seconds for output in outputs] == [0.5 * i for i in range(num_frames)]
    for output, image, expected in zip(outputs, images, of_windows(path, images), strict=True):
        assert np.array_equal(output.image, image)
        assert_alike(output.prediction, expected)


def test_a_height_is_refused(path) -> None:
    with pytest.raises(UserError, match="height: a student of super_resolution gets its frames as they are"):
        stream(path, height=6)


def test_outputs_come_late(path) -> None:
    running = stream(path)
    assert [len(running.push(image)) for image in images_of(4)] == [0, 0, 1, 1]
    assert len(running.flush()) == 2
    assert running.flush() == []


@pytest.mark.parametrize("cut", [1, 2, 3, 6])
def test_cut_in_two_and_resumed_gives_the_same_frames(path, tmp_path, cut: int) -> None:
    frames = [Frame(i, 0.1 * i, image) for i, image in enumerate(images_of(7))]
    whole = list(stream(path)(frames))
    first = stream(path)
    found = list(first(frames[:cut], ends=False))
    save_state(first, tmp_path / "state.safetensors")
    second = stream(path)
    load_state(second, tmp_path / "state.safetensors")
    found += list(second(frames[cut:]))
    for output, expected in zip(found, whole, strict=True):
        assert (output.index, output.pts_seconds) == (expected.index, expected.pts_seconds)
        assert np.array_equal(output.image, expected.image)
        assert np.array_equal(output.prediction, expected.prediction)


@pytest.mark.parametrize("size", [None, (8, 10)], ids=["nothing more", "frames of another size"])
def test_frames_that_wait_in_a_saved_state_come_out(path, tmp_path, size) -> None:
    images = images_of(4)
    first = stream(path)
    outputs = list(first(images, ends=False))
    save_state(first, tmp_path / "state.safetensors")
    second = stream(path)
    load_state(second, tmp_path / "state.safetensors")
    later = [] if size is None else images_of(3, size=size)
    outputs += list(second(later))
    expected = of_windows(path, images) + (of_windows(path, later) if later else [])
    assert [output.index for output in outputs] == list(range(len(expected)))
    for output, image in zip(outputs, expected, strict=True):
        assert_alike(output.prediction, image)


def test_a_frame_of_another_size_ends_the_video_before_it(path) -> None:
    first, second = images_of(3), images_of(4, size=(8, 10))
    outputs = list(stream(path)([*first, *second]))
    assert [output.index for output in outputs] == list(range(7))
    for output, expected in zip(outputs, of_windows(path, first) + of_windows(path, second), strict=True):
        assert_alike(output.prediction, expected)


def test_a_window_of_one_frame_takes_frames_of_any_size(tmp_path) -> None:
    one = LookAhead(TinyWindows(window=1), Card(task=TASK, view=WindowView(1)))
    save_student(tmp_path / "one.safetensors", one)
    running = Stream(load_student(tmp_path / "one.safetensors", TinyWindows(window=1)))
    frames = [*images_of(2), *images_of(2, size=(8, 10))]
    assert [output.prediction.shape for output in running(frames)] == [(24, 34, 3)] * 2 + [(16, 20, 3)] * 2


def test_late_outputs_are_told_like_the_others(path, monkeypatch) -> None:
    """Each took the time of one run of the network, here 10 ms of a clock that nothing else moves."""
    running, clock = stream(path), [0.0]
    monkeypatch.setattr("vidistill.stream.stream.perf_counter", lambda: clock[0])
    running.student.network.register_forward_hook(lambda *_: clock.append(clock.pop() + 0.01))
    outputs = list(running(images_of(6)))
    assert [output.is_key_frame for output in outputs] == [True] * 6
    assert [output.milliseconds for output in outputs[1:]] == pytest.approx([10.0] * 5)


def test_ten_times_as_long_takes_no_more_memory(path) -> None:
    images = images_of(4)

    def peak(num_frames: int) -> int:
        with PeakMemory() as memory:
            for _ in stream(path)(images[i % 4] for i in range(num_frames)):
                pass
        return memory.peak

    peak(8)
    assert peak(60) <= 1.05 * peak(6)


def test_ten_times_as_long_keeps_no_more_images(path) -> None:
    """Frames are numpy's, of which torch knows nothing: each is new here, and gone once nothing refers to it."""
    kept: list[weakref.ref[np.ndarray]] = []
    running = stream(path)
    for image in images_of(60):
        kept.append(weakref.ref(fresh := image.copy()))
        running.push(fresh)
        del fresh
        assert sum(reference() is not None for reference in kept) <= WINDOW // 2 + 1
    assert len(running.flush()) == WINDOW // 2
    assert all(reference() is None for reference in kept)


def write_video(path: Path, milliseconds: list[int], *, sound: str = "aac") -> None:
    """A moving bar at uneven times, with a tone."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 34, 26, "yuv420p10le"
        video.codec_context.time_base = Fraction(1, SOUND_TICKS)
        audio = output.add_stream(sound, rate=44100)
        for i, time in enumerate(milliseconds):
            image = np.full((26, 34, 3), 40, np.uint8)
            image[:, i : i + 6] = 200
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p10le")
            frame.pts, frame.time_base = time, Fraction(1, SOUND_TICKS)
            output.mux(video.encode(frame))
        tone = np.sin(np.arange(20000) * 0.05).astype(np.float32)[None]
        samples = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        samples.sample_rate, samples.pts = 44100, 0
        for packet in [*audio.encode(samples), *audio.encode(None)]:
            output.mux(packet)
        output.mux(video.encode(None))


def sound_of(path: Path) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.audio[0])
        return [(float(packet.pts * packet.time_base), bytes(packet)) for packet in packets if packet.size]


def restore(path: Path, video: Path, out: Path) -> None:
    running = stream(path)
    with VideoReader(video) as reader:
        source = Source(fps=reader.fps, path=str(video), pixel_aspect=reader.pixel_aspect)
        with open_sink(str(out), running.student, source) as sink:
            for output in running(reader):
                sink.write(output)


def test_a_restored_video_keeps_its_times_and_its_sound(path, tmp_path) -> None:
    times = [0, 40, 80, 200, 240, 333, 360]
    write_video(tmp_path / "in.mp4", times)
    restore(path, tmp_path / "in.mp4", tmp_path / "out.mp4")
    with VideoReader(tmp_path / "out.mp4") as reader:
        frames = list(reader)
        assert (reader.width, reader.height) == (68, 52)
    assert [frame.pts_seconds for frame in frames] == pytest.approx([t / 1000 for t in times], abs=1e-4)
    before, after = sound_of(tmp_path / "in.mp4"), sound_of(tmp_path / "out.mp4")
    assert [data for _, data in after] == [data for _, data in before]
    assert [t for t, _ in after] == pytest.approx([t for t, _ in before], abs=1e-3)


def own_student(folder: Path) -> Path:
    """One that the command line can load."""
    options = {"scale": 2, "window": 5, "channels": 4, "feature_channels": 4}
    card = Card(network={"name": "vsrnet", "options": options}, task=TASK, view=WindowView(5))
    save_student(folder / "vsrnet.safetensors", LookAhead(vsrnet(**options).eval(), card))
    return folder / "vsrnet.safetensors"


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["vidistill", "stream", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 0


def test_a_pipe_has_no_length(tmp_path, monkeypatch) -> None:
    write_video(tmp_path / "in.mkv", [0, 40, 80])
    os.mkfifo(tmp_path / "pipe")
    feed = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes((tmp_path / "in.mkv").read_bytes()))
    feed.start()
    command(monkeypatch, own_student(tmp_path), tmp_path / "pipe", "--out", tmp_path / "out.mkv")
    feed.join()
    with VideoReader(tmp_path / "out.mkv") as reader:
        assert reader.num_frames == 3


def test_after_a_cut_the_sound_begins_with_its_own_pictures(tmp_path, monkeypatch) -> None:
    """Two frames of the first part are still to come; the second part's are moved behind them, with their sound."""
    write_video(tmp_path / "first.mp4", list(range(0, 1000, 40)))
    write_video(tmp_path / "second.mp4", list(range(0, 400, 40)))
    student, state = own_student(tmp_path), tmp_path / "state.safetensors"
    command(monkeypatch, student, tmp_path / "first.mp4", "--out", tmp_path / "a.mp4", "--save-state", state)
    command(monkeypatch, student, tmp_path / "second.mp4", "--out", tmp_path / "b.mp4", "--load-state", state)
    with VideoReader(tmp_path / "b.mp4") as reader:
        assert [frame.pts_seconds for frame in reader] == pytest.approx([0.92 + 0.04 * i for i in range(12)], abs=1e-3)
    before, after = sound_of(tmp_path / "second.mp4"), sound_of(tmp_path / "b.mp4")
    assert [data for _, data in after] == [data for _, data in before]
    assert [t for t, _ in after] == pytest.approx([t + 1.0 for t, _ in before], abs=1e-3)


def test_where_pictures_are_moved_to_0_sound_is_moved_too(path, tmp_path) -> None:
    """AVI's pictures begin at 0: of sound that begins 0.2 s before them, the first 0.2 s are left out."""
    write_video(tmp_path / "in.mkv", [200, 240, 280, 320, 360], sound="mp3")
    restore(path, tmp_path / "in.mkv", tmp_path / "out.avi")
    before, after = sound_of(tmp_path / "in.mkv"), sound_of(tmp_path / "out.avi")
    kept = [(t - 0.2, data) for t, data in before if t >= 0.2]
    assert 0 < len(kept) < len(before)
    assert [data for _, data in after] == [data for _, data in kept]
    assert [t for t, _ in after] == pytest.approx([t for t, _ in kept], abs=0.03), "to a packet of mp3"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_restored_video_keeps_the_shape_of_its_pixels(path, tmp_path, suffix: str) -> None:
    with av.open(str(tmp_path / "in.mp4"), "w") as output:
        video = output.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 34, 26, "yuv420p"
        video.codec_context.sample_aspect_ratio = Fraction(16, 11)
        for _ in range(3):
            output.mux(video.encode(av.VideoFrame(34, 26, "yuv420p")))
        output.mux(video.encode(None))
    restore(path, tmp_path / "in.mp4", tmp_path / f"out{suffix}")
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(16, 11)


def test_a_folder_of_frames(path, tmp_path) -> None:
    write_video(tmp_path / "in.mp4", [0, 40, 80])
    restore(path, tmp_path / "in.mp4", tmp_path / "frames")
    files = sorted((tmp_path / "frames").iterdir())
    assert [file.name for file in files] == ["00000000.png", "00000001.png", "00000002.png"]
    with PillowImage.open(files[0]) as image:
        assert (image.size, image.mode) == ((68, 52), "RGB")


def test_sound_that_the_file_cannot_hold(path, tmp_path) -> None:
    write_video(tmp_path / "in.mp4", [0, 40, 80])
    with pytest.raises(UserError, match=r"out\.webm: cannot hold the sound of .*in\.mp4 \(aac\); write an \.mkv file"):
        restore(path, tmp_path / "in.mp4", tmp_path / "out.webm")
    assert not (tmp_path / "out.webm").exists()
