import gc
import json
import math
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.networks import TinyClips, TinySegmenter
from vidistill.data.video.reader import Frame
from vidistill.errors import UserError
from vidistill.methods.delta import Delta
from vidistill.ops.clip_view import ClipView
from vidistill.runtimes.measure import PeakMemory
from vidistill.stream.key_frames import Adaptive, Fixed, Never, parse_policy
from vidistill.stream.sinks import Source, open_sink
from vidistill.stream.stream import Running, Stream, load_state, save_state
from vidistill.students.card import Card
from vidistill.students.files import load_student, save_student
from vidistill.students.student import PerFrame, Student
from vidistill.students.windows import Windowed
from vidistill.tasks.recognition import Recognition
from vidistill.tasks.segmentation import Segmentation


@pytest.fixture
def path(tmp_path: Path, network) -> Path:
    method = Delta(key_frame_interval=4)
    card = Card(task=Segmentation(num_classes=4), key_frame_interval=4)
    student = method.finish(method.prepare(network, torch.zeros(1, 3, 32, 48), card=card))
    save_student(tmp_path / "student.safetensors", student)
    return tmp_path / "student.safetensors"


def student_of(path: Path) -> Student:
    return load_student(path, TinySegmenter(num_classes=4))


def stream(path: Path, **options) -> Stream:
    return Stream(student_of(path), **options)


@pytest.fixture
def images(dataset) -> list[np.ndarray]:
    return [image for sequence in dataset.sequences for image in sequence.images()]


def test_outputs_are_the_students_own(path, images) -> None:
    student = student_of(path)
    state = None
    for index, output in enumerate(stream(path)(images)):
        assert output.index == index
        assert output.is_key_frame == (index % 4 == 0)
        frame = student.card.normalisation(torch.from_numpy(images[index]).permute(2, 0, 1)[None])
        with torch.no_grad():
            logits, state = student(frame, None if index % 4 == 0 else state)
        expected = torch.nn.functional.interpolate(logits, size=(32, 48), mode="bilinear").argmax(1)[0].numpy()
        assert (output.prediction == expected).mean() > 0.999
        assert output.prediction.dtype == np.uint8


def test_the_student_that_is_given_stays_as_it_is(path, images) -> None:
    """A copy runs, with its norms fused and in evaluation mode, whatever mode the student is in."""
    student = student_of(path).train()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    found = [output.prediction for output in Stream(student)(images)]
    assert all(np.array_equal(a, o.prediction) for a, o in zip(found, stream(path)(images), strict=True))
    assert student.state_dict().keys() == before.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in student.state_dict().items())
    assert all(module.training for module in student.modules())


def test_a_student_without_a_task_is_refused(network) -> None:
    with pytest.raises(UserError, match=r"the student's card has no task.*; give Card\(task=…\)"):
        Stream(PerFrame(network))


def test_a_height_is_what_the_network_sees(path, images) -> None:
    """Halving enlarged frames gives the small ones back; classes come in the size of the frames that went in."""
    doubled = [image.repeat(2, axis=0).repeat(2, axis=1) for image in images]
    student = student_of(path)
    for image, output in zip(images, stream(path, height=32, key_frames=Fixed(1))(doubled), strict=True):
        with torch.no_grad():
            logits, _ = student(student.card.normalisation(torch.from_numpy(image).permute(2, 0, 1)[None]))
        expected = torch.nn.functional.interpolate(logits, size=(64, 96), mode="bilinear").argmax(1)[0].numpy()
        assert output.image.shape == (64, 96, 3)
        assert (output.prediction == expected).mean() > 0.999


def test_a_state_of_another_height_is_refused(path, images, tmp_path) -> None:
    first = stream(path, height=16)
    first.step(images[0])
    save_state(first, tmp_path / "state.safetensors")
    with pytest.raises(
        UserError, match="is of a stream of height 16, this one has as given; continue with the same height"
    ):
        load_state(stream(path), tmp_path / "state.safetensors")


@pytest.mark.parametrize("policy", [None, Adaptive(max_interval=5), Never()], ids=str)
@pytest.mark.parametrize("cut", [1, 4, 6])
def test_cut_in_two_and_resumed_gives_the_same_frames(path, images, tmp_path, policy, cut: int) -> None:
    whole = [(o.prediction, o.is_key_frame, o.index) for o in stream(path, key_frames=policy)(images)]
    first = stream(path, key_frames=policy)
    found = [(o.prediction, o.is_key_frame, o.index) for o in first(images[:cut])]
    save_state(first, tmp_path / "state.safetensors")
    second = stream(path, key_frames=policy)
    load_state(second, tmp_path / "state.safetensors")
    found += [(o.prediction, o.is_key_frame, o.index) for o in second(images[cut:])]
    for (labels, is_key, index), (expected, was_key, was) in zip(found, whole, strict=True):
        assert np.array_equal(labels, expected)
        assert (is_key, index) == (was_key, was)


def test_ten_times_as_long_takes_no_more_memory(path, images) -> None:
    def consume(num_frames: int) -> None:
        for _ in stream(path)(images[i % len(images)] for i in range(num_frames)):
            pass

    def peak_of_tensors(num_frames: int) -> int:
        with PeakMemory() as memory:
            consume(num_frames)
        return memory.peak

    def objects_after(running: Stream, num_frames: int) -> int:
        for _ in running(images[i % len(images)] for i in range(num_frames)):
            pass
        gc.collect()  # what waits for collection is not kept
        return tracemalloc.get_traced_memory()[0]

    consume(8)
    assert peak_of_tensors(200) <= 1.05 * peak_of_tensors(20)
    running = stream(path)
    tracemalloc.start()
    settled = objects_after(running, 300)
    # torch pools small objects of its own: tens of kilobytes, while 300 label maps would be 460 of them
    assert objects_after(running, 300) <= settled + 90_000
    tracemalloc.stop()


def test_a_frame_of_another_size_starts_with_a_key_frame(path, images) -> None:
    smaller = [np.ascontiguousarray(image[:20, :30]) for image in images[:2]]
    outputs = list(stream(path)([images[0], images[1], *smaller]))
    assert [output.is_key_frame for output in outputs] == [True, False, True, False]
    assert outputs[-1].prediction.shape == (20, 30)


def test_times_are_passed_on(path, images) -> None:
    outputs = stream(path)(Frame(index=7, pts_seconds=1.5, image=image) for image in images[:1])
    assert next(iter(outputs)).pts_seconds == 1.5


@pytest.mark.parametrize(
    "frame", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 4), np.uint8)]
)
def test_what_is_no_frame_is_refused(path, frame) -> None:
    with pytest.raises(UserError, match=r"frame 0 must be \(height, width, 3\) uint8 RGB, got"):
        list(stream(path)([frame]))


def test_a_file_that_is_no_state_is_refused(path, tmp_path) -> None:
    with pytest.raises(UserError, match=r"the tensors are not the state of a stream: .* is missing"):
        load_state(stream(path), path)
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"bad\.safetensors: cannot be read as a stream's state .*; give what --save"):
        load_state(stream(path), tmp_path / "bad.safetensors")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda state: state | {name: tensor[..., :1] for name, tensor in state.items() if tensor.ndim == 4},
            "checksum",
        ),
        (lambda state: {n: t.half() if t.ndim == 4 else t for n, t in state.items()}, "checksum"),
        (lambda state: {n: t * math.nan if t.is_floating_point() else t for n, t in state.items()}, "checksum"),
        (lambda state: {n.replace("model/", "model/x"): t for n, t in state.items()}, "checksum"),
        (lambda state: state | {"stream/size": torch.tensor([10**9, 10**9, 3])}, "checksum"),
        (lambda state: state | {"stream/index": torch.zeros(2)}, "not the state of a stream"),
        (lambda state: {}, "is missing"),
    ],
)
def test_a_state_that_was_changed_is_refused(path, images, change, sentence: str) -> None:
    first = stream(path)
    list(first(images[:2], ends=False))
    with pytest.raises(UserError, match=sentence):
        stream(path).load_state_dict(change(first.state_dict()))


def test_a_state_of_another_student_runtime_or_policy_is_refused(path, images) -> None:
    first = stream(path)
    list(first(images[:2], ends=False))
    state = first.state_dict()
    other = student_of(path)
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    renamed = student_of(path)
    renamed.card = replace(renamed.card, class_names=("w", "x", "y", "z"))
    Stream(renamed).load_state_dict(state)  # names decide nothing
    for another in (Stream(other), Stream(student_of(path), running=Running(precision="bfloat16"))):
        with pytest.raises(UserError, match="of another student, runtime or precision"):
            another.load_state_dict(state)
    with pytest.raises(UserError, match="key frames depend on since, this one's on key, last, since"):
        stream(path, key_frames=Adaptive()).load_state_dict(state)


def test_a_network_that_cannot_run_is_one_sentence(images) -> None:
    """As of a card whose view, task or size is not its network's."""
    network = torch.nn.Linear(7, 7)
    with pytest.raises(UserError, match=r"cannot run on frames of 48x32, .*RuntimeError: mat1 and mat2"):
        list(Stream(PerFrame(network, Card(task=Segmentation(num_classes=4))))(images[:1]))


def keys(policy, frames) -> list[int]:
    memory, found = None, []
    for i, frame in enumerate(frames):
        is_key, memory = policy(torch.full((1, 3, 20, 30), frame, dtype=torch.uint8), memory)
        if is_key:
            found.append(i)
    return found


def test_policies_by_hand() -> None:
    assert keys(Fixed(3), [0] * 8) == [0, 3, 6]
    assert keys(Fixed(1), [0] * 3) == [0, 1, 2]
    assert keys(Never(), [0, 200, 0]) == [0]
    cut = Adaptive(scene_cut=0.1, drift=0.5, max_interval=100)
    assert keys(cut, [50, 55, 55, 120, 121]) == [0, 3], "a jump of 65 levels is a cut, 5 are not"
    drift = Adaptive(scene_cut=0.5, drift=0.05, max_interval=100)
    assert keys(drift, [50, 56, 62, 68, 74, 80]) == [0, 3], "18 levels from the key frame are more than 0.05 · 255"
    assert keys(Adaptive(max_interval=2), [9] * 5) == [0, 2, 4]


def test_policies_by_name() -> None:
    assert parse_policy("7") == Fixed(7)
    assert parse_policy("adaptive") == Adaptive()
    assert parse_policy("adaptive:0.03") == Adaptive(drift=0.03)
    assert parse_policy("never") == Never()
    for text in ("0", "-3", "often", "adaptive:much"):
        with pytest.raises(UserError):
            parse_policy(text)


# Networks of clips


VIEW = ClipView(num_frames=3, sampling="dense", stride=2, crop=28, size=16)


class Solid(TinyClips):
    """With a convolution over time too."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.over_time = torch.nn.Conv3d(3, 3, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return super().forward(self.over_time(clips.transpose(1, 2)).transpose(1, 2))


@pytest.fixture(params=[TinyClips, Solid], ids=["frames", "solid"])
def clip_student(request, tmp_path: Path):
    """A function that loads a saved student of clips anew, with a key frame every 3 frames."""
    network = request.param(4).eval()
    torch.nn.init.normal_(network.head.weight, std=2)
    card = Card(task=Recognition(num_classes=4), class_names=("a", "b"), key_frame_interval=3, view=VIEW)
    save_student(tmp_path / "clips.safetensors", Windowed(network, card))
    return lambda: load_student(tmp_path / "clips.safetensors", request.param(4))


def test_a_clip_network_says_what_the_last_clip_is_and_holds_it(clip_student, images) -> None:
    student = clip_student()
    for index, output in enumerate(Stream(clip_student())(images)):
        assert output.is_key_frame == (index % 3 == 0)
        last = index - index % 3
        window = np.stack([VIEW.cut(images[max(0, last - back)]) for back in (4, 2, 0)])
        clip = student.card.normalisation(torch.from_numpy(window).permute(0, 3, 1, 2)[None])
        with torch.no_grad():
            expected = student(clip)[0].softmax(1)[0].numpy()
        np.testing.assert_allclose(output.prediction, expected, atol=1e-4)
        assert output.image is images[index]


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_clip_stream_cut_in_two_goes_on_the_same(clip_student, images, tmp_path, cut: int) -> None:
    whole = [(o.prediction, o.is_key_frame, o.index) for o in Stream(clip_student())(images)]
    first = Stream(clip_student())
    found = [(o.prediction, o.is_key_frame, o.index) for o in first(images[:cut])]
    save_state(first, tmp_path / "state.safetensors")
    second = Stream(clip_student())
    load_state(second, tmp_path / "state.safetensors")
    found += [(o.prediction, o.is_key_frame, o.index) for o in second(images[cut:])]
    for (probabilities, *rest), (expected, *wanted) in zip(found, whole, strict=True):
        assert np.array_equal(probabilities, expected)
        assert rest == wanted


def test_a_clip_stream_ten_times_as_long_takes_no_more_memory(clip_student, images) -> None:
    def peak(num_frames: int) -> int:
        with PeakMemory() as memory:
            for _ in Stream(clip_student())(images[i % len(images)] for i in range(num_frames)):
                pass
        return memory.peak

    peak(6)
    assert peak(80) <= 1.05 * peak(8)


def test_a_clip_stream_bears_a_change_of_size(clip_student, images) -> None:
    smaller = [np.ascontiguousarray(image[:20, :30]) for image in images[:2]]
    outputs = list(Stream(clip_student())([images[0], images[1], *smaller]))
    assert [output.is_key_frame for output in outputs] == [True, False, True, False]


def test_probabilities_as_lines_and_on_the_video(clip_student, images, tmp_path) -> None:
    outputs = list(Stream(clip_student())(images[:4]))
    student, source = clip_student(), Source(fps=10)
    with open_sink(str(tmp_path / "out.jsonl"), student, source) as sink:
        for output in outputs:
            sink.write(output)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    for line, output in zip(lines, outputs, strict=True):
        named = dict(zip(("a", "b", "2", "3"), output.prediction.tolist(), strict=True))
        assert line["classes"] == pytest.approx(named, abs=1e-6)
        assert list(line["classes"]) == sorted(named, key=lambda name: -named[name])
    with open_sink(str(tmp_path / "out.mp4"), student, source) as sink:
        sink.write(outputs[0])
    assert (tmp_path / "out.mp4").stat().st_size > 0
    with pytest.raises(UserError, match=r"masks: a student of recognition writes a video \(.*\) or a \.jsonl file;"):
        open_sink(str(tmp_path / "masks"), student, source)
