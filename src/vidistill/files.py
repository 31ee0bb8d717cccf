"""Reading text, and writing files and folders: whole or not at all, with a UserError where that is impossible."""

import codecs
import errno
import os
import re
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
    """The lines of a text file in UTF-8, or in UTF-16 with its mark. Errors: UserError for another, or none."""
    try:
        contents = path.read_bytes()
        is_wide = contents.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = contents.decode("utf-16" if is_wide else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text in UTF-8 ({error}); save it as UTF-8") from error
    return re.split(r"\r\n|\r|\n", text)  # not splitlines, which also splits names at rarer characters


def relative_path(path: Path, folder: Path) -> str:
    """`path` relative to `folder`. Links to folders are resolved first: `..` goes up from the folder a link names."""
    return Path(os.path.relpath(path.parent.resolve() / path.name, folder.resolve())).as_posix()


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turns an OSError of the block into a UserError that says what could not be written, and why."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            fault = "the disk is full; free some space and run the command again, earlier files are kept"
        else:
            fault = f"cannot be written ({error.strerror or error}); choose another place with out="
        raise UserError(f"{path}: {fault}") from error


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`: it replaces `path` when the block succeeds, and is deleted when it fails.

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
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())  # on disk before the name changes, or a crash could leave an empty file
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Locks the folder for this process during the block, where the system can; a killed process leaves it free.

    Errors: UserError where another process has locked it, or it cannot be made or opened.
    """
    with ExitStack() as held:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if sys.platform != "win32":  # Windows neither opens nor locks folders
                handle = os.open(folder, os.O_RDONLY)
                held.callback(os.close, handle)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    advice = "wait until it ends, or choose another folder with out="
                    raise UserError(f"{folder}: is in use by another run; {advice}") from error
                except OSError:
                    pass  # not every network file system locks
        yield


def require_new(path: Path) -> None:
    """Errors: UserError where `path` exists."""
    if path.exists():
        raise UserError(f"{path}: already exists; choose another name or delete it")


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path`: it becomes `path` when the block succeeds, and is deleted when it fails.

    Errors: UserError where `path` exists, or cannot be written.
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
