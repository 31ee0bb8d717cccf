"""Video super-resolution: every frame enlarged, from the frames around it."""

from vidistill.tasks.super_resolution.task import SuperResolution

__all__ = ["SuperResolution"]
