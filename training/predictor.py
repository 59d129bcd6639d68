"""Learning a predictor anew on a trained model's embeddings, such as a smaller one that plans faster."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..models.precision import use_bf16
from ..models.world_model import WorldModel
from .heads import Recorded, draw_windows, fit
from .settings import PredictorSettings


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
    episodes, length = recorded.actions.shape[:2]
    span = model.chunk * min(s.horizon, length // model.chunk)

    def loss(step: int, noise: torch.Generator) -> Tensor:
        del noise
        episode, start = draw_windows(np.random.default_rng([seed, step]), episodes, length, s.batch, span)
        z = recorded.z[episode, start + torch.arange(0, span + 1, model.chunk)].to(device)
        actions = recorded.actions[episode, start + torch.arange(span)].to(device)
        error = model.rollout(z[:, 0], actions[:, None])[:, 0] - z[:, 1:]
        return error.square().mean() + model.slow(error).square().mean()

    model.predictor.train().requires_grad_(True)
    fit(model.predictor, loss, s.steps, s.learning_rate, seed, use_bf16(precision, device), advance)
