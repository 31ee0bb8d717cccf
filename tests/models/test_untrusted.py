"""What a student's file may name: nothing that opens a socket, runs foreign code or takes memory beyond its tensors."""

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vidistill.errors import UserError
from vidistill.models import MODELS, build_network
from vidistill.models.untrusted import NamedNetwork, allowed, build_untrusted, confined
from vidistill.students.card import Card
from vidistill.students.files import load_student, save_student
from vidistill.students.student import PerFrame

TINY: dict[str, dict[str, Any]] = {
    "transformers": {
        "name": "segformer",
        "options": {
            "num_classes": 3, "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 8, 8], "decoder_hidden_size": 8,
            "num_attention_heads": [1, 1, 1, 1],
        },
    },
    "segmentation_models_pytorch": {
        "name": "unet",
        "options": {
            "num_classes": 3, "encoder_name": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [8, 8, 8],
        },
    },
    "torchvision": {"name": "lraspp_mobilenet_v3_large", "options": {"num_classes": 3}},
    "vidistill": {"name": "tsm", "options": {"num_classes": 3, "backbone": "test_resnet"}},
}  # fmt: skip


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was asked of a socket, which none gets."""
    asked: list[object] = []

    def refuse(*arguments: object, **options: object) -> None:
        asked.append(arguments)
        raise OSError("no network in this test")

    for name in ("__init__", "connect"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return asked


def network_of(library: str, **options: object) -> dict[str, Any]:
    return {"library": library, "name": TINY[library]["name"], "options": TINY[library]["options"] | options}


@pytest.mark.parametrize("library", TINY)
def test_an_honest_file_loads_without_a_socket(library: str, tmp_path: Path, sockets: list[object]) -> None:
    network = network_of(library)
    student = PerFrame(build_network(**network), Card(network=network))
    save_student(tmp_path / "student.safetensors", student)
    loaded = load_student(tmp_path / "student.safetensors")
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in student.state_dict().items())
    assert sockets == []


HOSTILE = [
    ("transformers", {"backbone": "someone/x", "use_pretrained_backbone": True}, "backbone 'someone/x', expected"),
    ("transformers", {"backbone": "resnet50"}, "option 'backbone', which is not allowed"),
    ("transformers", {"attn_implementation": "someone/kernel"}, "attn_implementation 'someone/kernel', expected"),
    ("transformers", {"attn_implementation": "flash_attention_2"}, "option 'attn_implementation'"),
    ("transformers", {"_attn_implementation": "flash_attention_2"}, "option '_attn_implementation'"),
    ("transformers", {"trust_remote_code": True}, "option 'trust_remote_code'"),
    ("transformers", {"auto_map": {"AutoModelForSemanticSegmentation": "net.Net"}}, "option 'auto_map'"),
    ("transformers", {"id2label": {str(i): "x" for i in range(20_000)}}, "at most 10000 values"),
    ("transformers", {"num_classes": 10**9}, "num_classes 1000000000, expected at most 65536"),
    ("transformers", {"decoder_hidden_size": 60_000, "hidden_sizes": [60_000] * 4}, r"more than \d+ MB of tensors"),
    ("transformers", {"num_attention_heads": [0, 0, 0, 0]}, "cannot be built"),
    ("segmentation_models_pytorch", {"encoder_name": "tu-hf-hub:someone/x"}, "expected a plain name"),
    ("segmentation_models_pytorch", {"checkpoint_path": "weights.pth"}, "option 'checkpoint_path'"),
    ("segmentation_models_pytorch", {"decoder_channels": [65_536] * 3}, r"more than \d+ MB of tensors"),
    ("torchvision", {"weights": None, "num_classes": float("inf")}, "num_classes': must be a finite number"),
    ("torchvision", {"backbone": "../x.pth"}, "expected a plain name"),
    ("vidistill", {"backbone": "hf-hub:someone/x"}, "expected a plain name"),
    ("vidistill", {"backbone": "local-dir:."}, "expected a plain name"),
    ("vidistill", {"shift": 0}, "cannot be built"),
]  # fmt: skip


@pytest.mark.parametrize(("library", "options", "sentence"), HOSTILE)
def test_a_hostile_card_is_refused(library: str, options: Any, sentence: str, sockets: list[object]) -> None:
    with pytest.raises(UserError, match=f"^file: .*{sentence}"), confined(10_000, where="file"):
        build_untrusted(network_of(library, **options), where="file")
    assert sockets == []


@pytest.mark.parametrize(
    ("library", "options"),
    [
        ("torchvision", {"weights": "DEFAULT", "weights_backbone": "DEFAULT"}),
        ("segmentation_models_pytorch", {"encoder_weights": "imagenet"}),
        ("transformers", {"use_pretrained_backbone": True}),
    ],
)
def test_weights_that_a_student_started_from_are_not_asked_for_again(library: str, options: Any) -> None:
    network = network_of(library, **options)
    assert allowed(NamedNetwork(**network), where="file") == {
        key: value for key, value in TINY[library]["options"].items() if key not in options
    }


def test_names_are_texts_that_the_library_knows() -> None:
    for network, sentence in (
        ({"name": 5}, "network: 'name': Input should be a valid string"),
        ({"name": "tsm", "file": "x"}, "network: unknown key 'file'"),
        ({"name": "../tsm"}, "unknown network"),
        ({"name": "tsm", "library": "os"}, "unknown library 'os'"),
        ({"name": "bert", "library": "transformers"}, "no network 'bert'"),
        ({"name": "resnet5", "library": "torchvision"}, "no model 'resnet5'"),
    ):
        with pytest.raises(UserError, match=sentence):
            build_untrusted(network, where="file")


def test_no_socket_opens_and_no_exception_is_bare() -> None:
    with pytest.raises(UserError, match="may not reach for the network"), confined(0, where="file"):
        socket.socket()
    with pytest.raises(UserError, match="may not reach for the network"), confined(0, where="file"):
        socket.getaddrinfo("localhost", 80)
    with pytest.raises(UserError, match=r"cannot be built \(KeyError: 'depth'"), confined(0, where="file"):
        raise KeyError("depth")
    socket.socket().close()


def test_memory_is_refused_before_it_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    """2^40 elements are more than any machine has, so that an allocation would be another error."""
    for make in (
        lambda: torch.empty(2**20, 2**20),
        lambda: torch.nn.Linear(2**20, 2**20),
        lambda: torch.ones(1).repeat(2**20, 2**20),
        lambda: torch.arange(2**40),
        lambda: torch.zeros(2**20, 1) + torch.zeros(2**20),
    ):
        with pytest.raises(UserError, match=r"more than 512 MB of tensors"), confined(0, where="file"):
            make()
    with confined(0, where="file"):  # views and what is written in place take none
        torch.zeros(2**10).expand(2**30, 2**10)[:5]
    with pytest.raises(UserError, match="more than 30000 layers"), confined(0, where="file"):
        torch.nn.Sequential(*[torch.nn.Identity()] * 40_000)


def test_a_small_file_cannot_ask_for_a_large_network(tmp_path: Path) -> None:
    monkey = {
        "name": "tsm",
        "library": "vidistill",
        "options": {"num_classes": 65_536, "backbone": "vit_giant_patch14_224"},
    }
    save_file({"x": torch.zeros(1)}, tmp_path / "s.safetensors", metadata={"card": Card(network=monkey).to_json()})
    with pytest.raises(UserError, match=r"s\.safetensors: "):
        load_student(tmp_path / "s.safetensors")


def test_own_networks_may_take_any_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "own", lambda **options: torch.nn.Conv2d(3, options["width"], 1))
    assert build_untrusted({"name": "own", "options": {"width": 7}}, where="file").out_channels == 7
