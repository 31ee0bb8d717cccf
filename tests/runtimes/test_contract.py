"""What every runtime promises: a student in, the same student out, for every form of student."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.networks import TinyClips, TinyDetector, TinySegmenter, TinyWindows
from vidistill.data.datasets.synthetic_actions import synthetic_actions
from vidistill.errors import UserError
from vidistill.methods.delta import Delta
from vidistill.models import build_network
from vidistill.models.outputs import named_tensors
from vidistill.ops.clip_view import ClipView, WindowView
from vidistill.runtimes import RUNTIMES, Deployed, compiled, deploy, measure
from vidistill.runtimes.contract import DTYPES, Runtime
from vidistill.runtimes.eager import as_frames
from vidistill.runtimes.measure import noise_frames, profile_students
from vidistill.stream.evaluate import evaluate
from vidistill.students.card import Card
from vidistill.students.state import State, without_key_frame
from vidistill.students.student import PerFrame, Student
from vidistill.students.windows import FrameByFrame, LookAhead, Windowed
from vidistill.tasks.detection import Detection
from vidistill.tasks.recognition import Recognition
from vidistill.tasks.segmentation import Segmentation
from vidistill.tasks.super_resolution import SuperResolution

CLIPS = ClipView(num_frames=3, sampling="dense", stride=2, crop=16, size=8)
SEGMENTS = Card(task=Segmentation(num_classes=4), class_names=("a", "b", "c", "d"), key_frame_interval=3)
ENLARGES = Card(task=SuperResolution(scale=2), view=WindowView(3), normalisation=SuperResolution.normalisation)
RECOGNISES = Card(task=Recognition(num_classes=4), view=CLIPS, key_frame_interval=2)


def delta(network: torch.nn.Module, card: Card, *shape: int) -> Student:
    method = Delta()
    return method.finish(method.prepare(network, torch.zeros(1, *shape), card=card))


STUDENTS: dict[str, Callable[[], Student]] = {
    "per frame": lambda: PerFrame(TinySegmenter(4), SEGMENTS),
    "delta": lambda: delta(TinySegmenter(4).eval(), SEGMENTS, 3, 16, 16),
    "delta detector": lambda: delta(TinyDetector(4).eval(), Card(task=Detection(num_classes=4)), 3, 16, 16),
    "windows": lambda: LookAhead(TinyWindows(), ENLARGES),
    "delta of windows": lambda: LookAhead(delta(TinyWindows().eval(), ENLARGES, 3, 3, 16, 16), ENLARGES),
    "clips": lambda: Windowed(TinyClips(4), RECOGNISES),
    "causal clips": lambda: FrameByFrame(
        build_network("tsm", options=CAUSAL), replace(RECOGNISES, view=replace(CLIPS, size=32))
    ),
}
CAUSAL = {"num_classes": 4, "backbone": "test_resnet", "causal": True}


@pytest.fixture(autouse=True)
def _traces_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as ever, but no code is generated, which takes minutes."""
    monkeypatch.setattr(compiled, "compile_for_inference", lambda module: torch.compile(module, backend="eager"))


def student_of(form: str) -> Student:
    torch.manual_seed(1)
    return STUDENTS[form]().eval().requires_grad_(False)


@cache
def running(name: str, form: str) -> Deployed:
    """As it is deployed, once for all tests: an export takes seconds."""
    return deploy(student_of(form), noise_frames(1, (16, 16)), runtime=name)


@torch.inference_mode()
def play(student: Student, pixels: Tensor, interval: int) -> list[dict[str, Tensor] | None]:
    """The outputs of a stream with a key frame every `interval` frames, and those that come late."""
    frames = pixels if isinstance(student, Deployed) else as_frames(student, pixels)
    student.expect_key_frames(interval)
    state: State | None = None
    played = []
    for index, frame in enumerate(frames):
        is_key = index % interval == 0
        outputs, state = student(frame[None], without_key_frame(state) if is_key else state or None)
        played.append(outputs)
    return [None if one is None else named_tensors(one, "output") for one in [*played, *student.flush(state)]]


@pytest.mark.parametrize("form", STUDENTS)
@pytest.mark.parametrize("name", RUNTIMES)
def test_what_runs_is_the_student(name: str, form: str) -> None:
    student, deployed = student_of(form), running(name, form)
    assert (deployed.card, deployed.delay) == (student.card, student.delay)
    assert deployed.has_key_frames == student.has_key_frames
    frames = noise_frames(5, (16, 16))
    interval = student.card.key_frame_interval if student.sees_clips else 3
    for expected, outputs in zip(play(student, frames, interval), play(deployed, frames, interval), strict=True):
        assert (outputs is None) == (expected is None)
        for key, tensor in (expected or {}).items():
            torch.testing.assert_close(outputs[key], tensor, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtime_runs_a_copy_in_its_precisions_alone(name: str) -> None:
    runtime, student, pixels = RUNTIMES[name], student_of("delta"), noise_frames(1, (16, 16))
    before = {key: tensor.clone() for key, tensor in student.state_dict().items()}
    expected = student(as_frames(student, pixels))[0]
    assert (runtime.name, set(runtime.precisions) <= set(DTYPES)) == (name, True)
    for precision in runtime.precisions:
        deployed = deploy(student, pixels, runtime=name, precision=precision)
        assert (deployed.runtime, deployed.precision) == (name, precision)
        found = deployed(pixels)[0].float()
        assert float((found - expected).abs().max() / expected.abs().max()) < (1e-4 if precision == "float32" else 0.1)
    assert student.state_dict().keys() == before.keys(), "norms are fused in the copy"
    assert all(torch.equal(tensor, before[key]) for key, tensor in student.state_dict().items())
    with pytest.raises(UserError, match=f"precision of runtime {name} must be one of float32.*, got int1"):
        deploy(student, pixels, runtime=name, precision="int1")


def test_an_unknown_runtime_shows_the_nearest() -> None:
    with pytest.raises(UserError, match="runtime: unknown name 'onx'; did you mean onnx"):
        deploy(student_of("per frame"), noise_frames(1, (16, 16)), runtime="onx")


@pytest.mark.parametrize("name", RUNTIMES)
def test_parts_of_a_network_run_in_every_precision(name: str) -> None:
    layer, inputs = torch.nn.Conv2d(3, 4, 1).requires_grad_(False), torch.rand(1, 3, 5, 5)
    for precision in RUNTIMES[name].precisions:
        found = RUNTIMES[name].part(layer, (inputs,), precision=precision)()
        found = found[0] if isinstance(found, list) else found
        tolerance = 1e-5 if precision == "float32" else 0.02
        torch.testing.assert_close(found.float(), layer(inputs), atol=tolerance, rtol=tolerance)
    assert layer.weight.dtype == torch.float32


@pytest.mark.parametrize("name", RUNTIMES)
def test_files_are_written_and_read_or_refused(name: str, tmp_path) -> None:
    runtime, student = RUNTIMES[name], student_of("delta")
    if type(runtime).export is Runtime.export:
        with pytest.raises(UserError, match=f"runtime {name} has no files to export; choose onnx or openvino"):
            runtime.export(student, tmp_path, size=(16, 16))
        with pytest.raises(UserError, match=f"runtime {name} has no files to load; choose onnx or openvino"):
            runtime.load(tmp_path)
        return
    exported = runtime.export(student, tmp_path, size=(16, 16))
    assert set(exported.files) == set(tmp_path.iterdir())
    assert runtime.load(tmp_path).card == student.card


@pytest.mark.parametrize("form", STUDENTS)
@pytest.mark.parametrize("name", RUNTIMES)
def test_every_student_is_measured_in_every_runtime(name: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def deployed(student: Student, pixels: Tensor, *, runtime: str, **how: Any) -> Deployed:
        assert (pixels.shape, how) == ((1, 16, 16, 3), {"precision": None, "threads": 0})
        return running(runtime, form)

    monkeypatch.setattr(measure, "deploy", deployed)
    student = student_of(form)
    costs = profile_students({"student": student}, noise_frames(2, (16, 16)), interval=3, runtime=name)["student"]
    assert costs["device"].endswith(f", {name}")
    assert costs["precision"] == "float32"
    assert costs["frames_per_second"] == pytest.approx(1000 / costs["latency_ms"]["amortised"])
    assert costs["parameters"] == sum(parameter.numel() for parameter in student.parameters())
    assert costs["gmacs"]["amortised"] > 0
    parts = {"clip", "amortised"} if student.sees_clips else {"key", "first_delta", "delta", "amortised"}
    assert costs["latency_ms"].keys() == parts
    if not student.sees_clips:
        assert (costs["latency_ms"]["delta"] is not None) == student.has_key_frames
    assert (costs["peak_memory_mb"] is None) == (name in ("onnx", "openvino")), "which only torch's own tensors tell"
    assert costs["size"] == ([3, 3, 16, 16] if student.view is not None else [16, 16])


def test_networks_of_clips_of_two_strides_run_beside_each_other_in_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph is given every frame that its window keeps and no other; a teacher may keep more of them."""
    student = student_of("clips")
    teacher = Windowed(TinyClips(4), replace(RECOGNISES, view=replace(CLIPS, stride=1))).eval()
    students = {"student": student, "teacher": teacher}
    deployed = {one: deploy(one, noise_frames(1, (16, 16)), runtime="onnx") for one in students.values()}
    monkeypatch.setattr(measure, "deploy", lambda student, *_, **__: deployed[student])
    costs = profile_students(students, noise_frames(1, (1, 1)), interval=2, runtime="onnx")["teacher"]["gmacs"]
    assert costs["amortised"] == pytest.approx(costs["clip"]), "a run a frame, not one in two"
    videos = synthetic_actions(num_videos=4, size=16).sequences
    opened = {name: deployed[one] for name, one in students.items()}
    assert evaluate(opened, videos, student.task) == evaluate(students, videos, student.task)
