"""What every form of a student promises, for every kind of network that a method gives that form."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.contracts.examples import KINDS, Kind, pairs, streamed, untrained
from vidistill.methods import METHODS
from vidistill.ops.clip_view import WindowView
from vidistill.students.card import Card
from vidistill.students.files import load_student, save_student
from vidistill.students.forms import FORMS
from vidistill.students.state import State, without_key_frame
from vidistill.students.student import Student
from vidistill.students.windows import LookAhead

PAIRS = pairs(("supervised", "low_rank", "delta"))  # what other methods finish has the form per_frame too


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request) -> tuple[str, str]:
    return request.param


@pytest.fixture
def kind(pair) -> Kind:
    return KINDS[pair[1]]


@pytest.fixture
def student(pair, kind) -> Student:
    return untrained(pair[0], kind)


@pytest.fixture
def frames(kind) -> Tensor:
    """(T, 1, 3, H, W): single ones, whatever the network sees of them."""
    return torch.rand(7, 1, 3, *kind.size)


def on_a_stream(student: Student) -> Student:
    """As a file gives it back, for one frame at a time."""
    is_inner = isinstance(student.view, WindowView) and not isinstance(student, LookAhead)
    return LookAhead(student, student.card) if is_inner else student


def assert_equal(kind: Kind, found: list, expected: list) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(kind.values(one), kind.values(other))


def test_every_method_gives_a_form_and_every_form_is_tried() -> None:
    given = {name: {untrained(name, KINDS[kind]).card.form for _, kind in pairs((name,))} for name in METHODS}
    assert all(given[name] == {"per_frame"} for name in METHODS if name not in ("low_rank", "delta"))
    assert set.union(*(given[name] for name, _ in PAIRS)) == set(FORMS)


def test_a_form_is_made_from_a_card_and_takes_the_weights(kind, student, frames) -> None:
    network = kind.network().eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    made = FORMS[student.card.form](network, student.card)
    assert type(made) is type(student)
    assert made.card == student.card
    made.load_state_dict(student.state_dict())
    found, expected = (streamed(on_a_stream(one), frames, kind.interval) for one in (made.eval(), student))
    assert_equal(kind, found, expected)
    if student.plan is not None:  # else the network itself is inside
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_student_loads_from_its_file_and_from_the_run_folder(kind, student, frames, tmp_path: Path) -> None:
    file = tmp_path / "student.safetensors"
    save_student(file, student)
    expected = streamed(on_a_stream(student), frames, kind.interval)
    for path in (file, tmp_path):
        loaded = load_student(path, network=kind.network())
        assert loaded.card == student.card
        assert not any(module.training for module in loaded.modules())
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        assert_equal(kind, streamed(loaded, frames, kind.interval), expected)
    save_student(tmp_path / "again.safetensors", loaded)
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_the_card_survives_as_text(student) -> None:
    text = student.card.to_json()
    assert Card.from_json(text, where="here") == student.card
    assert Card.from_json(json.dumps(json.loads(text)), where="here").to_json() == text


@torch.no_grad()
def test_streams_do_not_feel_each_other_and_the_state_is_flat_and_batch_first(kind, student, frames) -> None:
    """Two at once, of other frame sizes and batch sizes."""
    student = on_a_stream(student)
    streams = [frames, torch.rand(7, 2, 3, kind.size[0] + 7, kind.size[1] + 4)]
    alone = [streamed(student, stream, kind.interval) for stream in streams]
    states: list[State | None] = [None, None]
    together: list[list] = [[], []]
    for index, two in enumerate(zip(*streams, strict=True)):
        for i, frame in enumerate(two):
            state = without_key_frame(states[i]) if index % kind.interval == 0 else states[i]
            outputs, states[i] = student(frame, state or None)
            assert all(isinstance(name, str) and len(tensor) == len(frame) for name, tensor in states[i].items())
            together[i] += [] if outputs is None else [outputs]
    for i in range(2):
        assert_equal(kind, together[i] + student.flush(states[i]), alone[i])


@torch.no_grad()
def test_a_whole_input_has_outputs_at_once_and_an_empty_stream_has_none(kind, student, frames) -> None:
    student = on_a_stream(student)
    outputs, _ = student(student.whole(frames[0]))
    assert kind.values(outputs).shape == kind.output_shape(kind.size)
    assert student.flush(None) == []


def test_it_moves_and_changes_its_precision(student) -> None:
    assert (student.device, student.dtype) == (torch.device("cpu"), torch.float32)
    assert student.double().dtype == torch.float64
    assert student.to("meta").device == torch.device("meta")
