"""The world model: observations to an embedding, and the embedding onwards under actions.

B problems, N candidates, T environment steps, K environment steps in a chunk, H = T / K model steps, A action size,
D latent size, E members.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoders import ENCODERS, VectorEncoder
from .linear import Linear, lacking, linear
from .precision import Precision, multiplying_in, products
from .predictor import PREDICTORS, step
from .readout import Readout


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build a world model; written into a checkpoint's config.json.

    `observations` maps the parts of an observation that the model sees to their shapes; `encoders` maps the same parts
    to names in `ENCODERS`; `readout` is how many numbers of the tracked positions are read off embeddings, 0 for none,
    and `readout_width` that of the network which refines them, 0 for none; `members` E is the number of predictors over
    the one encoder, each of which offers a future.
    """

    observations: dict[str, list[int]]
    encoders: dict[str, str]
    action_size: int
    chunk: int = 2
    latent: int = 64
    features: int = 256
    predictor: str = "residual"
    predictor_settings: dict[str, int] = field(default_factory=dict)
    encoder_settings: dict[str, dict[str, int]] = field(default_factory=dict)
    readout: int = 0
    readout_width: int = 0
    members: int = 1

    def __post_init__(self) -> None:
        if self.members < 1:
            raise ValueError(f"members={self.members}: must be at least 1")


class WorldModel(nn.Module):
    """A JEPA: it predicts embeddings, never observations (LeCun 2022; action-conditioned as in DINO-WM and LeWM).

    `metric` (D, D) is the linear map under which distances between embeddings mean most (`metric.slow_metric`), and
    `readout` reads the tracked positions off embeddings; training sets both.

    Where one action can lead to several futures, a model of several members offers several: see `training/members.py`.
    A member goes on from what it imagined itself, so that each future is one that can be, which their mean need not be.
    """

    metric: Tensor
    narrow: nn.ModuleList | None

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        settings = architecture.encoder_settings
        self.encoders = nn.ModuleDict(
            {
                part: ENCODERS[architecture.encoders[part]](shape, architecture.features, **settings.get(part, {}))
                for part, shape in architecture.observations.items()
            }
        )
        fused = architecture.features * len(architecture.observations)
        self.project = nn.Sequential(nn.LayerNorm(fused), nn.SiLU(), Linear(fused, architecture.latent))
        self.predictor = self._make_predictor()
        self.others = nn.ModuleList(self._make_predictor() for _ in range(architecture.members - 1))
        self.precision: Precision = "fp32"
        self.register_module("narrow", None)
        self.register_buffer("metric", torch.eye(architecture.latent))
        a = architecture
        self.readout = Readout(a.latent, a.readout, a.readout_width) if a.readout else None

    @property
    def chunk(self) -> int:
        return self.architecture.chunk

    @property
    def members(self) -> int:
        return self.architecture.members

    @property
    def width(self) -> int:
        """Inputs of the predictor's widest layer."""
        return max(layer.in_features for layer in self.predictor.modules() if isinstance(layer, nn.Linear))

    def in_precision(self, precision: Precision) -> Self:
        """This model, but with rollouts that multiply in these numbers, by copies of the predictors' weights as they
        are now. The rest is shared. Embeddings are summed up and returned in float32 in any case."""
        other = copy(self)
        other._modules = dict(self._modules)
        other.precision = precision
        members = (self.predictor, *self.others)
        other.narrow = None
        if precision != "fp32":
            other.narrow = nn.ModuleList(multiplying_in(precision, member) for member in members)
        return other

    def fit_normaliser(self, observations: Mapping[str, Tensor]) -> None:
        """Takes the vectors' mean and deviation from recorded observations (B, V); pixels need none."""
        for part, encoder in self.encoders.items():
            if isinstance(encoder, VectorEncoder):
                encoder.fit(observations[part])

    def encode(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Observation parts (B, …) to z (B, D). Parts that the model does not see are ignored."""
        features = [encoder(observation[part]) for part, encoder in self.encoders.items()]
        return self.project(torch.cat(features, -1)).float()

    def slow(self, z: Tensor) -> Tensor:
        """Embeddings (…, D) where plain distances mean most, (…, D)."""
        return linear(z.flatten(0, -2), self.metric.T).view_as(z)

    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        """Embeddings (B, N, H, D) after each chunk of actions (B, N, T, A), from z (B, D). T must be H K.

        Of a model of several members, (E, B, N, H, D).
        """
        futures = [self.imagine(z, actions, member) for member in range(self.members)]
        return torch.stack(futures) if self.members > 1 else futures[0]

    def imagine(self, z: Tensor, actions: Tensor, member: int = 0) -> Tensor:
        """One member's future: embeddings (B, N, H, D), from z (B, D) under actions (B, N, T, A).

        On a CPU each is as it would be with any other B: products of bfloat16 are, of others those of whole blocks.
        """
        members = (self.predictor, *self.others) if self.narrow is None else self.narrow
        predictor = members[member]
        batch, count = actions.shape[:2]
        if self.precision != "bf16" and not self.training:
            missing = lacking(batch if count == 1 else count, z)
            if missing and count > 1:
                actions = F.pad(actions, (0, 0, 0, 0, 0, missing))
            elif missing:
                z, actions = F.pad(z, (0, 0, 0, missing)), F.pad(actions, (0, 0, 0, 0, 0, 0, 0, missing))
        b, n, t, a = actions.shape
        steps = actions.reshape(b, n, t // self.chunk, self.chunk * a)
        z = z[:, None].expand(b, n, -1)
        predictions = []
        with products(self.precision, z.device):
            for h in range(steps.shape[2]):
                z = step(predictor, z, steps[:, :, h]).float()
                predictions.append(z)
        return torch.stack(predictions, 2)[:batch, :count]

    def _make_predictor(self) -> nn.Module:
        a = self.architecture
        return PREDICTORS[a.predictor](a.latent, a.chunk * a.action_size, **a.predictor_settings)
