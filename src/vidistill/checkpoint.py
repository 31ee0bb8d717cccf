"""Files that outlive a run: checkpoints to resume from, and students that load alone. Every write is atomic."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vidistill.errors import UserError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and vanishes when it does not.

    Errors: UserError where the folder cannot be written to or the disk is full; an earlier file stays as it was.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _flush(temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(_sentence(path, error)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _sentence(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"{path}: the disk is full; free some space and run the command again, what was there before is kept"
    return f"{path}: cannot be written ({error.strerror or error}); choose another place with out="


def save_checkpoint(path: str | Path, contents: dict[str, Any]) -> None:
    """Writes a checkpoint of tensors and plain values atomically."""
    with atomic_path(path) as temporary:
        try:
            torch.save(contents, temporary)
        except RuntimeError as error:  # torch reports a failed write as RuntimeError
            raise OSError(errno.ENOSPC, "disk full") from error


def load_checkpoint(path: str | Path, device: str = "cpu") -> dict[str, Any]:
    """A checkpoint's contents; only tensors and plain values are read, nothing in the file is executed."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such checkpoint") from error
    except Exception as error:
        raise UserError(f"{path}: is not a checkpoint of tensors ({type(error).__name__}); give another file") from error
