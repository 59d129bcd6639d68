"""Windows of an episode: what a chunked, action-conditioned model is trained and validated on.

B windows, T environment steps an episode, K environment steps in one model step (the action chunk), H model steps. A
window spans H K environment steps and is seen at the H + 1 boundaries of its chunks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .store import DataError


@dataclass(frozen=True)
class WindowSampler:
    """Uniform windows, drawn without a state: the batch of a step depends on the seed and the step alone.

    episodes, length  of the set: E episodes of T steps
    span              environment steps a window covers, H K
    """

    episodes: int
    length: int
    span: int
    batch: int
    seed: int

    def __post_init__(self) -> None:
        _fits(self.length, self.span)

    def indices(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Episode rows (B,) and start steps (B,) of training step `step`."""
        rng = np.random.default_rng([self.seed, step])
        episode = rng.integers(self.episodes, size=self.batch)
        start = rng.integers(self.length - self.span + 1, size=self.batch)
        return episode, start


def evaluation_windows(
    episodes: int, length: int, span: int, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Windows side by side over every episode, the last one flush with the end: rows (W,) and start steps (W,).

    With `limit`, as many of them at most, evenly spread.
    """
    _fits(length, span)
    starts = np.unique(np.append(np.arange(0, length - span + 1, span), length - span))
    episode, start = np.repeat(np.arange(episodes), len(starts)), np.tile(starts, episodes)
    if limit is not None and limit < len(episode):
        chosen = np.linspace(0, len(episode) - 1, limit).round().astype(int)
        episode, start = episode[chosen], start[chosen]
    return episode, start


def windows(
    arrays: Mapping[str, np.ndarray], episode: np.ndarray, start: np.ndarray, chunk: int, horizon: int
) -> dict[str, np.ndarray]:
    """Gathers windows from loaded columns.

    Columns (E, T + 1, …) become (B, H + 1, …), taken at start + [0, K, …, H K]; `action` (E, T, A) becomes (B, H K, A).
    """
    boundaries = start[:, None] + chunk * np.arange(horizon + 1)
    steps = start[:, None] + np.arange(chunk * horizon)
    return {name: array[episode[:, None], steps if name == "action" else boundaries] for name, array in arrays.items()}


def _fits(length: int, span: int) -> None:
    if not 1 <= span <= length:
        raise DataError(f"a window of {span} environment steps does not fit into episodes of {length} steps")
