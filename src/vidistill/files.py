"""Reading text, and writing files and folders: whole or not at all, with a UserError where that is impossible."""

import codecs
import errno
import json
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Self

from vidistill.errors import UserError
from vidistill.interrupts import uninterrupted

if sys.platform != "win32":
    import fcntl

MOST_NAME_BYTES = 255  # of one part of a path, on all common file systems
PART = ".vidistill-part"
PART_NAME = re.compile(rf"\..*\.[a-z0-9_]{{8}}{re.escape(PART)}(\.[^.]*)?", re.DOTALL)
TEXT_SUFFIXES = (".json", ".jsonl", ".txt", ".csv", ".safetensors")  # of files that are never read as pictures


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


def json_text(values: Any, *, indent: int | None = None) -> str:
    """Strict JSON: a number that is not finite becomes null, which every reader of JSON knows."""
    return json.dumps(_finite(values), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


# ---- what may be written where


def check_name(path: str | Path) -> None:
    """Errors: UserError where no file system can hold this name: a NUL in it, or a part of over 255 bytes."""
    if "\0" in str(path):
        raise UserError(f"{str(path)!r}: a name cannot hold a NUL character; correct it")
    longest = max((part for part in Path(path).parts), key=lambda part: len(os.fsencode(part)), default="")
    if len(os.fsencode(longest)) > MOST_NAME_BYTES:
        raise UserError(
            f"{str(path)[:40]}…: a name in this path has {len(os.fsencode(longest))} bytes, and file systems take at "
            f"most {MOST_NAME_BYTES}; shorten it"
        )


def refuse_inputs(out: str | Path, inputs: Iterable[str | Path | None], *, fills: bool = False) -> None:
    """Checks that writing `out` changes no input, whatever it is called: a link, another spelling.

    Args:
        out: what will be written.
        inputs: files and folders; what does not exist, such as an address, is passed over.
        fills: whether `out` is a folder in which files get names that are not the user's.

    Raises:
        UserError: `out` is an input, would lie in an input folder, where the next run would read it, or is a folder to
            fill and holds an input.
    """
    check_name(out)
    target = Path(out)
    for name in inputs:
        if not name:
            continue
        check_name(name)
        given = Path(str(name).rpartition("file:")[2])  # an address may name a file
        if not given.exists():
            continue
        if target.exists() and target.samefile(given):
            raise UserError(f"{out}: is an input ({name}) and would be overwritten; choose another name")
        if fills and target.is_dir() and target.samefile(given.resolve().parent):
            raise UserError(f"{out}: holds an input ({name}), which could be overwritten; choose another folder")
        is_inside = given.is_dir() and given.resolve() == target.resolve().parent
        if is_inside and target.suffix.lower() not in TEXT_SUFFIXES:
            raise UserError(f"{out}: lies in an input ({name}) and would be read as one; choose a place outside")


def require_new(path: Path) -> None:
    """Errors: UserError where `path` exists."""
    check_name(path)
    if os.path.lexists(path):
        raise UserError(f"{path}: already exists; choose another name or delete it")


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turns an OSError of the block into a UserError that says what could not be written, and why."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fault = "the disk is full; free some space and run the command again, earlier files are kept"
        else:
            fault = f"cannot be written ({error.strerror or error}); choose another place with out="
        raise UserError(f"{path}: {fault}") from error


def require_writable(path: Path) -> None:
    """Errors: UserError where a file cannot be written to `path`: before the work that is to be written."""
    with part_beside(path):
        pass


# ---- files and folders that are whole or not there


@contextmanager
def part_beside(path: Path, *, is_folder: bool = False) -> Iterator[Path]:
    """A hidden file or folder beside `path`, in which it is written; deleted at the end, unless it has been renamed.

    It is locked while it is written. So what a killed process has left is known by its name and by its free lock, and
    the first write of another process into the same folder deletes it.

    Errors: UserError where the folder cannot be written to.
    """
    check_name(path)
    with ExitStack() as held:
        with uninterrupted(), writing(path):
            held.callback(_remove_empty, [folder for folder in path.parents if not folder.exists()])
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir() and not is_folder:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            _sweep(path.parent)
            part, handle = _make_part(path, is_folder=is_folder)
            held.callback(_remove, part)
            held.callback(os.close, handle)
        try:
            yield part
        finally:
            with uninterrupted():
                held.close()


def _make_part(path: Path, *, is_folder: bool) -> tuple[Path, int]:
    """A new hidden file or folder with a name like that of `path`, and a handle that holds its lock."""
    suffix = path.suffix if len(os.fsencode(path.suffix)) < 20 else ""
    stem = os.fsencode(path.name.removesuffix(suffix))[:200].decode("utf-8", "ignore")
    if is_folder:
        part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{stem}.", suffix=PART))
        handle = os.open(os.devnull if sys.platform == "win32" else part, os.O_RDONLY)
    else:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{stem}.", suffix=PART + suffix)
        part = Path(name)
    _lock(handle, waits=True)
    if part.exists():
        return part, handle
    os.close(handle)
    return _make_part(path, is_folder=is_folder)  # another process took it for left behind before it was locked


def _remove_empty(folders: Sequence[Path]) -> None:
    """Deletes the folders, of which each holds the one before it, up to the first that holds something else."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _remove(part: Path) -> None:
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


def _lock(handle: int, *, waits: bool = False) -> bool:
    """Whether this process holds the lock now; the system frees it when the process ends, however that happens."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process has it, or the file system has no locks
        return False
    return True


_swept: set[str] = set()


def _sweep(folder: Path) -> None:
    """Deletes what killed processes have left in a folder; once, for a process may write many files into one."""
    if sys.platform == "win32" or os.path.abspath(folder) in _swept:
        return
    _swept.add(os.path.abspath(folder))
    with os.scandir(folder) as entries:
        left = [Path(entry.path) for entry in entries if PART_NAME.fullmatch(entry.name)]
    for part in left:
        try:
            handle = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue  # gone already, or not ours
        try:
            if _lock(handle):
                _remove(part)
        finally:
            os.close(handle)


def put_in_place(part: Path, path: Path) -> None:
    """Gives a complete file its name. Errors: OSError."""
    with open(part, "rb+") as file:
        os.fsync(file.fileno())  # on disk before the name changes, or a crash could leave an empty file
    os.chmod(part, 0o644)
    os.replace(part, path)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`: it replaces `path` when the block succeeds, and is deleted when it fails.

    Errors: UserError where the folder cannot be written to or the disk is full; an earlier file stays as it was.
    """
    path = Path(path)
    with part_beside(path) as part, writing(path):
        yield part
        put_in_place(part, path)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path`: it becomes `path` when the block succeeds, and is deleted when it fails.

    Errors: UserError where `path` exists, or cannot be written.
    """
    path = Path(path)
    require_new(path)
    with part_beside(path, is_folder=True) as part, writing(path):
        yield part
        part.chmod(0o755)
        part.rename(path)


class GrowingText:
    """A text file that can be read while it grows. A context manager.

    An earlier file of that name stays until the first line is there. A line that cannot be written whole is taken back.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = ExitStack()
        self._file: IO[bytes] | None = None
        self._part: Path | None = None

    def __enter__(self) -> Self:
        self._part = self._stack.enter_context(part_beside(self.path))
        return self

    def write(self, line: str) -> None:
        """Adds a line, which is on its way to the disk when this returns. Errors: UserError where the disk is full."""
        with uninterrupted(), writing(self.path):
            file = self._file or self._begin()
            end, data = file.tell(), f"{line}\n".encode()
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError:
                file.truncate(end)
                file.seek(end)
                raise

    def _begin(self) -> IO[bytes]:
        """The file in its place. It is renamed while it is closed, as Windows wants it."""
        assert self._part is not None
        os.chmod(self._part, 0o644)
        os.replace(self._part, self.path)
        self._file = self._stack.enter_context(self.path.open("r+b", buffering=0))
        return self._file

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        with self._stack, writing(self.path):
            if kind is None and self._file is None:  # without a line it is empty
                self._begin()


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
