"""What a saved student says of itself, as plain values: enough to build it again, to run it and to show its output."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from vidistill.errors import UserError
from vidistill.ops.clip_view import View, view_of_values
from vidistill.ops.normalise import Normalisation

CARD_VERSION = 1


@dataclass(frozen=True)
class Card:
    """network: {"library", "name", "options"}, or {} for a network of the user's own. plan: of the converted layers.

    form: "per_frame" for a network as it is, "low_rank" or "delta". view: what a network of clips or windows sees, None
    for networks of single frames. key_frame_interval: the default for streaming; a network of clips runs on key frames.
    """

    network: dict[str, Any]
    form: str
    task: dict[str, Any]
    plan: list[dict[str, Any]] = field(default_factory=list)
    normalisation: Normalisation = field(default_factory=Normalisation)
    class_names: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    key_frame_interval: int = 1
    view: View | None = None
    version: int = CARD_VERSION

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, *, where: str) -> "Card":
        """Errors: UserError where the text is no card, or one of a later version."""
        try:
            values = json.loads(text)
            if values["version"] > CARD_VERSION:
                raise UserError(f"{where}: was written by a later vidistill (card version {values['version']}); update")
            values["normalisation"] = Normalisation(**{k: tuple(v) for k, v in values["normalisation"].items()})
            values["class_names"] = tuple(values["class_names"])
            values["palette"] = tuple(tuple(colour) for colour in values["palette"])
            if values.get("view") is not None:
                values["view"] = view_of_values(values["view"])
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{where}: its header is no card of a student ({error})") from error
