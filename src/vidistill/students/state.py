"""The state of a stream: what a student is given with a frame, and gives back for the next one."""

from torch import Tensor

State = dict[str, Tensor]  # every tensor has the batch first; entries under "key/" live until the next key frame

KEY = "key/"
