"""What a teacher said is found again where the very same clip comes again, and nowhere else."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from tests.networks import TinyClips
from vidistill.errors import UserError
from vidistill.methods.features import run_with_features
from vidistill.methods.teacher import FrozenTeacher, TeacherCache
from vidistill.models import build_network
from vidistill.ops.clip_view import ClipView

VIEW = ClipView(num_frames=4, crop=8, size=8)
PATHS = ("first", "second")


@pytest.fixture
def network() -> nn.Module:
    return TinyClips(3).eval()


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


@torch.no_grad()
def test_a_hit_is_what_the_teacher_says(network, tmp_path: Path) -> None:
    clips = torch.randn(3, 4, 3, 8, 8)
    expected = run_with_features(network, clips, PATHS)
    cache = TeacherCache(tmp_path)
    for number, batch in enumerate((clips[:2], clips, clips)):  # all new, one new, none new
        outputs, features = cache.run(network, batch, PATHS)
        torch.testing.assert_close(outputs, expected[0][: len(batch)], atol=2e-3, rtol=2e-3)
        for path in PATHS:
            torch.testing.assert_close(features[path], expected[1][path][: len(batch)], atol=2e-3, rtol=2e-3)
        assert (cache.hits, cache.misses) == ((0, 2), (2, 3), (5, 3))[number]
    assert len(files(tmp_path)) == 3


@torch.no_grad()
def test_the_key_is_all_that_the_answer_depends_on(network, tmp_path: Path) -> None:
    cache, clip = TeacherCache(tmp_path), torch.randn(1, 4, 3, 8, 8)
    cache.run(network, clip, PATHS)
    nudged = clip.clone()
    nudged[0, 3, 2, 7, 7] += 1e-6
    for other in (nudged, clip.flip(1), clip[:, :2], clip.double().float() * 2):
        cache.run(network, other, PATHS)
    assert cache.hits == 0
    cache.run(network, clip, PATHS[:1])
    assert cache.hits == 0, "other features are another question"
    cache.run(network, clip, PATHS[::-1])
    assert cache.hits == 1
    changed = TinyClips(3).eval()
    changed.load_state_dict(network.state_dict())
    with torch.no_grad():
        changed.head.bias[0] += 1
    fresh = TeacherCache(tmp_path)
    fresh.run(changed, clip, PATHS)
    assert fresh.hits == 0, "another teacher"


@torch.no_grad()
def test_what_no_tensor_holds_makes_another_teacher(tmp_path: Path) -> None:
    clip = torch.randn(1, 4, 3, 32, 32)
    options = {"num_classes": 3, "backbone": "test_resnet"}
    network = build_network("tsm", options=options).eval()
    TeacherCache(tmp_path).run(network, clip, ())
    for change in ({"causal": True}, {"shift": 4}):
        other = build_network("tsm", options=options | change).eval()
        other.load_state_dict(network.state_dict())
        cache = TeacherCache(tmp_path)
        cache.run(other, clip, ())
        assert cache.hits == 0, change


@torch.no_grad()
def test_a_later_run_asks_once_to_be_sure(network, tmp_path: Path) -> None:
    clips = torch.randn(2, 4, 3, 8, 8)
    TeacherCache(tmp_path).run(network, clips, PATHS)
    calls = []
    network.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    later = TeacherCache(tmp_path)
    for _ in range(5):
        later.run(network, clips, PATHS)
    assert (later.hits, later.misses) == (10, 0)
    assert calls == [1], "one clip, with the first hits"


@torch.no_grad()
def test_what_the_teacher_does_not_say_is_an_error(network, tmp_path: Path) -> None:
    clip = torch.randn(1, 4, 3, 8, 8)
    TeacherCache(tmp_path).run(network, clip, PATHS)
    (path,) = files(tmp_path)
    tensors = safetensors.torch.load_file(path)
    tensors["output"] += 1
    safetensors.torch.save_file(tensors, path, metadata={"key": path.stem})
    with pytest.raises(UserError, match=r"the teacher gives other values now \('output' differs by .*remove the cache"):
        TeacherCache(tmp_path).run(network, clip, PATHS)


@torch.no_grad()
def test_a_file_of_another_clip_or_of_nothing_is_an_error(network, tmp_path: Path) -> None:
    clips = torch.randn(2, 4, 3, 8, 8)
    TeacherCache(tmp_path).run(network, clips, PATHS)
    first, second = files(tmp_path)
    second.write_bytes(first.read_bytes())
    with pytest.raises(UserError, match="holds another clip than its name says"):
        TeacherCache(tmp_path).run(network, clips, PATHS)
    second.write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read"):
        TeacherCache(tmp_path).run(network, clips, PATHS)


def test_a_frozen_teacher_remembers_what_it_said(network, tmp_path: Path) -> None:
    plain, cached = FrozenTeacher(network, VIEW), FrozenTeacher(network, VIEW, TeacherCache(tmp_path))
    clips = torch.randn(2, 8, 3, 16, 16)
    for _ in range(2):
        outputs, features = cached.run(clips, PATHS)
        torch.testing.assert_close(outputs, plain.run(clips, PATHS)[0], atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(cached(clips), plain(clips), atol=2e-3, rtol=2e-3)
        assert not outputs.requires_grad
        assert set(features) == set(PATHS)
    assert cached.cache.hits == 4


@torch.no_grad()
def test_in_another_precision_the_teacher_is_asked_again(network, tmp_path: Path) -> None:
    cache, clip = TeacherCache(tmp_path), torch.randn(1, 4, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cache.run(network, clip, PATHS)
        outputs, _ = cache.run(network, clip, PATHS)
    assert (cache.hits, cache.misses) == (1, 1)
    assert outputs.dtype == torch.float32
    cache.run(network, clip, PATHS)
    assert (cache.hits, cache.misses) == (1, 2)
    assert FrozenTeacher(network, VIEW, cache).observations() == {"cache_hits": 1 / 3}
    assert FrozenTeacher(network, VIEW).observations() == {}
