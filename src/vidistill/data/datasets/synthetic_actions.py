"""Synthetic videos whose class depends on one property only: how fast a shape swings, or its fine pattern. [ours]"""

from typing import Literal

import numpy as np

from vidistill.config import Count, Pixels, Whole
from vidistill.data.clip import VideoDataset
from vidistill.data.datasets.synthetic import (
    SHAPES,
    NumFrames,
    NumVideos,
    Shape,
    SyntheticSequence,
    Texture,
    Trajectory,
)
from vidistill.data.sequences.classified import ClassifiedVideo
from vidistill.errors import UserError

SWING = 0.22  # of the frame's side, to either side of the middle
STRIPE_LENGTH = 1 / 14  # of the frame's side: 4.6 of 64 pixels, so still more than 2 at half the size
STRIPE_CONTRAST = 45.0  # grey levels
GROUND = (40.0, 110.0)  # range of colours, grey levels
FOREGROUND = (110.0, 215.0)


def synthetic_actions(
    *,
    decides: Literal["frequency", "detail"] = "frequency",
    num_videos: NumVideos = 120,
    num_frames: NumFrames = 16,
    size: Pixels = 64,
    num_classes: Count = 4,
    seed: Whole = 0,
) -> VideoDataset:
    """Videos of one textured shape that swings on a straight line over a textured ground; classes come in turn.

    A video does not depend on how many there are.

    Args:
        decides: What the class depends on. "frequency": class c swings c + 1 times in a video, independently of shape,
            colours, textures, direction, place and phase. "detail": class c has stripes at an angle of
            c · 180° / num_classes, independently of its motion.
        num_videos: At least 1.
        num_frames: Frames per video, at least 2 per class.
        size: Side of the square frame in pixels, at least 16.
        num_classes: At least 2.
        seed: 0 or more; decides everything.

    Returns:
        Sequences with one class per video.

    Raises:
        UserError: For a value out of range.
    """
    if num_videos < 1 or num_frames < 2 * num_classes or size < 16 or num_classes < 2 or seed < 0:
        raise UserError(
            "synthetic_actions: num_videos must be at least 1, num_frames 2 per class, size 16, num_classes 2 and seed "
            f"0, got {num_videos}, {num_frames}, {size}, {num_classes} and {seed}"
        )
    videos = []
    for number in range(num_videos):
        rng = np.random.default_rng((seed, number))
        class_id = number % num_classes
        cycles = class_id + 1 if decides == "frequency" else int(rng.integers(1, num_classes + 1))
        texture = Texture.draw(FOREGROUND, rng)
        if decides == "detail":
            # one wave with its crests along the class's angle, of any colour and phase
            angle = np.pi * class_id / num_classes
            direction = 2 * np.pi / (STRIPE_LENGTH * size) * np.array([[-np.sin(angle), np.cos(angle)]])
            colour = rng.uniform(*FOREGROUND, 3)
            texture = Texture(colour, direction, rng.uniform(0, 2 * np.pi, 1), np.full((1, 3), STRIPE_CONTRAST))
        scene = _scene(f"{decides}_{number:05d}", cycles, texture, num_frames, size, rng)
        videos.append(ClassifiedVideo(scene, (class_id,)))
    if decides == "frequency":
        names = tuple(f"{c + 1} swings" for c in range(num_classes))
    else:
        names = tuple(f"stripes {180 * c // num_classes}°" for c in range(num_classes))
    return VideoDataset("synthetic_actions", videos, names)


def _scene(
    name: str, cycles: int, texture: Texture, num_frames: int, size: int, rng: np.random.Generator
) -> SyntheticSequence:
    """One shape that swings `cycles` times, in any direction; size: of the square frame."""
    angle, phase = rng.uniform(0, 2 * np.pi, 2).tolist()
    swing = SWING * size * np.array([np.cos(angle), np.sin(angle)])
    middle = size * rng.uniform(0.4, 0.6, 2)
    rate = 2 * np.pi * cycles / num_frames
    path = Trajectory(tuple(middle.tolist()), tuple(swing.tolist()), (rate, rate), (phase, phase))
    half_size = size * rng.uniform(0.14, 0.22, 2)
    shape = Shape(str(rng.choice(list(SHAPES))), tuple(half_size.tolist()), path, texture)
    return SyntheticSequence(name, num_frames, (size, size), Texture.draw(GROUND, rng), [shape])
