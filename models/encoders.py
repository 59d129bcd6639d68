"""Encoders: one part of an observation to features. B is any batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..registry import Registry
from .linear import Linear
from .normalisers import deviation

Shape = Sequence[int]


class PixelEncoder(nn.Module):
    """Small convolutional network: (B, S, S, 3) uint8 to features (B, F). S must be divisible by 16.

    Batch norm is what makes a cube of a few pixels count beside an arm that fills the frame: without it, or with layer
    or group norm, the latent space forgets the cube. The first layer does without, for most of the time would go there.
    """

    def __init__(self, shape: Shape, features: int, width: int = 16) -> None:
        super().__init__()
        height, breadth, channels = shape
        if height % 16 or breadth % 16:
            raise ValueError(f"pixels of {height} x {breadth} do not fit the encoder; sides must be divisible by 16")
        layers: list[nn.Module] = []
        for i, out in enumerate((width, 2 * width, 4 * width, 4 * width)):
            convolution = nn.Conv2d(channels, out, 4, stride=2, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)  # pyright: ignore[reportArgumentType]
            layers += [convolution, nn.BatchNorm2d(out) if i else nn.Identity(), nn.ReLU(inplace=True)]
            channels = out
        self.convolutions = nn.Sequential(*layers)
        self.head = Linear(channels * (height // 16) * (breadth // 16), features)

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.permute(0, 3, 1, 2).to(self.head.weight.dtype).div(127.5).sub(1.0)
        return self.head(self.convolutions(x.contiguous(memory_format=torch.channels_last)).flatten(1))


class VectorEncoder(nn.Module):
    """Normalises a vector (B, V) by the recorded data's mean and deviation and embeds it: features (B, F).

    A skip connection keeps the vector itself within reach, which low-dimensional states need (docs/results.md).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: Shape, features: int, width: int = 256) -> None:
        super().__init__()
        (size,) = shape
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.network = nn.Sequential(
            Linear(size, width), nn.SiLU(), Linear(width, width), nn.SiLU(), Linear(width, features)
        )
        self.skip = Linear(size, features, bias=False)

    def fit(self, values: Tensor) -> None:
        """Takes mean and deviation from values (B, V)."""
        self.mean.copy_(values.mean(0))
        self.std.copy_(deviation(values))

    def forward(self, vector: Tensor) -> Tensor:
        x = ((vector - self.mean) / self.std).to(self.skip.weight.dtype)
        return self.network(x) + self.skip(x)


ENCODERS: Registry[Callable[..., nn.Module]] = Registry("encoder", {"cnn": PixelEncoder, "mlp": VectorEncoder})
"""By the name under which a checkpoint's config.json knows them: each is made of `(shape, features)`, the shape of its
part of an observation and the size F of what it gives, and `width=` where that is set."""
