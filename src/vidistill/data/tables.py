"""Tables of annotations as text."""

from pathlib import Path

from vidistill.errors import UserError


def table_lines(path: Path) -> list[str]:
    """The lines of a file in UTF-8. Errors: UserError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text in UTF-8 ({error}); copy it again") from error
