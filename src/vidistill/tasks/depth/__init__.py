"""Monocular depth: metres for every pixel. Its training clips are `data.dense_clips`, as segmentation's are."""

from vidistill.tasks.depth.task import Depth

__all__ = ["Depth"]
