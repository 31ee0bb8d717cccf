"""The one error a user is meant to read: what is wrong, where, and what to do."""

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # with what no terminal can write


class UserError(Exception):
    """An error that the user can fix. The command line prints its sentence and exits with 1, without a traceback.

    The text may quote what stands in a file from anyone, so control characters in it are shown, not obeyed.
    """

    def __str__(self) -> str:
        return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), super().__str__())


def nearest(name: str, choices: Iterable[str], *, most: int = 3) -> str:
    """The end of an error's sentence: the `choices` nearest to a mistyped `name`, or all of them when none is near."""
    choices = list(choices)
    near = difflib.get_close_matches(name, choices, n=most, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    shown = ", ".join(choices[:20]) + (f", … ({len(choices)} in all)" if len(choices) > 20 else "")
    return f"choose one of: {shown or 'nothing available'}"


@contextmanager
def as_user_error(what: str, advice: str) -> Iterator[None]:
    """Turns what code that is not ours raises in the block, a network's or a library's, into a `UserError`.

    VIDISTILL_TRACEBACK=1 in the environment shows where it came from.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        line = lines[-1] if "Traceback" in str(error) else lines[0]  # of a worker process the traceback comes as text
        reason = f"{type(error).__name__}: {line[:300]}".removesuffix(": ")
        raise UserError(f"{what} ({reason}); {advice}; VIDISTILL_TRACEBACK=1 shows where") from error
