"""Reading and writing video, against frames that carry their own number and colours worked out by formula."""

import functools
import http.server
import itertools
import os
import resource
import threading
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.container import OutputContainer
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vidistill.data.video.reader import VideoReader, probe, verify
from vidistill.data.video.writer import VideoWriter
from vidistill.errors import UserError

HEIGHT, WIDTH, COUNT = 48, 64, 40
TEXTURE = np.random.default_rng(0).integers(0, 255, (3, 40, 3), np.uint8).repeat(8, 0).repeat(8, 1)


def coded(index: int) -> np.ndarray:
    """A picture that says its number in eight bars, over a moving texture so that encoders use B-frames."""
    bars = np.array([255 * (index >> bit & 1) for bit in range(8)], np.uint8).repeat(WIDTH // 8)
    top = np.broadcast_to(bars[None, :, None], (HEIGHT // 2, WIDTH, 3))
    return np.concatenate([top, TEXTURE[:, 3 * index : 3 * index + WIDTH]])


def number(image: np.ndarray) -> int:
    bars = image[4 : HEIGHT // 2 - 4].reshape(-1, 8, WIDTH // 8, 3)[:, :, 2:-2].mean(axis=(0, 2, 3))
    return sum(1 << bit for bit in range(8) if bars[bit] > 127)


def video_stream(container: OutputContainer, codec: str, **settings: Any) -> VideoStream:
    stream = container.add_stream(codec, rate=25, **settings)
    assert isinstance(stream, VideoStream)
    return stream


def encode(
    path: Path,
    images: list[np.ndarray],
    codec: str = "libx264",
    *,
    pts: list[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    mux: dict[str, str] | None = None,
    rotation: tuple[float, bool] | None = None,
    pixel_aspect: Fraction = Fraction(1),
) -> Path:
    """A clip made with PyAV alone."""
    with av.open(str(path), "w", container_options=mux or {}) as container:
        height, width = images[0].shape[:2]
        stream = video_stream(container, codec, width=width, height=height, pix_fmt=pix_fmt, options=options)
        stream.codec_context.time_base = time_base
        stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation:
            stream.set_display_rotation(rotation[0], hflip=rotation[1])
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = pts[index] if pts else index, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


CLOSED = {"bf": "3", "g": "10", "x264-params": "b-adapt=0:scenecut=0"}
OPEN = {"bf": "3", "g": "10", "x264-params": "b-adapt=0:scenecut=0:open-gop=1"}
ODD_PTS = [100 + 3 * index + index % 2 + 40 * (index > 20) for index in range(COUNT)]
CLIPS: dict[str, dict[str, Any]] = {
    "closed.mp4": {"options": CLOSED},
    "open.mp4": {"options": OPEN},
    "open.mkv": {"options": OPEN},
    "open.ts": {"options": OPEN},
    "uneven.mp4": {"options": OPEN, "pts": ODD_PTS, "time_base": Fraction(1, 75)},
    "uneven.mkv": {"options": CLOSED, "pts": ODD_PTS, "time_base": Fraction(1, 75)},
    "refreshed.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=12"}},
    "no_times.h264": {"options": CLOSED},
    "reordered.avi": {"options": CLOSED},
    "divx.avi": {"codec": "mpeg4", "options": {"bf": "2", "qmax": "4"}},
    "jpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "broadcast.mpg": {"codec": "mpeg2video", "options": {"bf": "2", "g": "9", "b": "4M"}},
    "interlaced.ts": {"codec": "mpeg2video", "options": {"flags": "+ildct+ilme", "bf": "2", "b": "4M"}},
    "early.webm": {"codec": "libvpx", "options": {"b": "2M"}},
    "web.webm": {"codec": "libvpx-vp9", "options": {"crf": "20", "b": "0", "g": "15", "cpu-used": "5"}},
    "lossless.mkv": {"codec": "ffv1", "pix_fmt": "bgr0"},
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    images = [coded(index) for index in range(COUNT)]
    for name, how in CLIPS.items():
        encode(folder / name, images, **how)
    return folder


def packets(path: Path) -> list[Any]:  # of av.Packet, whose times may be None, though not here
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def read_until_it_breaks(path: Path, num_threads: int = 1) -> tuple[int, str]:
    """How many frames come, each checked for its number, and the error that ends them."""
    seen = 0
    try:
        with VideoReader(path, num_threads=num_threads) as reader:
            for frame in reader:
                assert number(frame.image) == frame.index == seen
                seen += 1
    except UserError as error:
        return seen, str(error)
    raise AssertionError(f"no error in {seen} frames")


def error_of(path: Path | str) -> str:
    problem = verify(path)
    assert problem is not None
    assert "\n" not in problem
    return problem


# Order, number, time


@pytest.mark.parametrize("name", CLIPS)
def test_every_frame_comes_once_and_in_order(clips: Path, name: str) -> None:
    with VideoReader(clips / name) as reader:
        frames = list(reader)
        assert [number(frame.image) for frame in frames] == list(range(COUNT))
        assert [frame.index for frame in frames] == list(range(COUNT))
        assert (reader.num_frames, reader.width, reader.height) == (COUNT, WIDTH, HEIGHT)
        times = [frame.pts_seconds for frame in frames]
        assert times == [reader[index].pts_seconds for index in range(COUNT)]
    image = frames[0].image
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable
    if "pts" in CLIPS[name]:  # Matroska rounds to milliseconds
        np.testing.assert_allclose(times, np.array(ODD_PTS) / 75, atol=6e-4)
    else:
        np.testing.assert_allclose(np.diff(times), 1 / 25, atol=1e-9)
    assert verify(clips / name) is None


@pytest.fixture(scope="module", params=itertools.product(CLIPS, (1, 2)), ids=lambda p: f"{p[0]}-{p[1]}")
def opened(request: pytest.FixtureRequest, clips: Path) -> Iterator[tuple[VideoReader, list[np.ndarray]]]:
    name, num_threads = request.param
    with VideoReader(clips / name, num_threads=num_threads) as reader:
        yield reader, [frame.image for frame in VideoReader(clips / name)]


@settings(max_examples=20, deadline=None)
@given(indices=st.lists(st.integers(-COUNT, COUNT - 1), max_size=6))
def test_any_frames_equal_those_of_reading_in_order(
    opened: tuple[VideoReader, list[np.ndarray]], indices: list[int]
) -> None:
    reader, in_order = opened  # one reader for all examples, so that it starts from wherever the last one left it
    images = reader.frames_at(indices)
    assert images.shape == (len(indices), HEIGHT, WIDTH, 3)
    for index, image in zip(indices, images, strict=True):
        np.testing.assert_array_equal(image, in_order[index])


def test_frames_are_found_without_decoding_all_before_them(clips: Path) -> None:
    """Where packets carry true times and whole frames; elsewhere counting from the start is the one way to be exact."""
    counted = []
    for name in CLIPS:
        with VideoReader(clips / name) as reader:
            if reader._source.index.pts is None:
                counted.append(name)
    assert counted == ["no_times.h264", "reordered.avi", "divx.avi", "interlaced.ts"]


def test_an_index_out_of_range_is_an_index_error(clips: Path) -> None:
    with VideoReader(clips / "closed.mp4") as reader:
        for index in (COUNT, -COUNT - 1):
            with pytest.raises(IndexError, match="40 frames"):
                reader[index]


@pytest.mark.parametrize("name", ["uneven.mp4", "uneven.mkv"])
def test_frame_at_time_is_the_one_on_show(clips: Path, name: str) -> None:
    with VideoReader(clips / name) as reader:
        for index in range(COUNT):
            begin = ODD_PTS[index] / 75
            assert number(reader.frame_at_time(begin + 1e-3).image) == index
            assert number(reader.frame_at_time(begin - 1e-3).image) == max(index - 1, 0)
        assert reader.frame_at_time(-1).index == 0
        assert reader.frame_at_time(1e9).index == COUNT - 1
        begin = reader[7].pts_seconds
        assert reader.frame_at_time(begin).index == 7


def test_iterators_and_access_by_number_do_not_disturb_each_other(clips: Path) -> None:
    with VideoReader(clips / "open.mp4") as reader:
        one, two = iter(reader), iter(reader)
        seen = []
        for index in (3, 30, 11):
            seen += [number(next(one).image), number(reader[index].image)]
        assert seen == [0, 3, 1, 30, 2, 11]
        assert number(next(two).image) == 0
    assert number(next(one).image) == 3


def test_what_a_video_is(clips: Path) -> None:
    info = probe(clips / "uneven.mp4")
    assert (info.width, info.height, info.num_frames) == (WIDTH, HEIGHT, COUNT)
    assert (info.codec, info.pixel_format, info.rotation_degrees) == ("h264", "yuv420p", 0)
    # The last frame's duration is the muxer's guess.
    assert info.duration_seconds == pytest.approx((ODD_PTS[-1] - ODD_PTS[0]) / 75, abs=0.06)
    assert probe(clips / "closed.mp4").fps == 25
    assert probe(clips / "closed.mp4").duration_seconds == pytest.approx(COUNT / 25)


# Where a stream begins and ends


def test_a_path_may_lead_back_out_of_a_link(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "far" / "labels").mkdir(parents=True)
    (tmp_path / "labels").symlink_to(tmp_path / "far" / "labels")
    (tmp_path / "far" / "clip.mp4").symlink_to(next(clips.glob("*.mp4")))
    monkeypatch.chdir(tmp_path)
    with VideoReader("labels/../clip.mp4") as reader:
        assert reader.num_frames > 0


def test_frames_outside_the_edit_list_are_not_shown(clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "edited.mp4"
    with (
        av.open(str(clips / "open.mp4")) as source,
        av.open(str(path), "w", container_options={"avoid_negative_ts": "disabled"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = (packet.pts or 0) - 5 * 512, (packet.dts or 0) - 5 * 512
                packet.stream = stream
                target.mux(packet)
    with VideoReader(path) as reader:
        assert [number(frame.image) for frame in reader] == list(range(5, COUNT))
        assert reader.num_frames == COUNT - 5
        assert number(reader[-1].image) == COUNT - 1
        assert number(reader[0].image) == 5


def test_frames_that_are_only_referred_to_are_not_counted(clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "hidden.webm"
    data = bytearray((clips / "early.webm").read_bytes())
    data[data.index(bytes(packets(clips / "early.webm")[7]))] &= ~0x10  # VP8's show_frame
    path.write_bytes(data)
    with VideoReader(path) as reader:
        frames = list(reader)
        assert [number(frame.image) for frame in frames] == [index for index in range(COUNT) if index != 7]
        assert reader.num_frames == COUNT - 1
        np.testing.assert_array_equal(reader[20].image, frames[20].image)


@pytest.mark.parametrize("at", [1, 9, 14, 24])
def test_a_stream_joined_midway_begins_at_its_first_key_frame(clips: Path, tmp_path: Path, at: int) -> None:
    path = tmp_path / "joined.ts"
    found = packets(clips / "open.ts")
    path.write_bytes((clips / "open.ts").read_bytes()[found[at].pos :])
    key = next(packet for packet in found[at:] if packet.is_keyframe)
    first = sum(packet.pts < key.pts for packet in found)
    with VideoReader(path) as reader:
        frames = list(reader)
        assert [number(frame.image) for frame in frames] == list(range(first, COUNT))
        assert reader.num_frames == COUNT - first
        np.testing.assert_array_equal(reader[3].image, frames[3].image)


@pytest.mark.parametrize("name", ["open.ts", "open.mkv"])
def test_a_pipe_is_read_once(clips: Path, tmp_path: Path, name: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    feed = threading.Thread(target=lambda: pipe.write_bytes((clips / name).read_bytes()))
    feed.start()
    with VideoReader(pipe) as reader:
        assert reader.width == WIDTH
        assert [number(frame.image) for frame in reader] == list(range(COUNT))
        with pytest.raises(UserError, match="only once"):
            next(iter(reader))
        with pytest.raises(UserError, match="without a length"):
            reader[0]
    feed.join()


def test_a_url_is_read_like_a_file(clips: Path) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=clips)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with VideoReader(f"http://127.0.0.1:{server.server_port}/open.mkv") as reader:
            assert [number(frame.image) for frame in reader] == list(range(COUNT))
            assert number(reader[33].image) == 33
        assert "404" in error_of(f"http://127.0.0.1:{server.server_port}/none.mkv")
        server.shutdown()
        thread.join()


# Pixels


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_frames_come_upright(tmp_path: Path, turn: int, mirrored: bool) -> None:
    image = np.random.default_rng(1).integers(0, 256, (16, 24, 3), np.uint8)
    how: dict[str, Any] = {"codec": "libx264", "pix_fmt": "yuv444p", "options": {"qp": "0"}}
    stored = next(iter(VideoReader(encode(tmp_path / "stored.mp4", [image], **how)))).image
    path = encode(tmp_path / "turned.mp4", [image], rotation=(turn, mirrored), **how)
    with VideoReader(path) as reader:
        upright = np.rot90(stored, turn // 90)  # counter-clockwise, as in PyAV
        upright = upright[:, ::-1] if mirrored else upright
        np.testing.assert_array_equal(reader[0].image, upright)
        assert (reader.height, reader.width) == upright.shape[:2]
    if not mirrored:
        assert probe(path).rotation_degrees == -turn % 360


@pytest.mark.parametrize(("turn", "aspect"), [(0, "16/11"), (90, "11/16"), (180, "16/11"), (270, "11/16")])
def test_the_shape_of_pixels_turns_with_the_picture(tmp_path: Path, turn: int, aspect: str) -> None:
    how: dict[str, Any] = {"rotation": (turn, False), "pixel_aspect": Fraction(16, 11)}
    path = encode(tmp_path / "turned.mp4", [coded(0)], **how)
    assert probe(path).pixel_aspect == Fraction(aspect)


@pytest.mark.parametrize("size", [(1, 1), (33, 17), (2, 4321)])
def test_lossless_rgb_is_exact_at_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    images = list(np.random.default_rng(2).integers(0, 256, (3, *size, 3), np.uint8))
    with VideoReader(encode(tmp_path / "exact.mkv", images, "ffv1", pix_fmt="bgr0")) as reader:
        np.testing.assert_array_equal(reader.frames_at(range(3)), images)
        assert probe(reader.path).colour_range == "full"


def test_8k(tmp_path: Path) -> None:
    frame = av.VideoFrame(7680, 4320, "gray")
    frame.planes[0].update(b"\x5a" * frame.planes[0].buffer_size)
    frame.pts = 0
    with av.open(str(tmp_path / "8k.mkv"), "w") as container:
        fast = {"preset": "ultrafast"}
        stream = video_stream(container, "libx264", width=7680, height=4320, pix_fmt="gray", options=fast)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    image = read_one(tmp_path / "8k.mkv")
    assert image.shape == (4320, 7680, 3)
    np.testing.assert_array_equal(image[0, 0], image[-1, -1])


PATCHES = np.array(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[200, 120, 40], [30, 90, 160], [250, 250, 250]]], np.uint8
)
WEIGHTS = {"601": (0.299, 0.114), "709": (0.2126, 0.0722)}
AVCOL_SPC = {"601": 6, "709": 1, None: 2}


def yuv_of(rgb: np.ndarray, matrix: str, full: bool) -> tuple[np.ndarray, ...]:
    """8-bit Y, Cb, Cr by the definition in BT.601 and BT.709."""
    red, green, blue = np.moveaxis(rgb / 255.0, 2, 0)
    kr, kb = WEIGHTS[matrix]
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)
    return (255 * luma, 128 + 255 * cb, 128 + 255 * cr) if full else (16 + 219 * luma, 128 + 224 * cb, 128 + 224 * cr)


def write_yuv(path: Path, rgb: np.ndarray, *, matrix: str, full: bool, stated: bool, bits: int) -> None:
    deep = bits > 8
    frame = av.VideoFrame(rgb.shape[1], rgb.shape[0], "yuv420p10le" if deep else "yuv420p")
    for plane, values in zip(frame.planes, yuv_of(rgb, matrix, full), strict=True):
        values = values[:: rgb.shape[0] // plane.height, :: rgb.shape[1] // plane.width]
        rows = np.zeros((plane.height, plane.line_size // (1 + deep)), "<u2" if deep else "u1")
        rows[:, : plane.width] = np.clip(np.round(values * 2 ** (bits - 8)), 0, 2**bits - 1)
        plane.update(rows.tobytes())
    with av.open(str(path), "w") as container:
        codec, options = ("ffv1", {}) if deep else ("libx264", {"qp": "0"})
        stream = video_stream(
            container, codec, width=rgb.shape[1], height=rgb.shape[0], pix_fmt=frame.format.name, options=options
        )
        stream.codec_context.colorspace = AVCOL_SPC[matrix if stated else None]
        stream.codec_context.color_range = (2 if full else 1) if stated else 0
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize(
    ("matrix", "full", "stated", "height"),
    [
        ("601", False, True, 64),
        ("709", False, True, 64),
        ("601", True, True, 64),
        ("709", True, True, 64),
        ("601", False, True, 720),
        ("601", False, False, 64),
        ("709", False, False, 720),
    ],
)
def test_colours_follow_matrix_and_range(
    tmp_path: Path, matrix: str, full: bool, stated: bool, height: int, bits: int
) -> None:
    rgb = PATCHES.repeat(height // 2, 0).repeat(32, 1)
    write_yuv(tmp_path / "c.mkv", rgb, matrix=matrix, full=full, stated=stated, bits=bits)
    (frame,) = VideoReader(tmp_path / "c.mkv")
    middle = frame.image[height // 4 :: height // 2, 16::32]
    assert np.abs(middle.astype(int) - PATCHES).max() <= 4
    assert probe(tmp_path / "c.mkv").colour_range == ("full" if full else "limited")


def test_grey_stays_grey(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)[..., None].repeat(3, 2)
    np.testing.assert_array_equal(read_one(encode(tmp_path / "grey.mkv", [ramp], "ffv1", pix_fmt="gray")), ramp)


# Bad input


def test_no_video_is_told_apart(tmp_path: Path, clips: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("frame,label\n1,2\n" * 50)
    (tmp_path / "text.txt").write_text("frame,label\n1,2\n" * 50)
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(3).bytes(5000))
    (tmp_path / "cut.mp4").write_bytes((clips / "closed.mp4").read_bytes()[:-500])
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with av.open(str(tmp_path / "none.mp4"), "w") as container:
        container.add_stream("libx264", rate=25, width=WIDTH, height=HEIGHT)
        container.start_encoding()
    (tmp_path / "folder").mkdir()
    for name, says in {
        "missing.mp4": "video not found",
        "empty.mp4": "is empty",
        "text.mp4": "cannot be opened",
        "text.txt": "has no video stream, only text;",
        "noise.mp4": "cannot be opened",
        "cut.mp4": "cut off",
        "sound.mp4": "has no video stream, only audio;",
        "none.mp4": "it has no streams",
        "folder": "without frames",
    }.items():
        assert says in error_of(tmp_path / name)
        assert str(tmp_path / name) in error_of(tmp_path / name)


def test_the_name_does_not_matter(clips: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "a:b %03d.mp4"
    renamed.write_bytes((clips / "open.mkv").read_bytes())
    assert probe(renamed).num_frames == COUNT


@pytest.mark.parametrize("damaged", [0, 13, 25, COUNT - 1])
@pytest.mark.parametrize("name", ["closed.mp4", "open.mkv"])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_packet_of_zeros_is_named(clips: Path, tmp_path: Path, name: str, damaged: int, num_threads: int) -> None:
    found = packets(clips / name)
    data = bytearray((clips / name).read_bytes())
    start = data.index(bytes(found[damaged]))
    data[start : start + found[damaged].size] = bytes(found[damaged].size)
    path = tmp_path / name
    path.write_bytes(data)
    # Frames that refer to the damaged one may be shown before it.
    shown = sorted(packet.pts for packet in found).index(found[damaged].pts)
    seen, message = read_until_it_breaks(path, num_threads)
    assert seen <= shown
    assert (f"breaks off after frame {seen - 1} (" if seen else "breaks off at its first frame (") in message
    assert f"{seen} of {COUNT} frames" in message
    if damaged == 13:
        with VideoReader(path, num_threads=num_threads) as reader:
            assert number(reader[35].image) == 35  # after the next key frame all is well
            with pytest.raises(UserError, match="breaks"):
                reader[shown]
            assert number(reader[5].image) == 5


@pytest.fixture(scope="module")
def at_front(clips: Path) -> Path:
    """A directory of copies that keep their index at the front, so that they open however short they are cut."""
    images = [coded(index) for index in range(COUNT)]
    encode(clips / "front.mp4", images, options=CLOSED, mux={"movflags": "faststart"})
    return clips


@pytest.mark.parametrize("inside", [True, False], ids=["inside a packet", "between packets"])
@pytest.mark.parametrize("kept", [2, 17, 36])
@pytest.mark.parametrize("name", ["front.mp4", "open.mkv", "web.webm", "jpeg.avi"])
def test_a_file_cut_short_says_after_which_frame(
    at_front: Path, tmp_path: Path, name: str, kept: int, inside: bool
) -> None:
    data = (at_front / name).read_bytes()
    last = bytes(packets(at_front / name)[kept])
    path = tmp_path / name
    path.write_bytes(data[: data.index(last) + (len(last) // 2 if inside else 0)])
    seen, message = read_until_it_breaks(path)
    assert kept - 4 <= seen <= kept  # B-frames wait for a frame that is shown after them
    assert f"breaks off after frame {seen - 1} ({seen} of {COUNT} frames" in message
    with VideoReader(path) as reader:
        assert reader.num_frames == seen
        assert number(reader[-1].image) == seen - 1


def test_a_change_of_size_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sizes.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25, width=64, height=48, pix_fmt="yuvj420p")
        for index, width in enumerate((64, 64, 32)):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, 48, "yuvj420p", Fraction(1, 25)
            frame = av.VideoFrame(width, 48, "yuvj420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            for packet in encoder.encode(frame) + encoder.encode(None):
                packet.stream = stream
                container.mux(packet)
    message = error_of(path)
    assert "frame 2 is 32x48, expected 64x48" in message
    assert "re-encode" in message


# Folders of frames


def test_a_folder_is_a_video(tmp_path: Path) -> None:
    images = list(np.random.default_rng(4).integers(0, 256, (12, 5, 7, 3), np.uint8))
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"f_{index}{'.BMP' if index % 2 else '.png'}")
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / ".hidden.png").write_text("no frame")
    with VideoReader(tmp_path, fps=29.97003) as reader:
        assert reader.fps == Fraction(30000, 1001)
        np.testing.assert_array_equal([frame.image for frame in reader], images)
        np.testing.assert_array_equal(reader.frames_at([11, 2, -1]), [images[11], images[2], images[11]])
        assert reader[10].pts_seconds == pytest.approx(10 * 1001 / 30000)
        assert reader.frame_at_time(0.1).index == 2
    info = probe(tmp_path)
    assert (info.width, info.height, info.num_frames, float(info.fps), info.codec) == (7, 5, 12, 25.0, "png")
    assert info.duration_seconds == pytest.approx(12 / 25)
    with pytest.raises(UserError, match="fps must be between"):
        VideoReader(tmp_path, fps=0)


def test_a_bad_frame_in_a_folder_is_named(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(7).integers(0, 256, (6, 8, 3), np.uint8))
    for index in range(3):
        image.save(tmp_path / f"{index:04}.png")
    Image.new("RGB", (8, 4)).save(tmp_path / "0001.png")
    message = error_of(tmp_path)
    assert "0001.png: is 8x4, expected 8x6" in message
    (tmp_path / "0001.png").write_bytes((tmp_path / "0000.png").read_bytes()[:100])
    assert "0001.png: cannot be read" in error_of(tmp_path)


# Writing


def test_times_that_begin_anew_go_on(tmp_path: Path) -> None:
    """As where a saved stream goes on with the next file; two frames at one time are no new beginning."""
    path = tmp_path / "out.mp4"
    with VideoWriter(path, fps=25) as writer:
        for seconds in (9.96, 10.0, 10.0, 0.0, 0.04, 0.1):
            writer.write(np.zeros((16, 16, 3), np.uint8), seconds)
    with VideoReader(path) as reader:
        times = [frame.pts_seconds for frame in reader]
    assert times == pytest.approx([9.96, 10.0, 10.0, 10.04, 10.08, 10.14], abs=2e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".webm", ".avi"])
@pytest.mark.parametrize("height", [64, 720])
def test_what_is_written_reads_back(tmp_path: Path, suffix: str, height: int) -> None:
    rgb = PATCHES.repeat(height // 2, 0).repeat(32, 1)
    path = tmp_path / f"out{suffix}"
    with VideoWriter(path, fps=30000 / 1001) as writer:
        for _ in range(3):
            writer.write(rgb)
    with VideoReader(path) as reader:
        frames = list(reader)
        assert reader.fps == Fraction(30000, 1001)
    assert len(frames) == 3
    for index, frame in enumerate(frames):
        middle = frame.image[height // 4 :: height // 2, 16::32]
        assert np.abs(middle.astype(int) - PATCHES).max() <= 6
        assert frame.pts_seconds == pytest.approx(index * 1001 / 30000, abs=6e-4)
    with av.open(str(path)) as container:
        decoded = next(container.decode(video=0))
        assert decoded.color_range == (ColorRange.JPEG if suffix == ".avi" else ColorRange.MPEG)
        if suffix != ".avi":
            assert decoded.colorspace in ((1,) if height == 720 else (5, 6))
    assert os.listdir(tmp_path) == [path.name]


def test_times_are_exact(tmp_path: Path) -> None:
    fps = Fraction(24000, 1001)
    with VideoWriter(tmp_path / "long.mp4", fps=fps) as writer:
        for index in range(60):
            writer.write(coded(index))
    with VideoReader(tmp_path / "long.mp4") as reader:
        assert [(number(frame.image), frame.pts_seconds) for frame in reader] == [
            (i, float(i / fps)) for i in range(60)
        ]


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (8, 9)])
def test_odd_sizes_are_padded_where_the_codec_must(tmp_path: Path, size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 200, np.uint8)
    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    with (
        pytest.warns(UserWarning, match=f"{even[1]}x{even[0]}"),
        VideoWriter(tmp_path / "odd.mp4", fps=25) as writer,
    ):
        writer.write(image)
    padded = read_one(tmp_path / "odd.mp4")
    assert padded.shape == (*even, 3)
    assert np.abs(padded.astype(int) - 200).max() <= 4
    with VideoWriter(tmp_path / "odd.webm", fps=25) as writer:
        writer.write(image)
    assert read_one(tmp_path / "odd.webm").shape == (*size, 3)


def read_one(path: Path) -> np.ndarray:
    (frame,) = VideoReader(path)
    return frame.image


def write(path: Path | str, images: Iterable[np.ndarray], error: Exception | None = None) -> None:
    with VideoWriter(path, fps=25) as writer:
        for image in images:
            writer.write(image)
        if error:
            raise error


def test_an_exception_leaves_the_earlier_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "kept.mp4"
    path.write_bytes(b"earlier")

    def images() -> Iterator[np.ndarray]:
        yield from map(coded, range(COUNT))
        assert len(os.listdir(tmp_path)) == 2
        assert path.read_bytes() == b"earlier"

    with pytest.raises(RuntimeError, match="midway"):
        write(path, images(), RuntimeError("midway"))
    assert os.listdir(tmp_path) == ["kept.mp4"]
    assert path.read_bytes() == b"earlier"
    write(path, [coded(0)])
    assert number(read_one(path)) == 0


def test_misuse_of_the_writer_is_told(tmp_path: Path) -> None:
    for path, fps, crf, says in (
        ("a.gif", 25, 20, "suffix must be one of .mp4"),
        ("none/a.mp4", 25, 20, "no folder"),
        ("a.mp4", float("nan"), 20, "fps must be between"),
        ("a.mp4", 25, 99, "crf"),
    ):
        with pytest.raises(UserError, match=says):
            VideoWriter(tmp_path / path, fps=fps, crf=crf)
    for images, says in (
        ([], "no frames"),
        ([coded(0), coded(0)[:, :32]], "frame 1 is 32x48"),
        ([coded(0) / 255], "uint8"),
    ):
        with pytest.raises(UserError, match=says):
            write(tmp_path / "a.mp4", images)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that nobody can write to")
def test_a_folder_that_cannot_be_written() -> None:
    with pytest.raises(UserError, match="cannot be written"):
        write("/proc/a.mp4", [coded(0)])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_full_disk_is_told_and_leaves_the_earlier_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"full{suffix}"
    path.write_bytes(b"earlier")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(6).integers(0, 256, (20, HEIGHT, WIDTH, 3), np.uint8)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(UserError, match="cannot be written"):
            write(path, noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == b"earlier"
