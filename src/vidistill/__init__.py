"""vidistill makes a video network cheap enough for the device it must run on.

`load_student`, `save_student` and `Stream` are here; everything else is in the module that its name suggests.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidistill.stream.stream import Stream
    from vidistill.students.files import load_student, save_student

__version__ = importlib.metadata.version("vidistill")
__all__ = ["Stream", "__version__", "load_student", "save_student"]

_HOMES = {"Stream": "stream", "load_student": "checkpoint", "save_student": "checkpoint"}


def __getattr__(name: str) -> Any:
    """The public names, imported when first used, so that `vidistill --help` need not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vidistill' has no attribute '{name}'")
    return getattr(importlib.import_module(f"vidistill.{_HOMES[name]}"), name)
