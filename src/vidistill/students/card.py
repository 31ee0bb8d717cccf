"""What a student says of itself, as plain values: enough to build it again, to run it and to show its output."""

import json
from dataclasses import dataclass, field
from typing import Annotated

import pydantic
from pydantic import Field

from vidistill.config import Settings, Values, plain, validate_json
from vidistill.errors import UserError
from vidistill.models.untrusted import LARGEST
from vidistill.ops.clip_view import ClipView, View, WindowView
from vidistill.ops.normalise import Normalisation
from vidistill.students.delta.plan import BlockPlan, Plan
from vidistill.tasks import Naming, Task, task_of

CARD_VERSION = 1

Level = Annotated[int, Field(ge=0, le=255)]


class _Version(pydantic.BaseModel):
    """What every version's card says, whatever else it holds."""

    version: int


class CardValues(Settings):
    """A card as a file holds it, see `Card`."""

    version: int
    network: Values = Field(default_factory=dict)
    form: str = "per_frame"
    task: Values = Field(default_factory=dict)
    plan: tuple[BlockPlan, ...] = ()
    normalisation: Normalisation = Normalisation()
    class_names: Annotated[tuple[Annotated[str, Field(max_length=1000)], ...], Field(max_length=LARGEST)] = ()
    palette: Annotated[tuple[tuple[Level, Level, Level], ...], Field(max_length=LARGEST)] = ()
    key_frame_interval: Annotated[int, Field(ge=1, le=LARGEST)] = 1
    view: ClipView | WindowView | None = None


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
        values["plan"] = [] if self.plan is None else plain(self.plan.blocks)
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str, *, where: str) -> "Card":
        """Reads what `to_json` wrote, now or in an earlier version. The text may come from anyone.

        Raises:
            UserError: the text is not a card, or one of a later version.
        """
        is_none, advice = f"{where}: its header is not the card of a student", "distil it again"
        version = validate_json(_Version, text, where=is_none, advice=advice).version
        if version > CARD_VERSION:
            raise UserError(f"{where}: was written by a later vidistill (card version {version}); update vidistill")
        values = validate_json(CardValues, text, where=is_none, advice=advice)
        return cls(
            network=values.network,
            form=values.form,
            task=task_of(values.task, where=f"{where}: task") if values.task else None,
            plan=Plan(values.plan) if values.plan else None,
            normalisation=values.normalisation,
            class_names=values.class_names,
            palette=values.palette,
            key_frame_interval=values.key_frame_interval,
            view=values.view,
        )
