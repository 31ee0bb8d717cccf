import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.networks import TinySegmenter
from vidistill.checkpoint import load_student, save_student
from vidistill.data.video import Frame
from vidistill.distill.card import Card
from vidistill.distill.delta.method import Delta
from vidistill.errors import UserError
from vidistill.key_frames import Adaptive, Fixed, Never, parse_policy
from vidistill.profile import PeakMemory
from vidistill.stream import Stream, load_state, save_state


@pytest.fixture
def path(tmp_path: Path, network) -> Path:
    method = Delta(key_frame_interval=4)
    student = method.finish(method.prepare(network, torch.zeros(1, 3, 32, 48)))
    card = Card({}, "delta", {"name": "segmentation", "num_classes": 4}, student.plan.to_list(), key_frame_interval=4)
    save_student(tmp_path / "student.safetensors", student, card)
    return tmp_path / "student.safetensors"


def stream(path: Path, **options) -> Stream:
    return Stream(load_student(path, TinySegmenter(num_classes=4)), **options)


@pytest.fixture
def images(dataset) -> list[np.ndarray]:
    return [image for sequence in dataset.sequences for image in sequence.images()]


def test_outputs_are_the_students_own(path, images) -> None:
    student = load_student(path, TinySegmenter(num_classes=4))
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
    with pytest.raises(UserError, match=r"frame 0: a frame is \(height, width, 3\) uint8"):
        list(stream(path)([frame]))


def test_a_file_that_is_no_state_is_refused(path, tmp_path) -> None:
    with pytest.raises(UserError, match="not the state of a stream"):
        load_state(stream(path), path)
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read"):
        load_state(stream(path), tmp_path / "bad.safetensors")


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
    assert parse_policy("never") == Never()
    for text in ("0", "-3", "often"):
        with pytest.raises(UserError):
            parse_policy(text)
