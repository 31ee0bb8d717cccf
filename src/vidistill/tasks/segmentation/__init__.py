"""Semantic segmentation: a class for every pixel. Its training clips are `data.dense_clips`, as depth's are."""

from vidistill.tasks.segmentation.task import Segmentation

__all__ = ["Segmentation"]
