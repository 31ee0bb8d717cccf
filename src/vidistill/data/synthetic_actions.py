"""Synthetic videos whose class only one property decides: how fast something swings, or a fine pattern on it. [ours]"""

from typing import Literal

import numpy as np

from vidistill.data.classified import ClassifiedVideo
from vidistill.data.clip import VideoDataset
from vidistill.data.synthetic import SHAPES, Path, Shape, SyntheticSequence, Texture
from vidistill.errors import UserError

STRIPE_LENGTH = 1 / 14  # of the frame's side: 4.6 pixels of 64, and still more than 2 in half the size
STRIPE_CONTRAST = 45.0  # grey levels
GROUND = (40.0, 110.0)
FOREGROUND = (110.0, 215.0)


def synthetic_actions(
    *,
    decides: Literal["frequency", "detail"] = "frequency",
    num_videos: int = 120,
    num_frames: int = 16,
    size: int = 64,
    num_classes: int = 4,
    num_shapes: int = 1,
    swing: float = 0.22,
    seed: int = 0,
) -> VideoDataset:
    """Videos of textured shapes that swing on straight lines over a textured ground; the classes come in turn.

    decides: "frequency": class c swings c + 1 times in a video, and shapes, colours, textures, directions, places and
    phases say nothing. "detail": class c has stripes at an angle of c · 180° / num_classes, and motion says nothing.
    A video does not depend on how many there are. size: of the square frame; swing: of that, to either side.
    """
    if num_videos < 1 or num_frames < 2 * num_classes or size < 16 or num_classes < 2 or num_shapes < 1 or seed < 0:
        raise UserError(
            f"synthetic_actions: num_videos {num_videos}, num_frames {num_frames}, size {size}, num_classes "
            f"{num_classes}, num_shapes {num_shapes}, seed {seed}; give at least 1 video, 2 frames a class, 16 pixels, "
            "2 classes, 1 shape and seed 0"
        )
    if not 0 < swing <= 0.5:
        raise UserError(f"synthetic_actions: swing {swing} is not above 0 and at most 0.5, half of the frame")
    videos = []
    for number in range(num_videos):
        rng = np.random.default_rng((seed, number))
        class_id = number % num_classes
        cycles = class_id + 1 if decides == "frequency" else int(rng.integers(1, num_classes + 1))
        rate = 2 * np.pi * cycles / num_frames
        shapes = []
        for _ in range(num_shapes):
            texture = Texture.draw(FOREGROUND, rng)
            if decides == "detail":
                texture = _stripes(np.pi * class_id / num_classes, STRIPE_LENGTH * size, rng)
            spread = 0.1 if num_shapes == 1 else 0.3
            shapes.append(_shape(texture, rate, swing * size, size, spread, rng))
        ground = Texture.draw(GROUND, rng)
        scene = SyntheticSequence(f"{decides}_{number:05d}", num_frames, (size, size), ground, shapes)
        videos.append(ClassifiedVideo(scene, (class_id,)))
    what = "{} swings" if decides == "frequency" else "stripes {}"
    names = [what.format(c + 1 if decides == "frequency" else f"{180 * c // num_classes}°") for c in range(num_classes)]
    return VideoDataset("synthetic_actions", videos, tuple(names))


def _shape(texture: Texture, rate: float, swing: float, size: int, spread: float, rng: np.random.Generator) -> Shape:
    angle, phase = rng.uniform(0, 2 * np.pi, 2).tolist()
    direction = swing * np.array([np.cos(angle), np.sin(angle)])
    middle = size * rng.uniform(0.5 - spread, 0.5 + spread, 2)
    path = Path(tuple(middle.tolist()), tuple(direction.tolist()), (rate, rate), (phase, phase))
    half_size = size * rng.uniform(0.14, 0.22, 2)
    return Shape(str(rng.choice(list(SHAPES))), tuple(half_size.tolist()), path, texture)


def _stripes(angle: float, length: float, rng: np.random.Generator) -> Texture:
    """One wave across the angle, of any colour and phase."""
    direction = 2 * np.pi / length * np.array([[-np.sin(angle), np.cos(angle)]])
    colour = rng.uniform(*FOREGROUND, 3)
    return Texture(colour, direction, rng.uniform(0, 2 * np.pi, 1), np.full((1, 3), STRIPE_CONTRAST))
