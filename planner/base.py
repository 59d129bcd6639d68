"""The planner: one loop for every algorithm.

    propose candidates -> expand them to actions -> evaluate -> update, iterations times, within the deadline

An algorithm is what it adds to `Planner`: `propose` and `update`. Settings are frozen and state is a value, so that a
plan depends on nothing else. Candidates live in the normalised knot space of `ActionSpace`; only what its `expand`
returns is ever evaluated or executed, which keeps every action within the bounds and the slew rate.

Shapes: B problems, N candidates, I iterations, T environment steps, P knots, A action size.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property, partial
from operator import index
from typing import Any, ClassVar, Literal, NamedTuple, Self, SupportsIndex, cast, get_args

import torch
from torch import Tensor

from ..settings import key
from .actions import ActionSpace
from .capture import Captured, Declared
from .compilation import Backend, Fast
from .energy import Energy, checked

Execute = Literal["best", "mean"]


class _NoSpace:
    def __repr__(self) -> str:
        return "none yet"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ValueError("this planner has no action space; give it one: planner.over(space)")


NO_SPACE = cast(ActionSpace, _NoSpace())
"""Of a planner that is nothing but settings yet."""


class Status(Enum):
    """What became of a plan, each with what to do about it."""

    OK = "All iterations ran; the plan is the best found."
    REUSED = "What was at hand has at most the energy `replan_above`; nothing was searched."
    DEADLINE = "The deadline stopped the search early; the plan is the best found in time. Fewer samples would fit."
    LATE = "The plan came after its deadline. Execute the previous plan; lower samples or allow more time."
    NO_FINITE_ENERGY = "No candidate had a finite energy; the plan is the previous one, shifted. Check the energy."
    INFEASIBLE = "The plan breaks a constraint at some step. Do not execute it blindly; see stats.violations."


@dataclass(frozen=True, eq=False)
class PlanState(Declared):
    """What a planner carries from one plan to the next, as a value.

    Attributes:
        mean, std: the search distribution over knots, (B, P, A).
        best: the plan returned last, (B, P, A); a candidate of the next plan, and its fallback.
        kept: further candidates the algorithm carries over, (B, any number, P, A).
        seeds: one seed a problem; problem b's noise depends on seeds[b] and `count` alone.
        count: plans made so far.
        scratch: what only the running search needs (Adam's moments); empty between plans.
    """

    mean: Tensor
    std: Tensor
    best: Tensor
    kept: Tensor
    seeds: tuple[int, ...]
    count: int = 0
    scratch: tuple[Tensor, ...] = ()

    def tensors(self) -> dict[str, Tensor]:
        """The state between two plans as plain tensors, to be saved."""
        saved = {name: getattr(self, name) for name in ("mean", "std", "best", "kept")}
        return saved | {"seeds": torch.tensor(self.seeds), "count": torch.tensor(self.count)}

    @classmethod
    def from_tensors(cls, saved: Mapping[str, Tensor]) -> Self:
        """The state that `tensors` saved."""
        mean, std, best, kept = (saved[name] for name in ("mean", "std", "best", "kept"))
        return cls(mean, std, best, kept, tuple(saved["seeds"].tolist()), int(saved["count"]))


class Proposal(NamedTuple):
    """Where a share of the first iteration's candidates comes from: a learned prior, a library of past plans, …

    `candidates(state, n)` returns actions (B, n, T, A) in the environment's units; n = round(fraction * N). They take
    the place of samples. Where they are all N there are, nothing else is tried, not the mean, not the previous plan:
    a learned model is not asked about what nobody ever did, such as doing nothing, where its errors would win.
    """

    candidates: Callable[[PlanState, int], Tensor]
    fraction: float


class PlanStats(NamedTuple):
    """What a plan cost, and what it breaks.

    Attributes:
        iterations: iterations that ran.
        evaluations: energies evaluated a problem; on average, where only some were `searched`.
        elapsed: seconds on the host; with a deadline, the device's work is waited for.
        violations: environment steps (B,) of the returned plan that break a constraint; None without constraints.
        backend: what ran the search: a backend that compiled or recorded all of it, or "eager".
        searched: the problems (B,) that were searched; None where all were.
    """

    iterations: int
    evaluations: float
    elapsed: float
    violations: Tensor | None
    backend: str = "eager"
    searched: Tensor | None = None

    @property
    def compiled(self) -> bool:
        """Whether the search ran as one compiled function, or was replayed."""
        return self.backend != "eager"


@dataclass(frozen=True, eq=False)
class Plan:
    """What `Planner.plan` returns: actions (B, T, A), their energy (B,), statistics, and the state to go on from."""

    actions: Tensor
    energy: Tensor
    stats: PlanStats
    state: PlanState
    timing: Status = Status.OK

    @property
    def status(self) -> tuple[Status, ...]:
        """One status a problem. Reads the result back from the device."""
        every = len(self.energy)
        finite = self.energy.isfinite().tolist()
        broken = [0.0] * every if self.stats.violations is None else self.stats.violations.tolist()
        searched = [True] * every if self.stats.searched is None else self.stats.searched.tolist()
        return tuple(map(self._status, finite, broken, searched))

    def _status(self, finite: bool, broken: float, searched: bool) -> Status:
        if broken:
            return Status.INFEASIBLE
        if not finite:
            return Status.NO_FINITE_ENERGY
        return self.timing if searched or self.timing is Status.LATE else Status.REUSED


@dataclass(frozen=True, eq=False, kw_only=True)
class Planner(ABC):
    """Settings every planner has, and the loop.

    Args:
        space: the actions searched; `over` gives one to a planner that has none yet.
        samples: candidates N an iteration.
        iterations: iterations I a plan.
        sigma: standard deviation of the first candidates, in the normalised box [-1, 1].
        execute: return the "best" candidate seen, or the final "mean" (evaluated once more; where its energy is not
            finite, the best).
        replan_above: the energy above which it replans; -inf replans always. Where the previous plan, shifted, or a
            proposal has at most this, it is the plan and nothing is searched: event-triggered control (Heemels,
            Johansson & Tabuada 2012). The first plan of an episode is always searched, and so is every plan where
            proposals are all the candidates. It takes one look at a value, before the search.
        backend: what runs the search: "eager"; "cudagraphs", which records it on a GPU and replays it (`Captured`);
            a backend of torch.compile, which makes it one function ("inductor" fuses it, which takes a compiler and
            tens of seconds once; on a GPU it fuses what evaluates candidates, and records the search); "auto" is
            "cudagraphs" on a GPU, else "eager". A plan with a deadline looks at the clock: it is not recorded, and of
            it torch.compile's backends compile what evaluates candidates. What cannot be recorded or compiled runs
            eagerly, with a warning; an energy that does not say what it depends on (`Declared`) is not recorded.
            `Plan.stats.backend` tells what ran.
    """

    fewest: ClassVar[int] = 2
    """Samples that an algorithm can do with."""

    space: ActionSpace = NO_SPACE
    samples: int = key(128, "candidates an iteration", first=True)
    iterations: int = key(5, "iterations a plan", first=True)
    sigma: float = key(0.5, "deviation of the first samples; actions span [-1, 1]")
    execute: Execute = "best"
    replan_above: float = key(
        -math.inf, "energy above which it plans anew; below, the last plan goes on. -inf: plans always"
    )
    backend: Backend = key("auto", "what runs the search: auto (eager, on a GPU recorded), eager, cudagraphs, inductor")

    def __post_init__(self) -> None:
        if self.samples < self.fewest or self.iterations < 1 or self.sigma <= 0:
            raise ValueError(
                f"samples={self.samples}: must be at least {self.fewest}"
                if self.samples < self.fewest
                else f"iterations={self.iterations}: must be at least 1"
                if self.iterations < 1
                else f"sigma={self.sigma}: must be positive"
            )
        if not self.replan_above < math.inf:
            raise ValueError(f"replan_above={self.replan_above}: must be below inf; -inf replans always")
        for name, choices in (("execute", get_args(Execute)), ("backend", get_args(Backend))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)} is unknown; choose one of: {', '.join(choices)}")

    @abstractmethod
    def propose(self, state: PlanState, noise: Tensor, iteration: int) -> Tensor:
        """Candidates (B, n, P, A) in [-1, 1], n <= N, from noise (B, N, P, A), which is 0 for the first candidate."""

    @abstractmethod
    def update(self, state: PlanState, knots: Tensor, energies: Tensor, iteration: int) -> PlanState:
        """The state after candidates (B, n, P, A) got energies (B, n): finite, or +inf for one that must not win."""

    @property
    def first_gradient(self) -> int:
        """The first iteration whose `update` differentiates energies by knots; `iterations` if none does."""
        return self.iterations

    @property
    def event_triggered(self) -> bool:
        """Whether it replans only where what is at hand has an energy above `replan_above`."""
        return self.replan_above > -math.inf

    @property
    def has_space(self) -> bool:
        """Whether it knows what it searches; without, it is settings, such as `CEM(samples=128)`."""
        return isinstance(self.space, ActionSpace)

    def over(self, space: ActionSpace) -> Self:
        """The same planner of actions in a space."""
        return replace(self, space=space)

    def to(self, device: torch.device | str) -> Self:
        """The same planner on `device`."""
        return replace(self, space=self.space.to(device))

    def init(self, batch: int, seeds: SupportsIndex | Iterable[SupportsIndex] = 0) -> PlanState:
        """A cold start for B = `batch` problems: the middle of the bounds. One seed alone means seed, seed + 1, …

        Raises:
            ValueError: for no problem, or another number of seeds.
        """
        if isinstance(batch, bool) or not hasattr(batch, "__index__") or batch < 1:
            raise ValueError(f"batch={batch}: must be at least 1 problem")
        if isinstance(seeds, Iterable) and getattr(seeds, "ndim", 1):  # one integer of NumPy or torch has no dimension
            numbers = tuple(index(seed) for seed in seeds)
        else:
            first = index(cast(SupportsIndex, seeds))
            numbers = tuple(range(first, first + batch))
        if len(numbers) != batch:
            raise ValueError(f"{len(numbers)} seeds for {batch} problems: give one a problem")
        mean = self.space.low.new_zeros(batch, self.space.knots, self.space.size)
        return PlanState(mean, torch.full_like(mean, self.sigma), mean, mean[:, None][:, :0], numbers)

    def shift(self, state: PlanState, executed: int) -> PlanState:
        """The state after `executed` environment steps of its plan: a warm start."""
        mean, best, kept = (self.space.shift(knots, executed) for knots in (state.mean, state.best, state.kept))
        return replace(state, mean=mean, best=best, kept=kept)

    @torch.no_grad()
    def plan(
        self,
        energy: Energy,
        state: PlanState,
        deadline: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
        previous_action: Tensor | None = None,
        proposals: Sequence[Proposal] = (),
    ) -> Plan:
        """Minimise `energy`, starting from `state`.

        Runs without autograd, except where an algorithm differentiates the energy; not in inference mode, whose tensors
        would be of no use to a caller who trains.

        Args:
            energy: actions (B, N, T, A) to (B, N). NaN and infinities, of either sign, never win.
            state: from `init`, or from the last plan by `shift`.
            deadline: seconds from now. The clock is read between iterations; another one starts only if the longest
                so far would still fit. The first always runs.
            clock: seconds, from any origin.
            previous_action: the action (B, A) executed last, from which the slew rate counts.
            proposals: where some of the first candidates come from, beside the previous plan.

        Raises:
            ValueError: if energies or proposed actions have the wrong shape.
        """
        start = clock()
        guesses = self._guesses(state, proposals)
        bare = replace(state, seeds=(), count=0)  # whose values would be compiled in

        def search() -> tuple[_Found, bool]:
            noise = self.space.noise(state.seeds, state.count, (self.iterations, self.samples // 2))
            if deadline is None:
                return self._fast(energy, bare, noise, guesses, previous_action)
            # What must still fit: an iteration, and the mean's evaluation.
            more = _Deadline(start, deadline, lambda: self.finished(clock), 2 if self.execute == "mean" else 1)
            return self._search(energy, bare, noise, guesses, previous_action, more), False

        if not self.event_triggered or not state.count or guesses.shape[1] >= self.samples:
            searched, (found, compiled) = None, search()
        else:
            found, compiled = self._fast_look(energy, bare, guesses, previous_action)
            searched = found.energy > self.replan_above
            if share := searched.float().mean().item():
                sought, compiled = search()
                found = found.where_not(searched, sought, share)
        state = PlanState(found.mean, found.std, found.best, found.kept, state.seeds, state.count + 1)

        count = getattr(energy, "violations", None)
        violations = count(found.actions[:, None]) if count is not None else None
        elapsed = (self.finished(clock) if deadline is not None else clock()) - start
        timing = {self.iterations: Status.OK, 0: Status.REUSED}.get(found.iterations, Status.DEADLINE)
        if deadline is not None and elapsed > deadline:
            timing = Status.LATE
        broken = None if violations is None else violations[:, 0]
        backend = self._runner if compiled else "eager"
        stats = PlanStats(found.iterations, found.evaluations, elapsed, broken, backend, searched)
        return Plan(found.actions, found.energy, stats, state, timing)

    def _search(
        self,
        energy: Energy,
        state: PlanState,
        noise: Tensor,
        guesses: Tensor,
        previous_action: Tensor | None,
        more: Callable[[], bool] | None = None,
    ) -> "_Found":
        """The loop, on tensors alone, so that it can be compiled; it goes on while there is `more` time."""
        evaluate = partial(self._evaluate, self._piecewise or more is not None, energy)
        noise = self._mirrored(noise)
        state = replace(state, std=torch.full_like(state.mean, self.sigma))
        seen: list[tuple[Tensor, Tensor]] = []
        for iteration in range(self.iterations):
            if iteration and more is not None and not more():
                break
            knots = self.propose(state, noise[iteration], iteration)
            if iteration == 0:
                knots = torch.cat((knots[:, : max(0, knots.shape[1] - guesses.shape[1])], guesses), dim=1)
            if iteration >= self.first_gradient:
                knots = knots.detach().requires_grad_()
            energies = evaluate(knots, previous_action)
            state = self.update(state, knots, energies, iteration)
            seen.append((knots.detach(), energies.detach()))

        best, best_energy = _best(seen, state.best)
        if self.execute == "mean":
            mean_energy = evaluate(state.mean[:, None], previous_action)[:, 0]
            usable = mean_energy.isfinite()
            best = torch.where(usable[:, None, None], state.mean, best)
            best_energy = torch.where(usable, mean_energy, best_energy)
        evaluations = sum(energies.shape[1] for _, energies in seen) + (self.execute == "mean")
        actions = self.space.expand(best, previous_action)
        return _Found(state.mean, state.std, state.kept, best, best_energy, actions, len(seen), evaluations)

    def _look(self, energy: Energy, state: PlanState, guesses: Tensor, previous_action: Tensor | None) -> "_Found":
        """What is at hand, as a search finds it that ends before its first iteration."""
        energies = self._evaluate(self._piecewise, energy, guesses, previous_action)
        best, best_energy = _best([(guesses, energies)], state.best)
        actions = self.space.expand(best, previous_action)
        return _Found(best, state.std, state.kept, best, best_energy, actions, 0, guesses.shape[1])

    @cached_property
    def _fast(self) -> Captured | Fast:
        return self._faster(self._search, gradients=self.first_gradient < self.iterations)

    @cached_property
    def _fast_look(self) -> Captured | Fast:
        return self._faster(self._look, gradients=False)

    def _faster(self, function: Callable[..., "_Found"], gradients: bool) -> Captured | Fast:
        if self._recorded:
            return Captured(function)
        return Fast(function, self.backend, self.space.low.device, gradients)

    @property
    def _recorded(self) -> bool:
        return self.space.low.is_cuda and self.backend in ("auto", "cudagraphs", "inductor")

    @property
    def _runner(self) -> str:
        """The backend of a search that does not run eagerly."""
        return "cudagraphs" if self._recorded and not (self._piecewise and self._fused.compiles) else self.backend

    @cached_property
    def _piecewise(self) -> bool:
        """Whether energies alone are compiled: one function for all iterations, where on a GPU the search would be
        unrolled. So they are under a deadline, for the clock cannot be compiled."""
        return self.backend == "inductor" and self.space.low.is_cuda

    @cached_property
    def _fused(self) -> Fast:
        return Fast(self._expand_and_evaluate, self.backend, self.space.low.device, gradients=False)

    def _mirrored(self, half: Tensor) -> Tensor:
        """Noise (I, B, N, P, A) of half of it: 0 for candidate 0, which is the mean itself, then pairs that mirror each
        other.

        Mirrored samples halve the noise in the mean (antithetic variates; Hammersley & Morton 1956).
        """
        noise = torch.stack((half, -half), dim=3).flatten(2, 3)
        still = noise.new_zeros((*noise.shape[:2], 1, *noise.shape[3:]))  # of one sample there is no noise at all
        return torch.cat((still, noise), dim=2)[:, :, : self.samples]

    def finished(self, clock: Callable[[], float]) -> float:
        """The time when the device has done all it was given; waits for that."""
        if self.space.low.is_cuda:
            torch.cuda.synchronize(self.space.low.device)
        return clock()

    def _guesses(self, state: PlanState, proposals: Sequence[Proposal]) -> Tensor:
        """Candidates (B, G, P, A) that are given: the previous plan, if there is room for it, and the proposals'."""
        counts = [round(fraction * self.samples) for _, fraction in proposals]
        guesses = [state.best[:, None]] if sum(counts) < self.samples else []
        for (propose, _), count in zip(proposals, counts, strict=True):
            actions = propose(state, count)
            expected = (len(state.seeds), count, self.space.steps, self.space.size)
            if actions.shape != expected:
                raise ValueError(f"a proposal must return (B, n, T, A) = {expected}, got {tuple(actions.shape)}")
            guesses.append(self.space.fit(actions))
        return torch.cat(guesses, dim=1) if len(guesses) > 1 else guesses[0]

    def _evaluate(self, piecewise: bool, energy: Energy, knots: Tensor, previous_action: Tensor | None) -> Tensor:
        """Energies (B, N) of knots (B, N, P, A), +inf for whatever is not finite."""
        with torch.set_grad_enabled(knots.requires_grad):
            if piecewise and not knots.requires_grad:
                return self._fused(energy, knots, previous_action)[0]
            return self._expand_and_evaluate(energy, knots, previous_action)

    def _expand_and_evaluate(self, energy: Energy, knots: Tensor, previous_action: Tensor | None) -> Tensor:
        actions = self.space.expand(knots, previous_action)
        energies = checked(energy(actions), actions)
        return energies.to(knots.dtype).nan_to_num(torch.inf, torch.inf, torch.inf)


class _Found(NamedTuple):
    """What a search found: mean, std and kept of `PlanState`, the best knots (B, P, A), their energy (B,) and actions
    (B, T, A), and what it took."""

    mean: Tensor
    std: Tensor
    kept: Tensor
    best: Tensor
    energy: Tensor
    actions: Tensor
    iterations: int
    evaluations: float

    def where_not(self, searched: Tensor, found: "_Found", share: float) -> "_Found":
        """This, but for the problems `searched` (B,), a share of all, what was `found`."""
        tensors = {name: value for name, value in found._asdict().items() if isinstance(value, Tensor)}
        for name, theirs in tensors.items():
            ours = getattr(self, name)
            if ours.shape == theirs.shape:  # a search that a deadline ended may keep another number
                tensors[name] = torch.where(searched.view(-1, *[1] * (ours.dim() - 1)), theirs, ours)
        return found._replace(**tensors, evaluations=self.evaluations + share * found.evaluations)


class _Deadline:
    """Whether `ahead` more rounds, each as long as the longest so far, would still be in time."""

    def __init__(self, start: float, deadline: float, clock: Callable[[], float], ahead: int) -> None:
        self._end, self._last, self._clock, self._ahead = start + deadline, start, clock, ahead
        self._longest = 0.0

    def __call__(self) -> bool:
        now = self._clock()
        self._longest, self._last = max(self._longest, now - self._last), now
        return now + self._ahead * self._longest <= self._end


def _best(seen: list[tuple[Tensor, Tensor]], fallback: Tensor) -> tuple[Tensor, Tensor]:
    """The best plan (B, P, A) of all candidates (B, N, P, A) and its energy (B,); `fallback` where none is finite."""
    knots, energies = (torch.cat(parts, dim=1) for parts in zip(*seen, strict=True))
    lowest, index = energies.min(dim=1)
    best = knots.take_along_dim(index[:, None, None, None], dim=1)[:, 0]
    return torch.where(lowest.isfinite()[:, None, None], best, fallback), lowest
