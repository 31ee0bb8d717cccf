"""Frames in, results out: `Stream` is the one frame loop, with which this package streams, scores, draws and labels."""

from vidistill.stream.stream import Running, Stream

__all__ = ["Running", "Stream"]
