"""Which seeds environments are reset with: recordings and evaluations draw theirs from ranges that do not meet.

A recording's lie below 2**32, and those of policies that aim at goals of their own (evaluation/policies.py) from there
to 2**63. An evaluation's begin at `EVALUATION`. The manifests that docs/ publishes (`PUBLISHED`) are older than that:
they keep draws below 2**32, which a recording leaves out.
"""

from __future__ import annotations

from functools import cache

import numpy as np

EVALUATION = 2**127
"""Resets with a seed from here to 2**128 are evaluations'. So far NumPy gives every seed a generator of its own."""
STREAM = 0x60A15
PUBLISHED = (0, 7)
"""Seeds of the goal manifests in docs/."""
DRAWS = 2000
"""Of theirs that stay as they were; none of them took more."""


def goal_seed(seed: int, draw: int) -> int:
    """What an environment is reset with for a draw of the goal manifest of a seed."""
    sequence = np.random.SeedSequence([STREAM, seed, draw])
    if seed in PUBLISHED and draw < DRAWS:
        return int(sequence.generate_state(1)[0])
    high, low = (int(word) for word in sequence.generate_state(2, np.uint64))
    return EVALUATION + ((high >> 1) << 64) + low


def recording_seed(sequence: np.random.SeedSequence) -> int:
    """What an environment is reset with for an episode whose entropy is given."""
    seed = int(sequence.generate_state(1)[0])
    return 2**32 + seed if seed in _published() else seed


@cache
def _published() -> frozenset[int]:
    return frozenset(goal_seed(seed, draw) for seed in PUBLISHED for draw in range(DRAWS))
