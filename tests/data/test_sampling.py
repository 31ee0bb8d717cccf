from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidistill.data.clip import SampleKey
from vidistill.data.sampling import EpochSampler, dense_indices, paired_indices, segment_indices

SIZES = {"num_samples": st.integers(1, 30), "batch_size": st.integers(1, 12), "seed": st.integers(0, 2**40)}


@given(st.integers(0, 200), st.integers(1, 8), st.integers(1, 12), st.integers(0, 2**32))
def test_paired_indices_end_at_the_anchor_and_are_evenly_spaced(
    anchor: int, num_frames: int, max_gap: int, seed: int
) -> None:
    indices = paired_indices(anchor, num_frames=num_frames, max_gap=max_gap, rng=np.random.default_rng(seed))
    gaps = set(np.diff(indices).tolist())
    assert len(indices) == num_frames
    assert indices[-1] == anchor
    assert indices[0] >= 0
    assert len(gaps) <= 1
    assert all(0 <= gap <= max_gap for gap in gaps)
    # frames repeat only where the video is too short for different ones
    assert 0 not in gaps or anchor < num_frames - 1


@pytest.mark.parametrize(
    ("anchor", "num_frames", "expected"),
    [(5, 3, [1, 3, 5]), (6, 3, [0, 3, 6]), (3, 4, [0, 1, 2, 3]), (2, 4, [2] * 4), (0, 2, [0, 0]), (7, 1, [7])],
)
def test_a_gap_that_is_too_long_shrinks_as_far_as_it_must(anchor: int, num_frames: int, expected: list[int]) -> None:
    rng = np.random.default_rng(0)
    assert paired_indices(anchor, num_frames=num_frames, max_gap=10**9, rng=rng) == expected


def test_paired_indices_draw_every_gap() -> None:
    rng = np.random.default_rng(0)
    assert {paired_indices(50, num_frames=2, max_gap=4, rng=rng)[0] for _ in range(100)} == {46, 47, 48, 49}


@pytest.mark.parametrize(
    ("length", "num_frames", "expected"),
    [
        (10, 5, [1, 3, 5, 7, 9]),
        (8, 4, [1, 3, 5, 7]),
        (9, 3, [1, 4, 7]),
        (2, 4, [0, 0, 1, 1]),
        (1, 3, [0, 0, 0]),
        (7, 1, [3]),
    ],
)
def test_segment_indices(length: int, num_frames: int, expected: list[int]) -> None:
    assert segment_indices(length, num_frames=num_frames) == expected


@given(st.integers(1, 100), st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_each_segment_gives_the_frame_at_its_phase(length: int, phases: list[float]) -> None:
    indices = segment_indices(length, num_frames=len(phases), phase=phases)
    for i, (index, phase) in enumerate(zip(indices, phases, strict=True)):
        assert 0 <= index < length
        assert index <= (i + phase) * length / len(phases) < index + 1 + (index == length - 1)
    assert indices == sorted(indices)


@pytest.mark.parametrize(
    ("length", "num_frames", "stride", "phase", "expected"),
    [
        (10, 4, 2, 0.0, [0, 2, 4, 6]),
        (10, 4, 2, 1.0, [3, 5, 7, 9]),
        (11, 4, 2, 0.5, [2, 4, 6, 8]),
        (5, 4, 2, 0.7, [0, 2, 4, 4]),
        (1, 3, 8, 0.5, [0, 0, 0]),
        (9, 1, 8, 0.5, [4]),
    ],
)
def test_dense_indices(length, num_frames, stride, phase, expected) -> None:
    assert dense_indices(length, num_frames=num_frames, stride=stride, phase=phase) == expected


def test_no_indices_without_frames() -> None:
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        segment_indices(0, num_frames=2)
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        dense_indices(0, num_frames=2, stride=1)


@given(**SIZES)
def test_every_epoch_is_a_permutation(num_samples: int, batch_size: int, seed: int) -> None:
    sampler = EpochSampler(num_samples, batch_size=batch_size, seed=seed)
    batches = list(islice(sampler, -(-3 * num_samples // batch_size)))
    keys = [key for batch in batches for key in batch][: 3 * num_samples]
    assert {len(batch) for batch in batches} == {batch_size}
    assert [key.epoch for key in keys] == [epoch for epoch in range(3) for _ in range(num_samples)]
    assert {key.seed for key in keys} == {seed}
    for epoch in range(3):
        samples = [key.sample for key in keys if key.epoch == epoch]
        assert sorted(samples) == list(range(num_samples))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {
        tuple(key.sample for key in batch)
        for seed in (0, 1)
        for batch in islice(EpochSampler(20, batch_size=20, seed=seed), 3)
    }
    assert len(orders) == 6


@given(**SIZES, start_step=st.integers(0, 40))
def test_a_resumed_sampler_goes_on_where_the_first_stopped(
    num_samples: int, batch_size: int, seed: int, start_step: int
) -> None:
    whole = EpochSampler(num_samples, batch_size=batch_size, seed=seed)
    resumed = EpochSampler(num_samples, batch_size=batch_size, seed=seed, start_step=start_step)
    assert list(islice(resumed, 5)) == list(islice(whole, start_step, start_step + 5))


@given(num_samples=st.integers(1, 30), share=st.integers(1, 4), world_size=st.integers(1, 4), seed=st.integers(0, 99))
def test_ranks_partition_the_global_batch(num_samples: int, share: int, world_size: int, seed: int) -> None:
    batch_size = share * world_size
    ranks = [
        list(islice(EpochSampler(num_samples, batch_size=batch_size, seed=seed, rank=r, world_size=world_size), 6))
        for r in range(world_size)
    ]
    whole = islice(EpochSampler(num_samples, batch_size=batch_size, seed=seed), 6)
    for batch, *parts in zip(whole, *ranks, strict=True):
        assert {len(part) for part in parts} == {share}
        assert sorted(key for part in parts for key in part) == sorted(batch)


def test_keys_are_what_samples_are_drawn_from() -> None:
    assert next(iter(EpochSampler(1, batch_size=2, seed=7))) == [SampleKey(7, 0, 0), SampleKey(7, 1, 0)]


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "message"), [(0, 2, "num_samples must be at least 1, got 0"), (5, 3, "multiple")]
)
def test_what_cannot_be_sampled(num_samples: int, batch_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EpochSampler(num_samples, batch_size=batch_size, seed=0, world_size=2)
