"""What all trainings have in common: the learning rate over its steps, seeds, what settings may be, and that it went
wrong."""

import math

import numpy as np

from ..errors import UserError


class TrainingError(UserError):
    """Training diverged."""


def diverged(learning_rate: float, step: int) -> TrainingError:
    return TrainingError(f"learning_rate={learning_rate}: the loss diverged by step {step}; lower it")


def torch_seed(seed: int, step: int | None = None) -> int:
    """What a torch generator is seeded with, of a seed of any size: for weights, or for the noise of a step."""
    number = seed if step is None else seed * 1_000_003 + step
    if number < 2**64:  # all that torch takes
        return number
    return int(np.random.SeedSequence(number).generate_state(1, np.uint64)[0])


def warm_cosine(step: int, steps: int, warmup: int) -> float:
    """A share of the full rate: linear warm-up, then a cosine down to 2 %."""
    return min(1.0, (step + 1) / max(warmup, 1)) * (0.51 + 0.49 * math.cos(math.pi * step / steps))
