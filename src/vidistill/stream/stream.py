"""Frames in, results out, in constant memory: `for output in Stream(student)(frames): …`"""

import math
from collections import deque
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
from vidistill.data.resized import resize_image, resized_width
from vidistill.data.video.reader import Frame
from vidistill.errors import UserError
from vidistill.files import atomic_path
from vidistill.stream.key_frames import Fixed, KeyFramePolicy, Memory
from vidistill.students.norms import channels_last, fuse_norms
from vidistill.students.student import KEY, State, StatefulNetwork, without_key_frame
from vidistill.tasks import TASKS, Task


@dataclass(frozen=True)
class StreamOutput:
    """What the stream says of one frame. prediction: what the task decodes, (H, W) class ids of a segmentation, (K,)
    class probabilities of a recognition, (s·H, s·W, 3) the frame of a super-resolution; milliseconds: the network's
    time.
    """

    index: int
    pts_seconds: float | None
    image: Image
    prediction: NDArray[Any]
    is_key_frame: bool
    milliseconds: float


@dataclass(frozen=True)
class _Waiting:
    """A frame whose output is still to come. pts_seconds: NaN where it has none."""

    pts_seconds: float
    image: Image


class Stream:
    """Runs a student with a card over frames, one at a time.

    A student that looks ahead gives its outputs `student.delay` frames late, each with its own frame and time.

    key_frames: the policy; the card's fixed interval by default. A frame of another size than the one before starts
    with a key frame. The stream can be cut: `state_dict()` after any frame, `load_state_dict()` on a new stream, and
    the frames that follow come out the same.
    height: the network sees the frames resized to it; its outputs are still told in the frames' own pixels.
    Errors: UserError for a height where the task has none.
    """

    def __init__(
        self,
        student: StatefulNetwork,
        *,
        key_frames: KeyFramePolicy | None = None,
        height: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        if student.card is None:
            raise UserError("a stream needs a student with a card; save it with save_student and load it again")
        card = student.card
        self.device = torch.device(device)
        self.student = student.to(self.device).eval()
        self.task: Task = TASKS[card.task["name"]](**{k: v for k, v in card.task.items() if k != "name"})
        if height is not None and not self.task.any_size:
            raise UserError(f"height: a student of {self.task.name} gets its frames as they are; leave it out")
        self.height = height
        self.normalisation = card.normalisation
        self.key_frames = key_frames or Fixed(card.key_frame_interval)
        self.student.expect_key_frames(self.key_frames.interval if isinstance(self.key_frames, Fixed) else 1)
        self.index = 0
        self._state: State | None = None
        self._memory: Memory | None = None
        self._size: tuple[int, ...] | None = None
        self._is_fused = False
        self._waiting: deque[_Waiting] = deque()

    def __call__(self, frames: Iterable[Image | Frame], *, ends: bool = True) -> Iterator[StreamOutput]:
        """An output for every frame, in order. frames: (H, W, 3) uint8 RGB arrays, or what a `VideoReader` yields.

        ends: False where more frames will come, as before a state is saved; then late outputs come with those.
        """
        for frame in frames:
            yield from self.push(frame.image, frame.pts_seconds) if isinstance(frame, Frame) else self.push(frame)
        if ends:
            yield from self.flush()

    def step(self, image: Image, pts_seconds: float | None = None) -> StreamOutput:
        """The output of the next frame, of a student that does not look ahead."""
        (output,) = self.push(image, pts_seconds)
        return output

    @torch.inference_mode()
    def push(self, image: Image, pts_seconds: float | None = None) -> list[StreamOutput]:
        """The outputs that the next frame brings: its own, or that of an earlier one, or none yet.

        Errors: UserError for anything but an (H, W, 3) uint8 frame.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise UserError(
                f"frame {self.index}: a frame is (height, width, 3) uint8 RGB, not {image.shape} {image.dtype}"
            )
        outputs = self.flush() if image.shape != self._size else []
        seen = self._seen(image)
        frame = torch.from_numpy(np.ascontiguousarray(seen)).permute(2, 0, 1)[None].to(self.device)
        if image.shape != self._size:
            self._size, self._memory, self._state = image.shape, None, None
        is_key, self._memory = self.key_frames(frame, self._memory)
        self._waiting.append(_Waiting(math.nan if pts_seconds is None else pts_seconds, image))
        self.index += 1
        if self.student.delay and not self._has_key_frame():
            is_key = True  # there is none yet from which this one could follow
        began = perf_counter()
        found = self._run(frame, is_key=is_key)
        return outputs if found is None else [*outputs, self._output(found, is_key, began)]

    def _seen(self, image: Image) -> Image:
        """What the network gets of a frame."""
        if self.height is not None:
            return resize_image(image, self.height)
        return image if self.student.view is None else self.student.view.cut(image)

    @torch.inference_mode()
    def flush(self) -> list[StreamOutput]:
        """The outputs that are still to come; the stream then begins anew."""
        if not self._waiting:
            return []
        is_key, began = not self._has_key_frame(), perf_counter()
        late = self.student.flush(self._state)
        each = (perf_counter() - began) / max(1, len(late))
        self._state = self._memory = None
        return [self._output(outputs, is_key, perf_counter() - each) for outputs in late]

    def _has_key_frame(self) -> bool:
        return any(name.startswith(KEY) for name in self._state or {})

    def _output(self, outputs: Any, is_key: bool, began: float) -> StreamOutput:
        """The output of the frame that has waited longest."""
        index = self.index - len(self._waiting)
        frame = self._waiting.popleft()
        size = frame.image.shape[0], frame.image.shape[1]
        seen = None if self.height is None else (self.height, resized_width(size, self.height))
        prediction = self.task.decode(outputs, size=size, seen=seen)[0].cpu().numpy()
        pts_seconds = None if math.isnan(frame.pts_seconds) else frame.pts_seconds
        return StreamOutput(index, pts_seconds, frame.image, prediction, is_key, (perf_counter() - began) * 1e3)

    def _run(self, frame: Tensor, *, is_key: bool) -> Any:
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
        return outputs

    def state_dict(self) -> dict[str, Tensor]:
        """All that the frames to come depend on, as a flat dict of tensors."""
        tensors = {f"model/{name}": tensor for name, tensor in (self._state or {}).items()}
        tensors |= {f"policy/{name}": tensor for name, tensor in (self._memory or {}).items()}
        tensors["stream/index"] = torch.tensor(self.index)
        tensors["stream/size"] = torch.tensor(self._size or ())
        tensors["stream/height"] = torch.tensor(self.height or 0)
        tensors["stream/spacing"] = torch.tensor(self.student.spacing)
        if self._waiting:
            tensors["waiting/images"] = torch.from_numpy(np.stack([frame.image for frame in self._waiting]))
            seconds = [frame.pts_seconds for frame in self._waiting]
            tensors["waiting/pts_seconds"] = torch.tensor(seconds, dtype=torch.float64)
        return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Goes on where the stream that gave `tensors` was. Errors: UserError where they are no stream's state."""
        try:
            index, height = int(tensors["stream/index"]), int(tensors["stream/height"]) or None
            size, spacing = tuple(tensors["stream/size"].tolist()) or None, int(tensors["stream/spacing"])
        except KeyError as error:
            raise UserError(f"this is not the state of a stream: it lacks {error}") from error
        if height != self.height:
            raise UserError(f"this is the state of a stream of height {height or 'as given'}; go on with the same one")
        if spacing != self.student.spacing:
            raise UserError(
                "this is the state of a stream with other key frames, which kept other frames; take the same"
            )
        self.index, self._size = index, size
        state = self._part(tensors, "model/")
        self._state = {name: _channels_last(tensor) for name, tensor in state.items()} or None
        self._memory = self._part(tensors, "policy/") or None
        if "waiting/images" in tensors:
            seconds, images = tensors["waiting/pts_seconds"].tolist(), tensors["waiting/images"].numpy()
            self._waiting = deque(_Waiting(*frame) for frame in zip(seconds, images, strict=True))

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
