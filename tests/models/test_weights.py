"""Weights files as people keep them load alike; what does not fit is refused with the names of both sides."""

import argparse
import json
import os
import pickle
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.networks import TinySegmenter
from vidistill.errors import UserError
from vidistill.models.weights import load_weights, read_weights
from vidistill.students.card import Card
from vidistill.students.files import save_checkpoint, save_student
from vidistill.students.student import PerFrame
from vidistill.tasks.segmentation import Segmentation

CARD = Card(task=Segmentation(num_classes=4))


@pytest.fixture
def source() -> nn.Module:
    torch.manual_seed(7)
    return TinySegmenter(num_classes=4)


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_loads(path: Path, source: nn.Module, **tolerance: float) -> None:
    """The file's weights reach another network, all of them."""
    other = TinySegmenter(num_classes=4)
    load_weights(other, path)
    for name, tensor in source.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(other.state_dict()[name], tensor, **tolerance)


def prefixed(prefix: str, own: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in own.items()}


def other(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Other numbers under the same names."""
    return {name: tensor + 1 for name, tensor in own.items()}


FILES: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda own: own,
    "module": lambda own: prefixed("module.", own),
    "compiled": lambda own: prefixed("_orig_mod.", own),
    "nested prefixes": lambda own: prefixed("module.model.net._orig_mod.", own),
    "a compiled part": lambda own: {name.replace("body.", "body._orig_mod."): tensor for name, tensor in own.items()},
    "lightning": lambda own: {
        "state_dict": prefixed("model.", own) | {"loss.weight": torch.ones(3)}, "epoch": 3, "hyper_parameters": {"a": 1}
    },
    "mmseg": lambda own: {"meta": {"CLASSES": ("a", "b"), "seed": np.int64(3)}, "state_dict": own, "optimizer": {}},
    "timm": lambda own: {"args": argparse.Namespace(lr=1), "state_dict": other(own), "state_dict_ema": own},
    "basicsr": lambda own: {"params": other(own), "params_ema": own},
    "ema as a module": lambda own: {"model": other(own), "model_ema": prefixed("module.", own)},
    "ema beside, under a prefix": lambda own: {"state_dict": prefixed("net.", other(own)) | prefixed("ema_net.", own)},
    "two of the same": lambda own: {"model": own, "module": own},
    "slowfast": lambda own: {"model_state": own, "cfg": "x"},
    "an unlisted wrapper": lambda own: {"generator": own, "discriminator": {"conv.weight": torch.ones(2)}},
    "a training": lambda own: {
        "model": own, "optimizer": {"state": {0: {"exp_avg": torch.ones(3), "step": torch.tensor(1.0)}}, "groups": [1]},
        "best": np.float64(0.5), "history": np.arange(4), "paths": [Path("a")], "counts": defaultdict(list, a=[1]),
    },
    "no counters": lambda own: {name: t for name, t in own.items() if not name.endswith("num_batches_tracked")},
    "numbers beside": lambda own: own | {"epoch": 3, "names": ["a"], "stem.total_ops": torch.zeros(1)},
    "a list in the network's order": lambda own: list(own.values()),
    "double": lambda own: {name: tensor.double() for name, tensor in own.items()},
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_load_alike(name: str, zipped: bool, source: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(FILES[name](weights(source)), path, _use_new_zipfile_serialization=zipped)
    assert_loads(path, source)


def test_half_precision_loads_into_the_networks_own(source: nn.Module, tmp_path: Path) -> None:
    torch.save({name: t.half() if t.is_floating_point() else t for name, t in weights(source).items()}, tmp_path / "w")
    network = TinySegmenter(num_classes=4)
    load_weights(network, tmp_path / "w")
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert_loads(tmp_path / "w", source, rtol=1e-3, atol=1e-3)


def test_safetensors_students_folders_and_shards(source: nn.Module, tmp_path: Path) -> None:
    own = weights(source)
    save_student(tmp_path / "run" / "student.safetensors", PerFrame(source, CARD))
    save_file(own, tmp_path / "plain.bin")  # the contents count, not the suffix
    for path in (tmp_path / "run", tmp_path / "run" / "student.safetensors", tmp_path / "plain.bin"):
        assert_loads(path, source)
    save_checkpoint(tmp_path / "checkpoint.pt", {"step": 3, "student": PerFrame(source, CARD).state_dict()})
    assert_loads(tmp_path / "checkpoint.pt", source)
    names = list(own)
    halves = [{n: own[n] for n in names[:5]}, {n: own[n] for n in names[5:]}]
    for stem, suffix, save in (("model", "safetensors", save_file), ("pytorch_model", "bin", torch.save)):
        folder = tmp_path / stem
        folder.mkdir()
        files = [f"{stem}-{number:05d}-of-00002.{suffix}" for number in (1, 2)]
        for half, file in zip(halves, files, strict=True):
            save(half, folder / file)
        places = {name: file for half, file in zip(halves, files, strict=True) for name in half}
        index = folder / f"{stem}.{suffix}.index.json"
        index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
        assert_loads(folder, source)
        assert_loads(index, source)
        with pytest.raises(UserError, match=rf"is one of 2 shards; give {stem}.{suffix}.index.json"):
            read_weights(folder / files[0])
        (folder / files[1]).unlink()
        with pytest.raises(UserError, match=r"the shard .*00002-of-00002.* is not beside it"):
            read_weights(folder)
        index.write_text(json.dumps({"weight_map": {"a": "../plain.bin"}}))
        with pytest.raises(UserError, match=r"the shard '../plain.bin' is not beside it"):
            read_weights(folder)


def test_a_wrapped_network_takes_plain_weights(source: nn.Module, tmp_path: Path) -> None:
    torch.save(weights(source), tmp_path / "w.pth")
    wrapped = nn.DataParallel(TinySegmenter(num_classes=4))
    load_weights(wrapped, tmp_path / "w.pth")
    assert torch.equal(wrapped.module.mix.weight, source.mix.weight)


def test_the_names_of_both_sides(source: nn.Module, tmp_path: Path) -> None:
    own = weights(source)
    torch.save(own, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"'head\.weight' is \(4, 16, 1, 1\), the network's is \(5, 16, 1, 1\) \(and"):
        load_weights(TinySegmenter(num_classes=5), tmp_path / "w.pth")
    renamed = {name.replace("head.", "classifier."): tensor for name, tensor in own.items()}
    torch.save({"state_dict": prefixed("module.", renamed)}, tmp_path / "w.pth")
    message = r"it lacks 'head\.weight' \(and 1 more\), has unknown 'classifier\.weight' \(and 1 more\); give"
    with pytest.raises(UserError, match=message):
        load_weights(source, tmp_path / "w.pth")
    torch.save({"x": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"it lacks 'stem\.0\.weight' \(and \d+ more\), has unknown 'x';"):
        load_weights(source, tmp_path / "w.pth")
    torch.save(list(own.values())[1:], tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"it lacks 'stem\.0\.weight' \(and \d+ more\), has unknown '0'"):
        load_weights(source, tmp_path / "w.pth")
    torch.save(list(own.values())[::-1], tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"shapes differ: 'stem\.0\.weight' is \(4,\)"):
        load_weights(source, tmp_path / "w.pth")
    torch.save({"student": own, "teacher": other(own)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"several weights that fit, 'student' and 'teacher'"):
        load_weights(source, tmp_path / "w.pth")
    before = weights(source)
    for change, fault in (
        (torch.full_like(own["head.weight"], float("nan")), r"'head\.weight' holds numbers that are NaN"),
        (own["head.weight"].char(), r"'head\.weight' holds int8, expected floating-point numbers"),
        (own["head.weight"].to_sparse(), "not stored as plain numbers"),
        (own["head.weight"].to(torch.complex64), "not stored as plain numbers"),
    ):
        torch.save(own | {"head.weight": change}, tmp_path / "w.pth")
        with pytest.raises(UserError, match=fault):
            load_weights(source, tmp_path / "w.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in source.state_dict().items())


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def scripted(path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)


NO_WEIGHTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a module": (lambda path: torch.save(TinySegmenter(4), path), "an object of a program, tests.networks.TinySegm"),
    "a module inside": (
        lambda path: torch.save({"model": nn.Linear(1, 1), "epoch": 3}, path),
        r"but an object of a program, torch.nn.modules.linear.Linear, .*; there, torch.save its state_dict\(\)",
    ),
    "a list": (lambda path: torch.save([torch.ones(2), 3], path), "holds no weights by name, but a list;"),
    "numbers": (lambda path: torch.save({"a": 1}, path), "holds no weights by name, but dict;"),
    "an int": (lambda path: torch.save(3, path), "holds no weights by name, but int;"),
    "a tensor": (lambda path: torch.save(torch.ones(2), path), "holds no weights by name, but Tensor;"),
    "TorchScript": (scripted, "is a TorchScript program"),
    "a pointer": (lambda path: path.write_text("version https://git-lfs\noid sha256:0\n"), "pointer of Git LFS"),
    "nothing": (lambda path: path.write_bytes(b""), "cannot be read as weights"),
    "text": (lambda path: path.write_text("<html>not found</html>"), "cannot be read as weights"),
    "evil": (lambda path: torch.save({"weights": Evil()}, path), "cannot be read as weights .*posix.mkdir"),
    "evil, plain pickle": (lambda path: path.write_bytes(pickle.dumps(Evil())), "cannot be read as weights"),
    "evil, another module": (
        lambda path: torch.save({"w": torch.ones(1), "x": Shell()}, path), None
    ),
}  # fmt: skip


class Shell:
    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (b"cos\nmkdir\n(S'executed'\ntR.",)


@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_files_without_weights_are_refused_and_nothing_runs(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write, fault = NO_WEIGHTS[name]
    write(tmp_path / "w.pth")
    if fault is None:  # the tensors are there, and what would have run is read as nothing
        assert list(read_weights(tmp_path / "w.pth").parts) == [""]
    else:
        with pytest.raises(UserError, match=fault):
            read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "executed").exists()


def test_damaged_files_and_folders(source: nn.Module, tmp_path: Path) -> None:
    torch.save(weights(source), tmp_path / "w.pth")
    contents = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(contents[: len(contents) // 2])
    with pytest.raises(UserError, match=r"half.pth: cannot be read as weights \(.*copy it again"):
        read_weights(tmp_path / "half.pth")
    with pytest.raises(UserError, match="has several files of weights; give the path of one"):
        read_weights(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no file of weights"):
        read_weights(tmp_path / "empty")
    with pytest.raises(UserError, match="file not found"):
        read_weights(tmp_path / "none.pth")
