"""What all trainings have in common: the learning rate over its steps, and what settings may be."""

import math


def check_least(settings: object, **least: int) -> None:
    """ValueError, naming the setting, for the first of `settings` that is smaller than it may be."""
    for key, smallest in least.items():
        if (value := getattr(settings, key)) < smallest:
            raise ValueError(f"{key}={value}: must be at least {smallest}")


def warm_cosine(step: int, steps: int, warmup: int) -> float:
    """A share of the full rate: linear warm-up, then a cosine down to 2 %."""
    return min(1.0, (step + 1) / max(warmup, 1)) * (0.51 + 0.49 * math.cos(math.pi * step / steps))
