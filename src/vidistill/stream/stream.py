"""The one frame loop: frames in, results out, in constant memory. `for output in Stream(student)(frames): …`"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TypeVar

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
from vidistill.models.outputs import NetworkOutputs
from vidistill.ops.clip_view import WindowView
from vidistill.ops.digest import digest
from vidistill.ops.modules import copied
from vidistill.runtimes import DEFAULT, Deployed, deploy
from vidistill.stream.key_frames import THUMBNAIL, Fixed, KeyFramePolicy, Memory
from vidistill.students.files import save_tensors
from vidistill.students.state import KEY, State, without_key_frame
from vidistill.students.student import Student
from vidistill.tasks import StreamOutput, Task

T = TypeVar("T")

CHECKSUM = "stream/checksum"  # of all other tensors of a state


@dataclass(frozen=True)
class Running:
    """How a student runs: device, runtime, precision and threads, see `deploy`; device None for where it is."""

    device: str | torch.device | None = None
    runtime: str | None = None
    precision: str | None = None
    threads: int = 0


@dataclass(frozen=True)
class _Waiting:
    """A frame whose output is still to come. pts_seconds: NaN where it has none."""

    pts_seconds: float
    image: Image
    after_loss: bool = False


class Stream:
    """Runs a student over frames, one at a time. The student that is given stays as it is: a copy runs.

    A student that looks ahead gives its outputs `student.delay` frames late, each with its own frame and time.
    A frame of another size than the one before starts with a key frame. The stream can be cut: `state_dict()` after any
    frame, `load_state_dict()` on a new stream, and the frames that follow come out the same.

    Args:
        student: of any form, or one that was exported.
        key_frames: the policy; the card's fixed interval by default.
        height: the network sees the frames resized to it, in pixels; predictions are still in the frames' own pixels.
        running: where and how it runs.
        task: how outputs are decoded; the card's by default.

    Raises:
        UserError: the card names no task, or the task cannot have a height.
    """

    def __init__(
        self,
        student: Student,
        *,
        key_frames: KeyFramePolicy | None = None,
        height: int | None = None,
        running: Running | None = None,
        task: Task | None = None,
    ) -> None:
        self.running = running or Running()
        self.student = student
        self.task = task or student.task
        if height is not None and not self.task.any_size:
            raise UserError(f"height: a student of {self.task.name} gets its frames as they are; leave it out")
        self.height = height
        self.device = torch.device(self.running.device or student.device)
        self.key_frames = key_frames or Fixed(student.card.key_frame_interval)
        self.index = 0
        self._deployed: Deployed | None = None  # made for the size of the first frame
        self._deployed_size: tuple[int, int] | None = None
        self._state: State | None = None
        self._memory: Memory | None = None
        self._size: tuple[int, ...] | None = None
        self._waiting: deque[_Waiting] = deque()

    def __call__(self, frames: Iterable[Image | Frame], *, ends: bool = True) -> Iterator[StreamOutput]:
        """An output for every frame, in order.

        Args:
            frames: (H, W, 3) uint8 RGB arrays, or what a `VideoReader` yields.
            ends: False where more frames will come, as before a state is saved; then late outputs come with those.
        """
        for frame in frames:
            if isinstance(frame, Frame):
                yield from self.push(frame.image, frame.pts_seconds, after_loss=frame.after_loss)
            else:
                yield from self.push(frame)
        if ends:
            yield from self.flush()

    def step(self, image: Image, pts_seconds: float | None = None) -> StreamOutput:
        """The output of the next frame, of a student that does not look ahead."""
        (output,) = self.push(image, pts_seconds)
        return output

    @torch.inference_mode()
    def push(self, image: Image, pts_seconds: float | None = None, *, after_loss: bool = False) -> list[StreamOutput]:
        """The outputs that the next frame brings: its own, or that of an earlier one, or none yet.

        Args:
            image: (H, W, 3) uint8 RGB.
            pts_seconds: the frame's own time.
            after_loss: whether frames before it were lost: then it begins the stream anew, with a key frame.

        Raises:
            UserError: the image has another shape or type.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise UserError(f"frame {self.index} must be (height, width, 3) uint8 RGB, got {image.shape} {image.dtype}")
        begins = after_loss or image.shape != self._size
        outputs = self.flush() if begins else []
        pixels = self._pixels(image)
        if begins:
            self._size, self._memory, self._state = image.shape, None, None
        is_key, self._memory = self.key_frames(pixels.permute(0, 3, 1, 2), self._memory)
        self._waiting.append(_Waiting(math.nan if pts_seconds is None else pts_seconds, image, after_loss))
        self.index += 1
        with self._own_errors():
            student = self._student_for(pixels)
        student.expect_key_frames(self._interval)
        if student.delay and not self._has_key_frame():
            is_key = True  # there is none yet from which this one could follow
        began = perf_counter()
        state = self._state
        if is_key and state is not None:
            state = without_key_frame(state)
            self._state = None  # the old key frame's memory is free before the new one's is made
        with self._own_errors():
            network_outputs, self._state = student(pixels, state or None)
        return outputs if network_outputs is None else [*outputs, self._output(network_outputs, is_key, began)]

    @torch.inference_mode()
    def flush(self) -> list[StreamOutput]:
        """The outputs that are still to come; the stream then begins anew."""
        if not self._waiting:
            return []
        student = self._student_for(self._pixels(self._waiting[0].image))
        is_key, began = not self._has_key_frame(), perf_counter()
        with self._own_errors():
            late = student.flush(self._state)
        each = (perf_counter() - began) / max(1, len(late))
        self._state = self._memory = None
        return [self._output(outputs, is_key, perf_counter() - each) for outputs in late]

    def restart(self) -> None:
        """Forgets all frames: the next one begins a stream, with index 0."""
        self.index, self._state, self._memory = 0, None, None
        self._waiting.clear()

    @torch.inference_mode()
    def whole(self, frames: NDArray[np.uint8]) -> NetworkOutputs:
        """The network's outputs of a whole clip (T, H, W, 3) uint8, or of a window around its centre frame.

        A network of windows with key frames sees the clip as a stream, up to its centre frame's output.
        """
        clip = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device)  # (T, H, W, 3)
        student = self._student_for(clip[:1])
        if not (isinstance(student.view, WindowView) and student.has_key_frames):
            return student(clip[None])[0]
        memory: Memory | None = None
        state: State | None = None
        late: list[NetworkOutputs] = []
        for pixels in clip[:, None]:
            is_key, memory = self.key_frames(pixels.permute(0, 3, 1, 2), memory)
            outputs, state = student(pixels, (without_key_frame(state) if is_key else state) or None)
            late += [] if outputs is None else [outputs]
            if len(late) > len(clip) // 2:  # the centre frame's
                return late[-1]
        return [*late, *student.flush(state)][len(clip) // 2]

    def _pixels(self, image: Image) -> Tensor:
        """(1, H, W, 3) uint8 on the device: what the network sees of an image."""
        if self.height is not None:
            seen = resize_image(image, self.height)
        else:
            seen = image if self.student.view is None else self.student.view.cut(image)
        return torch.from_numpy(np.ascontiguousarray(seen))[None].to(self.device)

    def _student_for(self, pixels: Tensor) -> Deployed:
        """The student as it runs, made anew where it is for frames of one size and the size has changed."""
        size = (pixels.shape[-3], pixels.shape[-2])
        is_for_another = self._deployed is not None and self._deployed.has_one_size and self._deployed_size != size
        if self._deployed is None or (is_for_another and not isinstance(self.student, Deployed)):
            running = self.running
            with torch.inference_mode(mode=False), torch.no_grad():  # or the copy could not be changed any more
                student = self.student
                if student.device != self.device:
                    student = copied(student).to(self.device)
                self._deployed = deploy(
                    student,
                    pixels.clone(),
                    runtime=running.runtime,
                    precision=running.precision,
                    threads=running.threads,
                )
            self._deployed_size = size
            if self._state is not None:  # loaded, and a file does not keep the layout
                self._state = {name: self._deployed.laid_out(tensor) for name, tensor in self._state.items()}
        return self._deployed

    @property
    def _interval(self) -> int:
        """Of the key frames; 1 where they may come at any frame."""
        return self.key_frames.interval if isinstance(self.key_frames, Fixed) else 1

    @property
    def _spacing(self) -> int:
        """Of the frames that the state keeps."""
        return self.student.spacing_for(self._interval)

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        """Turns what a network, which may be anyone's, raises into a UserError."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            size = "x".join(str(side) for side in (self._size or ())[1::-1])
            reason = (str(error).strip().splitlines() or [""])[0][:300]
            raise UserError(
                f"the student cannot run on frames of {size}, or its outputs are not those of its task "
                f"({type(error).__name__}: {reason}); give frames of another size or another student"
            ) from error

    def _has_key_frame(self) -> bool:
        return any(name.startswith(KEY) for name in self._state or {})

    def _output(self, outputs: NetworkOutputs, is_key: bool, began: float) -> StreamOutput:
        """The output of the frame that has waited longest."""
        index = self.index - len(self._waiting)
        frame = self._waiting.popleft()
        size = frame.image.shape[0], frame.image.shape[1]
        seen = None if self.height is None else (self.height, resized_width(size, self.height))
        with self._own_errors():
            prediction = self.task.decode(outputs, size=size, seen=seen)[0].cpu().numpy()
        pts_seconds = None if math.isnan(frame.pts_seconds) else frame.pts_seconds
        milliseconds = (perf_counter() - began) * 1e3
        return StreamOutput(index, pts_seconds, frame.image, prediction, is_key, milliseconds, frame.after_loss)

    def state_dict(self) -> dict[str, Tensor]:
        """All that the frames to come depend on, as a flat dict of tensors."""
        tensors = {f"model/{name}": tensor for name, tensor in (self._state or {}).items()}
        tensors |= {f"policy/{name}": tensor for name, tensor in (self._memory or {}).items()}
        tensors["stream/index"] = torch.tensor(self.index)
        tensors["stream/size"] = torch.tensor(self._size or ())
        tensors["stream/height"] = torch.tensor(self.height or 0)
        tensors["stream/spacing"] = torch.tensor(self._spacing)
        tensors["stream/student"] = self._identity()
        if self._waiting:
            tensors["waiting/images"] = torch.from_numpy(np.stack([frame.image for frame in self._waiting]))
            seconds = [frame.pts_seconds for frame in self._waiting]
            tensors["waiting/pts_seconds"] = torch.tensor(seconds, dtype=torch.float64)
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        return tensors | {CHECKSUM: _checksum(tensors)}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Continues where the stream that gave `tensors` was.

        Raises:
            UserError: they are not a stream's state as it was saved, or one of another student, runtime, precision,
                height or other key frames.
        """
        try:
            index, height = int(tensors["stream/index"]), int(tensors["stream/height"]) or None
            size, spacing = tuple(tensors["stream/size"].tolist()) or None, int(tensors["stream/spacing"])
            student, checksum = tensors["stream/student"], tensors[CHECKSUM]
        except KeyError as error:
            raise UserError(f"the tensors are not the state of a stream: {error} is missing") from error
        except (ValueError, RuntimeError, TypeError) as error:
            raise UserError(f"the tensors are not the state of a stream ({error}); give what was saved") from error
        if not torch.equal(checksum.cpu(), _checksum({n: t for n, t in tensors.items() if n != CHECKSUM})):
            raise UserError("the state is not as it was saved: its checksum differs; save it again")
        if not torch.equal(student.cpu(), self._identity()):
            raise UserError(
                "the state is of another student, runtime or precision; continue with those that it was saved with"
            )
        if height != self.height:
            raise UserError(
                f"the state is of a stream of height {height or 'as given'}, this one has {self.height or 'as given'}; "
                "continue with the same height"
            )
        if spacing != self._spacing:
            raise UserError(
                f"the state is of a stream that keeps one frame in {spacing}, this one keeps one in {self._spacing}; "
                "continue with the same key frames"
            )
        memory = self._part(tensors, "policy/")
        _, kept = self.key_frames(torch.zeros(1, 3, *THUMBNAIL, dtype=torch.uint8, device=self.device), None)
        if memory and memory.keys() != kept.keys():
            raise UserError(
                f"the state is of a stream whose key frames depend on {', '.join(sorted(memory))}, this one's on "
                f"{', '.join(sorted(kept))}; continue with the same key frames"
            )
        self.index, self._size = index, size
        state = self._part(tensors, "model/")
        self._state = state or None
        self._memory = memory or None
        self._waiting = deque()
        if "waiting/images" in tensors:
            seconds, images = tensors["waiting/pts_seconds"].tolist(), tensors["waiting/images"].numpy()
            self._waiting = deque(_Waiting(*frame) for frame in zip(seconds, images, strict=True))

    def _identity(self) -> Tensor:
        """(20,) uint8: a hash of the student and of how it runs, by which a state knows what it is of."""
        running = self.running
        how = f"{running.runtime or DEFAULT} {running.precision or 'float32'}"
        if isinstance(self.student, Deployed):
            how = f"{self.student.runtime} {self.student.precision}"
        return _bytes(digest(self.student.identity().hex() + how, {}))

    def _part(self, tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
        named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        return {name: tensor.to(self.device) for name, tensor in named.items()}


def _checksum(tensors: Mapping[str, Tensor]) -> Tensor:
    """(20,) uint8."""
    return _bytes(digest("", dict(sorted(tensors.items()))))


def _bytes(values: bytes) -> Tensor:
    return torch.tensor(list(values), dtype=torch.uint8)


def side_by_side(
    streams: Mapping[str, Stream], frames: Iterable[tuple[Image, T]]
) -> Iterator[tuple[T, dict[str, StreamOutput]]]:
    """What streams make of the same frames, from their beginning, with what comes with each frame.

    Those that look ahead answer late; as few outputs of the others wait for them as can be.
    """
    comes_with: deque[T] = deque()
    waiting: dict[str, deque[StreamOutput]] = {name: deque() for name in streams}
    for stream in streams.values():
        stream.restart()
    for image, value in frames:
        comes_with.append(value)
        for name, stream in streams.items():
            waiting[name] += stream.push(image)
        while comes_with and all(waiting.values()):
            yield comes_with.popleft(), {name: outputs.popleft() for name, outputs in waiting.items()}
    for name, stream in streams.items():
        waiting[name] += stream.flush()
    while comes_with:
        yield comes_with.popleft(), {name: outputs.popleft() for name, outputs in waiting.items()}


def save_state(stream: Stream, path: str | Path) -> None:
    """Writes a stream's state as safetensors, atomically."""
    save_tensors(path, stream.state_dict())


def load_state(stream: Stream, path: str | Path) -> None:
    """Puts a stream where the saved one was.

    Raises:
        UserError: the file is not a stream's state.
    """
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(
            f"{path}: cannot be read as a stream's state ({error}); give what --save-state wrote"
        ) from error
    try:
        stream.load_state_dict(tensors)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
