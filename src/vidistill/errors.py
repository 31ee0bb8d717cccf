"""The one error a user is meant to read: what is wrong, where, and what to do."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend. The command line prints its one sentence and exits with 1, without a traceback."""


def nearest(name: str, choices: Iterable[str], *, most: int = 3) -> str:
    """A phrase that names the nearest of `choices` to a mistyped `name`, or all of them when none is near."""
    choices = list(choices)
    near = difflib.get_close_matches(name, choices, n=most, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    shown = ", ".join(choices[:20]) + (f", … ({len(choices)} in all)" if len(choices) > 20 else "")
    return f"there is: {shown or 'nothing'}"
