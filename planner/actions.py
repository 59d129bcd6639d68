"""The action space: what a planner searches in, and the only way from there to actions.

A plan of T environment steps is described by P knots a dimension, in the box [-1, 1]; a spline through the knots gives
the actions, mapped to the bounds. Every spline here is linear in its knots, actions = W knots with W (T, P), so that
fitting knots to actions and shifting a plan in time are least squares with the same W.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Literal, Self, get_args

import torch
from torch import Tensor

Spline = Literal["zero", "linear", "cubic"]


@dataclass(frozen=True, eq=False, kw_only=True)
class ActionSpace:
    """Bounds, horizon, knots and noise of the action sequences of one environment.

    Shapes: T = `steps`, P = `knots`, A = action size; `…` is any batch, here (B problems, N candidates).

    Args:
        low, high: bounds (A,), finite, as their distance must be, in the environment's own units.
        steps: environment steps T of a plan.
        chunk: environment steps K in one model step.
        knots: free knots P over the T steps; by default one a model step, T / K.
        spline: "zero" holds a knot for T / P steps; "linear" and "cubic" interpolate between knots.
        slew: largest change (A,) of each action from one environment step to the next, or None.
        noise_beta: colour of the noise along the knots, whose power falls as frequency^-beta; 0 is white.

    Raises:
        ValueError: for bounds that are not floats, finite and ordered, a chunk that does not divide T, P outside 1 … T
            or, held, no divisor of T, a spline that does not exist, or
            a negative colour.
    """

    low: Tensor
    high: Tensor
    steps: int
    chunk: int = 1
    knots: int = 0
    spline: Spline = "zero"
    slew: Tensor | None = None
    noise_beta: float = 0.0

    def __post_init__(self) -> None:
        if self.low.shape != self.high.shape or self.low.dim() != 1:
            raise ValueError(f"low and high must both be (A,), got {tuple(self.low.shape)}, {tuple(self.high.shape)}")
        if not (self.low.is_floating_point() and self.low.dtype == self.high.dtype):
            raise ValueError(f"low and high must be of one floating dtype, got {self.low.dtype}, {self.high.dtype}")
        if not bool(((self.low <= self.high) & self.low.isfinite() & self.high.isfinite()).all()):
            raise ValueError(f"bounds must be finite and low <= high, got low={self.low}, high={self.high}")
        if not bool((self._centre.isfinite() & self._half.isfinite()).all()):
            raise ValueError(f"bounds are too far apart for {self.low.dtype}, got low={self.low}, high={self.high}")
        if self.slew is not None and (self.slew.shape != self.low.shape or not bool((self.slew > 0).all())):
            raise ValueError(f"slew must be (A,) = {tuple(self.low.shape)} and positive, got {self.slew}")
        if self.steps < 1 or self.chunk < 1 or self.steps % self.chunk:
            raise ValueError(f"chunk={self.chunk} must divide steps={self.steps}")
        if self.spline not in get_args(Spline):
            raise ValueError(f"spline={self.spline!r}: choose one of {', '.join(get_args(Spline))}")
        if not self.knots:
            object.__setattr__(self, "knots", self.steps // self.chunk)
        if not 1 <= self.knots <= self.steps:
            raise ValueError(f"knots={self.knots} must lie in 1 … steps={self.steps}")
        if self.noise_beta < 0:
            raise ValueError(f"noise_beta={self.noise_beta}: must not be negative")
        if self.spline == "zero" and self.steps % self.knots:
            raise ValueError(f"knots={self.knots} must divide steps={self.steps}, to be held for equal times")

    @property
    def size(self) -> int:
        """A, the number of action dimensions."""
        return self.low.shape[0]

    def to(self, device: torch.device | str) -> Self:
        """The same space with its tensors on `device`."""
        slew = None if self.slew is None else self.slew.to(device)
        return replace(self, low=self.low.to(device), high=self.high.to(device), slew=slew)

    def expand(self, knots: Tensor, previous: Tensor | None = None) -> Tensor:
        """Actions (…, T, A), within the bounds and the slew rate, of knots (…, P, A) in [-1, 1].

        `previous` (B, A) is the action executed last, from which the slew rate counts.
        """
        # Weights of a spline sum to one, so that mapping the few knots is as good as mapping the many actions.
        return self.limit(self._interpolate(torch.addcmul(self._centre, self._half, knots)), previous)

    def limit(self, actions: Tensor, previous: Tensor | None = None) -> Tensor:
        """Actions (B, …, T, A) clamped to the bounds and, step after step, to the slew rate."""
        actions = actions.clamp(self.low, self.high)
        if self.slew is None:
            return actions
        limited: list[Tensor] = []
        if previous is not None:
            last = previous.clamp(self.low, self.high)
            last = last.reshape(-1, *[1] * (actions.dim() - 3), self.size)
        else:
            last = actions[..., 0, :]
        for action in actions.unbind(-2):
            last = torch.clamp(action, last - self.slew, last + self.slew)
            limited.append(last)
        return torch.stack(limited, dim=-2)  # between two actions inside the bounds, rounding included

    def fit(self, actions: Tensor) -> Tensor:
        """Knots (…, P, A) in [-1, 1] whose spline is nearest to actions (…, T, A), by least squares."""
        unit = ((actions - self._centre) / self._half).nan_to_num(0.0, 0.0, 0.0)
        return _along_time(_fit_matrix(self.spline, self.steps, self.knots, unit.device).to(unit), unit).clamp(-1, 1)

    def shift(self, knots: Tensor, executed: int) -> Tensor:
        """Knots (…, P, A) of the same plan after `executed` environment steps, the last action held at its end.

        Exact where the shifted actions are again a spline of this space: for one knot a step always, for held knots
        when `executed` is a multiple of the time they are held. Otherwise the nearest spline, by least squares.
        """
        if executed < 0:
            raise ValueError(f"executed={executed} environment steps: must not be negative")
        matrix = _shift_matrix(self.spline, self.steps, self.knots, min(executed, self.steps), knots.device)
        return _along_time(matrix.to(knots), knots).clamp(-1, 1)

    def noise(self, seeds: Sequence[int], count: int, draws: tuple[int, int]) -> Tensor:
        """Standard normal noise (I, B, N, P, A), draws = (I, N), coloured along the P knots, unit variance each.

        Problem b has a stream of its own, seeded by (seeds[b], count) alone: its noise is the same in any batch.
        """
        device, dtype = self.low.device, self.low.dtype
        streams = []
        for seed in seeds:
            generator = torch.Generator(device).manual_seed(_mix(seed, count))
            streams.append(torch.randn(*draws, self.knots, self.size, generator=generator, device=device, dtype=dtype))
        white = streams[0].unsqueeze(1) if len(streams) == 1 else torch.stack(streams, dim=1)
        return _along_time(self._colour, white) if self.noise_beta else white

    def _interpolate(self, knots: Tensor) -> Tensor:
        if self.spline == "zero" and self.knots == self.steps:
            return knots
        if self.spline == "zero":
            return knots.repeat_interleave(self.steps // self.knots, dim=-2, output_size=self.steps)
        return _along_time(self._weights, knots)

    @cached_property
    def _centre(self) -> Tensor:
        return (self.low + self.high) / 2

    @cached_property
    def _half(self) -> Tensor:
        return (self.high - self.low) / 2

    @cached_property
    def _weights(self) -> Tensor:
        return _spline_matrix(self.spline, self.steps, self.knots).to(self.low)

    @cached_property
    def _colour(self) -> Tensor:
        return _colour_matrix(self.knots, self.noise_beta).to(self.low)


def _along_time(matrix: Tensor, series: Tensor) -> Tensor:
    """matrix (S, R) applied to the next-to-last axis of series (…, R, A), as one matrix product."""
    return (series.transpose(-1, -2) @ matrix.T).transpose(-1, -2)


@cache
def _spline_matrix(spline: Spline, steps: int, knots: int) -> Tensor:
    """W (T, P) in float64: the action at each step as a combination of the knots.

    The cubic is Hermite's, with finite differences for slopes, so that an action depends on four knots only (as in
    MuJoCo MPC; Howell et al. 2022, arXiv:2212.00541).
    """
    eye = torch.eye(knots, dtype=torch.float64)
    if spline == "zero" or knots == 1:
        return eye.repeat_interleave(steps // knots, dim=0)
    time = torch.linspace(0, knots - 1, steps, dtype=torch.float64)
    left = time.floor().clamp(max=knots - 2).long()
    s = (time - left)[:, None]
    if spline == "linear":
        return torch.lerp(eye[left], eye[left + 1], s)
    (slope,) = torch.gradient(eye, dim=0)
    rise = s.square() * (3 - 2 * s)
    leave, arrive = s * (1 - s).square(), -s.square() * (1 - s)
    return torch.lerp(eye[left], eye[left + 1], rise) + leave * slope[left] + arrive * slope[left + 1]


@cache
def _fit_matrix(spline: Spline, steps: int, knots: int, device: torch.device) -> Tensor:
    return torch.linalg.pinv(_spline_matrix(spline, steps, knots)).to(device)


@cache
def _shift_matrix(spline: Spline, steps: int, knots: int, executed: int, device: torch.device) -> Tensor:
    later = (torch.arange(steps) + executed).clamp(max=steps - 1)
    onto = _fit_matrix(spline, steps, knots, torch.device("cpu"))
    return (onto @ _spline_matrix(spline, steps, knots)[later]).to(device)


def _colour_matrix(knots: int, beta: float) -> Tensor:
    """C (P, P) in float64 so that C white has spectral power frequency^-beta and unit variance at every knot.

    Timmer & König 1995, as iCEM uses it (Pinneri et al. 2020, arXiv:2008.06389), except that the process has period
    2 P, of which P are used: the first and the last knot are then not neighbours.
    """
    period = 2 * knots
    frequency = torch.fft.rfftfreq(period, dtype=torch.float64).clamp(min=1 / period)
    covariance = torch.fft.irfft(frequency**-beta, n=period)
    lag = (torch.arange(knots)[:, None] - torch.arange(knots)[None, :]).abs()
    return torch.linalg.cholesky(covariance[lag] / covariance[0])


def _mix(seed: int, count: int) -> int:
    """64 bits that look independent for every pair (seed, count): splitmix64 (Steele, Lea & Flood 2014), twice."""
    return _splitmix(_splitmix(seed) ^ count)


def _splitmix(value: int) -> int:
    mask = (1 << 64) - 1
    value = (value + 0x9E3779B97F4A7C15) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)
