"""The learning rate over a training."""

import math


def warm_cosine(step: int, steps: int, warmup: int) -> float:
    """A share of the full rate: linear warm-up, then a cosine down to 2 %."""
    return min(1.0, (step + 1) / max(warmup, 1)) * (0.51 + 0.49 * math.cos(math.pi * step / steps))
