import errno
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.networks import TinySegmenter
from vidistill import files
from vidistill.errors import UserError
from vidistill.files import atomic_path
from vidistill.ops.clip_view import ClipView, WindowView
from vidistill.ops.normalise import Normalisation
from vidistill.students.card import Card
from vidistill.students.files import load_checkpoint, load_student, save_checkpoint, save_student
from vidistill.students.student import PerFrame, Student
from vidistill.tasks.segmentation import Segmentation

CARD = Card(task=Segmentation(num_classes=4))


def save_with_card(path: Path, student: Student, **changes: object) -> None:
    """As `save_student`, with other values in the card."""
    card = json.loads(student.card.to_json()) | changes
    save_file(student.state_dict(), path, metadata={"card": json.dumps(card)})


def test_a_write_that_fails_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("earlier")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), atomic_path(tmp_path / "file" / "results.json"):
        pass


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weights": Evil()}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Evil()))
    for name in ("a.pth", "b.pth"):
        with pytest.raises(UserError, match="not a checkpoint of tensors"):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_files_that_are_no_student(network, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "weights.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x00" * 40)
    save_with_card(tmp_path / "later.safetensors", PerFrame(network, CARD), version=99)
    save_with_card(tmp_path / "form.safetensors", PerFrame(network, CARD), form="dleta")
    save_with_card(tmp_path / "task.safetensors", PerFrame(network, CARD), task={"name": "segmentaton"})
    save_student(tmp_path / "own.safetensors", PerFrame(network, CARD))
    for name, sentence in (
        ("weights", "not a student's card"), ("broken", "not a safetensors file"), ("missing", "file not found"),
        ("later", "later vidistill"), ("own", "network of your own"), ("task", "task: .*'segmentaton'.*segmentation"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=rf"{name}\.safetensors: .*{sentence}"):
            load_student(tmp_path / f"{name}.safetensors")
    with pytest.raises(UserError, match=r"form\.safetensors: form: unknown name 'dleta'; did you mean delta"):
        load_student(tmp_path / "form.safetensors", network=network)


def test_a_plan_of_another_version_is_one_sentence(tmp_path: Path) -> None:
    network = TinySegmenter(num_classes=4)
    plan = [{"path": "mix", "rank": 4}]
    save_with_card(tmp_path / "old.safetensors", PerFrame(network, CARD), form="delta", plan=plan)
    with pytest.raises(UserError, match=r"old\.safetensors: .*'plan\.0\.macs'.*; distil it again"):
        load_student(tmp_path / "old.safetensors", network=network)


def hostile(path: Path, header: dict[str, object] | bytes, body: bytes = b"", length: int | None = None) -> Path:
    """A safetensors file written by hand."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + body)
    return path


def test_headers_that_are_none(tmp_path: Path) -> None:
    card = {"card": CARD.to_json()}
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    for header, body, length in (
        (b"", b"", None), (b"{}", b"", 2**63), (b"{}", b"", 2**64 - 1), (b"[" * 9000 + b"]" * 9000, b"", None),
        (b"\xff\xfe{}", b"", None), ({"x": entry, "__metadata__": card}, b"\0" * 4, None),
        ({"x": entry | {"shape": [2**62, 4]}}, b"\0" * 8, None), ({"x": entry | {"dtype": "F33"}}, b"\0" * 8, None),
        ({"x": entry, "y": entry}, b"\0" * 8, None), ({"__metadata__": {"card": 5}}, b"", None),
    ):  # fmt: skip
        with pytest.raises(UserError, match=r"s\.safetensors: is not a safetensors file"):
            load_student(hostile(tmp_path / "s.safetensors", header, body, length))


def block_with(**student: object) -> dict[str, object]:
    """A plan's entry of the layer `mix`."""
    return {"path": "mix", "macs": 1, "candidates": [{"macs": 1, "student": student}]}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"version": "1"}, "'version'"),
        ({"key_frame_interval": 0}, "'key_frame_interval'.*must be at least 1"),
        ({"key_frame_interval": 2**40}, "'key_frame_interval'.*must be at most 65536"),
        ({"palette": [[1, 2, 256]]}, r"'palette\.0\.2'"),
        ({"class_names": "road"}, "'class_names'"),
        ({"class_names": ["x" * 5000]}, r"'class_names\.0'"),
        ({"normalisation": {"mean": [0, 0, 0], "std": [1, 0, 1]}}, "std.*must be at least 0.001"),
        ({"view": {"num_frames": 2**31, "crop": 2**31}}, "choose a smaller clip"),
        ({"view": {"window": 2}}, "window"),
        ({"plan": [{"path": "mix", "macs": -1}]}, r"'plan\.0\.macs'"),
        ({"plan": [block_with(rank=0)]}, r"rank': must be at least 1"),
        ({"later": 1}, "unknown key 'later'"),
        ({"task": {"name": 7}}, "a name must be text, got 7"),
        ({"form": "delta", "plan": [block_with(rank=2**40)]}, "tensors"),
        ({"form": "delta", "plan": [block_with() | {"path": "no"}]}, "no block"),
    ],
)  # fmt: skip
def test_every_value_of_a_card_is_checked(network, tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    save_with_card(tmp_path / "s.safetensors", PerFrame(network, CARD), **changes)
    with pytest.raises(UserError, match=rf"s\.safetensors: .*({sentence})|{sentence}"):
        load_student(tmp_path / "s.safetensors", network=network)


def test_a_card_is_read_as_it_was_written() -> None:
    for view in (ClipView(num_frames=4, sampling="dense", stride=3, crop=64, size=32, detail=16), WindowView(5), None):
        card = Card(
            view=view, palette=((1, 2, 3),), class_names=("é",), normalisation=Normalisation((0, 0, 0), (1, 1, 1))
        )
        assert Card.from_json(card.to_json(), where="card") == card


def test_an_error_shows_control_characters() -> None:
    assert str(UserError("name 'a\n\x1b[2J\ud800é'")) == r"name 'a\n\x1b[2J\ud800é'"
