"""The loop that scores: which frames run, what a task is given of them, and that nothing is kept."""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vidistill.config import Settings, Values
from vidistill.errors import UserError
from vidistill.ops.normalise import Normalisation
from vidistill.stream.evaluate import evaluate
from vidistill.students.card import Card
from vidistill.students.state import KEY, State
from vidistill.students.student import Student
from vidistill.tasks import Task
from vidistill.tasks.contract import Look, Pictures, Scores

LEVELS = Normalisation((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
SIZE = (4, 6)


@dataclass(frozen=True)
class Numbered:
    """Frames whose every pixel is `first` and the frame's number."""

    num_frames: int
    first: int = 0
    name: str = "numbered"
    alive: list[Any] = field(default_factory=list, compare=False)

    def __len__(self) -> int:
        return self.num_frames

    def images(self) -> Iterator[np.ndarray]:
        for index in range(self.num_frames):
            image = np.full((*SIZE, 3), self.first + index, np.uint8)
            self.alive.append(weakref.ref(image))
            yield image
            del image


class Seen(Scores[int]):
    """Notes all that it is given."""

    def __init__(self) -> None:
        self.frames: list[tuple[Any, ...]] = []
        self.begun: list[str] = []

    def begin(self, sequence: Any) -> None:
        self.begun.append(sequence.name)

    def add(self, truth: int, prediction: Any, *, distance: int, reference: Any = None, before: Any = None) -> None:
        given = (truth, prediction, distance, reference, before)
        self.frames.append(tuple(one.tolist() if isinstance(one, np.ndarray) else one for one in given))

    def metrics(self) -> Values:
        return {"frames": self.frames, "begun": self.begun}


@dataclass(frozen=True, kw_only=True)
class Noting(Task):
    """Predictions are the two numbers that a student below gives."""

    name: ClassVar = "noting"
    metrics: ClassVar = ()
    clip_settings: ClassVar = Settings

    def samples(self, settings: Any, datasets: Any, *, use_labels: bool) -> Any: ...
    def supervise(self, outputs: Any, labels: Any, teacher_outputs: Any = None) -> Any: ...
    def compare(self, student_outputs: Any, teacher_outputs: Any) -> Any: ...
    def look(self, naming: Any) -> Look: ...  # type: ignore[empty-body]
    def pictures(self, naming: Any, *, interval: int, length: int) -> Pictures[Any]: ...  # type: ignore[empty-body]

    def decode(self, outputs: Tensor, *, size: tuple[int, int], seen: Any = None) -> Tensor:
        return outputs.round().int()

    def frames(self, sequence: Any) -> Iterator[tuple[np.ndarray, int]]:
        for image in sequence.images():
            yield image, int(image[0, 0, 0])

    def scores(self, *, interval: int, view: Any) -> Seen:
        return Seen()


class Once(Noting):
    """One stream a video."""

    every_phase: ClassVar = False


class KeyAndNow(Student):
    """Outputs (B, 2): the number of the key frame, and that of the frame itself; it counts its frames."""

    has_key_frames = True

    def __init__(self, interval: int, runs: list[int]) -> None:
        card = Card(task=Noting(), normalisation=LEVELS, key_frame_interval=interval)
        super().__init__(nn.Identity(), card)
        self.network.register_forward_hook(lambda *_: runs.append(1))

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        number = self.network(frame).mean(dim=(1, 2, 3))
        key = number if state is None else state[f"{KEY}number"]
        return torch.stack([key, number], dim=1), {f"{KEY}number": key}


class Late(KeyAndNow):
    """The same of the frame `delay` frames earlier."""

    delay = 2

    def forward(self, frame: Tensor, state: State | None = None) -> tuple[Tensor | None, State]:
        number = self.network(frame).mean(dim=(1, 2, 3))
        window = number[:, None].repeat(1, 1) if state is None else torch.cat([state["window"], number[:, None]], dim=1)
        if window.shape[1] <= self.delay:
            return None, {"window": window}
        first = window[:, 0]
        key = first if state is None or f"{KEY}number" not in state else state[f"{KEY}number"]
        return torch.stack([key, first], dim=1), {"window": window[:, 1:], f"{KEY}number": key}

    def flush(self, state: State | None) -> list[Tensor]:
        assert state is not None
        window = state["window"]
        key = state.get(f"{KEY}number", window[:, 0])
        return [torch.stack([key, window[:, i]], dim=1) for i in range(window.shape[1])]


def students_of(**intervals: int) -> tuple[dict[str, Student], dict[str, list[int]]]:
    runs: dict[str, list[int]] = {name: [] for name in intervals}
    return {name: KeyAndNow(interval, runs[name]) for name, interval in intervals.items()}, runs


def every_phase(sequence: Numbered, interval: int) -> list[tuple[Any, ...]]:
    """By hand: from every frame on, a run of one key frame and those up to the next."""
    first, end = sequence.first, sequence.first + sequence.num_frames
    return [
        (
            now,
            [key, now],
            now - key,
            [now, now],
            None if now == first + (key - first) % interval else [key if now > key else key - interval, now - 1],
        )
        for key in range(first, end)
        for now in range(key, min(key + interval, end))
    ]


@pytest.mark.parametrize("num_frames", [1, 2, 3, 8])
def test_every_frame_is_a_key_frame_once_and_once_at_each_distance(num_frames: int) -> None:
    sequences = [Numbered(num_frames), Numbered(2, first=100, name="other")]
    students, runs = students_of(three=3, one=1, five=5, teacher=3)
    seen = evaluate(students, sequences, Noting())
    for name, interval in (("three", 3), ("one", 1), ("five", 5), ("teacher", 1)):
        assert seen[name]["begun"] == ["numbered", "other"]
        assert sorted(seen[name]["frames"]) == sorted(
            frame for sequence in sequences for frame in every_phase(sequence, interval)
        )
    prepared = 5  # two frames as it is and as it will run, and one that finds out which norms may be fused
    assert len(runs["teacher"]) == num_frames + 2 + prepared, "its predictions of a frame serve all others"
    assert len(runs["three"]) == len(seen["three"]["frames"]) + prepared


def test_intervals_that_are_given_go_before_the_cards() -> None:
    students, _ = students_of(student=3, teacher=1)
    sequence = Numbered(7)
    seen = evaluate(students, [sequence], Noting(), intervals={"student": 2, "teacher": 4})
    assert sorted(seen["student"]["frames"]) == sorted(every_phase(sequence, 2))
    assert sorted(seen["teacher"]["frames"]) == sorted(every_phase(sequence, 4)), "as itself, not as the reference"


def test_without_a_teacher_nothing_is_a_reference() -> None:
    students, _ = students_of(student=2)
    seen = evaluate(students, [Numbered(4)], Noting())
    assert {frame[3] for frame in seen["student"]["frames"]} == {None}


@pytest.mark.parametrize("num_frames", [1, 2, 3, 8])
def test_one_stream_a_video_also_of_networks_that_answer_late(num_frames: int) -> None:
    runs: list[int] = []
    students = {"late": Late(3, runs), "teacher": KeyAndNow(1, []), "later": Late(1, [])}
    sequences = [Numbered(num_frames), Numbered(4, first=50, name="other")]
    seen = evaluate(students, sequences, Once())
    for name, interval in (("late", 3), ("teacher", 1), ("later", 1)):
        frames = seen[name]["frames"]
        numbers = [number for s in sequences for number in range(s.first, s.first + s.num_frames)]
        places = [place for s in sequences for place in range(s.num_frames)]
        assert [frame[0] for frame in frames] == numbers
        assert [frame[1][1] for frame in frames] == numbers, "each frame has its own output"
        assert [frame[2] for frame in frames] == [place % interval for place in places]
        assert [frame[3] for frame in frames] == [[number, number] for number in numbers]
        own = [frame[1] for frame in frames]
        assert [frame[4] for frame in frames] == [own[i - 1] if places[i] else None for i in range(len(own))]
    assert len(runs) == sum(map(len, sequences)) + 5


@pytest.mark.parametrize("task", [Noting(), Once()], ids=["every phase", "one stream"])
def test_a_long_video_needs_no_more_memory(task: Task) -> None:
    most = []

    class Watched(Numbered):
        def images(self) -> Iterator[np.ndarray]:
            for image in super().images():
                most.append(sum(reference() is not None for reference in self.alive))
                yield image
                del image

    students, _ = students_of(student=4, teacher=1)
    evaluate(students | {"late": Late(2, [])} if isinstance(task, Once) else students, [Watched(60)], task)
    assert len(most) == 60
    assert max(most) <= 6


def test_sequences_are_checked_before_anything_runs() -> None:
    class Strict(Noting):
        def check_videos(self, sequences: Any, views: Any) -> None:
            raise UserError(f"{sequences[-1].name}: too short for {views}")

    students, runs = students_of(student=2, teacher=1)
    with pytest.raises(UserError, match=r"last: too short for \[None, None\]"):
        evaluate(students, [Numbered(4), Numbered(1, name="last")], Strict())
    assert runs == {"student": [], "teacher": []}
