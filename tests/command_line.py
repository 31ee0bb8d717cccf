"""The command line as a test types it."""

import sys

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
