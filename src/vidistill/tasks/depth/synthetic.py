"""Textured rooms with boxes, seen by a moving camera, cast ray by ray from formulas: depth is exact. [ours]

World coordinates are metres: x right, y down, z forward, the ground at y = 0. Every pixel shows one point, sampled at
the pixel's centre in the coordinates of the face that it is on, so that images and depth agree from frame to frame.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from vidistill.config import Pixels, Whole
from vidistill.data.clip import Image, LabelMap, VideoDataset
from vidistill.data.datasets.synthetic import NumFrames, NumVideos, Texture
from vidistill.errors import UserError

Vectors = NDArray[np.float64]  # (…, 3)

FOCAL = 0.8  # focal length, in widths of the frame: 64° from left to right
ROOM_TEXELS, BLOCK_TEXELS = 8.0, 25.0  # a texture's pixels in a metre: waves of 1.3 to 7.5 m, and of 0.4 to 2.4 m

# of the camera's x, y, z in metres and yaw, pitch, roll in radians: the middle, the largest swing, the largest speed
MIDDLE = np.array([0.0, -2.0, 0.0, 0.0, np.deg2rad(-5), 0.0])
SWING = np.array([1.5, 0.1, 4.0, *np.deg2rad([10, 1.5, 1])])
SPEED = np.array([0.15, 0.02, 0.35, *np.deg2rad([0.7, 0.2, 0.1])])  # per frame


@dataclass(frozen=True, eq=False)
class CameraPath:
    """A camera that swings: middle + swing · sin(rate · t + phase) for each of `MIDDLE`'s six numbers; t in frames."""

    swing: Vectors
    rate: Vectors
    phase: Vectors

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "CameraPath":
        swing = SWING * rng.uniform(0.4, 1, 6)
        return cls(swing, rng.uniform(0.4, 1, 6) * SPEED / swing, rng.uniform(0, 2 * np.pi, 6))

    def pose(self, time: float) -> tuple[Vectors, Vectors]:
        """(3, 3) rotation from the camera's axes to the world's, and (3,) the camera's place."""
        x, y, z, yaw, pitch, roll = MIDDLE + self.swing * np.sin(self.rate * time + self.phase)
        cosines, sines = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
        turn_y = np.array([[cosines[0], 0, sines[0]], [0, 1, 0], [-sines[0], 0, cosines[0]]])
        turn_x = np.array([[1, 0, 0], [0, cosines[1], -sines[1]], [0, sines[1], cosines[1]]])
        turn_z = np.array([[cosines[2], -sines[2], 0], [sines[2], cosines[2], 0], [0, 0, 1]])
        return turn_y @ turn_x @ turn_z, np.array([x, y, z])


@dataclass(frozen=True, eq=False)
class Block:
    """A box with its sides along the axes. low, high: (3,) corners; textures: of the faces −x, +x, −y, +y, −z, +z."""

    low: Vectors
    high: Vectors
    textures: Sequence[Texture]
    texels: float = BLOCK_TEXELS

    def crossed(self, origin: Vectors, rays: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where rays (3, H, W) enter and leave, (H, W) each, in lengths of the ray; a ray that leaves first misses it.

        origin: (3,). Axis by axis, which numpy does many times faster than reductions over an axis of three.
        """
        with np.errstate(divide="ignore"):
            ends = [
                ((low - o) / r, (high - o) / r)
                for low, high, o, r in zip(self.low, self.high, origin, rays, strict=True)
            ]
        enter = reduce(np.maximum, [np.minimum(*pair) for pair in ends])
        return enter, reduce(np.minimum, [np.maximum(*pair) for pair in ends])

    def colours(self, points: Vectors) -> Image:
        """(N, 3) of points (N, 3) on the faces: of the face that each is nearest to."""
        gaps = np.stack([points - self.low, self.high - points], axis=-1)  # (N, 3, 2)
        faces = np.abs(gaps).reshape(-1, 6).argmin(axis=1)
        colours = np.empty((len(points), 3), dtype=np.uint8)
        for face in np.unique(faces):
            on_face = faces == face
            colours[on_face] = self.textures[face].at(self.texels * np.delete(points[on_face], face // 2, axis=1))
        return colours


@dataclass(frozen=True, eq=False)
class DepthSequence:
    """A room that does not move and a camera that does. size: (height, width) in pixels."""

    name: str
    num_frames: int
    size: tuple[int, int]
    room: Block
    blocks: Sequence[Block]
    camera: CameraPath

    def __len__(self) -> int:
        return self.num_frames

    def image(self, index: int) -> Image:
        shown, depth = self._cast(index)
        points = self.points(index, depth)
        image = np.empty((*self.size, 3), dtype=np.uint8)
        for number, block in enumerate([self.room, *self.blocks]):
            image[shown == number] = block.colours(points[shown == number])
        return image

    def images(self) -> Iterator[Image]:
        return (self.image(index) for index in range(len(self)))

    def labelled(self) -> Sequence[int]:
        return range(len(self))

    def labels(self, index: int) -> LabelMap:
        """(H, W) float32 metres along the camera's axis, as sensors and data sets give depth."""
        return self._cast(index)[1].astype(np.float32)

    def points(self, index: int, depth: NDArray[np.floating]) -> Vectors:
        """(H, W, 3) in the world, of the pixels of a frame with this depth (H, W)."""
        rotation, place = self.camera.pose(index)
        return place + depth[..., None] * (self._rays() @ rotation.T)

    def project(self, index: int, points: Vectors) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where points (…, 3) of the world are in a frame: (…, 2) x and y in pixels, and their depth (…,)."""
        rotation, place = self.camera.pose(index)
        seen = (points - place) @ rotation
        return seen[..., :2] / seen[..., 2:] * self.focal + self._centre, seen[..., 2]

    def problems(self) -> list[str]:
        return []

    @property
    def focal(self) -> float:
        """Of the pinhole camera, in pixels; its centre is the frame's."""
        return FOCAL * self.size[1]

    @property
    def _centre(self) -> NDArray[np.float64]:
        return np.array([self.size[1] - 1, self.size[0] - 1]) / 2

    def _rays(self) -> Vectors:
        """(H, W, 3) in the camera's axes, of length 1 along its axis: so a length along the ray is a depth."""
        ys, xs = np.mgrid[0 : self.size[0], 0 : self.size[1]]
        across = (np.stack([xs, ys], axis=-1) - self._centre) / self.focal
        return np.concatenate([across, np.ones((*self.size, 1))], axis=-1)

    def _cast(self, index: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """(H, W) what each pixel shows, 0 the room and k the k-th block, and (H, W) its depth."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: frame {index} is out of range, the sequence has {len(self)} frames")
        rotation, place = self.camera.pose(index)
        rays = np.ascontiguousarray((self._rays() @ rotation.T).transpose(2, 0, 1))
        shown = np.zeros(self.size, dtype=np.intp)
        depth = self.room.crossed(place, rays)[1]  # from inside
        for number, block in enumerate(self.blocks, start=1):
            enter, leave = block.crossed(place, rays)
            nearer = (enter > 0) & (enter < leave) & (enter < depth)
            shown[nearer], depth[nearer] = number, enter[nearer]
        return shown, depth


def synthetic_depth(
    *, num_sequences: NumVideos = 8, num_frames: NumFrames = 12, size: tuple[Pixels, Pixels] = (64, 96), seed: Whole = 0
) -> VideoDataset:
    """Rooms with four to eight boxes on the ground and a camera that swings through them, with exact depth.

    A sequence does not depend on how many there are, nor a frame on how many follow.

    Args:
        num_sequences: How many rooms, at least 1.
        num_frames: Frames per room, at least 1.
        size: (height, width) in pixels, at least 16 each.
        seed: 0 or more; decides everything.

    Returns:
        Sequences of which every frame has its depth in metres, about 1 to 45.

    Raises:
        UserError: For a value out of range.
    """
    if min(num_sequences, num_frames) < 1 or min(size) < 16 or seed < 0:
        raise UserError(
            "synthetic_depth: num_sequences and num_frames must be at least 1, size at least 16, seed at least 0, got "
            f"{num_sequences}, {num_frames}, {size}, {seed}"
        )
    sequences = [
        _scene(f"room_{number:04d}", num_frames, size, np.random.default_rng((seed, number)))
        for number in range(num_sequences)
    ]
    return VideoDataset("synthetic_depth", sequences)


def _scene(name: str, num_frames: int, size: tuple[int, int], rng: np.random.Generator) -> DepthSequence:
    camera = CameraPath.draw(rng)
    width, height, length = rng.uniform((16, 5, 30), (24, 9, 40))
    walls, ceiling, ground = ((90, 170), (150, 220), (40, 100))  # ranges of colours, grey levels
    faces = [Texture.draw(colours, rng) for colours in (walls, walls, ceiling, ground, walls, walls)]
    room = Block(np.array([-width / 2, -height, -6]), np.array([width / 2, 0, length]), faces, ROOM_TEXELS)
    blocks = []
    for _ in range(rng.integers(4, 9)):
        x, z = rng.uniform((-0.4 * width, 8), (0.4 * width, length - 4))
        half_x, half_z, tall = rng.uniform((0.4, 0.4, 0.6), (1.6, 1.6, 3.5))
        low, high = np.array([x - half_x, -tall, z - half_z]), np.array([x + half_x, 0, z + half_z])
        blocks.append(Block(low, high, [Texture.draw((60, 230), rng) for _ in range(6)]))
    return DepthSequence(name, num_frames, size, room, blocks, camera)
