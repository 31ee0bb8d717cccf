"""Stages side by side: which are matched, what they returned, and how one is brought to the form of the other."""

import pytest
import torch
from torch import nn

from tests.networks import TinyClips
from vidistill.errors import UserError
from vidistill.methods.features import (
    StagePair,
    adapted,
    aligned,
    feature_shapes,
    make_adapters,
    match_stages,
    run_with_features,
)
from vidistill.models import build_network


def test_the_last_stages_of_both_are_matched() -> None:
    student, teacher = TinyClips(3), TinyClips(3, width=8)
    teacher.stages = ("first.0", "first", "second")
    pairs = [[(p.student, p.teacher) for p in match_stages(student, teacher, n)] for n in (1, 2, None)]
    assert pairs[0] == [("second", "second")]
    assert pairs[1] == pairs[2] == [("first", "first"), ("second", "second")]
    given = match_stages(student, teacher, [("first.0", "second")])
    assert given == [StagePair("first.0", "second")]
    assert given[0].key == "first/0:second"


@pytest.mark.parametrize("stages", [0, 3, -1])
def test_stages_that_cannot_be_matched_say_which_exist(stages: int) -> None:
    teacher = TinyClips(3)
    teacher.stages = ("first.0", "first", "second")
    sentence = rf"^{stages} stages cannot be matched: the student has first, second; the teacher has first\.0, first, "
    with pytest.raises(UserError, match=sentence):
        match_stages(TinyClips(3), teacher, stages)


def test_no_pairs_are_refused() -> None:
    with pytest.raises(UserError, match="0 stages cannot be matched"):
        match_stages(TinyClips(3), TinyClips(3), [])


def test_a_network_without_stages_is_named() -> None:
    with pytest.raises(
        UserError, match=r"the teacher Sequential does not say what its stages are; give method\.stages"
    ):
        match_stages(TinyClips(3), nn.Sequential(nn.Linear(1, 1)), 1)


@torch.no_grad()
def test_features_are_what_the_stages_return_frame_by_frame() -> None:
    network, clips = TinyClips(3).eval(), torch.randn(2, 4, 3, 8, 8)
    outputs, features = run_with_features(network, clips, ["second", "first", "second"])
    assert torch.equal(outputs, network(clips))
    assert list(features) == ["second", "first"]
    for b in range(2):
        for t in range(4):
            first = network.first(clips[b, t][None])
            torch.testing.assert_close(features["first"][b, t], first[0])
            torch.testing.assert_close(features["second"][b, t], network.second(first)[0])


@torch.no_grad()
def test_parts_of_a_clip_that_run_apart_come_one_after_the_other() -> None:
    class InParts(TinyClips):
        def forward(self, clips):
            return torch.stack([super(InParts, self).forward(clips[:, i : i + 2]) for i in (0, 2)]).mean(dim=0)

    network, clips = InParts(3).eval(), torch.randn(2, 4, 3, 8, 8)
    _, features = run_with_features(network, clips, ["first"])
    torch.testing.assert_close(features["first"], network.first(clips.flatten(0, 1)).unflatten(0, (2, 4)))


def test_shapes_are_found_without_a_trace() -> None:
    network = TinyClips(3).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = feature_shapes(network, torch.zeros(1, 2, 3, 8, 8), ["first", "second"])
    assert found == {"first": (1, 2, 6, 4, 4), "second": (1, 2, 12, 4, 4)}
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_three_layouts_give_one_form() -> None:
    slow = build_network("slow_only", options={"num_classes": 3, "depth": 18}).eval()
    with torch.no_grad():
        _, features = run_with_features(slow, torch.randn(2, 4, 3, 32, 32), [slow.stages[-1]])
    assert features[slow.stages[-1]].shape == (2, 4, 512, 1, 1)


# Alignment: bilinear by hand


def test_a_grid_is_resized_bilinearly_frame_by_frame() -> None:
    student = torch.tensor([0.0, 4.0]).view(1, 1, 1, 1, 2)
    teacher = torch.zeros(1, 1, 1, 1, 4)
    # centres of the 4 pixels lie at −¼, ¼, ¾ and 1¼ of the 2 pixels' distance; outside, the border holds
    assert aligned(student, teacher).flatten().tolist() == pytest.approx([0, 1, 3, 4])
    many = torch.randn(2, 3, 5, 4, 4)
    found = aligned(many, torch.zeros(2, 3, 7, 7, 7))
    assert found.shape == (2, 3, 5, 7, 7)
    for b in range(2):
        for t in range(3):
            alone = aligned(many[b : b + 1, t : t + 1], torch.zeros(1, 1, 7, 7, 7))
            torch.testing.assert_close(found[b : b + 1, t : t + 1], alone)


def test_frames_are_resized_linearly() -> None:
    student = torch.tensor([0.0, 4.0]).view(1, 2, 1, 1, 1).expand(1, 2, 1, 3, 3)
    found = aligned(student, torch.zeros(1, 4, 1, 3, 3))
    assert found[0, :, 0, 1, 1].tolist() == pytest.approx([0, 1, 3, 4])
    same = torch.randn(1, 2, 3, 4, 4)
    assert aligned(same, torch.zeros(1, 2, 9, 4, 4)) is same


# Adapters


def test_a_projection_only_where_channels_differ() -> None:
    pairs = [StagePair("first", "a"), StagePair("second.0", "b")]
    adapters = make_adapters({pairs[0]: (6, 6), pairs[1]: (12, 5)})
    assert list(adapters) == ["second/0:b"]
    features = torch.randn(2, 3, 12, 4, 4)
    assert adapted(features[:, :, :6], pairs[0], adapters).shape == (2, 3, 6, 4, 4)
    weight, bias = adapters["second/0:b"].weight[:, :, 0, 0], adapters["second/0:b"].bias
    expected = torch.einsum("oc,btchw->btohw", weight, features) + bias[:, None, None]
    torch.testing.assert_close(adapted(features, pairs[1], adapters), expected, atol=1e-5, rtol=1e-5)


def test_every_pair_has_a_projection_of_its_own() -> None:
    wide, deep = StagePair("second", "first"), StagePair("second", "second")
    dotted, underscored = StagePair("a.b", "first"), StagePair("a_b", "first")
    adapters = make_adapters({wide: (12, 8), deep: (12, 16), dotted: (3, 8), underscored: (4, 8)})
    assert len(adapters) == 4
    features = torch.randn(1, 2, 12, 4, 4)
    assert adapted(features, wide, adapters).shape == (1, 2, 8, 4, 4)
    assert adapted(features, deep, adapters).shape == (1, 2, 16, 4, 4)
    assert adapted(features[:, :, :3], dotted, adapters).shape == (1, 2, 8, 4, 4)
    assert adapted(features[:, :, :4], underscored, adapters).shape == (1, 2, 8, 4, 4)


def test_projections_of_an_older_checkpoint_are_refused() -> None:
    adapters = make_adapters({StagePair("second", "second"): (12, 16)})
    old = {name.replace("second:second", "second"): tensor for name, tensor in adapters.state_dict().items()}
    with pytest.raises(RuntimeError, match="Missing key"):
        adapters.load_state_dict(old)
