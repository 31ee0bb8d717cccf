"""Videos as they come: damaged, joined, without an index, of several streams, with odd names, colours and times."""

import os
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from tests.data.video.test_video import (
    CLOSED,
    COUNT,
    HEIGHT,
    PATCHES,
    WIDTH,
    coded,
    encode,
    number,
    packets,
    video_stream,
    write_yuv,
)
from vidistill.data.datasets.videos import videos
from vidistill.data.sequences.videos import OpenReaders, VideoSequence
from vidistill.data.video import VideoReader, VideoWriter, probe, verify
from vidistill.data.video.damage import MOST_LISTED, DamageReport
from vidistill.data.video.sound import Sound
from vidistill.errors import UserError

IMAGES = [coded(index) for index in range(COUNT)]
IN_ORDER = {"bf": "0", "g": "10", "x264-params": "scenecut=0"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    encode(folder / "closed.mp4", IMAGES, options=CLOSED)
    encode(folder / "in_order.ts", IMAGES, options=IN_ORDER)
    encode(folder / "in_order.flv", IMAGES, options=IN_ORDER)
    return folder


def read(path: Path) -> tuple[list[int], list[int], DamageReport]:
    """What damage="skip" gives: the numbers in the pictures, the indices of those after a loss, and the report."""
    with VideoReader(path, damage="skip") as reader:
        frames = list(reader)
        assert [frame.index for frame in frames] == list(range(len(frames)))
        return [number(f.image) for f in frames], [f.index for f in frames if f.after_loss], reader.damage


# Two policies


def test_what_is_whole_is_skipped_nothing_of(folder: Path) -> None:
    assert read(folder / "closed.mp4") == (list(range(COUNT)), [], DamageReport())


def test_a_frame_that_does_not_decode_is_counted(folder: Path, tmp_path: Path) -> None:
    """The packets of zeros are key frames, so that the frames after them refer to an earlier one."""
    data = bytearray((folder / "closed.mp4").read_bytes())
    packet = packets(folder / "closed.mp4")[13]
    start = data.index(bytes(packet))
    data[start : start + packet.size] = bytes(packet.size)
    path = tmp_path / "zeros.mp4"
    path.write_bytes(data)
    lost = sorted(p.pts for p in packets(folder / "closed.mp4")).index(packet.pts)
    numbers, after, report = read(path)
    assert len(numbers) == COUNT - 1
    assert numbers[:lost] == list(range(lost))
    assert numbers[27:] == list(range(28, COUNT))
    assert after == [next(i for i in after)]
    assert report.count == 1
    assert report.first[0][0] == pytest.approx(lost / 25)
    assert "1 damaged place was left out (not decodable" in report.sentence(path)
    with VideoReader(path, damage="skip") as reader, pytest.raises(UserError, match="in order only"):
        reader[0]


def without_a_packet(path: Path, place: int) -> bytes:
    """A transport stream without one of the packets that hold frame number `place` (its last one)."""
    data = path.read_bytes()
    ends = [packet.pos for packet in packets(path)]
    at = max(
        at
        for at in range(ends[place], ends[place + 1], 188)
        if (data[at + 1] & 0x1F) << 8 | data[at + 2] == 256 and not data[at + 1] & 0x40
    )
    return data[:at] + data[at + 188 :]


@pytest.mark.parametrize("piped", [False, True])
def test_a_lost_packet_of_a_transport_stream(folder: Path, tmp_path: Path, piped: bool) -> None:
    key = 20
    path = tmp_path / "lossy.ts"
    data = without_a_packet(folder / "in_order.ts", key)
    feed = threading.Thread(target=path.write_bytes, args=(data,))
    if piped:
        os.mkfifo(path)
    feed.start()
    if not piped:
        feed.join()
    numbers, after, report = read(path)
    feed.join()
    assert numbers[:key] == list(range(key))
    assert len(numbers) == COUNT - 1
    assert after == [key]
    assert (report.count, report.first[0][1]) == (1, "lost data")
    if not piped:
        assert "breaks off after frame 19" in (verify(path) or "")


def test_joined_transport_streams_lose_nothing(folder: Path, tmp_path: Path) -> None:
    """The second one's counters, and those of its tables, begin anew; its times go on."""
    second = encode(tmp_path / "second.ts", IMAGES, options=IN_ORDER, pts=list(range(COUNT, 2 * COUNT)))
    path = tmp_path / "joined.ts"
    path.write_bytes((folder / "in_order.ts").read_bytes() + second.read_bytes())
    assert any(packet.is_corrupt for packet in packets(path))
    assert read(path) == ([*range(COUNT), *range(COUNT)], [], DamageReport())
    assert verify(path) is None


def test_a_frame_lost_before_a_key_frame_is_not_taken_for_a_join(folder: Path, tmp_path: Path) -> None:
    at = packets(folder / "in_order.ts")[19].pos
    data = (folder / "in_order.ts").read_bytes()
    (tmp_path / "lossy.ts").write_bytes(data[:at] + data[at + 188 :])
    assert "breaks off after frame 17" in (verify(tmp_path / "lossy.ts") or "")  # 18 may be hurt: libav marks it


def test_counters_that_never_count_lose_nothing(folder: Path, tmp_path: Path) -> None:
    data = bytearray((folder / "in_order.ts").read_bytes())
    data[3::188] = bytes(byte & 0xF0 for byte in data[3::188])
    (tmp_path / "still.ts").write_bytes(data)
    assert verify(tmp_path / "still.ts") is None


@pytest.mark.parametrize("name", ["in_order.ts", "in_order.flv"])
def test_a_file_cut_off_within_a_packet_is_told(folder: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes((folder / name).read_bytes()[:-50])
    assert "breaks off" in (verify(path) or "")
    numbers, _, report = read(path)
    assert numbers[:30] == list(range(30))
    assert report.count


def test_nothing_that_decodes_is_an_error(folder: Path, tmp_path: Path) -> None:
    found = packets(folder / "in_order.flv")
    data = bytearray((folder / "in_order.flv").read_bytes())
    for packet in found:
        start = data.index(bytes(packet))
        data[start : start + packet.size] = bytes(packet.size)
    (tmp_path / "none.flv").write_bytes(data)
    with pytest.raises(UserError, match="first frame"):
        VideoReader(tmp_path / "none.flv", damage="skip")


def test_a_bad_image_of_a_folder_is_left_out(tmp_path: Path) -> None:
    for index in range(4):
        Image.fromarray(coded(index)).save(tmp_path / f"{index}.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    numbers, after, report = read(tmp_path)
    assert (numbers, after, report.count) == ([0, 1, 3], [2], 1)


def test_a_report_is_bounded() -> None:
    report = DamageReport()
    for index in range(1000):
        report.add(float(index), "lost data")
    assert (report.count, len(report.first)) == (1000, MOST_LISTED)


# Numbers and times


def test_frames_of_a_program_stream_by_number(tmp_path: Path) -> None:
    """Its packets do not begin where frames begin, and a seek guesses times: it is used only where it guessed right."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 96, 128, 3), np.uint8)
    images = [np.where(np.arange(128)[:, None] < 60 + index, noise[index % 8], index) for index in range(50)]
    images = [image.astype(np.uint8) for image in images]
    path = encode(tmp_path / "a.mpg", images, "mpeg2video", options={"bf": "2", "g": "15", "b": "1M"})
    with VideoReader(path) as reader:
        in_order = [frame.image for frame in reader]
    with VideoReader(path) as reader:
        for index in [*range(len(in_order) - 1, -1, -2), 40, 3, 49, 20]:
            np.testing.assert_array_equal(reader[index].image, in_order[index])


def test_times_in_avi_with_reordered_frames(tmp_path: Path) -> None:
    """AVI stores decoding times only. A gap stays where it is."""
    pts = [index + 20 * (index > 12) for index in range(COUNT)]
    path = encode(tmp_path / "gap.avi", IMAGES, options=CLOSED, pts=pts)
    for num_threads in (1, 2):
        with VideoReader(path, num_threads=num_threads) as reader:
            frames = list(reader)
            assert [number(frame.image) for frame in frames] == list(range(COUNT))
            np.testing.assert_allclose([frame.pts_seconds for frame in frames[:-4]], np.array(pts[:-4]) / 25)


# Streams, names, colours


def two_streams(path: Path, default: int) -> Path:
    with av.open(str(path), "w") as container:
        for place, size in enumerate((32, 64)):
            stream = video_stream(container, "mpeg4", width=size, height=48, pix_fmt="yuv420p")
            stream.disposition = Disposition.default if place == default else Disposition(0)
        for index in range(5):
            for stream in container.streams.video:
                frame = av.VideoFrame.from_ndarray(np.zeros((48, stream.codec_context.width, 3), np.uint8), "rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame.reformat(format="yuv420p")))
        for stream in container.streams.video:
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("default", [0, 1])
def test_the_default_stream_is_read_and_named(tmp_path: Path, default: int) -> None:
    path = two_streams(tmp_path / "two.mkv", default)
    info = probe(path)
    assert (info.width, info.stream, info.num_video_streams) == ((32, 64)[default], default, 2)
    (note,) = VideoSequence("two", path, None, OpenReaders()).notes()
    assert f"has 2 video streams; stream {default} is read" in note


@pytest.mark.parametrize("name", ["12:30.mp4", "-i.mp4", "%03d.mp4", "a|b.mp4", "concat:a.mp4", "pipe:0"])
def test_a_relative_name_is_not_a_protocol(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes((folder / "closed.mp4").read_bytes())
    assert probe(name).num_frames == COUNT
    Sound(name).__exit__(None, None, None)


@pytest.mark.parametrize("name", ["a\0b.mp4", "x" * 300 + ".mp4"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    for call in (VideoReader, videos):
        with pytest.raises(UserError, match="not found"):
            call(str(tmp_path / name))


def test_a_title_in_latin_1(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        container.metadata["title"] = "STRASZE"
        stream = video_stream(container, "mpeg4", width=WIDTH, height=HEIGHT, pix_fmt="yuv420p")
        container.mux(stream.encode(av.VideoFrame(WIDTH, HEIGHT, "yuv420p")))
        container.mux(stream.encode(None))
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(data.replace(b"STRASZE", b"STRA\xdfEN"))
    assert probe(tmp_path / "a.mkv").num_frames == 1
    with (
        Sound(tmp_path / "a.mkv") as sound,
        VideoWriter(tmp_path / "b.mkv", fps=25, sound=sound) as writer,
    ):
        writer.write(coded(0))


@pytest.mark.parametrize(
    ("matrix", "name"), [(8, "YCgCo"), (10, "BT.2020 constant luminance"), (14, "ICtCp"), (12, "number 12 of H.273")]
)
def test_other_colour_matrices_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, matrix: int, name: str
) -> None:
    monkeypatch.setitem(write_yuv.__globals__["AVCOL_SPC"], "601", matrix)
    rgb = PATCHES.repeat(32, 0).repeat(32, 1)
    write_yuv(tmp_path / "c.mkv", rgb, matrix="601", full=False, stated=True, bits=8)
    assert f"its colour matrix, {name}, is not supported" in (verify(tmp_path / "c.mkv") or "")
    with pytest.raises(UserError, match="not supported"):
        VideoReader(tmp_path / "c.mkv", damage="skip")


def test_videos_are_found_by_many_suffixes_and_the_rest_is_noted(tmp_path: Path) -> None:
    names = ["A.MTS", "b.m2ts", "c.vob", "d.3GP", "e.ogv", "f.y4m", "g.mxf", "h.gif", "i.h264", "j.hevc", "k.ivf"]
    for name in [*names, "notes.txt", "subtitles.SRT"]:
        (tmp_path / name).write_bytes(b"-")
    found = videos(tmp_path)
    assert [sequence.name for sequence in found.sequences] == names
    assert found.notes == (f"{tmp_path}: 2 files are not read, they are not named as videos (.srt, .txt)",)
