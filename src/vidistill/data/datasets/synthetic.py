"""Textured shapes that move over a textured ground, drawn from formulas: labels, boxes and flow are exact. [ours]

Every pixel shows one surface, sampled at the pixel's centre in the surface's own coordinates, so that images, labels
and flow agree. Motion is translation; the camera's motion is added to that of every shape.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from vidistill.config import Count, Pixels, Whole, whole
from vidistill.data.clip import Image, LabelMap, VideoDataset
from vidistill.data.sequences.boxes import Boxes
from vidistill.errors import UserError

Points = NDArray[np.float64]  # (…, 2), x and y in pixels; pixel centres are whole numbers

# Whether (…,) x and y, which run from -1 to 1 over the shape's box, are inside; in the order of classes from 1 on.
SHAPES: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]] = {
    "rectangle": lambda x, y: (abs(x) < 1) & (abs(y) < 1),
    "disc": lambda x, y: x**2 + y**2 < 1,
    "triangle": lambda x, y: (y < 1) & (2 * abs(x) < y + 1),
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.35) & (np.maximum(abs(x), abs(y)) < 1),
    "diamond": lambda x, y: abs(x) + abs(y) < 1,
    "ring": lambda x, y: (x**2 + y**2 < 1) & (x**2 + y**2 > 0.3),
}
PALETTE = ((0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (204, 121, 167))
NUM_WAVES = 8
WAVE_LENGTHS = (10.0, 60.0)  # pixels; much longer than a pixel, so that bilinear sampling keeps the texture
CONTRAST = 30.0  # of a texture, in grey levels: about 2.5 times its standard deviation
NumVideos = Annotated[int, *whole(1, 100_000)]  # all are made at once
NumFrames = Annotated[int, *whole(1, 2**20)]
FASTEST = 0.02  # along x or y, in longer sides of the frame per frame


@dataclass(frozen=True, eq=False)
class Texture:
    """Smooth noise: a colour (3,) plus K waves of directions (K, 2), radians per pixel, phases (K,), levels (K, 3)."""

    colour: NDArray[np.float64]
    directions: NDArray[np.float64]
    phases: NDArray[np.float64]
    levels: NDArray[np.float64]

    @classmethod
    def draw(cls, colours: tuple[float, float], rng: np.random.Generator) -> "Texture":
        """A random texture; `colours`: the range of each channel of its colour, grey levels."""
        angles = rng.uniform(0, 2 * np.pi, NUM_WAVES)
        shortest, longest = np.log(WAVE_LENGTHS)
        lengths = np.exp(rng.uniform(shortest, longest, NUM_WAVES))
        directions = 2 * np.pi / lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        levels = rng.uniform(-CONTRAST, CONTRAST, (NUM_WAVES, 3)) / np.sqrt(NUM_WAVES)
        return cls(rng.uniform(*colours, 3), directions, rng.uniform(0, 2 * np.pi, NUM_WAVES), levels)

    def at(self, points: Points) -> Image:
        """(…, 3) colours at `points`."""
        waves = np.cos(points @ self.directions.T + self.phases)
        return np.clip(np.rint(self.colour + waves @ self.levels), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Trajectory:
    """A point that swings about `centre`: centre + swing · sin(rate · t + phase), each (x, y), pixels; t in frames."""

    centre: tuple[float, float]
    swing: tuple[float, float] = (0.0, 0.0)
    rate: tuple[float, float] = (0.0, 0.0)
    phase: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def draw(cls, centre: Points, swing: Points, speed: float, rng: np.random.Generator) -> "Trajectory":
        """A random one, never farther than `swing` (x, y) from `centre`, nor faster than `speed` along x or y."""
        swing = swing * rng.uniform(0.3, 1, 2)
        rate = rng.uniform(0.3, 1, 2) * speed / swing
        x, y = np.stack([centre, swing, rate, rng.uniform(0, 2 * np.pi, 2)], axis=1).tolist()
        return cls(*((a, b) for a, b in zip(x, y, strict=True)))

    def at(self, time: float) -> Points:
        """(2,) x and y at frame `time`."""
        return np.array(self.centre) + np.array(self.swing) * np.sin(np.array(self.rate) * time + np.array(self.phase))

    def at_rest(self) -> "Trajectory":
        x, y = self.at(0).tolist()
        return Trajectory((x, y))


@dataclass(frozen=True, eq=False)
class Shape:
    """A textured shape. kind: a key of SHAPES; half_size: (x, y) pixels; path: of its centre, on the ground."""

    kind: str
    half_size: tuple[float, float]
    path: Trajectory
    texture: Texture

    def covers(self, points: Points) -> NDArray[np.bool_]:
        """(…,) whether `points`, relative to its centre, are inside the shape."""
        return SHAPES[self.kind](points[..., 0] / self.half_size[0], points[..., 1] / self.half_size[1])


@dataclass(frozen=True, eq=False)
class SyntheticSequence:
    """A scene. shapes: from the farthest to the nearest; camera: added to every position; size: (height, width).

    Class 0 is the ground, the others are SHAPES in order.
    """

    name: str
    num_frames: int
    size: tuple[int, int]
    ground: Texture
    shapes: Sequence[Shape]
    camera: Trajectory = Trajectory((0.0, 0.0))

    def __len__(self) -> int:
        return self.num_frames

    def image(self, index: int) -> Image:
        surfaces, pixels = self._surfaces(index), self._pixels()
        image = np.empty((*self.size, 3), dtype=np.uint8)
        for surface in np.unique(surfaces):
            shown = surfaces == surface
            texture = self.shapes[surface - 1].texture if surface else self.ground
            image[shown] = texture.at(pixels[shown] - self._position(surface, index))
        return image

    def images(self) -> Iterator[Image]:
        return (self.image(index) for index in range(len(self)))

    def labelled(self) -> Sequence[int]:
        return range(len(self))

    def labels(self, index: int) -> LabelMap:
        classes = np.array([0, *self._classes()], dtype=np.uint8)
        return classes[self._surfaces(index)]

    def boxes(self, index: int) -> Boxes:
        """Boxes around the visible pixels of each visible shape; instance k is the k-th shape from the back."""
        surfaces, classes = self._surfaces(index), self._classes()
        seen = [surface for surface in np.unique(surfaces) if surface]
        boxes = np.empty((len(seen), 4), dtype=np.float32)
        for row, surface in zip(boxes, seen, strict=True):
            ys, xs = np.nonzero(surfaces == surface)
            row[:] = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        return Boxes.of(boxes, [classes[surface - 1] for surface in seen], instances=seen)

    def flow(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(H, W, 2) displacement (x, y) in pixels from frame `index` to the next, and (H, W) whether it stays visible.

        Not so: what leaves the frame, and what something nearer covers.
        """
        self._check(index + 1)
        surfaces, pixels = self._surfaces(index), self._pixels()
        ends = [self._position(surface, index + 1) for surface in range(len(self.shapes) + 1)]
        moves = np.stack([end - self._position(surface, index) for surface, end in enumerate(ends)])
        targets = pixels + moves[surfaces]
        height, width = self.size
        left = ((targets < -0.5) | (targets > (width - 0.5, height - 0.5))).any(axis=-1)
        covered = np.zeros(self.size, dtype=np.bool_)
        for surface, shape in enumerate(self.shapes, start=1):
            covered |= (surfaces < surface) & shape.covers(targets - ends[surface])
        return moves[surfaces].astype(np.float32), ~(left | covered)

    def problems(self) -> list[str]:
        return []

    def at_rest(self) -> "SyntheticSequence":
        """The same number of frames, all like its first one."""
        shapes = [replace(shape, path=shape.path.at_rest()) for shape in self.shapes]
        return replace(self, shapes=shapes, camera=self.camera.at_rest())

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: frame {index} is out of range, the sequence has {len(self)} frames")

    def _pixels(self) -> Points:
        """(H, W, 2) positions of the pixels' centres."""
        ys, xs = np.mgrid[0 : self.size[0], 0 : self.size[1]]
        return np.stack([xs, ys], axis=-1).astype(np.float64)

    def _position(self, surface: int, index: int) -> Points:
        """(2,) where the origin of a surface's coordinates is in the frame; 0 is the ground, k the shape k - 1."""
        place = self.camera.at(index)
        return place + self.shapes[surface - 1].path.at(index) if surface else place

    def _classes(self) -> list[int]:
        return [1 + list(SHAPES).index(shape.kind) for shape in self.shapes]

    def _surfaces(self, index: int) -> NDArray[np.intp]:
        """(H, W) which surface each pixel shows: the nearest that covers its centre."""
        self._check(index)
        pixels = self._pixels()
        surfaces = np.zeros(self.size, dtype=np.intp)
        for surface, shape in enumerate(self.shapes, start=1):
            surfaces[shape.covers(pixels - self._position(surface, index))] = surface
        return surfaces


def synthetic(
    *,
    num_sequences: NumVideos = 8,
    num_frames: NumFrames = 12,
    size: tuple[Pixels, Pixels] = (64, 96),
    num_classes: Count = 4,
    seed: Whole = 0,
    still: bool = False,
) -> VideoDataset:
    """Random scenes of three to six moving shapes with exact labels; the class of a shape is its form.

    A sequence does not depend on how many there are, nor a frame on how many follow.

    Args:
        num_sequences: How many scenes, at least 1.
        num_frames: Frames per scene, at least 1.
        size: (height, width) in pixels, at least 16 each.
        num_classes: 2 to 7, the ground included.
        seed: 0 or more; decides everything.
        still: Repeat the first frame instead of moving.

    Returns:
        Sequences with a mask, boxes and flow for every frame.

    Raises:
        UserError: For a value out of range.
    """
    if not 2 <= num_classes <= 1 + len(SHAPES):
        raise UserError(f"synthetic: num_classes must be 2 to {1 + len(SHAPES)} with the ground, got {num_classes}")
    if min(num_sequences, num_frames) < 1 or min(size) < 16 or seed < 0:
        raise UserError(
            "synthetic: num_sequences and num_frames must be at least 1, size at least 16, seed at least 0, got "
            f"{num_sequences}, {num_frames}, {size}, {seed}"
        )
    kinds = list(SHAPES)[: num_classes - 1]
    sequences = []
    for number in range(num_sequences):
        rng = np.random.default_rng((seed, number))
        scene = _scene(f"synthetic_{number:04d}", kinds, num_frames, size, rng)
        sequences.append(scene.at_rest() if still else scene)
    return VideoDataset("synthetic", sequences, ("ground", *kinds), PALETTE[:num_classes])


def _scene(
    name: str, kinds: list[str], num_frames: int, size: tuple[int, int], rng: np.random.Generator
) -> SyntheticSequence:
    camera = _trajectory(np.zeros(2), size, 0.3, rng)
    ground = Texture.draw((40, 110), rng)
    # three to six shapes; none comes twice before each has come once
    order = np.concatenate([rng.permutation(kinds) for _ in range(6)])[: rng.integers(3, 7)]
    shapes = []
    for kind in order:
        centre = np.array(size[::-1]) * rng.uniform(0.1, 0.9, 2)
        width, height = (min(size) * rng.uniform(0.12, 0.25) * rng.uniform(0.8, 1.2, 2)).tolist()
        path, texture = _trajectory(centre, size, 1.0, rng), Texture.draw((110, 215), rng)
        shapes.append(Shape(str(kind), (width, height), path, texture))
    return SyntheticSequence(name, num_frames, size, ground, shapes, camera)


def _trajectory(centre: Points, size: tuple[int, int], share: float, rng: np.random.Generator) -> Trajectory:
    """A swing of up to `share` of a quarter of the frame, at up to `share` of the largest speed."""
    return Trajectory.draw(centre, share * np.array(size[::-1]) / 4, share * FASTEST * max(size), rng)
