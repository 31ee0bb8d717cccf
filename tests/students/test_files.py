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
from vidistill.students.card import Card
from vidistill.students.files import load_checkpoint, load_student, load_weights, save_checkpoint, save_student
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


def test_weights_load_from_every_kind_of_file(network, tmp_path: Path) -> None:
    save_student(tmp_path / "student.safetensors", PerFrame(network, CARD))
    save_file({k: v.clone() for k, v in network.state_dict().items()}, tmp_path / "plain.safetensors")
    torch.save(network.state_dict(), tmp_path / "plain.pth")
    torch.save({"state_dict": network.state_dict()}, tmp_path / "nested.pth")
    for name in ("student.safetensors", "plain.safetensors", "plain.pth", "nested.pth"):
        torch.manual_seed(99)
        other = TinySegmenter(num_classes=4)
        load_weights(other, tmp_path / name)
        assert torch.equal(other.mix.weight, network.mix.weight)


def test_weights_that_do_not_fit(network, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"'head\.weight' is \(4, 16, 1, 1\), the network's is \(5, 16, 1, 1\)"):
        load_weights(TinySegmenter(num_classes=5), tmp_path / "w.pth")
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="does not fit the network: it lacks"):
        load_weights(network, tmp_path / "x.pth")


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
