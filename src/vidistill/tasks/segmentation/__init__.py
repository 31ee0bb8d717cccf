"""Semantic segmentation: a class for every pixel."""

from vidistill.tasks.segmentation.task import Segmentation

__all__ = ["Segmentation"]
