"""What other programs write: tables, JSON, whole numbers, and names, those of files to read and of folders to make."""

import csv
import json
import os
import re
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

from vidistill.errors import UserError
from vidistill.files import read_lines

MOST_PART = 255  # bytes of a file's name, on every common system
MOST_PATH = 3000  # bytes, which leaves room for the folder's
MOST_NAME = 120  # bytes of a folder's name, which leaves room for what is added to it
RESERVED = re.compile(r"(?i)(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?")  # on Windows
DELIMITERS = ",;\t"


class Row(NamedTuple):
    """A line of a table. where: file and line, for errors. cells: without spaces around, or empty last ones."""

    where: str
    text: str
    cells: list[str]


def read_rows(path: Path) -> list[Row]:
    """The lines of a table whose cells are divided by commas, semicolons, tabs, or else by spaces.

    Which divides them, the first line decides; cells may be in quotes. Blank lines and those that begin with # are left
    out. Errors: UserError where it cannot be read.
    """
    lines = [(number, line.strip()) for number, line in enumerate(read_lines(path), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    first = lines[0][1] if lines else ""
    delimiter = max(DELIMITERS, key=first.count)
    rows = []
    for number, line in lines:
        try:
            divided = next(csv.reader([line], delimiter=delimiter)) if delimiter in first else line.split()
        except csv.Error as error:
            raise UserError(f"{path}:{number}: cannot be read as cells ({error}); correct the line") from error
        cells = [cell.strip() for cell in divided]
        while cells and not cells[-1]:
            cells.pop()
        rows.append(Row(f"{path}:{number}", line, cells))
    return rows


def read_json(path: Path, what: str, *, advice: str) -> Any:
    """The contents of a JSON file in UTF-8 or UTF-16. Errors: UserError that says `what` it should be, and `advice`."""
    try:
        return json.loads(path.read_bytes())
    except RecursionError as error:
        raise UserError(f"{path}: cannot be read as {what} (it is nested too deep); {advice}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as {what} ({error}); {advice}") from error


def whole_number(value: object) -> int:
    """A whole number as programs write it: 3, 3.0, "3", "3.0" or "3.00e+00".

    Errors: ValueError for anything else, also for a number beyond 64 bits.
    """
    number: object = value
    if isinstance(value, str) and "_" not in value:  # which Python would read
        number = int(value) if re.fullmatch(r"\s*[+-]?[0-9]{1,30}\s*", value) else float(value)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if not isinstance(number, int) or isinstance(number, bool):
        raise ValueError(f"{value!r:.40} is not a whole number")
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{value!r:.40} is beyond 64 bits")
    return number


def listed_path(folder: Path, name: object, *, where: str) -> Path:
    """The file that an annotation names, relative to `folder`. It may lie anywhere, as it is only read.

    Windows' backslashes count as slashes where no file has them in its name.

    Raises:
        UserError: the name is not text or is empty, or no file can have it.
    """
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"{where}: expected the name of a file, got {name!r:.60}; correct it")
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded or len(encoded) > MOST_PATH or max(map(len, re.split(rb"[/\\]", encoded))) > MOST_PART:
        raise UserError(f"{where}: no file can have the name {name!r:.60}; correct it")
    path = folder / name
    return path if "\\" not in name or path.exists() else folder / name.replace("\\", "/")


def safe_name(name: str) -> str:
    """A name for a new file or folder, from a name that comes from a file: one part of a path, on every system.

    Slashes become underscores; the dots, drives and controls that would lead elsewhere or break a line are taken out.
    It has 1 to MOST_NAME bytes. Different names may become equal: see `folder_name`.
    """
    parts = [part.strip(". ") for part in re.split(r"[/\\]+", unicodedata.normalize("NFC", name))]
    joined = "_".join(part for part in parts if part)
    # categories of controls, formats such as marks of direction, lone surrogates, and breaks of lines
    printable = "".join(c for c in joined if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp"))
    text = re.sub(r'[<>:"|?*]', "_", printable).encode()[:MOST_NAME].decode(errors="ignore").strip(". ")
    return f"_{text}" if not text or RESERVED.fullmatch(text) else text
