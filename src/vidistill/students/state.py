"""The state of a stream: what a student is given with a frame, and gives back for the next one."""

from torch import Tensor

State = dict[str, Tensor]  # every tensor has the batch first; entries under "key/" live until the next key frame

KEY = "key/"
WINDOW = "window"  # the entry of the last frames (B, T, 3, h, w), of a network that looks at several


def without_key_frame(state: State | None) -> State | None:
    """What a key frame leaves of a state: the recurrent entries; None where there are none."""
    kept = {name: tensor for name, tensor in (state or {}).items() if not name.startswith(KEY)}
    return kept or None
