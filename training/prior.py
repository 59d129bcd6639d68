"""Learning the action prior: play, read in hindsight as the way to wherever the objects came.

B examples a batch, L environment steps in a segment, D latent size, P numbers of the tracked positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..episodes import Recordings
from ..models.precision import use_bf16
from ..models.prior import ActionPrior, PriorArchitecture
from ..models.world_model import WorldModel
from .schedule import warm_cosine

WARMUP = 200
MOVED, STILL = 0.02, 0.2
"""Metres from which an object counts as moved, and the share of examples that are drawn whether it did or not."""
CANDIDATES = 4
"""Examples drawn for each that is learned from; those in which an object moves go first."""


@dataclass(frozen=True)
class PriorSettings:
    """How to train a prior.

    `segment` L environment steps it answers with; `ahead` the mean distance of a hindsight goal, in environment steps;
    `jitter` deviation of the noise on embeddings, in units of theirs, for imagined ones are never quite like encoded
    ones.
    """

    steps: int = 8000
    batch: int = 256
    segment: int = 6
    width: int = 384
    depth: int = 3
    ahead: float = 20.0
    learning_rate: float = 1e-3
    jitter: float = 0.05

    def __post_init__(self) -> None:
        for key in ("steps", "batch", "segment", "width", "depth"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}={getattr(self, key)}: must be at least 1")
        if self.ahead < self.segment:
            raise ValueError(f"ahead={self.ahead}: must be at least segment={self.segment}")


class Hindsight:
    """Examples of what was done on the way: (z, positions now, positions then, the actions from now on).

    Everything is read off embeddings, as it will be when planning. `z` (E, T + 1, D), `actions` (E, T, A), `positions`
    (E, T + 1, P) metres.
    """

    def __init__(self, z: Tensor, positions: Tensor, actions: Tensor, settings: PriorSettings, seed: int) -> None:
        self.z, self.positions, self.actions = z, positions, actions
        self.settings, self.seed = settings, seed

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The examples of a training step, a function of the seed and the step alone."""
        s, rng = self.settings, np.random.default_rng([self.seed, step])
        episodes, length = self.actions.shape[:2]
        count = CANDIDATES * s.batch
        episode, start = rng.integers(episodes, size=count), rng.integers(length - s.segment + 1, size=count)
        # At least a segment ahead, on average `ahead`, at most to the end.
        ahead = s.segment - 1 + rng.geometric(1 / (s.ahead - s.segment + 1), size=count)
        then = np.minimum(start + ahead, length)
        moved = (self.positions[episode, then] - self.positions[episode, start]).norm(dim=-1).numpy()
        order = np.lexsort((rng.random(count), moved < MOVED))[: s.batch]
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
    data: Recordings,
    settings: PriorSettings,
    seed: int,
    precision: str = "auto",
    advance: Callable[[int], None] = lambda steps: None,
) -> ActionPrior:
    """A prior for a trained model, from the episodes it was trained on; `advance(steps)` is told of progress."""
    device = model.metric.device
    bf16 = use_bf16(precision, device)
    z, positions, actions = embed(model, data)
    architecture = PriorArchitecture(
        z.shape[-1], positions.shape[-1], actions.shape[-1], settings.segment, settings.width, settings.depth
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior = ActionPrior(architecture).to(device)
    prior.fit_normaliser(z.flatten(0, 1).to(device), positions.flatten(0, 1).to(device))
    examples = Hindsight(z, positions, actions, settings, seed)
    optimizer = torch.optim.AdamW(prior.parameters(), settings.learning_rate, weight_decay=1e-4, fused=True)
    noise = torch.Generator(device)
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * warm_cosine(step, settings.steps, WARMUP)
        noise.manual_seed(seed * 1_000_003 + step)
        z, now, then, done = (part.to(device) for part in examples.batch(step))
        jitter = torch.randn(z.shape, generator=noise, device=device) * prior.std * settings.jitter
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = prior.loss(z + jitter, now, then, done, noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        advance(1)
    return prior.eval().requires_grad_(False)


@torch.no_grad()
def embed(model: WorldModel, data: Recordings, batch: int = 1000) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings (E, T + 1, D), positions read off them (E, T + 1, P) and actions (E, T, A) of the train split."""
    assert model.readout is not None
    device, parts = model.metric.device, list(model.architecture.observations)
    columns = data.load("train", [*parts, "action"])
    frames = {part: torch.from_numpy(columns[part]).flatten(0, 1) for part in parts}
    count = len(next(iter(frames.values())))
    z = torch.cat(
        [
            model.encode({part: values[i : i + batch].to(device) for part, values in frames.items()})
            for i in range(0, count, batch)
        ]
    )
    positions = model.readout(z).cpu()
    actions = torch.from_numpy(columns["action"]).float()
    episodes = len(actions)
    return z.cpu().unflatten(0, (episodes, -1)), positions.unflatten(0, (episodes, -1)), actions
