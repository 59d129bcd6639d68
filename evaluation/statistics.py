"""How sure a success rate is, and whether one planner beats another on the same goals."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, inf, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit


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
    return _score_interval(successes / n, n, NormalDist().inv_cdf((1 + confidence) / 2))


def _score_interval(rate: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's interval around a rate of `n` trials, which need not be a whole number, and quantile `z`."""
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At the ends the formula gives exactly 0 and 1; rounding must not say otherwise.
    return (0.0 if rate == 0 else max(centre - half, 0.0)), (1.0 if rate == 1 else min(centre + half, 1.0))


@dataclass(frozen=True)
class Spread:
    """How far a mean over seeds and goals is from that of all seeds and goals: its variance, and the degrees of freedom
    of that estimate."""

    variance: float
    freedom: float

    def quantile(self, confidence: float) -> float:
        """Student's: within this many standard errors lies a share `confidence`."""
        return float(stdtrit(self.freedom, (1 + confidence) / 2))


def two_way_spread(values: ArrayLike) -> Spread:
    """The variance of the mean of values (S, G), of S > 1 seeds on the same G > 1 goals, both drawn at random.

    A goal that is hard is hard for every seed, and a seed that is bad is bad on every goal, so S G values are not S G
    trials. The two-way random-effects model takes mean squares of seeds, goals and what is left; degrees of freedom are
    those of Hillis ("A comparison of denominator degrees of freedom methods for multiple observer ROC analysis",
    Statistics in Medicine 26, 2007), where readers are what seeds are here, and cases what goals are.

    Raises ValueError for values that are not (S, G) with S > 1 and G > 1.
    """
    x = np.asarray(values, dtype=float)
    if x.ndim != 2 or min(x.shape) < 2:
        raise ValueError(f"values must be (S, G) of two seeds and two goals or more, got {x.shape}")
    seeds, goals = x.shape
    by_seed, by_goal = x.mean(1), x.mean(0)
    rest = x - by_seed[:, None] - by_goal + x.mean()
    of_seeds, of_goals = goals * by_seed.var(ddof=1), seeds * by_goal.var(ddof=1)
    of_rest = (rest**2).sum() / ((seeds - 1) * (goals - 1))
    total = of_seeds + max(of_goals - of_rest, 0.0)
    freedom = (seeds - 1) * (total / of_seeds) ** 2 if of_seeds > 0 else inf
    return Spread(float(total / x.size), float(freedom))


def two_way_interval(success: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """The interval (lo, hi) of a success rate over seeds and goals, of success (S, G) of S seeds on the same G goals.

    It speaks of new seeds on new goals. Wilson's interval, with the number of independent trials that has the variance
    of `two_way_spread`, and Student's quantile of its degrees of freedom: the modified Wilson interval of surveys,
    which keeps its coverage near 1 (Dean & Pagano, "Evaluating confidence interval methods for binomial proportions in
    clustered surveys", Journal of Survey Statistics and Methodology 3, 2015). With one seed, and where every trial
    ended alike, it is Wilson's over the goals.

    Raises ValueError for success that is not (S, G), or holds no goal.
    """
    x = np.asarray(success, dtype=float)
    if x.ndim != 2 or x.size == 0:
        raise ValueError(f"success must be (S, G), got {x.shape}")
    seeds, goals = x.shape
    rate = float(x.mean())
    normal = NormalDist().inv_cdf((1 + confidence) / 2)
    if min(seeds, goals) == 1 or rate in (0.0, 1.0):
        return _score_interval(rate, goals, normal)
    spread = two_way_spread(x)
    least = rate * (1 - rate) / x.size  # that of independent trials
    return _score_interval(rate, rate * (1 - rate) / max(spread.variance, least), spread.quantile(confidence))


@dataclass(frozen=True)
class Difference:
    """How much the success rate of one planner is above another's on the same goals, and the two-sided p-value of there
    being no difference."""

    mean: float
    p_value: float


def difference(first: ArrayLike, second: ArrayLike) -> Difference | None:
    """Compares success (S, G) of two planners, whose goals are the same, and whose seeds are where both have several.

    With one seed each, by McNemar's exact test over goals; otherwise by the t-test of the differences' mean, seeds and
    goals at random (`two_way_spread`). None where seeds cannot be paired: both have several, and not equally many.
    The p-value is of this comparison alone: of many, some are small by chance.

    Raises ValueError when either is not (S, G), or their goals are not as many.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"success must be (S, G) of the same goals, got {a.shape} and {b.shape}")
    if len(a) != len(b) and min(len(a), len(b)) > 1:
        return None
    apart = a - b
    mean = float(apart.mean())
    if len(apart) == 1:
        return Difference(mean, compare_paired(a[0] > 0.5, b[0] > 0.5).p_value)
    if apart.shape[1] == 1 or (spread := two_way_spread(apart)).variance == 0:  # no seed differs from another
        return Difference(mean, compare_paired(a[0] > 0.5, b[0] > 0.5).p_value)
    return Difference(mean, 2 * float(stdtr(spread.freedom, -abs(mean) / sqrt(spread.variance))))


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
