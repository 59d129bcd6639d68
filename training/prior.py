"""Learning the action prior: play, read in hindsight as the way to wherever the objects came.

B examples a batch, L environment steps in a segment, D latent size, P numbers of the tracked positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..models.precision import use_bf16
from ..models.prior import ActionPrior, PriorArchitecture
from ..models.world_model import WorldModel
from .heads import Recorded, draw_ahead, fit
from .schedule import torch_seed
from .settings import PriorSettings

MOVED, STILL = 0.2, 0.2
"""From what share of their spread over the recording objects count as moved, and the share of examples that are drawn
whether they did or not."""
CANDIDATES = 4
"""Examples drawn for each that is learned from; those in which an object moves go first."""
MEASURED = 20
"""Batches on which it is measured how well the prior tells what was done from noise."""


class Hindsight:
    """Examples of what was done on the way: (z, positions now, positions then, the actions from now on).

    Everything is read off embeddings, as it will be when planning. `z` (E, T + 1, D), `actions` (E, T, A), `positions`
    (E, T + 1, P) metres.
    """

    def __init__(self, z: Tensor, positions: Tensor, actions: Tensor, settings: PriorSettings, seed: int) -> None:
        self.z, self.positions, self.actions = z, positions, actions
        self.settings, self.seed = settings, seed
        self._moved = MOVED * float(positions.flatten(0, 1).var(0).sum().sqrt())

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The examples of a training step, a function of the seed and the step alone."""
        s, rng = self.settings, np.random.default_rng([self.seed, step])
        episodes, length = self.actions.shape[:2]
        count = CANDIDATES * s.batch
        episode, start, then = draw_ahead(rng, episodes, length, count, s.segment, s.ahead)
        moved = (self.positions[episode, then] - self.positions[episode, start]).norm(dim=-1).numpy()
        order = np.lexsort((rng.random(count), moved < self._moved))[: s.batch]
        order = np.where(rng.random(s.batch) < STILL, rng.integers(count, size=s.batch), order)
        episode, start, then = episode[order], start[order], then[order]
        steps = start[:, None] + np.arange(s.segment)
        return (
            self.z[episode, start],
            self.positions[episode, start],
            self.positions[episode, then],
            self.actions[episode[:, None], steps],
        )


def train_prior(
    model: WorldModel,
    recorded: Recorded,
    settings: PriorSettings,
    seed: int,
    precision: str = "auto",
    advance: Callable[[int], None] = lambda steps: None,
) -> ActionPrior:
    """A prior for a trained model, from the episodes it was trained on; `advance(steps)` is told of progress.

    It learns of positions as they are read off embeddings, for that is what it will be told when it is asked.
    """
    assert model.readout is not None
    device = model.metric.device
    z, actions = recorded.z, recorded.actions
    with torch.no_grad():
        positions = model.readout(z.to(device)).cpu()
    architecture = PriorArchitecture(
        z.shape[-1], positions.shape[-1], actions.shape[-1], settings.segment, settings.width, settings.depth
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed))
        prior = ActionPrior(architecture).to(device)
    prior.fit_normaliser(z.flatten(0, 1).to(device), positions.flatten(0, 1).to(device))
    examples = Hindsight(z, positions, actions, settings, seed)

    def loss(step: int, noise: torch.Generator) -> Tensor:
        z, now, then, done = (part.to(device) for part in examples.batch(step))
        jitter = torch.randn(z.shape, generator=noise, device=device) * prior.std * settings.jitter
        return prior.loss(z + jitter, now, then, done, noise)

    fit(prior, loss, settings.steps, settings.learning_rate, seed, use_bf16(precision, device), advance)
    prior.architecture = replace(architecture, typical=typical_error(prior, examples, settings.steps))
    return prior


@torch.no_grad()
def typical_error(prior: ActionPrior, examples: Hindsight, step: int) -> float:
    """A prior's mean `denoising_error` on the examples of `MEASURED` training steps from `step` on."""
    batches = (examples.batch(step + more) for more in range(MEASURED))
    errors = [prior.denoising_error(*(part.to(prior.mean.device) for part in batch)) for batch in batches]
    return float(torch.cat(errors).mean())
