"""Energies: what a plan should make small, and how they add up.

An energy maps actions (B, N, T, A), in the environment's own units, to (B, N); lower is better. Any callable of that
shape will do. The classes here also add and scale: `goal + 0.1 * control + 10 * keep_out`.

Shapes: B problems, N candidates, T environment steps, H model steps, A action size, D latent size, E ensemble members.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .capture import FIXED, Declared


class Energy(Protocol):
    """What a planner minimises."""

    def __call__(self, actions: Tensor, /) -> Tensor:
        """Energies (B, N) of actions (B, N, T, A)."""
        ...


class LatentModel(Protocol):
    """What `LatentEnergy` asks of a learned model."""

    def encode(self, observation: dict[str, Tensor]) -> Tensor:
        """Latents (B, D) of observations, each part (B, …)."""
        ...

    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        """Latents (B, N, H, D), or (E, B, N, H, D) of an ensemble, that follow z (B, D) under actions (B, N, T, A)."""
        ...


class Term(ABC):
    """An energy that adds to others and scales."""

    @abstractmethod
    def __call__(self, actions: Tensor, /) -> Tensor: ...

    def violations(self, actions: Tensor) -> Tensor | None:
        """How many of the T steps break a constraint, (B, N); None where there is none to break."""
        return None

    def __add__(self, other: Energy) -> "Sum":
        return Sum((*_parts(self), *_parts(other)))

    def __radd__(self, other: Energy) -> "Sum":
        return Sum((*_parts(other), *_parts(self)))

    def __mul__(self, weight: float) -> "Sum":
        return Sum(tuple((weight * inner, term) for inner, term in _parts(self)))

    __rmul__ = __mul__


@dataclass(frozen=True, eq=False)
class Sum(Term, Declared):
    """A weighted sum of energies. A weight of zero switches its term off, a constraint too."""

    parts: tuple[tuple[float, Term], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple((weight, term) for weight, term in self.parts if weight))

    def __call__(self, actions: Tensor, /) -> Tensor:
        total = actions.new_zeros(actions.shape[:2])
        for weight, term in self.parts:
            total = torch.add(total, checked(term(actions), actions), alpha=weight)
        return total

    def violations(self, actions: Tensor) -> Tensor | None:
        counts = [count for _, term in self.parts if (count := term.violations(actions)) is not None]
        return torch.stack(counts).sum(0) if counts else None


@dataclass(frozen=True, eq=False)
class FunctionEnergy(Term):
    """Any function from actions (B, N, T, A) to (B, N) as a term.

    What else it depends on nobody knows, so that on a GPU it is never replayed: `TensorEnergy` is.
    """

    function: Energy

    def __call__(self, actions: Tensor, /) -> Tensor:
        return self.function(actions)


@dataclass(frozen=True, eq=False)
class TensorEnergy(Term, Declared):
    """A function of actions (B, N, T, A) and tensors to (B, N), which depends on nothing else that changes.

    On a GPU its search is recorded once, for the one function, and replayed with the tensors of each plan.
    """

    function: Callable[..., Tensor] = field(metadata=FIXED)
    tensors: tuple[Tensor, ...] = ()

    def __call__(self, actions: Tensor, /) -> Tensor:
        return self.function(actions, *self.tensors)


def as_energy(energy: Energy) -> Term:
    """`energy` itself if it adds already, otherwise wrapped so that it does."""
    return energy if isinstance(energy, Term) else FunctionEnergy(energy)


def weighted(terms: Mapping[str, Energy], weights: Mapping[str, float]) -> Sum:
    """The sum of named terms as a config writes it: `{goal: 1, control: 0.1, keep_out: 10}`.

    Raises:
        ValueError: for a weight whose name is no term.
    """
    for name in weights:
        if name not in terms:
            raise ValueError(f"energy weight {name!r}: choose from {', '.join(sorted(terms))}")
    return Sum(tuple((float(weight), as_energy(terms[name])) for name, weight in weights.items()))


def checked(energies: Tensor, actions: Tensor) -> Tensor:
    """`energies`, if they have the shape that energies of these actions have.

    Raises:
        ValueError: if not; broadcasting would hide the mistake.
    """
    if energies.shape != actions.shape[:2]:
        raise ValueError(f"the energy must return (B, N) = {tuple(actions.shape[:2])}, got {tuple(energies.shape)}")
    return energies


@dataclass(frozen=True, eq=False)
class Clipped(Term, Declared):
    """An energy of which nothing finite counts as more than `limit`; what is not finite stays so.

    Far from a goal nothing within the horizon comes near it, and what a learned model is wrong about would decide
    which plan looks a little better. Here such plans are alike, and of these a planner takes the first: a
    `Proposal`'s own, where it offers all candidates. PILCO's saturating cost, with a corner (Deisenroth & Rasmussen
    2011).

    Raises:
        ValueError: for a limit that is not positive.
    """

    energy: Energy
    limit: float

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise ValueError(f"limit={self.limit} must be positive")

    def __call__(self, actions: Tensor, /) -> Tensor:
        energies = checked(self.energy(actions), actions)
        return torch.where(energies.isfinite(), energies.clamp(max=self.limit), energies)

    def violations(self, actions: Tensor) -> Tensor | None:
        return as_energy(self.energy).violations(actions)


def _parts(energy: Energy) -> tuple[tuple[float, Term], ...]:
    return energy.parts if isinstance(energy, Sum) else ((1.0, as_energy(energy)),)


@dataclass(frozen=True, eq=False)
class ControlEnergy(Term, Declared):
    """Effort: the squared action, summed over A and averaged over T, plus `smooth` times its squared changes. The
    action counts from `neutral` (A,), zero where it is not given."""

    smooth: float = 0.0
    neutral: Tensor | None = None

    def __call__(self, actions: Tensor, /) -> Tensor:
        away = actions if self.neutral is None else actions - self.neutral
        effort = away.square().sum(-1).mean(-1)
        if not self.smooth:
            return effort
        return effort + self.smooth * actions.diff(dim=-2).square().sum(-1).mean(-1)


def _mean_power(prediction: Tensor, goal: Tensor, p: float) -> Tensor:
    # cdist makes no temporary of the predictions' size, which would cost more than the arithmetic.
    pairs = prediction.flatten(-3, -2).to(goal.dtype), goal[:, None]
    norm = torch.cdist(*pairs, p=p, compute_mode="donot_use_mm_for_euclid_dist").view(prediction.shape[:-1])
    return norm.pow(p) / goal.shape[-1]


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": partial(_mean_power, p=2.0),
    "l1": partial(_mean_power, p=1.0),
    "cosine": lambda prediction, goal: 1 - F.cosine_similarity(prediction, goal[:, None, None], dim=-1),
}
"""Distances (…, B, N, H) between predictions (…, B, N, H, D) and goals (B, D)."""

REDUCTIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    # Reaching the goal at any time counts, which is what a receding horizon needs: under the last distance alone it
    # procrastinates. The final weight asks to stay.
    "min": lambda distance, final_weight: distance.amin(-1) + final_weight * distance[..., -1],
    "final": lambda distance, final_weight: distance[..., -1],
    "path": lambda distance, final_weight: distance.mean(-1) + final_weight * distance[..., -1],
}
"""How distances (…, H) along the horizon become one energy (…), given the weight of the last."""

ENSEMBLES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "mean": lambda energies, k: energies.mean(0),
    "worst": lambda energies, k: energies.amax(0),
    "mean_std": lambda energies, k: energies.mean(0) + k * energies.std(0, correction=0),
}
"""How the energies (E, …) of an ensemble become one (…), given k."""


@dataclass(frozen=True, eq=False)
class LatentEnergy(Term, Declared):
    """Distance in latent space between the imagined future and the goal.

    Start and goal come encoded, so that each is encoded once a plan, whatever N and the iterations are.

    Args:
        model: rolls latents out; see `LatentModel`.
        z, goal: latents (B, D) of the present observation and of the goal.
        distance: a name in `DISTANCES`.
        reduce: a name in `REDUCTIONS`, over the H model steps.
        final_weight: weight of the last distance under "min" and "path".
        time_penalty: added to a distance for each model step before it, so that of plans that arrive the soonest wins.
            Under "min" alone, one that always means to arrive later never does.
        ensemble: a name in `ENSEMBLES`, over the E members of a model that has them.
        ensemble_k: standard deviations added under "mean_std".
        disagreement: weight of the members' variance, averaged over H and D.
        metric: map of latents (…, D) to what distances are taken of, (…, D'); None leaves them as they are.

    Raises:
        ValueError: for a name that does not exist.
    """

    model: LatentModel
    z: Tensor
    goal: Tensor
    distance: str = "mse"
    reduce: str = "min"
    final_weight: float = 0.1
    time_penalty: float = 0.0
    ensemble: str = "mean"
    ensemble_k: float = 1.0
    disagreement: float = 0.0
    metric: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        for key, choices in (("distance", DISTANCES), ("reduce", REDUCTIONS), ("ensemble", ENSEMBLES)):
            if (value := getattr(self, key)) not in choices:
                raise ValueError(f"{key}={value!r}: choose one of {', '.join(choices)}")

    def __call__(self, actions: Tensor, /) -> Tensor:
        prediction = self.model.rollout(self.z, actions)
        seen, goal = prediction, self.goal
        if self.metric is not None:
            seen, goal = self.metric(seen), self.metric(goal)
        distance = DISTANCES[self.distance](seen, goal)
        if self.time_penalty:
            distance = distance + self.time_penalty * torch.arange(distance.shape[-1], device=distance.device)
        energies = REDUCTIONS[self.reduce](distance, self.final_weight)
        if prediction.dim() == 4:
            return energies
        energies = ENSEMBLES[self.ensemble](energies, self.ensemble_k)
        if self.disagreement:
            energies = energies + self.disagreement * prediction.var(0, correction=0).mean((-1, -2))
        return energies
