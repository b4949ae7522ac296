"""The networks: two backbones, two transformers over the views, four heads.

Morgado, Li and Vasconcelos, "Learning Representations from Audio-Visual Spatial Alignment"
(NeurIPS 2020). With the base width w = 64 every feature has 8 w = 512 dimensions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor, nn

from avtrain.networks.transformer import Positions, TransformerConfig, ViewTransformer

_Value = int | float | str | bool | None
Option = _Value | list[_Value]
"""A keyword argument of a function that makes a network: plain data, as checkpoints hold it."""


@dataclass(frozen=True)
class OwnNetwork:
    """Record of a network of the user's own: the function that made it (``package.module:name``),
    its keyword arguments, and the size D of the features. Building it: `avtrain.own_networks`."""

    factory: Annotated[str, Meta(pattern=r"\A[\w.]+:[\w.<>]+\Z", max_length=1000)]
    features: Annotated[int, Meta(ge=1, le=1_000_000)]
    options: dict[str, Option] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the networks. ``width`` is that of the first stage; the features of the paper's
    networks have 8 * width. ``video_network`` and ``audio_network`` replace these.

    ``positions``: how the transformers know where views look; ``norm_first``: layer normalisation
    before attention and MLP instead of after (always with ``relative`` positions); ``head``:
    projection from features to embeddings.
    """

    width: Annotated[int, Meta(ge=1, le=1024)] = 64
    audio_channels: Annotated[int, Meta(ge=1, le=64)] = 4
    embedding: Annotated[int, Meta(ge=1, le=65_536)] = 128
    transformer: bool = True
    transformer_depth: Annotated[int, Meta(ge=1, le=64)] = 2
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.1
    positions: Positions = "none"
    norm_first: bool = False
    head: Literal["linear", "mlp"] = "linear"
    video_network: OwnNetwork | None = None
    audio_network: OwnNetwork | None = None

    def own(self, modality: Literal["video", "audio"]) -> OwnNetwork | None:
        """The network in the place of the paper's."""
        return self.video_network if modality == "video" else self.audio_network

    @property
    def video_dim(self) -> int:
        """Size D of the video features."""
        return 8 * self.width if self.video_network is None else self.video_network.features

    @property
    def audio_dim(self) -> int:
        """Size D of the audio features."""
        return 8 * self.width if self.audio_network is None else self.audio_network.features

    def across_views(self, dim: int) -> TransformerConfig:
        """Sizes of a transformer over features of size ``dim``; it may have no layers."""
        depth = self.transformer_depth if self.transformer else 0
        return TransformerConfig(dim, depth, self.dropout, self.positions, self.norm_first)


class TemporalConv(nn.Conv3d):
    """Convolution over time as well, whose gradients are right in half precision on CPUs, too.

    For two frames, padded by one at both ends, oneDNN 3.12 (PyTorch 2.13; AVX-512 with bfloat16)
    computes the gradient of the weights from memory that nothing has written: it differs from call
    to call, and may be NaN. Padded beforehand, the same frames take another way through it.
    """

    def forward(self, input: Tensor) -> Tensor:
        reduced = input.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if not (reduced and input.shape[2] == 2):
            return super().forward(input)
        frames, height, width = (int(size) for size in self.padding)
        padded = nn.functional.pad(input, (0, 0, 0, 0, frames, frames))
        stride, padding = self.stride, (0, height, width)
        return nn.functional.conv3d(padded, self.weight, self.bias, stride, padding)


def _spatial_conv(cin: int, cout: int, stride: int) -> nn.Conv3d:
    return nn.Conv3d(cin, cout, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)


def _temporal_conv(cin: int, cout: int, stride: int) -> nn.Conv3d:
    return TemporalConv(cin, cout, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False)


class VideoBlock(nn.Module):
    """Residual block of R(2+1)D without widened mid-planes; BN and ReLU follow the sum."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _spatial_conv(cin, cout, stride),
            nn.BatchNorm3d(cout),
            nn.ReLU(inplace=True),
            _temporal_conv(cout, cout, stride),
            nn.BatchNorm3d(cout),
            nn.ReLU(inplace=True),
            _spatial_conv(cout, cout, 1),
            nn.BatchNorm3d(cout),
            nn.ReLU(inplace=True),
            _temporal_conv(cout, cout, 1),
        )
        same = cin == cout and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv3d(cin, cout, 1, stride, bias=False)
        self.out = nn.Sequential(nn.BatchNorm3d(cout), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.residual(x) + self.shortcut(x))
        return y


class VideoNet(nn.Module):
    """R(2+1)D of depth 18: video (N, 3, frames, height, width) to features (N, 8 * width)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            TemporalConv(3, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        self.stages = nn.ModuleList(
            nn.Sequential(
                VideoBlock(cin, cout, stride=1 if cin == cout else 2), VideoBlock(cout, cout, 1)
            )
            for cin, cout in pairwise(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x)[-1].amax(dim=(2, 3, 4))

    def maps(self, x: Tensor) -> list[Tensor]:
        """Outputs of the four stages: (N, channels, frames, height, width), with 1, 2, 4 and 8
        times the base width as channels."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class AudioNet(nn.Module):
    """Nine convolutions without residuals: (N, channels, time, mel) to features (N, 8 * width)."""

    TIME_STRIDE = 8
    """Input frames from one map to the next; map k is centred on input frame 8 k."""

    def __init__(self, channels: int = 4, width: int = 64) -> None:
        super().__init__()
        self.stem = _conv2d(channels, width, 7, 2)
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        strides = [1, 2, 2, 1]
        self.stages = nn.ModuleList(
            nn.Sequential(_conv2d(cin, cout, 3, stride), _conv2d(cout, cout, 3, 1))
            for cin, cout, stride in zip(widths[:-1], widths[1:], strides, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x).amax(dim=(2, 3))

    def maps(self, x: Tensor) -> Tensor:
        """Output before pooling, (N, 8 * width, time / 8, mel / 8), rounded up."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return x


def _conv2d(cin: int, cout: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(cout),
        nn.ReLU(inplace=True),
    )


def _head(config: ModelConfig, dim: int) -> nn.Module:
    if config.head == "linear":
        return nn.Linear(dim, config.embedding)
    return nn.Sequential(
        nn.Linear(dim, dim), nn.ReLU(inplace=True), nn.Linear(dim, config.embedding)
    )


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of V views of N clips, all (N, V, E). The loss compares ``predicted_audio`` with
    ``audio`` and ``predicted_video`` with ``video``."""

    predicted_audio: Tensor
    audio: Tensor
    predicted_video: Tensor
    video: Tensor

    def unit(self) -> Embeddings:
        """The same, scaled to length 1."""
        parts = (self.predicted_audio, self.audio, self.predicted_video, self.video)
        return Embeddings(*(nn.functional.normalize(part.float(), dim=-1) for part in parts))


class AudioVisual(nn.Module):
    """All trained networks: backbones, transformers over the views, heads.

    ``embed`` returns the features of both backbones; ``predict_audio`` and ``predict_video``
    predict those of one modality from the other, for all views of a clip together. Without
    transformers the prediction is the feature itself, and only its head differs.

    ``video`` and ``audio`` stand in the place of the paper's backbones where ``config`` records
    networks of the user's own; `avtrain.own_networks.build_networks` makes them.
    """

    def __init__(
        self,
        config: ModelConfig,
        video: nn.Module | None = None,
        audio: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if (video is None, audio is None) != (
            config.video_network is None,
            config.audio_network is None,
        ):
            raise ValueError("networks of the user's own belong to settings that record them")
        self.config = config
        self.frozen: frozenset[str] = frozenset()
        self.video = VideoNet(config.width) if video is None else video
        self.audio = AudioNet(config.audio_channels, config.width) if audio is None else audio
        self.predict_audio = ViewTransformer(config.across_views(config.video_dim))
        self.predict_video = ViewTransformer(config.across_views(config.audio_dim))
        self.video_head = _head(config, config.video_dim)
        self.audio_head = _head(config, config.audio_dim)
        self.predicted_video_head = _head(config, config.audio_dim)
        self.predicted_audio_head = _head(config, config.video_dim)

    def channels_last(self) -> AudioVisual:
        """The same networks with the paper's backbones in the memory layout that trains faster:
        convolutions follow their weights. Outputs differ by rounding."""
        if self.config.video_network is None:
            self.video.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        if self.config.audio_network is None:
            self.audio.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    def parameter_groups(self, transformers_apart: bool) -> list[list[nn.Parameter]]:
        """Parameters for an optimiser: all in one group, or those of the transformers in a second
        one."""
        if not transformers_apart:
            return [[*self.parameters()]]
        transformers = [*self.predict_audio.parameters(), *self.predict_video.parameters()]
        theirs = {id(parameter) for parameter in transformers}
        return [[one for one in self.parameters() if id(one) not in theirs], transformers]

    def freeze(self, backbones: Collection[str]) -> None:
        """Keep these backbones (``video``, ``audio``) as they are: their weights get no gradients,
        and they stay in evaluation mode."""
        self.frozen = frozenset(backbones)
        for name in self.frozen:
            getattr(self, name).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> AudioVisual:
        super().train(mode)
        for name in self.frozen:
            getattr(self, name).eval()
        return self

    def embed(self, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """(B, V, 3, frames, H, W) and (B, V, C, time, mel) to two (B, V, features)."""
        return self.embed_video(video), self.embed_audio(audio)

    def embeddings(
        self,
        video: Tensor,
        audio: Tensor,
        directions: Tensor,
        across_views: bool,
        transformers: bool = True,
    ) -> Embeddings:
        """Embeddings that the loss compares, from features (N, V, features). With ``across_views``,
        each modality's views are predicted from the other's by the ``transformers``; otherwise
        each embedding is itself the prediction of the other."""
        video_target, audio_target = self.video_head(video), self.audio_head(audio)
        if not across_views:
            return Embeddings(video_target, audio_target, audio_target, video_target)
        if transformers:
            video, audio = (
                self.predict_audio(video, directions),
                self.predict_video(audio, directions),
            )
        return Embeddings(
            self.predicted_audio_head(video),
            audio_target,
            self.predicted_video_head(audio),
            video_target,
        )

    def embed_video(self, video: Tensor) -> Tensor:
        features: Tensor = self.video(video.flatten(0, 1))
        return features.view(*video.shape[:2], -1)

    def embed_audio(self, audio: Tensor) -> Tensor:
        features: Tensor = self.audio(audio.flatten(0, 1))
        return features.view(*audio.shape[:2], -1)


def calibrate_batch_norm(model: AudioVisual, inputs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set the running statistics of both backbones to their means over input batches."""
    with calibrating_batch_norm(model):
        for video, audio in inputs:
            model.embed(video, audio)


@contextmanager
def calibrating_batch_norm(network: nn.Module) -> Iterator[None]:
    """Forward passes inside set the running statistics to their means over these passes. Leaves
    the network in training mode."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # running statistics become plain averages
    network.train()
    with torch.no_grad():
        yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
