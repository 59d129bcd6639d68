"""Learning the temporal distance: what came later in an episode is near, what came in another is far.

B pairs a batch, D latent size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..models.precision import use_bf16
from ..models.temporal import TemporalArchitecture, TemporalDistance
from ..models.world_model import WorldModel
from .heads import Recorded, draw_ahead, fit
from .schedule import torch_seed
from .settings import TemporalSettings


def train_temporal(
    model: WorldModel,
    recorded: Recorded,
    settings: TemporalSettings,
    seed: int,
    precision: str = "auto",
    advance: Callable[[int], None] = lambda steps: None,
) -> TemporalDistance:
    """A temporal distance for a trained model, from the episodes it was trained on; `advance(steps)` is told of
    progress."""
    device = model.metric.device
    return fit_temporal(recorded.z.to(device), settings, seed, use_bf16(precision, device), advance)


def fit_temporal(
    z: Tensor,
    settings: TemporalSettings,
    seed: int,
    bf16: bool = False,
    advance: Callable[[int], None] = lambda steps: None,
) -> TemporalDistance:
    """A temporal distance of the embeddings (E, T + 1, D) of episodes."""
    s = settings
    episodes, length = len(z), z.shape[1] - 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed))
        head = TemporalDistance(TemporalArchitecture(z.shape[-1], s.features, s.width)).to(z.device)
    head.fit_normaliser(z.flatten(0, 1))

    def loss(step: int, noise: torch.Generator) -> Tensor:
        rng = np.random.default_rng([seed, step])
        episode, start, then = draw_ahead(rng, episodes, length, s.batch, s.nearest, s.ahead)
        pairs = torch.stack((z[episode, start], z[episode, then]))
        jitter = torch.randn(pairs.shape, generator=noise, device=z.device) * head.std * s.jitter
        return head.loss(*(pairs + jitter))

    fit(head, loss, s.steps, s.learning_rate, seed, bf16, advance)
    head.fit_scale(z.flatten(0, 1))
    return head
