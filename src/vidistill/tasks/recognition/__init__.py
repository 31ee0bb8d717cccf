"""Action recognition: one class, or several, for a whole clip."""

from vidistill.tasks.recognition.task import Recognition

__all__ = ["Recognition"]
