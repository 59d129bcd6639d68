"""Learning a predictor anew on a trained model's embeddings, such as a smaller one that plans faster.

W windows, H model steps, K environment steps a model step, A action size, D latent size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..models.precision import use_bf16
from ..models.world_model import WorldModel
from .heads import Recorded, fit
from .schedule import check_least


@dataclass(frozen=True)
class PredictorSettings:
    """How to train a predictor on embeddings that stay as they are. `horizon` H: model steps it imagines in a row."""

    steps: int = 3000
    batch: int = 512
    horizon: int = 6
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        check_least(self, steps=1, batch=1, horizon=1)


def windows(
    recorded: Recorded, chunk: int, horizon: int, count: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """`count` = W windows of a recording: embeddings (W, H + 1, D) every K = `chunk` steps, and the actions (W, 1, H K,
    A) between them."""
    episodes, length = recorded.actions.shape[:2]
    episode = torch.from_numpy(rng.integers(episodes, size=(count, 1)))
    start = torch.from_numpy(rng.integers(length - chunk * horizon + 1, size=(count, 1)))
    z = recorded.z[episode, start + chunk * torch.arange(horizon + 1)]
    return z, recorded.actions[episode, start + torch.arange(chunk * horizon)][:, None]


def train_predictor(
    model: WorldModel,
    recorded: Recorded,
    settings: PredictorSettings,
    seed: int,
    precision: str = "auto",
    advance: Callable[[int], None] = lambda steps: None,
) -> None:
    """Trains the predictor of a model of one member; nothing else of it changes. `advance(steps)` is told of progress.

    The loss is the squared error of what is imagined, H steps in a row, of embeddings as they are and as energies
    compare them (`WorldModel.slow`). An encoder that need not be learned makes a step cheap.
    """
    s, device = settings, model.metric.device
    horizon = min(s.horizon, recorded.actions.shape[1] // model.chunk)

    def loss(step: int, noise: torch.Generator) -> Tensor:
        del noise
        z, actions = windows(recorded, model.chunk, horizon, s.batch, np.random.default_rng([seed, step]))
        z = z.to(device)
        error = model.rollout(z[:, 0], actions.to(device))[:, 0] - z[:, 1:]
        return error.square().mean() + model.slow(error).square().mean()

    model.predictor.train().requires_grad_(True)
    fit(model.predictor, loss, s.steps, s.learning_rate, seed, use_bf16(precision, device), advance)
