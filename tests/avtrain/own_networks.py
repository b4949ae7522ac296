"""Networks of the tests' own, as a user writes them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Video(nn.Module):
    """A small 3D network with two stages."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv3d(channels, width, 3, (1, 2, 2), 1), nn.BatchNorm3d(width), nn.ReLU()
        )
        self.second = nn.Sequential(
            nn.Conv3d(width, 2 * width, 3, 2, 1), nn.BatchNorm3d(2 * width), nn.ReLU()
        )

    def maps(self, x: Tensor) -> list[Tensor]:
        first = self.first(x)
        return [first, self.second(first)]

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x)[-1].amax(dim=(2, 3, 4))


class Audio(nn.Module):
    TIME_STRIDE = 4

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 5, 2, 2),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 5, 2, 2),
            nn.ReLU(),
        )

    def maps(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x).amax(dim=(2, 3))


def video(shape: tuple[int, ...], width: int = 8) -> nn.Module:
    return Video(shape[0], width)


def audio(shape: tuple[int, ...], width: int = 12) -> nn.Module:
    return Audio(shape[0], width)


class OfTwoDimensions(nn.Module):
    """Features alone: no maps, and a batch normalisation without space."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 6), nn.BatchNorm1d(6)
        )

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x)
        return features


def flat(shape: tuple[int, ...]) -> nn.Module:
    return OfTwoDimensions(shape)


def no_network(shape: tuple[int, ...]) -> str:
    return "a network"


def fails(shape: tuple[int, ...]) -> nn.Module:
    raise RuntimeError("the weights are not here")


def of_images(shape: tuple[int, ...]) -> nn.Module:
    return nn.Conv2d(3, 8, 3)


def of_maps(shape: tuple[int, ...]) -> nn.Module:
    return nn.Conv3d(shape[0], 8, 3)
