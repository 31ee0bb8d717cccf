"""Video networks of other libraries as clip networks: they take (B, T, 3, H, W) and declare their stages."""

from typing import Any

from torch import Tensor, nn

from vidistill.errors import UserError
from vidistill.models.clips import size_errors
from vidistill.models.declares import FeatureLayout
from vidistill.ops.normalise import Normalisation

KINETICS = Normalisation((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))

# by torchvision's class: the stages, the classifier, what a stage returns, and how its published weights want frames
TORCHVISION_LAYOUTS: dict[str, tuple[tuple[str, ...], str, FeatureLayout, Normalisation]] = {
    "VideoResNet": (("layer1", "layer2", "layer3", "layer4"), "fc", "channels_first", KINETICS),
    "S3D": (("features.3", "features.6", "features.12", "features.15"), "classifier.1", "channels_first", KINETICS),
    "SwinTransformer3d": (("features.0", "features.2", "features.4", "norm"), "head", "channels_last", Normalisation()),
}


class TorchvisionClips(nn.Module):
    """A video network of torchvision whose stages are maps. clips: (B, T, 3, H, W); returns logits (B, K)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        stages, classifier, self.feature_layout, self.normalisation = TORCHVISION_LAYOUTS[type(network).__name__]
        self.stages = tuple(f"backbone.{path}" for path in stages)
        self.classifier = f"backbone.{classifier}"
        self.backbone = network

    def forward(self, clips: Tensor) -> Tensor:
        with size_errors(self, clips):
            return self.backbone(clips.transpose(1, 2))


class TokenMap(nn.Module):
    """Tokens (B, T'·h·w, C) as their map (B, T', h, w, C); a module, so that it can be a stage."""

    def forward(self, tokens: Tensor, size: tuple[int, int, int]) -> Tensor:
        return tokens.unflatten(1, size)


class MultiscaleVisionTransformer(nn.Module):
    """torchvision's MViT v1 or v2. clips: (B, T, 3, H, W), for v1 of `clip_shape` only; returns logits (B, K).

    Its one stage is the map of the last tokens; the classifier reads the class token instead, which attends to them.
    Errors: UserError for a clip of another shape than v1's.
    """

    stages = ("token_map",)
    classifier = "backbone.head.1"
    feature_layout: FeatureLayout = "channels_last"
    normalisation = Normalisation((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))  # as its published weights want frames

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.backbone: Any = network
        self.token_map = TokenMap()
        positions, stride = network.pos_encoding, network.conv_proj.stride
        patches = (positions.temporal_size, *positions.spatial_size)
        # v2's positions are relative and interpolated, v1's are learned for one shape
        fixed = getattr(positions, "spatial_pos", None) is not None
        self.clip_shape = tuple(n * s for n, s in zip(patches, stride, strict=True)) if fixed else None

    def forward(self, clips: Tensor) -> Tensor:
        _require_shape(clips, self.clip_shape)
        network = self.backbone
        patches = network.conv_proj(clips.transpose(1, 2))  # (B, C, T', h, w)
        size = tuple(patches.shape[2:])
        tokens = network.pos_encoding(patches.flatten(2).transpose(1, 2))  # (B, 1 + T'·h·w, C), the class token first
        for block in network.blocks:
            tokens, size = block(tokens, size)
        tokens = network.norm(tokens)
        self.token_map(tokens[:, 1:], size)  # for the stage's hooks alone
        return network.head(tokens[:, 0])


class MaskedAutoencoderClips(nn.Module):
    """Transformers' VideoMAE classifier. clips: (B, T, 3, H, W) of `clip_shape`; returns logits (B, K).

    Its one stage is the map of the last tokens. Errors: ValueError for a configuration that does not pool by the mean;
    UserError for a clip of another shape.
    """

    stages = ("token_map",)
    classifier = "backbone.classifier"
    feature_layout: FeatureLayout = "channels_last"

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.backbone: Any = network
        self.token_map = TokenMap()
        if not network.config.use_mean_pooling:
            raise ValueError("use_mean_pooling must be true, got false: videomae has no class token to classify by")
        patches = network.videomae.embeddings.patch_embeddings
        height, width = patches.image_size
        self.clip_shape = (network.config.num_frames, height, width)
        self.map_size = tuple(n // s for n, s in zip(self.clip_shape, patches.projection.stride, strict=True))

    def forward(self, clips: Tensor) -> Tensor:
        _require_shape(clips, self.clip_shape)
        network = self.backbone
        features = self.token_map(network.videomae(clips).last_hidden_state, self.map_size)  # (B, T', h, w, C)
        return network.classifier(network.fc_norm(features.mean(dim=(1, 2, 3))))


def adapt_torchvision(network: nn.Module) -> nn.Module:
    """A torchvision video network as a clip network."""
    return MultiscaleVisionTransformer(network) if type(network).__name__ == "MViT" else TorchvisionClips(network)


def _require_shape(clips: Tensor, wanted: tuple[int, ...] | None) -> None:
    shape = (clips.shape[1], *clips.shape[-2:])
    if wanted is not None and shape != wanted:
        raise UserError(
            f"this network takes clips of {wanted[0]} frames of {wanted[2]}x{wanted[1]} only, got {shape[0]} of "
            f"{shape[2]}x{shape[1]}; set its view.num_frames and view.size"
        )
