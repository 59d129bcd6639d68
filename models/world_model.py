"""The world model: observations to an embedding, and the embedding onwards under actions.

B problems, N candidates, T environment steps, K environment steps in a chunk, H = T / K model steps, A action size,
D latent size.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .encoders import ENCODERS, VectorEncoder
from .predictor import PREDICTORS
from .readout import Readout


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build a world model; written into a checkpoint's config.json.

    `observations` maps the parts of an observation that the model sees to their shapes; `encoders` maps the same parts
    to names in `ENCODERS`; `readout` is how many numbers of the tracked positions are read off embeddings, 0 for none,
    and `readout_width` that of the network which refines them, 0 for none.
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


class WorldModel(nn.Module):
    """A JEPA: it predicts embeddings, never observations (LeCun 2022; action-conditioned as in DINO-WM and LeWM).

    `metric` (D, D) is the linear map under which distances between embeddings mean most (`metric.slow_metric`), and
    `readout` reads the tracked positions off embeddings; training sets both. `bf16` makes rollouts multiply in
    bfloat16; embeddings are summed up and returned in float32 either way.
    """

    bf16 = False
    metric: Tensor

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
        self.project = nn.Sequential(nn.LayerNorm(fused), nn.SiLU(), nn.Linear(fused, architecture.latent))
        self.predictor = PREDICTORS[architecture.predictor](
            architecture.latent, architecture.chunk * architecture.action_size, **architecture.predictor_settings
        )

        self.register_buffer("metric", torch.eye(architecture.latent))
        a = architecture
        self.readout = Readout(a.latent, a.readout, a.readout_width) if a.readout else None

    @property
    def chunk(self) -> int:
        return self.architecture.chunk

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
        return z @ self.metric

    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        """Embeddings (B, N, H, D) after each chunk of actions (B, N, T, A), from z (B, D). T must be H K."""
        b, n, t, a = actions.shape
        steps = actions.reshape(b, n, t // self.chunk, self.chunk * a)
        z = z[:, None].expand(b, n, -1)
        predictions = []
        with torch.autocast(z.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            for h in range(steps.shape[2]):
                z = self.predictor(z, steps[:, :, h]).float()
                predictions.append(z)
        return torch.stack(predictions, 2)
