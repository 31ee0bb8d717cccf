"""Paths, and writing files: whole or not at all, and an error in one sentence where that is impossible."""

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vidistill.errors import UserError

if sys.platform != "win32":
    import fcntl


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. Errors: UserError where it cannot be read as UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text in UTF-8 ({error}); copy it again") from error


def relative_path(path: Path, folder: Path) -> str:
    """The way from the folder to the path, links to folders resolved, for `..` leads out of where a link leads to."""
    return Path(os.path.relpath(path.parent.resolve() / path.name, folder.resolve())).as_posix()


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turns an OSError of the block into a UserError that says what could not be written, and why."""
    try:
        yield
    except OSError as error:
        raise UserError(_sentence(Path(path), error)) from error


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and vanishes when it does not.

    Errors: UserError where the folder cannot be written to or the disk is full; an earlier file stays as it was.
    """
    path = Path(path)
    temporary = None
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
            os.close(handle)
            temporary = Path(name)
            yield temporary
            _flush(temporary)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """The folder is this process's own for the block, where the system can lock one; a killed process leaves it free.

    Errors: UserError where another process has it, or it cannot be made or opened.
    """
    with ExitStack() as held:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if sys.platform != "win32":  # which neither opens nor locks folders
                handle = os.open(folder, os.O_RDONLY)
                held.callback(os.close, handle)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    advice = "wait for it, or choose another out="
                    raise UserError(f"{folder}: another run is at work there; {advice}") from error
                except OSError:
                    pass  # not every network file system locks
        yield


def require_new(path: Path) -> None:
    """Errors: UserError where `path` is there already."""
    if path.exists():
        raise UserError(f"{path}: is there already; give a name that is not, or remove it")


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place when the block ends well, and vanishes when it does not.

    Errors: UserError where `path` is there already, or cannot be written.
    """
    path = Path(path)
    require_new(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        with writing(path):
            yield temporary
            temporary.chmod(0o755)
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _sentence(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"{path}: the disk is full; free some space and run the command again, what was there before is kept"
    return f"{path}: cannot be written ({error.strerror or error}); choose another place with out="
