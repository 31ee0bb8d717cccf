"""Students over sequences → metrics with their protocol. Every network streams; the task only counts."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import torch

from vidistill.config import Values
from vidistill.data.clip import FrameSequence, Image
from vidistill.errors import UserError
from vidistill.models.outputs import NetworkOutputs
from vidistill.progress import track
from vidistill.stream.key_frames import Fixed
from vidistill.stream.stream import Running, Stream, side_by_side
from vidistill.students.student import Student
from vidistill.tasks import Task
from vidistill.tasks.contract import Prediction, Scores

TEACHER = "teacher"  # the network that the others are compared with, where one has this name


@dataclass(frozen=True)
class _Frame:
    """A frame, its truth, and what the teacher predicts for it."""

    index: int
    image: Image
    truth: Any
    reference: Prediction | None


@dataclass
class _Player:
    """A network with its stream and its count. interval: frames from one key frame to the next."""

    stream: Stream
    scores: Scores[Any]
    interval: int


def evaluate(
    students: Mapping[str, Student],
    sequences: Sequence[FrameSequence],
    task: Task,
    *,
    intervals: Mapping[str, int] | None = None,
    running: Running | None = None,
    most_frames: int | None = None,
) -> dict[str, Values]:
    """The metrics of each network, in evaluation mode, by name; all see the same frames, in constant memory.

    Where the task asks for it, every frame is a key frame once, and once at each distance that its sequence allows.

    Args:
        students: by name; agreement is counted with the one that is named "teacher".
        sequences: the videos. One that is scored by whole clips is left out and named where it cannot be decoded.
        task: what is counted, and with which number of classes.
        intervals: frames from one key frame to the next, by name; the card's by default, and 1 for the teacher.
        running: where and how the networks run.
        most_frames: how many of each video are played, for a trial; None for all. Whole clips stay whole.

    Raises:
        UserError: nothing can be scored, or a video does not suit the task.
    """
    players: dict[str, _Player] = {}
    for name, student in students.items():
        interval = (intervals or {}).get(name) or (1 if name == TEACHER else student.card.key_frame_interval)
        stream = Stream(student, key_frames=Fixed(interval), running=running, task=task)
        players[name] = _Player(stream, task.scores(interval=interval, view=student.view), interval)
    task.check_videos(sequences, [student.view for student in students.values()])
    total = sum(_steps(sequence, task) for sequence in sequences)
    done = track(range(total), "evaluating", total=total)  # advanced step by step
    with torch.inference_mode():
        for sequence in sequences:
            for player in players.values():
                player.scores.begin(sequence)
            _play(players, sequence, task, done, most_frames)
    return {name: player.scores.metrics() for name, player in players.items()}


def _steps(sequence: FrameSequence, task: Task) -> int:
    """How far the progress goes with a sequence: its frames, or one for a video that nobody need open to count them."""
    return 1 if task.whole_videos else len(sequence)


def _play(
    players: dict[str, _Player], sequence: FrameSequence, task: Task, done: Iterator[int], most_frames: int | None
) -> None:
    outputs: dict[str, list[NetworkOutputs]] = {}
    truths: dict[str, Any] = {}
    for name, player in players.items():
        try:
            clips = task.clips(sequence, player.stream.student.view)
        except UserError as error:  # a network of another view may read other frames of it
            player.scores.leave_out(error)
            continue
        if clips is not None:  # its views run one by one, so that many need no more memory
            outputs[name], truths[name] = [player.stream.whole(frames) for frames in clips.frames], clips.truth
    for name, truth in truths.items():
        players[name].scores.add_clips(truth, outputs[name], outputs.get(TEACHER))
    if task.whole_videos or truths:
        deque(islice(done, _steps(sequence, task)), maxlen=0)
        return
    frames = _counted(islice(task.frames(sequence), most_frames), done)
    if task.every_phase:
        _play_every_phase(players, frames)
    else:
        _play_once(players, frames)


def _counted(frames: Iterator[tuple[Image, Any]], done: Iterator[int]) -> Iterator[tuple[Image, Any]]:
    """The frames, each of which advances the progress."""
    for frame in frames:
        next(done, None)
        yield frame


def _play_once(players: dict[str, _Player], frames: Iterator[tuple[Image, Any]]) -> None:
    """One stream a video."""
    before: dict[str, Prediction] = {}
    streams = {name: player.stream for name, player in players.items()}
    for index, (truth, outputs) in enumerate(side_by_side(streams, frames)):
        now = {name: output.prediction for name, output in outputs.items()}
        for name, player in players.items():
            player.scores.add(
                truth,
                now[name],
                distance=index % player.interval,
                reference=now.get(TEACHER),
                before=before.get(name),
            )
        before = now


def _play_every_phase(players: dict[str, _Player], frames: Iterator[tuple[Image, Any]]) -> None:
    """From every frame on, a key frame and the frames up to the next one: all phases that key frames can have."""
    longest = max(player.interval for player in players.values())
    window: deque[_Frame] = deque()
    earlier: dict[tuple[str, int], Prediction] = {}  # by network and key frame: the prediction before it, in its phase
    nothing: list[None] = [None] * longest
    for step in chain(enumerate(frames), nothing):
        if step is not None:
            index, (image, truth) = step
            reference = _reference(players, image)
            window.append(_Frame(index, image, truth, reference))
        if len(window) == longest or (step is None and window):
            for name, player in players.items():
                _play_from_key_frame(name, player, window, earlier)
            window.popleft()


def _reference(players: dict[str, _Player], image: Image) -> Prediction | None:
    """What the teacher predicts; None without one."""
    if TEACHER not in players:
        return None
    stream = players[TEACHER].stream
    stream.restart()
    return stream.step(image).prediction


def _play_from_key_frame(
    name: str, player: _Player, window: deque[_Frame], earlier: dict[tuple[str, int], Prediction]
) -> None:
    run = list(islice(window, player.interval))
    if name == TEACHER and player.interval == 1:  # it has run on every frame already
        predicted = [frame.reference for frame in run]
    else:
        player.stream.restart()
        predicted = [output.prediction for output in player.stream(frame.image for frame in run)]
    before = earlier.pop((name, run[0].index), None)
    for distance, (frame, prediction) in enumerate(zip(run, predicted, strict=True)):
        assert prediction is not None
        player.scores.add(frame.truth, prediction, distance=distance, reference=frame.reference, before=before)
        before = prediction
    if before is not None:
        earlier[name, run[0].index + player.interval] = before
