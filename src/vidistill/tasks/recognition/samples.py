"""Training clips of videos with a class each."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vidistill.config import Pixels, Settings, Share, Values, Whole
from vidistill.data.augment import change_colour
from vidistill.data.clip import Batch, SampleKey, VideoDataset
from vidistill.data.dense_clips import ClipLength, FrameCache
from vidistill.data.sampling import dense_indices, segment_indices
from vidistill.data.sequences.classified import classes_of
from vidistill.errors import UserError
from vidistill.ops.clip_view import ClipView, Sampling, cut_square, middle_square


class ClassifiedClipSettings(Settings):
    """How training clips are drawn. See `ClipView`.

    num_frames: the most that a network sees; one that sees fewer takes every second, every third … of them.
    scale: the part of the short side that the square takes, before it is resized to `crop`. centred: it lies within the
    largest square in the middle, where the shape of the frames would tell the class. colour: 0…1.
    draws: how many different clips may be drawn of a video; 0 for no end of them. A teacher's cache needs it. The
    draws are then the same in every run, whatever its seed.
    """

    num_frames: ClipLength = 8
    sampling: Sampling = "segments"
    stride: ClipLength = 8
    crop: Pixels = 224
    scale: tuple[Share, Share] = (0.6, 1.0)
    centred: bool = False
    flip: bool = True
    colour: Share = 0.0
    draws: Whole = 0

    @pydantic.field_validator("scale")
    @classmethod
    def _is_range(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not 0 < scale[0] <= scale[1]:
            raise ValueError("give [least, most] with 0 < least <= most <= 1")
        return scale


class ClassifiedClips(Dataset[tuple[SampleKey, NDArray[np.uint8], NDArray[np.float32]]]):
    """One sample a video: a square clip, and its classes as a row of 0 and 1, all 0 where it has none.

    Indexed by a `SampleKey`, on which every draw depends and on nothing else.
    """

    def __init__(
        self, datasets: Sequence[VideoDataset], settings: ClassifiedClipSettings, *, use_labels: bool = True
    ) -> None:
        self.settings = settings
        self.use_labels = use_labels
        self.videos = [sequence for dataset in datasets for sequence in dataset.sequences]
        self.num_classes = max((dataset.num_classes for dataset in datasets), default=0)
        self.cache = FrameCache()
        if not self.videos:
            raise UserError("the training data has no videos; check data.train with `vidistill check`")

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: SampleKey) -> tuple[SampleKey, NDArray[np.uint8], NDArray[np.float32]]:
        video, settings = self.videos[key.sample], self.settings
        rng = (key._replace(seed=0, epoch=key.epoch % settings.draws) if settings.draws else key).generator()
        num_frames = settings.num_frames
        if settings.sampling == "segments":
            phases = rng.uniform(size=num_frames).tolist()
            indices = segment_indices(len(video), num_frames=num_frames, phase=phases)
        else:
            phase = float(rng.uniform())
            indices = dense_indices(len(video), num_frames=num_frames, stride=settings.stride, phase=phase)
        share, place = float(rng.uniform(*settings.scale)), (float(rng.uniform()), float(rng.uniform()))
        images = [self.cache.image(video, i) for i in indices]
        images = [middle_square(image) for image in images] if settings.centred else images
        frames = np.stack([cut_square(image, share=share, place=place, size=settings.crop) for image in images])
        if settings.flip and rng.uniform() < 0.5:
            frames = frames[:, :, ::-1]
        labels = np.zeros(self.num_classes, dtype=np.float32)
        labels[list(classes_of(video) if self.use_labels else ())] = 1
        return key, change_colour(np.ascontiguousarray(frames), settings.colour, rng), labels

    def view(self) -> ClipView:
        """What a network sees of these clips unless its recipe says otherwise."""
        settings = self.settings
        stride = settings.stride
        if settings.sampling != "dense":  # frames between the segments of a typical video
            lengths = [len(video) for video in self.videos[:: max(1, len(self.videos) // 20)]]
            stride = max(1, round(float(np.median(lengths)) / settings.num_frames))
        return ClipView(settings.num_frames, settings.sampling, stride, settings.crop, settings.crop)

    def view_of(self, changes: Values) -> ClipView:
        """The view with a recipe's changes to num_frames, size or detail. Errors: UserError where it has no frames."""
        whole = self.view()
        view = replace(whole, **changes)
        if view.num_frames > whole.num_frames or whole.num_frames % view.num_frames:
            raise UserError(
                f"view.num_frames {view.num_frames} does not divide data.clip.num_frames {whole.num_frames}, and both "
                "networks see frames of one clip; give data.clip more frames, a multiple of what each network sees, or "
                "the network another view.num_frames (a saved teacher has its own unless teacher.view says otherwise)"
            )
        return replace(view, stride=whole.stride * whole.num_frames // view.num_frames)

    def example(self) -> Tensor:
        """(1, T, 3, S, S) zeros."""
        return torch.zeros(1, self.settings.num_frames, 3, self.settings.crop, self.settings.crop)

    @staticmethod
    def collate(samples: Sequence[tuple[SampleKey, NDArray[np.uint8], NDArray[np.float32]]]) -> Batch:
        """One batch; each network's view of it is made inside the model."""
        keys, frames, labels = zip(*samples, strict=True)
        clips = torch.from_numpy(np.stack(frames)).permute(0, 1, 4, 2, 3).contiguous()
        return Batch(clips, clips, torch.from_numpy(np.stack(labels)), list(keys))
