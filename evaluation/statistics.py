"""How sure a success rate is, and whether one planner beats another on the same goals."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval (lo, hi) for a proportion of `successes` in `n` independent trials; (0, 1) when n is 0.

    Unlike the textbook ± it stays inside [0, 1] and keeps its coverage near 0 and 1, where planners live.
    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927);
    recommended over the alternatives by Brown, Cai & DasGupta, Statistical Science 16 (2001).

    Raises ValueError unless 0 <= successes <= n and 0 < confidence < 1.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be within 0 and n = {n}, got {successes}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At the ends the formula gives exactly 0 and 1; rounding must not say otherwise.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


@dataclass(frozen=True)
class Paired:
    """Two planners on the same goals: goals that both, only one, or neither solved, and McNemar's exact p-value."""

    both: int
    first_only: int
    second_only: int
    neither: int
    p_value: float


def compare_paired(first: ArrayLike, second: ArrayLike) -> Paired:
    """Compare two planners goal by goal: `first`, `second` (G,) bool, success on goal g in both at index g.

    Exact two-sided McNemar test (Psychometrika 12, 1947): if the planners are equally good, a goal that only one of
    them solved is either's with probability 1/2, so `first_only` is Binomial(first_only + second_only, 1/2). Pairing
    removes the difficulty of the goals from the comparison, which two overlapping intervals do not. One value a goal:
    several seeds on one goal are not independent pairs.

    Raises ValueError when the shapes differ or are not (G,).
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"paired planners need one success a goal each, got shapes {a.shape} and {b.shape}")
    first_only, second_only = int((a & ~b).sum()), int((~a & b).sum())
    discordant = first_only + second_only
    tail = sum(comb(discordant, k) for k in range(min(first_only, second_only) + 1))
    return Paired(
        both=int((a & b).sum()),
        first_only=first_only,
        second_only=second_only,
        neither=int((~a & ~b).sum()),
        p_value=min(1.0, 2 * tail / 2**discordant),
    )
