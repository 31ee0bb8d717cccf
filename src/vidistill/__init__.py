"""vidistill makes a video network cheap enough for the device it must run on.

What a person types first is here; everything else is in the module that its name suggests.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vidistill.runtimes import open_student
    from vidistill.stream import Running, Stream
    from vidistill.stream.evaluate import evaluate
    from vidistill.students.card import Card
    from vidistill.students.files import load_student, save_student

    __version__: str
__all__ = ["Card", "Running", "Stream", "__version__", "evaluate", "load_student", "open_student", "save_student"]

_HOMES = {
    "Card": "students.card",
    "Running": "stream",
    "Stream": "stream",
    "evaluate": "stream.evaluate",
    "load_student": "students.files",
    "open_student": "runtimes",
    "save_student": "students.files",
}


def __getattr__(name: str) -> object:
    """The public names, imported when first used, so that `vidistill --help` need not wait for torch."""
    if name == "__version__":
        return importlib.metadata.version("vidistill")
    if name not in _HOMES:
        raise AttributeError(f"module 'vidistill' has no attribute '{name}'")
    return getattr(importlib.import_module(f"vidistill.{_HOMES[name]}"), name)
