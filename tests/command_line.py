"""The command line as a test types it."""

import sys
from pathlib import Path
from typing import Any

import yaml

from vidistill import cli


def run(*arguments: str) -> int:
    """The exit code of `vidistill arguments…`."""
    old, sys.argv = sys.argv, ["vidistill", *arguments]
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = old
    return 0


def write_recipe(path: Path, values: dict[str, Any]) -> str:
    """Writes a recipe; its path as the command line takes it."""
    path.write_text(yaml.safe_dump(values))
    return str(path)
