"""What a student says of itself, as plain values: enough to build it again, to run it and to show its output."""

import json
from dataclasses import dataclass, field

from vidistill.config import Values, plain
from vidistill.errors import UserError
from vidistill.ops.clip_view import View, view_of_values
from vidistill.ops.normalise import Normalisation
from vidistill.students.delta.plan import Plan
from vidistill.tasks import Naming, Task, task_of

CARD_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a student is.

    Args:
        network: {"library", "name", "options"}; {} for a network of the user's own.
        form: a key of `FORMS`: "per_frame" for a network as it is, "low_rank", "delta".
        task: what its outputs mean; None where that is unknown, and then it can be neither streamed nor scored.
        plan: of the converted blocks; None for a form without any.
        normalisation: of its frames.
        class_names, palette: of its classes, as far as known.
        key_frame_interval: the default for streams, in frames; a network of clips runs on key frames alone.
        view: what a network of clips or windows sees; None for a network of single frames.
    """

    network: Values = field(default_factory=dict)
    form: str = "per_frame"
    task: Task | None = None
    plan: Plan | None = None
    normalisation: Normalisation = field(default_factory=Normalisation)
    class_names: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    key_frame_interval: int = 1
    view: View | None = None

    @property
    def naming(self) -> Naming:
        """Names and colours of the classes."""
        naming = Naming if self.task is None else self.task.naming
        return naming(self.class_names, self.palette)

    def to_json(self) -> str:
        values = plain(self) | {"version": CARD_VERSION}
        values["task"] = {} if self.task is None else self.task.to_values()
        values["plan"] = [] if self.plan is None else self.plan.to_list()
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str, *, where: str) -> "Card":
        """Reads what `to_json` wrote, now or in an earlier version.

        Raises:
            UserError: the text is not a card, or one of a later version.
        """
        try:
            values = json.loads(text)
            version = values.pop("version")
            if version > CARD_VERSION:
                raise UserError(f"{where}: was written by a later vidistill (card version {version}); update vidistill")
            values["normalisation"] = Normalisation(**{k: tuple(v) for k, v in values["normalisation"].items()})
            values["class_names"] = tuple(values["class_names"])
            values["palette"] = tuple(tuple(colour) for colour in values["palette"])
            values["view"] = None if values.get("view") is None else view_of_values(values["view"])
            values["task"] = task_of(values["task"], where=f"{where}: task") if values["task"] else None
            values["plan"] = _plan(values["plan"], where)
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{where}: its header is not the card of a student ({error}); distil it again") from error


def _plan(blocks: list[Values], where: str) -> Plan | None:
    try:
        return Plan.from_list(blocks) if blocks else None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: its plan is of another vidistill ({error!r}); distil it again") from error
