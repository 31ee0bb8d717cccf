"""Object detection: boxes with a class and a score."""

from vidistill.tasks.detection.task import Detection

__all__ = ["Detection"]
