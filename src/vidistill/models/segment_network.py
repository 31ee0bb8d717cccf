"""TSN and TSM: a 2-D backbone on every frame, the frames' logits averaged; TSM lets neighbouring frames trade channels.

Sources: Wang et al., "Temporal Segment Networks: Towards Good Practices for Deep Action Recognition", 2016 (arXiv
1608.00859); Lin, Gan & Han, "TSM: Temporal Shift Module for Efficient Video Understanding", 2019 (arXiv 1811.08383).
Written from the papers. Where we differ: every residual block shifts, also in ResNets deeper than 50, where the authors
shift every second one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidistill.errors import UserError
from vidistill.models.clips import linear_classifier, size_errors, to_frames
from vidistill.models.declares import FeatureLayout
from vidistill.models.libraries import timm_network

ShiftState = dict[str, Tensor]  # by layer path: the channels that the next frame's shift takes, (B, C / share, h, w)


class SegmentNetwork(nn.Module):
    """TSN: the mean of the frames' logits.

    clips: (B, T, 3, H, W), RGB, normalised as the backbone's weights want it. Returns logits (B, num_classes).
    backbone: any convolutional network of timm by name; its names are timm's, under `backbone.`.
    Errors: UserError for an unknown backbone; ValueError for one without a feature map.
    """

    classifier = "head"
    feature_layout: FeatureLayout = "frames"

    def __init__(self, num_classes: int, *, backbone: str, dropout: float) -> None:
        super().__init__()
        network: Any = timm_network(backbone, num_classes=0)
        self.backbone = network
        self.stages = tuple(f"backbone.{path}" for path in _stages(backbone))
        self.dropout = nn.Dropout(dropout)
        self.head = linear_classifier(network.head_hidden_size, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        with size_errors(self, clips):
            return self.frame_logits(to_frames(clips)).unflatten(0, clips.shape[:2]).mean(dim=1)

    def frame_logits(self, frames: Tensor) -> Tensor:
        """Logits (N, num_classes) of each of the frames (N, 3, H, W)."""
        return self.head(self.dropout(self.backbone(frames)))


class TemporalShiftNetwork(SegmentNetwork):
    """TSM: TSN whose residual branches start by shifting 1/`shift` of the channels each way along time.

    It has TSN's parameters and names. causal: shift from the past alone, and then `step` runs it frame by frame.
    Errors: as TSN; ValueError for a backbone without residual blocks to shift in, or a share that leaves no channel.
    """

    def __init__(self, num_classes: int, *, backbone: str, dropout: float, shift: int, causal: bool) -> None:
        least = 1 if causal else 2  # 1/shift of the channels moves each way
        if shift < least:
            raise ValueError(f"shift must be at least {least} where causal is {causal}, got {shift}")
        super().__init__(num_classes, backbone=backbone, dropout=dropout)
        self.shift = shift
        self.causal = causal
        self.tape = ShiftTape()
        self.shifted = tuple(f"backbone.{path}" for path in branch_starts(self.backbone))
        if not self.shifted:
            raise ValueError(
                f"'{backbone}' has no residual blocks of a kind that TSM shifts; give a ResNet or a MobileNetV2 of timm"
            )
        for path in self.shifted:
            # ahead of the layer, not around it, so that parameters keep the names of plain checkpoints
            self.get_submodule(path).register_forward_pre_hook(Shift(self.tape, path, share=shift, causal=causal))

    def extra_repr(self) -> str:
        return f"shift={self.shift}, causal={self.causal}"

    def forward(self, clips: Tensor) -> Tensor:
        with self.tape.over_clips(clips.shape[0]):  # len() would make the batch size a constant in an export
            return super().forward(clips)

    def step(self, frame: Tensor, state: ShiftState | None = None) -> tuple[Tensor, ShiftState]:
        """Logits (B, num_classes) of the next frame (B, 3, H, W) alone, and the state that the frame after it needs.

        state: None at a clip's start. In evaluation mode the mean of a clip's steps is the clip's logits.
        Errors: UserError where the network looks ahead, or the state is of another network.
        """
        if not self.causal:
            raise UserError("this TSM looks one frame ahead and cannot run frame by frame; build it with causal: true")
        if state is not None and set(state) != set(self.shifted):
            raise UserError("the state is of another network; start the stream again with state=None")
        with self.tape.over_stream(state) as written:
            logits = self.frame_logits(frame)
        return logits, written


class ShiftTape:
    """What a network's shifts share for the length of one call: the number of clips, or the channels of the last frame.

    A plain object, neither module nor buffer; only the network binds it.
    """

    def __init__(self) -> None:
        self.num_clips: int | None = None
        self.read: ShiftState | None = None
        self.written: ShiftState | None = None

    @contextmanager
    def over_clips(self, num_clips: int) -> Iterator[None]:
        """Lends the shifts the number of clips that the frames (B·T, …) are of."""
        self.num_clips = num_clips
        try:
            yield
        finally:
            self.num_clips = None

    @contextmanager
    def over_stream(self, state: ShiftState | None) -> Iterator[ShiftState]:
        """Lends the shifts the last frame's channels, None at a stream's start; yields those of this frame."""
        written: ShiftState = {}
        self.read, self.written = state, written
        try:
            yield written
        finally:
            self.read = self.written = None


class Shift:
    """A forward pre-hook of the layer at `path`: returns the layer's input, shifted.

    share: one part in this many of the channels moves each way. Errors: ValueError outside the network's call.
    """

    def __init__(self, tape: ShiftTape, path: str, *, share: int, causal: bool) -> None:
        self.tape = tape
        self.path = path
        self.share = share
        self.causal = causal

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        (x,) = inputs  # (B·T, C, h, w) of clips, (B, C, h, w) of a stream's frame
        num_shifted = x.shape[1] // self.share
        tape = self.tape
        if tape.num_clips is not None:
            clips = x.unflatten(0, (tape.num_clips, x.shape[0] // tape.num_clips))
            return temporal_shift(clips, num_shifted=num_shifted, causal=self.causal).flatten(0, 1)
        if tape.written is None:
            raise ValueError(f"'{self.path}' shifts along time: call the network, which knows the clips, not a part")
        own = x[:, :num_shifted]
        before = torch.zeros_like(own) if tape.read is None else tape.read[self.path]
        tape.written[self.path] = own.clone()  # a view would keep all of x alive
        return torch.cat([before, x[:, num_shifted:]], dim=1)


def temporal_shift(features: Tensor, *, num_shifted: int, causal: bool = False) -> Tensor:
    """Features (B, T, C, h, w), the first `num_shifted` channels from the next frame, as many more from the one before.

    Zeros come in where there is no such frame. causal: the first channels come from the frame before, no others move.
    """
    first, second = features[:, :, :num_shifted], features[:, :, num_shifted : 2 * num_shifted]
    if causal:
        return torch.cat([_earlier(first), features[:, :, num_shifted:]], dim=2)
    later = F.pad(first, (0, 0, 0, 0, 0, 0, 0, 1))[:, 1:]
    return torch.cat([later, _earlier(second), features[:, :, 2 * num_shifted :]], dim=2)


def _earlier(features: Tensor) -> Tensor:
    return F.pad(features, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1]


def branch_starts(backbone: nn.Module) -> Iterator[str]:
    """Paths of the first convolution of every residual branch: of ResNet blocks, and of inverted residuals that add."""
    from timm.models._efficientnet_blocks import InvertedResidual
    from timm.models.resnet import BasicBlock, Bottleneck

    for path, block in backbone.named_modules():
        if isinstance(block, BasicBlock | Bottleneck):
            yield f"{path}.conv1"
        elif isinstance(block, InvertedResidual) and block.has_skip:
            yield f"{path}.conv_pw"


@torch.no_grad()
def _stages(backbone: str) -> tuple[str, ...]:
    """Paths, inside a timm network, of its stages at stride 4 and coarser, the last being the map that is pooled."""
    with torch.device("meta"):
        shadow: Any = timm_network(backbone, num_classes=0).eval()
        outputs: dict[str, object] = {}
        for path, module in shadow.named_modules():
            module.register_forward_hook(lambda _, __, output, path=path: outputs.update({path: output}))
        pooled = shadow.forward_features(torch.empty(1, 3, 224, 224))
    if pooled.dim() != 4 or pooled.shape[1] != shadow.num_features:
        raise ValueError(
            f"'{backbone}' gives no feature map ({shadow.num_features}, h, w), but {tuple(pooled.shape[1:])}; give a "
            "convolutional network"
        )
    known = [info["module"] for info in shadow.feature_info if info["reduction"] >= 4]
    same = [path for path, output in outputs.items() if output is pooled]
    last = known[-1] if known[-1] in same else min(same, key=lambda path: path.count("."))
    return (*known[:-1], last)


def tsn(num_classes: int, *, backbone: str = "resnet50", dropout: float = 0.5) -> SegmentNetwork:
    """TSN; with ResNet-50 4.09 GMAC per frame at 224×224, 1.08 at 112×112.

    Args:
        num_classes: K.
        backbone: any convolutional network of timm by name.
        dropout: ahead of the classifier, 0…1.

    Returns:
        An untrained network of clips (B, T, 3, H, W), any T, that returns logits (B, K).

    Raises:
        UserError: for a backbone that timm does not know.
        ValueError: for one without a feature map.
    """
    return SegmentNetwork(num_classes, backbone=backbone, dropout=dropout)


def tsm(
    num_classes: int, *, backbone: str = "resnet50", dropout: float = 0.5, shift: int = 8, causal: bool = False
) -> TemporalShiftNetwork:
    """TSM with the residual shift, at TSN's cost.

    Args:
        num_classes: K.
        backbone: a convolutional network of timm with residual blocks, by name: a ResNet, MobileNetV2 or the like.
        dropout: ahead of the classifier, 0…1.
        shift: 1/shift of the channels comes from the frame before, and as much from the next; at least 2, or 1 where
            `causal`.
        causal: take channels from the frame before alone, so that the network runs frame by frame on a stream.

    Returns:
        An untrained network of clips (B, T, 3, H, W), any T, that returns logits (B, K).

    Raises:
        UserError: for a backbone that timm does not know.
        ValueError: for one without a feature map or residual blocks, or a `shift` that is too small.
    """
    return TemporalShiftNetwork(num_classes, backbone=backbone, dropout=dropout, shift=shift, causal=causal)
