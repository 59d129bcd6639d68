"""Learning the temporal distance: what came later in an episode is near, what came in another is far.

B pairs a batch, D latent size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..models.precision import use_bf16
from ..models.temporal import TemporalArchitecture, TemporalDistance
from ..models.world_model import WorldModel
from .heads import Recorded, draw_ahead, fit
from .schedule import check_least, torch_seed


@dataclass(frozen=True)
class TemporalSettings:
    """How to train a temporal distance.

    A pair is at least `nearest` and on average `ahead` environment steps apart: where the arm has moved on and objects
    have mostly stayed, so that the arm's pose counts for little. `jitter` is the deviation of the noise on embeddings,
    in units of theirs, for imagined ones are never quite like encoded ones.
    """

    steps: int = 2000
    batch: int = 512
    width: int = 256
    features: int = 32
    nearest: int = 8
    ahead: float = 20.0
    learning_rate: float = 1e-3
    jitter: float = 0.05

    def __post_init__(self) -> None:
        check_least(self, steps=1, batch=2, width=1, features=1, nearest=1)
        if self.ahead < self.nearest:
            raise ValueError(f"ahead={self.ahead}: must be at least nearest={self.nearest}")


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
