"""What every runtime promises, for every form of student and kind of network: the student that is given, as it streams.

The reference is that student itself, unfused, driven by hand.
"""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.contracts.examples import CLASSES, KINDS, Kind, pairs, streamed, untrained
from vidistill.data.clip import Image
from vidistill.errors import UserError
from vidistill.methods import METHODS
from vidistill.ops.clip_view import ClipView, WindowView
from vidistill.runtimes import RUNTIMES, deploy, open_student
from vidistill.runtimes.contract import Runtime
from vidistill.runtimes.measure import noise_frames
from vidistill.stream.stream import Running, Stream
from vidistill.students.student import Student
from vidistill.students.windows import LookAhead


def small() -> nn.Module:
    """One converted layer between two that are not."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, CLASSES, 1))


EXAMPLES = KINDS | {"small": Kind("segmentation", (16, 24), small, small)}
TOLERANCE = 1e-4  # of the outputs' scale
NUM_FRAMES = (5, 4)  # of the first size and of the second, with two key frames or more each
FORMS = ("supervised", "low_rank", "delta")  # methods that give different students
SLOW = {  # runtimes whose graphs take seconds to make: which students they are given here
    "compiled": [("delta", "small")],
    "onnx": [("delta", "frames"), ("supervised", "clips")],
    "openvino": [("delta", "frames"), ("supervised", "clips")],
}
CASES = [(name, *pair) for name in RUNTIMES for pair in SLOW.get(name, pairs(METHODS))]
EXPORTS = [  # depth's network is one of single frames like another
    (name, *pair) for name, runtime in RUNTIMES.items() if type(runtime).export is not Runtime.export
    for pair in pairs(FORMS) if pair[1] != "depths"
]  # fmt: skip


def loaded(method: str, kind: Kind) -> Student:
    """A student as a file gives it back, for one frame at a time."""
    student = untrained(method, kind)
    is_inner = isinstance(student.view, WindowView) and not isinstance(student, LookAhead)
    return (LookAhead(student, student.card) if is_inner else student).eval()


class Undecoded:
    """A task whose predictions are a network's outputs as they are."""

    name = "undecoded"
    any_size = True

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def decode(self, outputs: object, **sizes: object) -> Tensor:
        return self.kind.values(outputs).float()


def expected_of(student: Student, kind: Kind, images: list[Image]) -> np.ndarray:
    view = student.view
    seen = [view.cut(image) if isinstance(view, ClipView) else image for image in images]
    frames = [student.normalisation(torch.from_numpy(image).permute(2, 0, 1)[None]) for image in seen]
    return torch.cat([kind.values(outputs) for outputs in streamed(student, frames, kind.interval)]).numpy()


def gap(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def snapshot(student: Student) -> tuple[dict[str, Tensor], list[object]]:
    """Everything that a module could keep: its tensors, and the attributes of all its parts."""
    attributes = [
        (path, type(part), {name: copy.copy(value) for name, value in vars(part).items() if name not in TENSORS})
        for path, part in student.named_modules()
    ]
    tapes = [copy.copy(vars(part.tape)) for part in student.modules() if hasattr(part, "tape")]
    return {name: tensor.clone() for name, tensor in student.state_dict().items()}, [attributes, tapes]


TENSORS = ("_parameters", "_buffers", "_modules", "tape")


def assert_unchanged(student: Student, before: tuple[dict[str, Tensor], list[object]]) -> None:
    tensors, attributes = snapshot(student)
    assert attributes == before[1]
    assert tensors.keys() == before[0].keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, before[0][name]), name
        assert tensor.stride() == before[0][name].stride(), "nor laid out otherwise"


@pytest.mark.parametrize(("runtime", "method", "kind"), CASES)
def test_a_stream_of_the_student_as_it_runs_there_is_the_students(runtime: str, method: str, kind: str) -> None:
    """Over two frame sizes. The student that is given is in training mode, and stays as it is."""
    example, student = EXAMPLES[kind], loaded(method, EXAMPLES[kind])
    videos = [
        example.images(num, size)
        for num, size in zip(NUM_FRAMES, (example.size, (example.size[0] + 6, example.size[1] + 2)), strict=True)
    ]
    expected = [expected_of(student, example, images) for images in videos]
    student.train()
    before = snapshot(student)
    stream = Stream(student, running=Running(runtime=runtime), task=Undecoded(example))
    outputs = list(stream([image for images in videos for image in images]))
    assert_unchanged(student, before)
    assert [output.index for output in outputs] == list(range(sum(NUM_FRAMES)))
    for of_video, wanted in zip((outputs[: NUM_FRAMES[0]], outputs[NUM_FRAMES[0] :]), expected, strict=True):
        found = np.stack([output.prediction for output in of_video])
        assert gap(found, wanted) < TOLERANCE
    if student.has_key_frames:
        assert gap(expected[0][1:], np.repeat(expected[0][:1], NUM_FRAMES[0] - 1, axis=0)) > 0, "the video moves"
    running = stream._deployed
    assert running is not None
    assert running.card == student.card
    assert (running.delay, running.has_key_frames, running.sees_clips) == (
        student.delay, student.has_key_frames, student.sees_clips,
    )  # fmt: skip


@pytest.mark.parametrize(("runtime", "method", "kind"), EXPORTS)
def test_an_exported_folder_streams_as_the_student_does(runtime: str, method: str, kind: str, tmp_path: Path) -> None:
    example, student = KINDS[kind], loaded(method, KINDS[kind])
    images = example.images(NUM_FRAMES[0])
    expected = expected_of(student, example, images)
    before = snapshot(student)
    size = None if student.sees_clips else example.size
    exported = RUNTIMES[runtime].export(student, tmp_path / "folder", size=size)
    assert_unchanged(student, before)
    assert exported.gap < TOLERANCE
    assert sorted((tmp_path / "folder").iterdir()) == sorted(exported.files)
    opened = open_student(tmp_path / "folder")
    assert opened.card == student.card
    assert opened.runtime == runtime
    assert (opened.delay, opened.has_key_frames) == (student.delay, student.has_key_frames)
    outputs = list(Stream(opened, task=Undecoded(example))(images))
    assert gap(np.stack([output.prediction for output in outputs]), expected) < TOLERANCE
    pixels = noise_frames(1, example.size)
    assert deploy(opened, pixels, runtime=runtime) is opened
    with pytest.raises(UserError, match=f"was exported for runtime {runtime} in float32, got runtime eager"):
        deploy(opened, pixels, runtime="eager")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", [p for p in RUNTIMES["eager"].precisions if p != "float32"])
def test_half_precision_is_near_and_decodes_alike(precision: str, kind: str) -> None:
    example = KINDS[kind]
    student, images, running = loaded("supervised", example), example.images(3), Running(precision=precision)
    found = np.stack([o.prediction for o in Stream(student, running=running, task=Undecoded(example))(images)])
    assert 0 < gap(found, expected_of(student, example, images)) < 0.05
    for half, whole in zip(Stream(student, running=running)(images), Stream(student)(images), strict=True):
        assert half.prediction.dtype == whole.prediction.dtype
        assert half.prediction.shape[1:] == whole.prediction.shape[1:]
    assert student.dtype == torch.float32
