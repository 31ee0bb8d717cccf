"""Builds some 300 odd videos with ffmpeg, and compares every frame's number, time and colour with ffmpeg's decoding.

python benchmarks/torture_videos.py [WORD …] [--keep FOLDER]

Only cases whose name has one of the words. A case is right where every frame is; refused where reading ends in one
sentence, after frames that are right; else wrong. Frames by number must equal those in order to the bit. Damaged videos
are compared with the undamaged original, and are read with damage="skip" too: every frame must then have a time of the
original, and what is missing must be counted.

Colours: ffmpeg converts by the tagged matrix and range, with the same bilinear swscale; frames may differ by 1 level.
Where two versions of swscale place or round chroma differently, frames are compared with the formula instead, on
ffmpeg's own samples, whichever chroma within 2 samples was used: 3 levels, as far as swscale's fast paths are from it.
"""

import argparse
import collections
import dataclasses
import random
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidistill.data.video import VideoReader
from vidistill.errors import UserError

SOURCE = "testsrc2=s=64x48:r=25:d=1.2"
TIME_TOLERANCE = 1e-4  # seconds; ffmpeg prints 6 digits
LEVELS, FORMULA_LEVELS = 1, 3


@dataclasses.dataclass(frozen=True)
class Case:
    """A video to build: from `make(folder)`, or from ffmpeg's arguments after the source.

    scale: what ffmpeg's scale filter must be told; is_cut: the end is missing, which some formats cannot show.
    """

    name: str
    arguments: str = ""
    source: str = SOURCE
    make: Callable[[Path, Path], Path | None] | None = None
    scale: str = ""
    stream: str = "v:0"
    is_cut: bool = False


def ffmpeg(*arguments: str | Path, **options: object) -> bytes:
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-v", "error", "-y", "-threads", "1", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace").strip()[-200:])
    return done.stdout


def encode(path: Path, arguments: str, source: str = SOURCE) -> Path:
    ffmpeg("-f", "lavfi", "-i", source, *arguments.split(), path)
    return path


# The cases


CONTAINERS = {
    "libx264": "mp4 mov mkv avi flv ts m2ts 3gp nut mxf f4v h264 asf ismv vob",
    "libx265": "mp4 mov mkv ts hevc nut",
    "libvpx": "webm mkv ivf nut avi ogv",
    "libvpx-vp9": "webm mp4 mkv ivf nut",
    "libsvtav1": "mp4 webm mkv ivf obu",
    "mpeg1video": "mpg m1v vob ts mkv avi mov nut",
    "mpeg2video": "mpg m2v vob ts mkv avi mov mxf gxf mp4 nut m2ts wtv",
    "mpeg4": "mp4 avi mkv mov ts 3gp m4v nut asf",
    "libxvid": "avi mp4 mkv",
    "mjpeg": "avi mov mkv mjpeg mp4 nut",
    "msmpeg4v2": "avi asf",
    "msmpeg4": "avi asf mkv",
    "wmv1": "wmv asf avi",
    "wmv2": "wmv asf avi mkv",
    "flv": "flv avi",
    "libtheora": "ogv mkv",
    "ffv1": "mkv avi nut mov",
    "huffyuv": "avi mkv mov",
    "ffvhuff": "avi mkv",
    "utvideo": "avi mkv mov",
    "png": "mov avi mkv",
    "qtrle": "mov mkv",
    "prores_ks": "mov mkv mxf",
    "cinepak": "avi mov mkv",
    "rv10": "rm mkv",
    "rv20": "rm mkv",
    "snow": "avi nut mkv",
    "vc2": "mkv mov ts drc",
    "jpeg2000": "mkv mov mxf",
    "libopenjpeg": "mov mj2",
    "zmbv": "avi mkv",
    "flashsv": "flv avi",
    "flashsv2": "flv",
    "asv1": "avi",
    "asv2": "avi",
    "magicyuv": "avi mkv",
    "rawvideo": "avi mov nut mkv y4m",
    "gif": "gif",
    "apng": "apng",
    "svq1": "mov mkv",
    "msvideo1": "avi",
    "cfhd": "mov mkv",
    "ljpeg": "avi mkv",
    "rpza": "mov",
    "hap": "mov",
    "speedhq": "nut mkv",
    "v210": "mov avi mkv",
    "r210": "mov",
    "libwebp_anim": "mkv",
}
FORMATS = {"m2ts": "mpegts -mpegts_m2ts_mode 1", "y4m": "yuv4mpegpipe", "m1v": "mpeg1video", "f4v": "f4v"}
SLOW = {
    "libsvtav1": "-preset 12",
    "libvpx": "-deadline realtime",
    "ljpeg": "-strict -1",
    "libvpx-vp9": "-deadline realtime -cpu-used 8",
}
EXTRA = {
    **SLOW, "libx265": "-preset ultrafast -x265-params log-level=none", "snow": "-strict -2",
    "mpeg2video": "-bf 2 -g 9",
    "mpeg1video": "-bf 2 -g 9", "libx264": "-g 10 -bf 3", "mpeg4": "-bf 1 -g 10", "zmbv": "-pix_fmt bgr0",
}  # fmt: skip
LOSSLESS_FORMATS = (
    "yuv420p yuv422p yuv444p yuv410p yuv411p yuv440p yuva420p yuva422p yuva444p yuv420p10le yuv422p10le yuv444p10le "
    "yuv420p12le yuv422p12le yuv444p12le yuv444p14le yuv420p16le yuv422p16le yuv444p16le yuv420p9le yuva444p10le gray "
    "gray10le gray12le gray16le ya8 bgra bgr0 gbrp9le gbrp10le gbrp12le gbrp14le gbrp16le rgb48le rgba64le gbrap10le"
)
RAW_FORMATS = (
    "nv12 nv21 yuyv422 uyvy422 yvyu422 nv16 nv24 p010le p016le p210le rgb24 bgr24 rgba argb abgr rgb565le rgb555le "
    "bgr8 rgb8 rgb4_byte gray pal8 monob monow x2rgb10le y210le yuv420p yuvj420p yuvj444p gbrp yuv420p10be"
)
X264_FORMATS = "yuv420p yuvj420p yuv422p yuvj422p yuv444p yuvj444p nv12 nv16 yuv420p10le yuv422p10le yuv444p10le gray"
MATRICES = "bt709 fcc bt470bg smpte170m smpte240m ycgco bt2020nc bt2020c chroma-derived-nc chroma-derived-c ictcp"


def codec_cases() -> Iterator[Case]:
    for codec, suffixes in CONTAINERS.items():
        for suffix in suffixes.split():
            extra = EXTRA.get(codec, "")
            form = f" -f {FORMATS[suffix]}" if suffix in FORMATS else ""
            size = "352x288" if suffix in ("gxf", "3gp", "rm") or codec in ("h263", "svq1") else "64x48"
            size = "720x576" if suffix in ("gxf", "mxf") else size
            if suffix == "gxf" or (codec, suffix) == ("mpeg2video", "mxf"):
                extra += " -pix_fmt yuv420p"
            size = "128x64" if codec == "libsvtav1" else size
            if codec == "cfhd":
                extra += " -pix_fmt yuv422p10le"
            named = "" if suffix == "y4m" else f"-c:v {codec}"
            yield Case(f"{codec}.{suffix}", f"{named} {extra}{form}", SOURCE.replace("64x48", size))
    for codec in ("h261", "h263", "h263p"):
        for suffix in ("avi", "mov", "mkv"):
            if (codec, suffix) != ("h261", "mov"):
                yield Case(f"{codec}.{suffix}", f"-c:v {codec}", SOURCE.replace("64x48", "352x288"))
    yield Case("dv.dv", "-c:v dvvideo -pix_fmt yuv420p", SOURCE.replace("64x48", "720x576"))
    yield Case("dv.avi", "-c:v dvvideo -pix_fmt yuv420p", SOURCE.replace("64x48", "720x576"))
    yield Case("dv.mov", "-c:v dvvideo -pix_fmt yuv420p", SOURCE.replace("64x48", "720x576"))
    yield Case("dnxhd.mov", "-c:v dnxhd -profile:v dnxhr_sq -pix_fmt yuv422p", SOURCE.replace("64x48", "256x128"))
    yield Case("dnxhd.mxf", "-c:v dnxhd -b:v 36M -pix_fmt yuv422p", "testsrc2=s=1920x1080:r=25:d=0.12")
    yield Case("roq.roq", "-c:v roqvideo -r 30", SOURCE)
    yield Case("amv.amv", "-c:v amv -r 25 -ac 1 -ar 22050 -f avi", SOURCE)


def format_cases() -> Iterator[Case]:
    for pix_fmt in LOSSLESS_FORMATS.split():
        yield Case(f"format {pix_fmt} ffv1.mkv", f"-c:v ffv1 -pix_fmt {pix_fmt}")
    for pix_fmt in RAW_FORMATS.split():
        yield Case(f"format {pix_fmt} raw.nut", f"-c:v rawvideo -pix_fmt {pix_fmt}")
    for pix_fmt in X264_FORMATS.split():
        yield Case(f"format {pix_fmt} x264.mp4", f"-c:v libx264 -pix_fmt {pix_fmt}")
    for pix_fmt in ("yuv420p10le", "yuv422p12le", "yuv444p", "gray", "gbrp"):
        yield Case(f"format {pix_fmt} x265.mkv", f"-c:v libx265 -pix_fmt {pix_fmt} -x265-params log-level=none")
    for pix_fmt in ("yuv422p", "yuv444p", "yuv440p", "yuv420p10le", "gbrp"):
        yield Case(f"format {pix_fmt} vp9.webm", f"-c:v libvpx-vp9 -pix_fmt {pix_fmt} {SLOW['libvpx-vp9']}")
    yield Case("format yuva420p vp9.webm", f"-c:v libvpx-vp9 -pix_fmt yuva420p -auto-alt-ref 0 {SLOW['libvpx-vp9']}")
    for profile in ("proxy", "4444"):
        yield Case(f"format prores {profile}.mov", f"-c:v prores_ks -profile:v {profile}")
    yield Case("format x264 rgb.mkv", "-c:v libx264rgb")
    yield Case(
        "format av1 10 bit.mkv", "-c:v libsvtav1 -preset 12 -pix_fmt yuv420p10le", SOURCE.replace("64x48", "128x64")
    )


def colour_cases() -> Iterator[Case]:
    for matrix in MATRICES.split():
        for how, range_ in (("yuv420p", "tv"), ("yuv444p", "pc")):
            tags = f"-colorspace {matrix} -color_range {range_}"
            yield Case(f"colour {matrix} {how} {range_}.mp4", f"-c:v libx264 -pix_fmt {how} {tags}")
    for name, codec in (("mkv", "libx265 -x265-params log-level=none"), ("webm", f"libvpx-vp9 {SLOW['libvpx-vp9']}")):
        for matrix in ("bt709", "bt2020nc"):
            yield Case(f"colour {matrix} {codec[:7]}.{name}", f"-c:v {codec} -pix_fmt yuv420p -colorspace {matrix}")
    for height in (720, 718):
        source = f"testsrc2=s=128x{height}:r=25:d=0.2"
        scale = f"in_color_matrix={'bt709' if height == 720 else 'bt601'}"
        yield Case(f"colour untagged {height}.mp4", "-c:v libx264 -pix_fmt yuv420p", source, scale=scale)
        yield Case(f"colour untagged {height}.avi", "-c:v mpeg4 -q:v 2", source, scale=scale)
    for trc in ("smpte2084", "arib-std-b67", "linear"):
        tags = f"-color_trc {trc} -color_primaries bt2020 -colorspace bt2020nc"
        yield Case(f"colour {trc}.mkv", f"-c:v libx265 -pix_fmt yuv420p10le {tags} -x265-params log-level=none")
    yield Case("colour full range ffv1.mkv", "-c:v ffv1 -pix_fmt yuv420p -color_range pc")
    yield Case("colour full range vp9.webm", f"-c:v libvpx-vp9 -pix_fmt yuv420p -color_range pc {SLOW['libvpx-vp9']}")
    yield Case("colour limited mjpeg.mkv", "-c:v mjpeg -pix_fmt yuv420p -color_range tv -strict -1")


def timing_cases() -> Iterator[Case]:
    drop = "-vf select='not(mod(n\\,3))+gt(random(0)\\,0.6)' -vsync vfr"
    jitter = "-vf setpts='PTS+floor(mod(N*7\\,5))*0.003/TB' -vsync vfr -enc_time_base 1/1000"
    gap = "-vf setpts='PTS+gt(N\\,12)*3/TB' -vsync vfr"
    for name, filters in (("dropped", drop), ("jittered", jitter), ("gap", gap)):
        for suffix in ("mp4", "mkv", "ts", "flv", "mov", "avi", "nut"):
            yield Case(f"rate {name}.{suffix}", f"{filters} -c:v libx264 -bf 2 -g 12")
        yield Case(f"rate {name}.webm", f"{filters} -c:v libvpx {SLOW['libvpx']}")
    for rate in ("24000/1001", "30000/1001", "60", "1", "120", "7", "1000"):
        for suffix in ("mp4", "mkv", "ts", "avi"):
            yield Case(
                f"rate {rate.replace('/', ' over ')}.{suffix}",
                "-c:v libx264",
                f"testsrc2=s=64x48:r={rate},trim=end_frame=12",
            )
    for suffix in ("mp4", "mkv", "ts", "mov", "flv", "mpg", "nut", "avi"):
        codec = "mpeg2video -bf 2" if suffix == "mpg" else "libx264 -g 10"
        yield Case(f"start 10 s.{suffix}", f"-c:v {codec} -output_ts_offset 10")
        yield Case(f"start 7 h.{suffix}", f"-c:v {codec} -output_ts_offset 25000")
    for suffix in ("mp4", "mov", "mkv", "ts", "nut"):
        yield Case(f"start negative.{suffix}", "-c:v libx264 -g 10 -avoid_negative_ts disabled -output_ts_offset -0.4")
    yield Case("wraps after 26 h.ts", "-c:v libx264 -g 10 -output_ts_offset 95442.9")
    yield Case("wraps after 26 h.mpg", "-c:v mpeg2video -bf 2 -output_ts_offset 95442.9")


def structure_cases() -> Iterator[Case]:
    patterns = {
        "bf0": "-bf 0", "bf16": "-bf 16 -b_strategy 0", "pyramid none": "-bf 4 -x264-params b-pyramid=none:b-adapt=0",
        "pyramid strict": "-bf 4 -x264-params b-pyramid=strict:b-adapt=0",
        "open gop": "-bf 3 -g 10 -x264-params open-gop=1:b-adapt=0",
        "intra": "-g 1", "one gop": "-g 999", "intra refresh": "-x264-params intra-refresh=1:keyint=8",
        "refs": "-refs 8 -bf 2", "slices": "-slices 4", "weighted": "-bf 3 -x264-params weightp=2:weightb=1",
        "interlaced top": "-flags +ildct+ilme -x264opts tff=1 -field_order tt",
        "interlaced bottom": "-flags +ildct+ilme -x264opts bff=1",
        "fake interlaced": "-x264opts fake-interlaced=1", "baseline": "-profile:v baseline", "lossless": "-qp 0 -bf 2",
    }  # fmt: skip
    for name, options in patterns.items():
        for suffix in ("mp4", "mkv", "ts", "flv"):
            yield Case(
                f"x264 {name}.{suffix}", f"-c:v libx264 -pix_fmt yuv420p {options}", SOURCE.replace("64x48", "64x64")
            )
    for name in ("open gop", "bf16"):
        for suffix in ("h264", "avi", "mov", "vob", "asf"):
            yield Case(f"x264 {name}.{suffix}", f"-c:v libx264 -pix_fmt yuv420p {patterns[name]}")
    for options in (
        "keyint=8:open-gop=1:bframes=4",
        "keyint=8:open-gop=0",
        "bframes=4:b-adapt=0:b-pyramid=1",
        "repeat-headers=1",
    ):
        for suffix in ("mp4", "mkv", "ts", "hevc"):
            name = f"x265 {options.replace('=', ' ').replace(':', ' ')}.{suffix}"
            yield Case(name, f"-c:v libx265 -preset ultrafast -x265-params log-level=none:{options}")
    for suffix in ("ts", "mpg", "vob", "mkv", "mov", "mxf", "avi", "m2v"):
        field = "-flags +ildct+ilme -top 1 -bf 2 -g 9 -pix_fmt yuv420p"
        size = "720x576" if suffix == "mxf" else "64x64"
        yield Case(f"mpeg2 interlaced.{suffix}", f"-c:v mpeg2video {field}", SOURCE.replace("64x48", size))
    for packed in ("-bf 2", "-bf 0 -g 300", "-bf 1 -mpv_flags +mv0"):
        yield Case(f"mpeg4 {packed.replace('-', '')}.avi", f"-c:v mpeg4 {packed} -q:v 3")
    yield Case("xvid packed.avi", "-c:v libxvid -bf 2 -q:v 3")
    for degrees in (90, 180, 270):
        for suffix in ("mp4", "mov"):
            yield Case(f"turned {degrees}.{suffix}", f"-c:v libx264 -pix_fmt yuv420p -metadata:s:v rotate={degrees}")
    for size in ("2x2", "16x2", "2x48", "66x50", "33x17", "1x1", "130x6", "1919x3"):
        codec = "ffv1" if any(int(side) % 2 for side in size.split("x")) else "libx264 -pix_fmt yuv420p"
        yield Case(f"size {size}.mkv", f"-c:v {codec}", SOURCE.replace("64x48", size))
    for ratio in ("16/11", "1/2", "64/45"):
        yield Case(f"aspect {ratio.replace('/', ' to ')}.mp4", f"-c:v libx264 -vf setsar={ratio}")
    for name, flags in {
        "fragmented": "-movflags frag_keyframe+empty_moov -g 8", "dash": "-movflags dash+delay_moov+frag_every_frame",
        "faststart": "-movflags faststart", "negative offsets": "-movflags negative_cts_offsets -bf 3",
        "no edit list": "-use_editlist 0 -bf 3", "cmaf": "-movflags cmaf+frag_keyframe -g 8",
        "timecode": "-timecode 01:00:00:00",
    }.items():  # fmt: skip
        yield Case(f"mp4 {name}.mp4", f"-c:v libx264 {flags}")
    yield Case("mkv live.mkv", "-c:v libx264 -g 8 -live 1")
    yield Case("mkv small clusters.mkv", "-c:v libx264 -g 8 -cluster_size_limit 2000")
    yield Case("mkv no cues.mkv", "-c:v libx264 -g 8 -f matroska -write_crc32 0 -seekable 0")
    yield Case("playlist.m3u8", "-c:v libx264 -g 10 -hls_time 0.4 -hls_list_size 0 -f hls")
    yield Case("playlist fmp4.m3u8", "-c:v libx264 -g 10 -hls_time 0.4 -hls_list_size 0 -hls_segment_type fmp4 -f hls")
    yield Case("unaligned pes.ts", "-c:v mpeg2video -bf 2 -pes_payload_size 3000 -omit_video_pes_length 0")


def stream_cases() -> Iterator[Case]:
    two = "-f lavfi -i testsrc=s=32x32:r=5:d=1 -map 0 -map 1 -c:v libx264 -pix_fmt yuv420p"
    sound = "-f lavfi -i sine=d={}"
    for suffix in ("mp4", "mkv", "mov", "ts", "nut"):
        yield Case(f"two streams, first default.{suffix}", f"{two} -disposition:v:0 default -disposition:v:1 0")
    for suffix in ("mp4", "mkv", "mov"):
        second = f"{two} -disposition:v:0 0 -disposition:v:1 default"
        yield Case(f"two streams, second default.{suffix}", second, stream="v:1")
    for suffix in ("mp4", "mkv", "ts", "flv", "avi", "mov", "asf", "mpg"):
        codec = "mpeg2video -bf 2" if suffix == "mpg" else "libx264 -g 10"
        yield Case(f"long sound.{suffix}", f"{sound.format(6)} -c:v {codec} -ac 1")
        yield Case(f"sound first.{suffix}", f"{sound.format(1)} -map 1 -map 0 -c:v {codec} -ac 1")
    subtitle = "-f lavfi -i sine=d=1 -c:v libx264 -map 0 -map 1 -metadata title=Ä -metadata:s:v language=ger"
    yield Case("metadata.mkv", subtitle)


# Damage. `make(path, whole)` writes the video to `path` and its undamaged original to `whole`.


def damaged(name: str, arguments: str, change: Callable[[bytes], bytes], source: str = SOURCE) -> Case:
    def make(path: Path, whole: Path) -> Path:
        data = encode(whole, arguments, source).read_bytes()
        path.write_bytes(change(data))
        return whole

    return Case(name, make=make, is_cut=name.startswith("cut"))


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * share)]


def zeroed(share: float, size: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        at = int(len(data) * share)
        return data[:at] + bytes(len(data[at : at + size])) + data[at + size :]

    return change


def flipped(seed: int, count: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        changed, rng = bytearray(data), random.Random(seed)
        for _ in range(count):
            changed[rng.randrange(len(data) // 10, len(data) * 9 // 10)] ^= 1 << rng.randrange(8)
        return bytes(changed)

    return change


def without_packets(places: list[float]) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        num_packets = len(data) // 188
        lost = {int(num_packets * place) for place in places}
        return b"".join(data[i * 188 : i * 188 + 188] for i in range(num_packets) if i not in lost)

    return change


def counters(value: Callable[[int], int]) -> Callable[[bytes], bytes]:
    """Changes the continuity counter of every packet of a transport stream; nothing is lost."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        for at in range(0, len(data), 188):
            changed[at + 3] = changed[at + 3] & 0xF0 | value(at // 188) & 0xF
        return bytes(changed)

    return change


def damage_cases() -> Iterator[Case]:
    kinds = {
        "x264.mp4": "-c:v libx264 -g 10 -movflags faststart", "x264.mkv": "-c:v libx264 -g 10",
        "x264.ts": "-c:v libx264 -g 10",
        "x265.ts": "-c:v libx265 -g 10 -x265-params log-level=none", "mpeg2.mpg": "-c:v mpeg2video -bf 2",
        "mpeg4.avi": "-c:v mpeg4 -g 10",
        "vp8.webm": f"-c:v libvpx {SLOW['libvpx']}", "vp9.webm": f"-c:v libvpx-vp9 {SLOW['libvpx-vp9']}",
        "x264.flv": "-c:v libx264 -g 10",
        "mpeg2.ts": "-c:v mpeg2video -bf 2", "mjpeg.avi": "-c:v mjpeg", "x264.h264": "-c:v libx264 -g 10",
        "ffv1.mkv": "-c:v ffv1",
    }  # fmt: skip
    for name, arguments in kinds.items():
        for share in (0.3, 0.7, 0.98):
            yield damaged(f"cut {share} {name}", arguments, cut(share))
        for share in (0.2, 0.6):
            yield damaged(f"zeros {share} {name}", arguments, zeroed(share, 300))
        yield damaged(f"flips {name}", arguments, flipped(1, 3))
    for name in ("x264.ts", "x265.ts", "mpeg2.ts"):
        for places in ([0.5], [0.31], [0.3, 0.6, 0.9], [0.77], [0.12]):
            title = " ".join(map(str, places))
            yield damaged(f"lost {title} {name}", kinds[name], without_packets(places))
        yield damaged(f"counters stand still {name}", kinds[name], counters(lambda _: 0))


def joined(name: str, arguments: str, *, source: str = SOURCE) -> Case:
    """Segments as the segment muxer writes them, one after the other: nothing is lost."""

    def make(path: Path, whole: Path) -> Path:
        encode(whole, arguments, source)
        folder = path.parent / "segments"
        folder.mkdir()
        pattern = folder / f"%03d{path.suffix}"
        ffmpeg("-i", whole, "-c", "copy", "-copyts", "-f", "segment", "-segment_time", "0.3", pattern)
        path.write_bytes(b"".join(part.read_bytes() for part in sorted(folder.iterdir())))
        return whole

    return Case(name, make=make)


def twice(name: str, arguments: str, second: str = "", *, other: str = SOURCE) -> Case:
    """Two files one after the other, whose times start over. ffmpeg's decoding of the result is the reference."""

    def make(path: Path, whole: Path) -> None:
        first, then = encode(whole, arguments), encode(whole.with_stem("second"), second or arguments, other)
        path.write_bytes(first.read_bytes() + then.read_bytes())

    return Case(name, make=make)


def copied(name: str, arguments: str, options: str, *, before: str = "") -> Case:
    """Cut without encoding anew, as editors do: edit lists, frames before 0, missing references."""

    def make(path: Path, whole: Path) -> None:
        encode(whole.with_suffix(".mkv"), arguments, SOURCE)
        ffmpeg(*before.split(), "-i", whole.with_suffix(".mkv"), "-c", "copy", *options.split(), path)

    return Case(name, make=make)


def late_video(path: Path, whole: Path) -> None:
    """An FLV whose video begins after 40 seconds of sound and whose header says that there is none."""
    ffmpeg(
        "-f", "lavfi", "-i", "sine=d=45", "-itsoffset", "40", "-f", "lavfi", "-i", SOURCE, "-map", "0", "-map", "1",
        "-c:v", "libx264", "-g", "10", "-c:a", "libmp3lame", "-ar", "44100",
        "-flvflags", "no_duration_filesize+no_metadata", path,
    )  # fmt: skip
    data = bytearray(path.read_bytes())
    data[4] = 4  # sound only
    path.write_bytes(data)


def cover(path: Path, whole: Path) -> None:
    encode(whole.with_suffix(".mp4"), "-c:v libx264")
    ffmpeg("-f", "lavfi", "-i", "color=s=200x200:d=0.04", "-frames:v", "1", whole.with_suffix(".png"))
    ffmpeg(
        "-i", whole.with_suffix(".png"), "-i", whole.with_suffix(".mp4"), "-map", "0", "-map", "1", "-c", "copy",
        "-disposition:v:0", "attached_pic", path,
    )  # fmt: skip


def sound_only(path: Path, whole: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", path)


def no_frames(path: Path, whole: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", SOURCE, "-f", "lavfi", "-i", "sine=d=1", "-frames:v", "0", "-c:v", "mpeg4", path)


def cut_cases() -> Iterator[Case]:
    for suffix in ("ts", "m2ts", "mpg", "vob"):
        codec = "mpeg2video -bf 2 -g 5" if suffix in ("mpg", "vob") else "libx264 -g 5"
        form = " -f mpegts" if suffix == "ts" else ""
        yield joined(f"joined.{suffix}", f"-c:v {codec}{form}")
    yield joined("joined x265.ts", "-c:v libx265 -g 5 -x265-params log-level=none:keyint=5")
    yield joined("joined mpeg2.ts", "-c:v mpeg2video -bf 2 -g 5")
    for suffix in ("ts", "h264", "mpg", "m2v", "mjpeg", "hevc", "flv", "mkv", "avi"):
        codec = {
            "mpg": "mpeg2video",
            "m2v": "mpeg2video",
            "mjpeg": "mjpeg",
            "hevc": "libx265 -x265-params log-level=none",
        }
        arguments = f"-c:v {codec.get(suffix, 'libx264')} -g 8"
        yield twice(f"twice.{suffix}", arguments)
        if suffix in ("ts", "h264", "mjpeg", "mpg"):
            yield twice(f"two sizes.{suffix}", arguments, other=SOURCE.replace("64x48", "96x64"))
    yield twice("two depths.ts", "-c:v libx264 -pix_fmt yuv420p", "-c:v libx264 -pix_fmt yuv420p10le")
    yield twice("two ranges.h264", "-c:v libx264 -pix_fmt yuv420p", "-c:v libx264 -pix_fmt yuvj420p")
    for suffix in ("mp4", "mov", "mkv", "ts", "avi", "flv", "nut"):
        for place in ("0.5", "0.36"):
            arguments = "-c:v libx264 -g 10 -bf 3 -x264-params open-gop=1:b-adapt=0"
            yield copied(f"cut at {place} s.{suffix}", arguments, "", before=f"-ss {place}")
            yield copied(f"cut from 0.2 to {place} s.{suffix}", arguments, f"-to {place}", before="-ss 0.2")
    yield Case("late video.flv", make=late_video)
    for suffix in ("mp4", "mkv"):
        yield Case(f"cover first.{suffix}", make=cover, stream="v:0" if suffix == "mp4" else "v:1")
    for suffix in ("mp4", "mkv", "wav"):
        yield Case(f"sound only.{suffix}", make=sound_only)
    for suffix in ("avi", "mkv", "mp4"):
        yield Case(f"no frames.{suffix}", make=no_frames)


GROUPS = {
    "containers and codecs": codec_cases,
    "pixel formats": format_cases,
    "colour matrices, ranges": colour_cases,
    "rates and start times": timing_cases,
    "B-frames, fields, sizes, layouts": structure_cases,
    "several streams": stream_cases,
    "damage": damage_cases,
    "cuts and joins": cut_cases,
}


def all_cases() -> list[Case]:
    return [case for make in GROUPS.values() for case in make()]


# The reference


@dataclasses.dataclass(frozen=True)
class Decoded:
    """(N,) seconds; (N, H, W, channels) samples; what ffmpeg says of the first frame."""

    times: list[float]
    images: NDArray[np.uint8 | np.uint16]
    form: str = ""
    matrix: str = ""
    full: bool = False


def decode(path: Path, case: Case, pix_fmt: str = "rgb24") -> Decoded:
    """What ffmpeg decodes: as RGB, or its own samples as yuv444p16le, chroma by the nearest sample."""
    options = "bilinear:interl=-1:out_range=pc" if pix_fmt == "rgb24" else "neighbor:interl=-1"
    filters = f"showinfo,scale=flags={options}:{case.scale}".removesuffix(":") + f",format={pix_fmt}"
    command = [
        "ffmpeg", "-nostdin", "-hide_banner", "-threads", "1", "-copyts", "-i", str(path), "-map", f"0:{case.stream}",
        "-vf", filters, "-vsync", "passthrough", "-f", "rawvideo", "-",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    log = done.stderr.decode(errors="replace")
    infos = re.findall(r"n: *\d+ pts: *(\S+) .*? fmt:(\S+) .*? s:(\d+)x(\d+)", log)
    if not infos:
        return Decoded([], np.zeros((0, 1, 1, 3), np.uint8))
    base = [int(part) for part in re.findall(r"config in time_base: (\d+)/(\d+)", log)[0]]
    form, width, height = infos[0][1], int(infos[0][2]), int(infos[0][3])
    tags = (re.findall(r"color_range:(\S+) color_space:(\S+)", log) or [("unknown", "unknown")])[0]
    images = np.frombuffer(done.stdout, np.uint8 if pix_fmt == "rgb24" else np.uint16)
    images = images[: len(images) // (height * width * 3) * (height * width * 3)]
    if pix_fmt == "rgb24":
        images = images.reshape(-1, height, width, 3)
    else:
        images = np.moveaxis(images.reshape(-1, 3, height, width), 1, 3)
    full = tags[0] == "pc" or (tags[0] != "tv" and form.startswith("yuvj"))
    times = [int(pts) * base[0] / base[1] if pts != "NOPTS" else np.nan for pts, *_ in infos]
    return Decoded(times, images, form, tags[1], full)


WEIGHTS = {"bt709": (0.2126, 0.0722), "fcc": (0.3, 0.11), "smpte240m": (0.212, 0.087), "bt2020nc": (0.2627, 0.0593)}


def bounds(yuv: NDArray[np.uint16], decoded: Decoded) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The least and the most that each RGB level of a frame can be, whichever chroma within 2 samples it is made of."""
    kr, kb = WEIGHTS.get(decoded.matrix, (0.299, 0.114))
    luma, cb, cr = np.moveaxis(yuv / 256.0, 2, 0)
    luma = luma if decoded.full else (luma - 16) * 255 / 219
    scale = 1.0 if decoded.full else 255 / 224
    ends = []
    for chroma in (cb - 128, cr - 128):
        around = np.pad(chroma * scale, 8, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(around, (17, 17))
        ends.append((windows.min((2, 3)), windows.max((2, 3))))
    (b_low, b_high), (r_low, r_high) = ends
    to_green = 2 * kb * (1 - kb) / (1 - kr - kb), 2 * kr * (1 - kr) / (1 - kr - kb)
    low = [luma + 2 * (1 - kr) * r_low, luma - to_green[0] * b_high - to_green[1] * r_high, luma + 2 * (1 - kb) * b_low]
    high = [
        luma + 2 * (1 - kr) * r_high,
        luma - to_green[0] * b_low - to_green[1] * r_low,
        luma + 2 * (1 - kb) * b_high,
    ]
    return np.clip(np.stack(low, 2), 0, 255), np.clip(np.stack(high, 2), 0, 255)


# The comparison


# PyAV's libav decodes these otherwise than Debian's ffmpeg does, without vidistill too.
OTHER_DECODER = ("svq1.mkv",)


@dataclasses.dataclass(frozen=True)
class Outcome:
    verdict: str  # right, refused, wrong; "as ffmpeg": damage that neither sees; "other decoder"; "not built"
    reason: str = ""


def distance(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> int:
    return int(np.abs(ours.astype(np.int16) - theirs).max())


def check_colours(images: list[NDArray[np.uint8]], path: Path, theirs: Decoded, case: Case) -> str:
    """What is wrong with the pictures."""
    samples = None
    for place, image in enumerate(images):
        if image.shape != theirs.images[place].shape:
            return f"frame {place} is {image.shape}, ffmpeg's {theirs.images[place].shape}"
        far = distance(image, theirs.images[place])
        if far <= LEVELS:
            continue
        if "yuv" not in theirs.form and theirs.form[:2] not in ("nv", "p0", "uy"):
            return f"frame {place} differs by {far} levels"
        samples = samples or decode(path, case, "yuv444p16le")
        low, high = bounds(samples.images[place], samples)
        out = max((low - image).max(), (image - high).max())
        if out > FORMULA_LEVELS:
            return f"frame {place} differs by {far} levels, by {out:.1f} from the formula"
    return ""


def check_times(times: list[float], path: Path, theirs: Decoded, case: Case) -> str:
    """What is wrong with the times. Formats without times of their own begin at 0 and keep the source's rate.

    AVI stores decoding times only, which ffmpeg does not shift back, and segments that are joined were shifted.
    """
    shift = times[0] - theirs.times[0] if times and (path.suffix == ".avi" or case.name.startswith("joined")) else 0
    off = [abs(ours - shift - other) for ours, other in zip(times, theirs.times, strict=False)]
    if case.name.startswith("twice"):  # where times start over, one frame may have none of its own: both guess
        off.remove(max(off))
    if not times or max(off) <= TIME_TOLERANCE:
        return ""
    rate = re.search(r"r=([\d/]+)", case.source)
    assert rate is not None
    over, _, under = rate[1].partition("/")
    step = float(under or 1) / float(over)
    if max(abs(time - times[0] - place * step) for place, time in enumerate(times)) <= 1e-3:
        return ""
    place = next(place for place, far in enumerate(off) if not far <= TIME_TOLERANCE)
    return f"frame {place} at {times[place]:.4f} s, ffmpeg's at {theirs.times[place]:.4f} s"


def compare(path: Path, whole: Path | None, case: Case) -> Outcome:
    frames, refusal = [], ""
    try:
        with VideoReader(path) as reader:
            for frame in reader:
                frames.append(frame)
    except UserError as error:
        refusal = str(error)
        if "\n" in refusal:
            return Outcome("wrong", f"several lines: {refusal!r}")
    images, times = [frame.image for frame in frames], [frame.pts_seconds for frame in frames]
    problem = ""
    for reference in dict.fromkeys([whole or path, path]):  # nobody can see some damage; then ffmpeg does not either
        theirs = decode(reference, case)
        short = len(images) < len(theirs.images) and not refusal and not (whole and case.is_cut)
        if len(images) > len(theirs.images) or short:
            problem = f"{len(images)} frames, ffmpeg has {len(theirs.images)}"
        else:
            problem = check_colours(images, reference, theirs, case) or check_times(times, reference, theirs, case)
        if not problem:
            break
    problem = problem or by_number(path, images, complete=not refusal)
    problem = problem or (skipping(path, whole, case) if whole and refusal else "")
    if problem:
        return Outcome("other decoder" if case.name in OTHER_DECODER else "wrong", problem)
    if refusal:
        return Outcome("refused", refusal.replace(f"{path}: ", ""))
    return Outcome("right" if reference == (whole or path) else "as ffmpeg", "")


def by_number(path: Path, in_order: list[NDArray[np.uint8]], *, complete: bool) -> str:
    """What is wrong with frames picked by number; `complete` where reading in order came to the end."""
    if not in_order:
        return ""
    rng = random.Random(0)
    places = [*range(len(in_order) - 1, -1, -3), *(rng.randrange(len(in_order)) for _ in range(10))]
    with VideoReader(path) as reader:
        try:
            if complete and reader.num_frames != len(in_order):
                return f"num_frames {reader.num_frames}, {len(in_order)} in order"
            for place in places:
                if not np.array_equal(reader[place].image, in_order[place]):
                    return f"frame {place} by number is another picture"
        except UserError as error:
            return f"by number: {error}"
    return ""


def skipping(path: Path, whole: Path, case: Case) -> str:
    """What is wrong with reading a damaged video by damage="skip"."""
    try:
        with VideoReader(path, damage="skip") as reader:
            frames = list(reader)
            count = reader.damage.count
    except UserError as error:
        return f"skip: several lines: {error}" if "\n" in str(error) else ""
    total = len(decode(whole, case).images)
    if len(frames) < total and not count and not case.is_cut:
        return f"skip: {len(frames)} of {total} frames, none counted as lost"
    return ""


def run(case: Case, folder: Path) -> Outcome:
    folder.mkdir(parents=True)
    suffix = case.name.rpartition(".")[2]
    path, whole = folder / f"video.{suffix}", folder / f"whole.{suffix}"
    try:
        original = case.make(path, whole) if case.make else encode(path, case.arguments, case.source) and None
    except RuntimeError as error:
        return Outcome("not built", str(error).splitlines()[-1] if str(error) else "")
    try:
        return compare(path, original, case)
    except Exception:
        return Outcome("wrong", "traceback: " + traceback.format_exc().strip().splitlines()[-1])


VERDICTS = ("right", "refused", "as ffmpeg", "other decoder", "wrong", "not built")


def print_table(cases: list[Case], outcomes: list[Outcome]) -> None:
    verdicts = {case.name: outcome.verdict for case, outcome in zip(cases, outcomes, strict=True)}
    print("| videos | " + " | ".join(VERDICTS) + " |\n|---" + "|---" * len(VERDICTS) + "|")
    rows = {title: [case.name for case in make()] for title, make in GROUPS.items()}
    for title, names in [*rows.items(), ("all", list(verdicts))]:
        counts = collections.Counter(verdicts[name] for name in names if name in verdicts)
        print(f"| {title} | " + " | ".join(str(counts[verdict]) for verdict in VERDICTS) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    cases = [case for case in all_cases() if not options.words or any(word in case.name for word in options.words)]
    outcomes = []
    with tempfile.TemporaryDirectory() as temporary:
        for number, case in enumerate(cases):
            outcome = run(case, (options.keep or Path(temporary)) / f"{number:03}")
            outcomes.append(outcome)
            if outcome.verdict != "right":
                print(f"{outcome.verdict}: {case.name}: {outcome.reason}", flush=True)
    print_table(cases, outcomes)
    counts = collections.Counter(outcome.verdict for outcome in outcomes)
    sys.exit(1 if counts["wrong"] else 0)


if __name__ == "__main__":
    main()
