"""Frames in, results out, in constant memory: `for output in Stream(student)(frames): …`"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidistill.data.clip import Image
from vidistill.data.video import Frame
from vidistill.distill.norms import channels_last, fuse_norms
from vidistill.distill.stateful import State, StatefulNetwork, without_key_frame
from vidistill.errors import UserError
from vidistill.files import atomic_path
from vidistill.key_frames import Fixed, KeyFramePolicy, Memory
from vidistill.tasks import TASKS, Task


@dataclass(frozen=True)
class StreamOutput:
    """What the stream says of one frame. prediction: what the task decodes, (H, W) class ids of a segmentation, (K,)
    class probabilities of a recognition; milliseconds: the network's time.
    """

    index: int
    pts_seconds: float | None
    image: Image
    prediction: NDArray[Any]
    is_key_frame: bool
    milliseconds: float


class Stream:
    """Runs a student with a card over frames, one at a time.

    key_frames: the policy; the card's fixed interval by default. A frame of another size than the one before starts
    with a key frame. The stream can be cut: `state_dict()` after any frame, `load_state_dict()` on a new stream, and
    the frames that follow come out the same.
    """

    def __init__(
        self, student: StatefulNetwork, *, key_frames: KeyFramePolicy | None = None, device: str | torch.device = "cpu"
    ) -> None:
        if student.card is None:
            raise UserError("a stream needs a student with a card; save it with save_student and load it again")
        card = student.card
        self.device = torch.device(device)
        self.student = student.to(self.device).eval()
        self.task: Task = TASKS[card.task["name"]](**{k: v for k, v in card.task.items() if k != "name"})
        self.normalisation = card.normalisation
        self.key_frames = key_frames or Fixed(card.key_frame_interval)
        self.index = 0
        self._state: State | None = None
        self._memory: Memory | None = None
        self._size: tuple[int, ...] | None = None
        self._is_fused = False

    def __call__(self, frames: Iterable[Image | Frame]) -> Iterator[StreamOutput]:
        """An output for every frame, in order. frames: (H, W, 3) uint8 RGB arrays, or what a `VideoReader` yields."""
        for frame in frames:
            yield self.step(frame.image, frame.pts_seconds) if isinstance(frame, Frame) else self.step(frame)

    @torch.inference_mode()
    def step(self, image: Image, pts_seconds: float | None = None) -> StreamOutput:
        """The output of the next frame. Errors: UserError for anything but an (H, W, 3) uint8 frame."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise UserError(
                f"frame {self.index}: a frame is (height, width, 3) uint8 RGB, not {image.shape} {image.dtype}"
            )
        seen = image if self.student.view is None else self.student.view.cut(image)
        frame = torch.from_numpy(np.ascontiguousarray(seen)).permute(2, 0, 1)[None].to(self.device)
        if image.shape != self._size:
            self._size, self._memory = image.shape, None
        is_key, self._memory = self.key_frames(frame, self._memory)
        began = perf_counter()
        prediction = self._predict(frame, is_key=is_key)
        milliseconds = (perf_counter() - began) * 1e3
        output = StreamOutput(self.index, pts_seconds, image, prediction, is_key, milliseconds)
        self.index += 1
        return output

    def _predict(self, frame: Tensor, *, is_key: bool) -> NDArray[Any]:
        normalised = self.normalisation(frame).contiguous(memory_format=torch.channels_last)
        if not self._is_fused:
            fuse_norms(self.student, normalised)
            channels_last(self.student)
            self._is_fused = True
        state = self._state
        if is_key and state is not None:
            state = without_key_frame(state)
            self._state = None  # the old key frame's memory is free before the new one's is made
        outputs, self._state = self.student(normalised, state or None)
        prediction = self.task.decode(outputs, size=(frame.shape[-2], frame.shape[-1]))
        return prediction[0].cpu().numpy()

    def state_dict(self) -> dict[str, Tensor]:
        """All that the frames to come depend on, as a flat dict of tensors."""
        tensors = {f"model/{name}": tensor for name, tensor in (self._state or {}).items()}
        tensors |= {f"policy/{name}": tensor for name, tensor in (self._memory or {}).items()}
        tensors["stream/index"] = torch.tensor(self.index)
        tensors["stream/size"] = torch.tensor(self._size or ())
        return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Goes on where the stream that gave `tensors` was. Errors: UserError where they are no stream's state."""
        try:
            self.index = int(tensors["stream/index"])
            self._size = tuple(tensors["stream/size"].tolist()) or None
        except KeyError as error:
            raise UserError(f"this is not the state of a stream: it lacks {error}") from error
        state = self._part(tensors, "model/")
        self._state = {name: _channels_last(tensor) for name, tensor in state.items()} or None
        self._memory = self._part(tensors, "policy/") or None

    def _part(self, tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
        found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        return {name: tensor.to(self.device) for name, tensor in found.items()}


def _channels_last(tensor: Tensor) -> Tensor:
    """In the layout that the stream runs in, which a file does not keep."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def save_state(stream: Stream, path: str | Path) -> None:
    """Writes a stream's state as safetensors, atomically."""
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(stream.state_dict(), temporary)


def load_state(stream: Stream, path: str | Path) -> None:
    """Puts a stream where the saved one was. Errors: UserError where the file is no stream's state."""
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as a stream's state ({error})") from error
    stream.load_state_dict(tensors)
