"""TSN and TSM: a 2-D backbone on every frame, the frames' logits averaged; TSM lets neighbouring frames trade channels.

Sources: Wang et al., "Temporal Segment Networks: Towards Good Practices for Deep Action Recognition", 2016 (arXiv
1608.00859); Lin, Gan & Han, "TSM: Temporal Shift Module for Efficient Video Understanding", 2019 (arXiv 1811.08383).
Written from the papers. Where we differ: every residual block shifts, also in ResNets deeper than 50, where the authors
shift every second one.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.models.clips import linear_classifier, size_errors, to_frames
from vidistill.models.declares import FeatureLayout
from vidistill.models.libraries import timm_network
from vidistill.models.temporal_shift import Shift, ShiftTape, State


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

    Same parameters and names as TSN. causal: only from the past, and then `step` runs it frame by frame.
    Errors: as TSN; ValueError for a backbone without residual blocks to shift in, or a share that leaves no channel.
    """

    def __init__(self, num_classes: int, *, backbone: str, dropout: float, shift: int, causal: bool) -> None:
        if shift < (1 if causal else 2):
            raise ValueError(f"shift is {shift}: 1/{shift} of the channels cannot move {'' if causal else 'each way'}")
        super().__init__(num_classes, backbone=backbone, dropout=dropout)
        self.shift = shift
        self.causal = causal
        self.tape = ShiftTape()
        self.shifted = tuple(f"backbone.{path}" for path in branch_starts(self.backbone))
        if not self.shifted:
            raise ValueError(f"'{backbone}' has no residual blocks of a kind that TSM shifts")
        for path in self.shifted:
            # ahead of the layer, not around it, so that parameters keep the names of plain checkpoints
            self.get_submodule(path).register_forward_pre_hook(Shift(self.tape, path, share=shift, causal=causal))

    def extra_repr(self) -> str:
        return f"shift={self.shift}, causal={self.causal}"

    def forward(self, clips: Tensor) -> Tensor:
        with self.tape.over_clips(clips.shape[0]):  # len() would fix the number in an export
            return super().forward(clips)

    def step(self, frame: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits (B, num_classes) of the next frame (B, 3, H, W) alone, and the state that the frame after it needs.

        state: None at a clip's start; afterwards the shifted channels by layer path, batch first. In evaluation mode
        the mean of a clip's steps is the clip's logits.
        Errors: UserError where the network looks ahead, or the state is of another network.
        """
        if not self.causal:
            raise UserError("this TSM looks one frame ahead and cannot run frame by frame; build it with causal: true")
        if state is not None and set(state) != set(self.shifted):
            raise UserError("the state is of another network; start the stream anew with state=None")
        with self.tape.over_stream(state) as written:
            logits = self.frame_logits(frame)
        return logits, written


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
        returned: dict[str, Any] = {}
        for path, module in shadow.named_modules():
            module.register_forward_hook(lambda _, __, output, path=path: returned.update({path: output}))
        pooled = shadow.forward_features(torch.empty(1, 3, 224, 224))
    if pooled.dim() != 4 or pooled.shape[1] != shadow.num_features:
        raise ValueError(f"'{backbone}' gives no feature map (C, h, w), but {tuple(pooled.shape[1:])}")
    known = [info["module"] for info in shadow.feature_info if info["reduction"] >= 4]
    same = [path for path, output in returned.items() if output is pooled]
    last = known[-1] if known[-1] in same else min(same, key=lambda path: path.count("."))
    return (*known[:-1], last)


def tsn(num_classes: int, *, backbone: str = "resnet50", dropout: float = 0.5) -> SegmentNetwork:
    """TSN; with ResNet-50 4.09 GMAC per frame at 224×224, 1.08 at 112×112."""
    return SegmentNetwork(num_classes, backbone=backbone, dropout=dropout)


def tsm(
    num_classes: int, *, backbone: str = "resnet50", dropout: float = 0.5, shift: int = 8, causal: bool = False
) -> TemporalShiftNetwork:
    """TSM with the residual shift, at TSN's cost."""
    return TemporalShiftNetwork(num_classes, backbone=backbone, dropout=dropout, shift=shift, causal=causal)
