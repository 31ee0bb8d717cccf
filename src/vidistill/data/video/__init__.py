"""Reading and writing video: `VideoReader` decodes, `VideoWriter` encodes, `probe` and `verify` look at a file."""

from vidistill.data.video.damage import Damage, DamageReport
from vidistill.data.video.reader import Frame, VideoInfo, VideoReader, probe, verify
from vidistill.data.video.writer import VideoWriter

__all__ = ["Damage", "DamageReport", "Frame", "VideoInfo", "VideoReader", "VideoWriter", "probe", "verify"]
