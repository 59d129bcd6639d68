"""Settings of planning and of measuring it: what a planner searches, by which energy, and who is put on which goals."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import product
from typing import Any, get_args

import torch

from ..devices import Compute
from ..envs.registry import WORLDS
from ..envs.settings import EnvSettings
from ..episodes.store import OBS
from ..models.precision import PLANNING_PRECISIONS
from ..planner import CEM, PLANNERS, ActionSpace, Planner
from ..planner.actions import Spline
from ..planner.energy import DISTANCES, ENSEMBLES, REDUCTIONS
from ..planner.registry import ENERGIES
from ..settings import (
    Key,
    SettingError,
    at_least,
    default_of,
    fitted,
    key,
    key_of,
    no_such_key,
    not_negative,
    once,
    one_of,
    positive,
    shown,
    subset,
    tree,
    types_of,
    unknown,
    within,
)
from .energies import METRICS, Box

OWN = "own"
"""Stands for what a planner's and an energy's settings say, among others that a bench tries."""
REFERENCES = ("random", "zero", "prior", "expert", "oracle")
"""What can be measured beside planners."""
WITHOUT_MODEL = frozenset(REFERENCES) - {"prior"}


@dataclass(frozen=True, kw_only=True)
class PlannerSettings:
    """An algorithm with its own settings, what plans are made of, and what is tried beside its own samples.

    `search` is the algorithm, such as `CEM(samples=128)`. Where it has an action space already, plans are made of that.
    """

    search: Planner = field(default_factory=CEM)
    horizon: int = key(6, "model steps of a plan; one is model.chunk environment steps", first=True)
    knots: int = key(0, "free actions of a plan, with a spline between them; 0: one a model step, each held")
    spline: str = key("zero", "zero (held), linear, cubic")
    noise_beta: float = key(0.0, "colour of the samples along the plan; 0: white, 2 to 4: slow")
    prior: float = key(0.0, "share of the first candidates that a learned action prior proposes", first=True)
    prior_stop: float = key(0.0, "share of the prior's candidates that stop where they are imagined to reach the goal")
    hold: bool = key(False, "whether one candidate holds the arm where it is")

    def __post_init__(self) -> None:
        within(self, 0, 1, "prior", why="it is a share of the candidates")
        within(self, 0, 1, "prior_stop", why="it is a share of what the prior proposes")
        at_least(self, horizon=1)
        one_of(self, spline=get_args(Spline))
        if self.hold and round(self.prior * self.search.samples) >= self.search.samples:
            raise SettingError(f"hold=true: prior={self.prior} proposes all of {self.search.samples} candidates")

    @property
    def name(self) -> str:
        """Of the algorithm."""
        return PLANNERS.name_of(type(self.search))

    @classmethod
    def of_group(cls, given: Mapping[str, Any]) -> PlannerSettings:
        values = dict(given)
        name = values.pop("name", "cem")
        if isinstance(name, Planner):
            return cls(search=name, **values)
        algorithm = PLANNERS[name]
        own, shape = plain_fields(algorithm), [each.name for each in fields(cls) if each.name != "search"]
        search, rest = {}, {}
        for each, value in values.items():
            if each in own:
                search[each] = fitted(each, value, own[each], default_of(algorithm, each))
            elif each in shape:
                rest[each] = fitted(each, value, types_of(cls)[each])
            else:
                raise no_such_key(each, value, [*own, *shape], f"planner={name}")
        return cls(search=algorithm(**search), **rest)

    @classmethod
    def keys_of(cls, name: str) -> list[Key]:
        shape = [key_of(cls, each) for each in fields(cls) if "told" in each.metadata]
        return [*algorithm_keys(PLANNERS[name]), *shape]

    def as_group(self) -> dict[str, Any]:
        own = {each: getattr(self.search, each) for each in plain_fields(type(self.search))}
        shape = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "search"}
        return {"name": self.name, **own, **shape}

    def other(self, name: str) -> PlannerSettings:
        """Another algorithm on plans of the same shape, with its own settings but for those that both have and that
        are set here."""
        if name == self.name:
            return self
        algorithm = PLANNERS[name]
        own = plain_fields(algorithm)
        changed = {
            each: value
            for each in plain_fields(type(self.search))
            if each in own and (value := getattr(self.search, each)) != default_of(type(self.search), each)
        }
        return replace(self, search=algorithm(**changed))

    def build(self, low: Any, high: Any, chunk: int) -> Planner:
        """The planner of actions between bounds (A,), with `chunk` environment steps a model step."""
        if self.search.has_space:
            return self.search
        shape = {each: getattr(self, each) for each in ("knots", "spline", "noise_beta")}
        try:
            return self.search.over(action_space(low, high, self.horizon, chunk, **shape))
        except ValueError as error:
            raise SettingError(f"planner.{error}") from None


def action_space(low: Any, high: Any, horizon: int, chunk: int, **shape: Any) -> ActionSpace:
    """The space of plans of `horizon` model steps of `chunk` environment steps, for bounds (A,)."""
    bounds = [torch.tensor(bound, dtype=torch.float32) for bound in (low, high)]
    return ActionSpace(low=bounds[0], high=bounds[1], steps=horizon * chunk, chunk=chunk, **shape)


def plain_fields(cls: Any) -> dict[str, Any]:
    """The types of a dataclass's plain settings, by name; an action space is none."""
    hints = types_of(cls)
    return {each.name: _plain(hints[each.name]) for each in fields(cls) if each.name != "space" and each.init}


def _plain(hint: Any) -> Any:
    """A choice of words is a word."""
    return str if get_args(hint) and all(isinstance(word, str) for word in get_args(hint)) else hint


def algorithm_keys(cls: Any) -> list[Key]:
    """What can be set of an algorithm: of one that does not come with Forearm, whatever it adds."""
    foreign = [base for base in cls.__mro__ if base.__module__.split(".")[0] != Planner.__module__.split(".")[0]]
    adds = {name for base in foreign for name in vars(base).get("__annotations__", {})}
    hints = plain_fields(cls)
    named = [each for each in fields(cls) if "told" in each.metadata or (each.name in adds and each.name in hints)]
    return [replace(key_of(cls, each), hint=hints[each.name]) for each in named]


@dataclass(frozen=True, kw_only=True)
class EnergySettings:
    """What a plan is judged by: an energy of what is imagined, by name, and what is added to it.

    `latent` (`LatentEnergy`) takes the settings up to `disagreement`; a registered energy its own, `options`.
    """

    name: str = "latent"
    distance: str = key("mse", "mse, l1, cosine: between imagined embeddings and the goal's")
    reduce: str = key("min", "min, final, path: over the horizon")
    final_weight: float = 0.1
    metric: str = key(
        "slow", "slow (what changes slowly counts more), plain, object, temporal, slow+temporal", first=True
    )
    time_penalty: float = key(0.0, "added to a distance for each model step before it: the soonest plan wins")
    ensemble: str = key("mean", "mean, worst, mean_std: over the futures of a model of several members")
    ensemble_k: float = 1.0
    disagreement: float = key(0.0, "weight of the members' variance")
    clip: float = key(math.inf, "what distance and control count together at most")
    control: float = key(0.0, "weight of the mean squared action", first=True)
    release: float = key(0.0, "weight of opening the gripper before the object is imagined to fall")
    prior: float = key(0.0, "weight of how unlikely actions are under the action prior; 1: as play was")
    keep_out: str | None = key(None, "box LOW..HIGH to keep out of, metres: 0.4,-0.05,0..0.5,0.05,0.2")
    keep_out_weight: float = key(0.0, "weight of each metre and step inside of it")
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of(self, distance=DISTANCES, reduce=REDUCTIONS, metric=METRICS, ensemble=ENSEMBLES)
        not_negative(self, "time_penalty", "ensemble_k", "disagreement", "control", "release", "prior")
        not_negative(self, "keep_out_weight", "final_weight")
        positive(self, "clip", why=", or inf for no limit")
        if self.keep_out is not None:
            _ = self.box
        elif self.keep_out_weight:
            raise SettingError(f"keep_out_weight={self.keep_out_weight}: needs a box, energy.keep_out")

    @property
    def box(self) -> Box | None:
        """What to keep out of."""
        if self.keep_out is None:
            return None
        try:
            return Box.parse(self.keep_out)
        except ValueError:
            raise SettingError(
                f"keep_out={self.keep_out}: must be a box LOW..HIGH in metres, such as 0.4,-0.05,0..0.5,0.05,0.2"
            ) from None

    @property
    def latent(self) -> dict[str, Any]:
        """What `LatentEnergy` takes, but for the metric."""
        names = ("distance", "reduce", "final_weight", "time_penalty", "ensemble", "ensemble_k", "disagreement")
        return {each: getattr(self, each) for each in names}

    @classmethod
    def of_group(cls, given: Mapping[str, Any]) -> EnergySettings:
        values = dict(given)
        name = values.get("name", "latent")
        known, own = cls._known(name), _options(name)
        for each, value in given.items():
            if each != "name" and each not in known:
                raise no_such_key(each, value, known, f"energy={name}")
        options = {each: fitted(each, values.pop(each), type(own[each])) for each in list(values) if each in own}
        hints = types_of(cls)
        return cls(
            **{each: fitted(each, value, hints[each], default_of(cls, each)) for each, value in values.items()},
            options=options,
        )

    @classmethod
    def _known(cls, name: str) -> list[str]:
        latent = {*EnergySettings().latent, "metric"} if name != "latent" else set()
        shared = [each.name for each in fields(cls) if each.name not in ("name", "options", *latent)]
        return [*_options(name), *shared]

    @classmethod
    def keys_of(cls, name: str) -> list[Key]:
        known = cls._known(name)
        own = [Key(each, value, "", type(value)) for each, value in _options(name).items()]
        return [*own, *(key_of(cls, each) for each in fields(cls) if each.name in known and "told" in each.metadata)]

    def as_group(self) -> dict[str, Any]:
        known = self._known(self.name)
        own = _options(self.name) | dict(self.options)
        shared = {each.name: getattr(self, each.name) for each in fields(self) if each.name in known}
        return {"name": self.name, **own, **shared}

    @property
    def label(self) -> str:
        """In a few words, such as `mse, min + 0.02 control`."""
        worse = {"mean": "", "worst": ", worst", "mean_std": f", mean + {self.ensemble_k:g} std"}[self.ensemble]
        metric = "" if self.metric == "slow" else f", {self.metric}"
        added = {
            "control": self.control,
            "release": self.release,
            "prior": self.prior,
            "keep_out": self.keep_out_weight,
        }
        added |= {"time penalty": self.time_penalty, "disagreement": self.disagreement}
        extra = [f" + {weight:g} {term}" for term, weight in added.items() if weight]
        extra += [f", at most {self.clip:g}"] if self.clip < math.inf else []
        kind = f"{self.distance}, {self.reduce}{metric}{worse}" if self.name == "latent" else self.name
        return kind + "".join(extra)


def _options(name: str) -> dict[str, Any]:
    """What a registered energy takes by keyword, beside model and embeddings, with its defaults."""
    if name == "latent":
        return {}
    known = inspect.signature(ENERGIES[name]).parameters.values()
    return {each.name: each.default for each in known if isinstance(each.default, bool | int | float | str)}


@dataclass(frozen=True, kw_only=True)
class PlanningSettings:
    """A planner in closed loop: what it searches and by which energy, and how it is run.

    `deadline` are the seconds a plan may take, 0 for as many as it wants.
    """

    planner: PlannerSettings = key(PlannerSettings, "the algorithm", first=True)
    energy: EnergySettings = key(EnergySettings, "what plans are judged by")
    execute_steps: int = key(1, "environment steps executed of each plan before the next", first=True)
    precision: str = key("auto", "of imagined rollouts: auto (bf16 where it pays), bf16, fp32, int8 (CPUs)")
    deadline: float = 0.0

    def __post_init__(self) -> None:
        at_least(self, execute_steps=1)
        one_of(self, precision=PLANNING_PRECISIONS)
        not_negative(self, "deadline", why="; 0 is none")

    def build(self, low: Any, high: Any, chunk: int) -> Planner:
        """The planner, of whose plans `execute_steps` can be executed."""
        planner = self.planner.build(low, high, chunk)
        if self.execute_steps > planner.space.steps:
            raise SettingError(
                f"execute_steps={self.execute_steps}: must lie in 1 … {planner.space.steps}, a plan's steps"
            )
        return planner


@dataclass(frozen=True, kw_only=True)
class OracleSettings:
    """CEM on the true simulator: the ceiling that a perfect model would reach, on the first `episodes` goals."""

    episodes: int = key(5, "goals that the search of the true simulator gets; it is slow")
    horizon: int = 5
    samples: int = 48
    iterations: int = 3
    sigma: float = 0.6
    elites: float = 0.15
    reduce: str = "min"

    def __post_init__(self) -> None:
        at_least(self, episodes=1)
        one_of(self, reduce=REDUCTIONS)

    def build(self, low: Any, high: Any, chunk: int) -> Planner:
        search = {each: getattr(self, each) for each in ("samples", "iterations", "sigma", "elites")}
        try:
            return PlannerSettings(search=CEM(**search), horizon=self.horizon).build(low, high, chunk)
        except ValueError as error:
            raise SettingError(f"oracle.{error}") from None


@dataclass(frozen=True, kw_only=True)
class PriorAloneSettings:
    """The row `prior`: how many steps of each answer it executes, and the deviation of the noise it answers from."""

    execute_steps: int = 1
    temperature: float = 0.6

    def __post_init__(self) -> None:
        at_least(self, execute_steps=1)
        not_negative(self, "temperature")

    def check(self, segment: int) -> None:
        """SettingError where answers of `segment` steps are too short."""
        if self.execute_steps > segment:
            raise SettingError(
                f"prior_alone.execute_steps={self.execute_steps}: must lie in 1 … {segment}, the steps of an answer"
            )


@dataclass(frozen=True, kw_only=True)
class GoalSettings:
    """Held-out goals: from a seed, from a manifest, or from a recording's held-out episodes."""

    episodes: int = key(100, "held-out goals", first=True)
    goals: str | None = key(
        None, "a manifest, or a recording whose held-out episodes give goals; null: by seed", path=True
    )
    ahead: int = key(25, "steps from start to goal, where `goals` is a recording")
    seed: int = key(0, "of the goals", first=True)

    def __post_init__(self) -> None:
        at_least(self, episodes=1, seed=0, ahead=1)


@dataclass(frozen=True, kw_only=True)
class SceneSettings:
    """The environment, and what of it the model sees."""

    env: EnvSettings = key(EnvSettings, "where: reach, push, pickplace, stack, drawer, or another world", first=True)
    obs: str = key("pixels", "pixels, state, or pixels+proprio (joints and tip beside the image)", first=True)

    def __post_init__(self) -> None:
        one_of(self, obs=OBS)


@dataclass(frozen=True, kw_only=True)
class DemoSettings(SceneSettings, PlanningSettings, GoalSettings, Compute):
    """One planner on a few goals, filmed."""

    checkpoint: str | None = key(
        None, "folder, or name of a shipped one; null: that for env and obs", first=True, path=True
    )
    episodes: int = key(6, "held-out goals", first=True)
    out: str | None = key(None, "run folder; null: a new one under runs/", first=True, path=True)

    def __post_init__(self) -> None:
        _check_bases(DemoSettings, self)


@dataclass(frozen=True, kw_only=True)
class BenchSettings(SceneSettings, PlanningSettings, GoalSettings, Compute):
    """Planners, floors and ceilings on one manifest of goals."""

    checkpoint: tuple[str, ...] = key(
        (), "folder or name of a shipped one, or several: [A,B]; []: that for env and obs", first=True, path=True
    )
    planners: tuple[str, ...] = key(
        (OWN, "mppi", "random", "zero", "oracle"),
        "own: planner's; any planner; random, zero, prior, expert, oracle",
        first=True,
    )
    planner_seeds: tuple[int, ...] = key((0, 1, 2), "one row each", first=True)
    energies: tuple[str, ...] = key((OWN,), "own: energy's; or DISTANCE/REDUCE/METRIC, such as mse/path/slow")
    budgets: tuple[str, ...] = key((OWN,), "own: each planner's; or SAMPLESxITERATIONS, such as 64x3")
    deadline: float = key(0.0, "seconds a plan may take, each goal alone; late ones are counted. 0: none")
    oracle: OracleSettings = key(OracleSettings, "the search of the true simulator")
    prior_alone: PriorAloneSettings = field(default_factory=PriorAloneSettings)
    video_episodes: int = key(6, "shown in the report")
    out: str | None = key(None, "run folder; null: a new one under runs/", first=True, path=True)

    def __post_init__(self) -> None:
        _check_bases(BenchSettings, self)
        at_least(self, planner_seeds=0, video_episodes=0)
        for name in ("planners", "planner_seeds", "energies", "budgets"):
            if not getattr(self, name):
                raise SettingError(f"{name}=[]: must be a list like {shown(default_of(BenchSettings, name))}")
        once("planner_seeds", self.planner_seeds)
        for name in self.planners:
            if name != OWN and name not in PLANNERS and name not in REFERENCES:
                raise SettingError(
                    f"planners: {name} is unknown; choose from: {', '.join([OWN, *PLANNERS, *REFERENCES])}"
                )
        _ = self.tried

    @property
    def named(self) -> tuple[str, ...]:
        """The planners by their own names; without the oracle, where it cannot be and was not asked for."""
        names = [self.planner.name if name == OWN else name for name in self.planners]
        default = self.planners == default_of(BenchSettings, "planners")
        own = not default or self.env.name in WORLDS.own
        return tuple(dict.fromkeys(name for name in names if own or name != "oracle"))

    @property
    def needs_model(self) -> bool:
        return bool(self.checkpoint) or not WITHOUT_MODEL.issuperset(self.named)

    @property
    def tried(self) -> dict[str, list[PlanningSettings]]:
        """What is tried of each planner: with each energy and each budget."""
        energies, budgets = self._energies(), self._budgets()
        once("energies", self.energies, energies)
        once("budgets", self.budgets, budgets)
        found: dict[str, list[PlanningSettings]] = {}
        for name in self.named:
            if name in REFERENCES:
                continue
            base = self.planner.other(name)
            for energy, budget in product(energies, budgets):
                try:
                    search = replace(base.search, **budget)
                except ValueError as error:
                    raise SettingError(f"planner.{error}") from None
                if energy != self.energy and search.event_triggered:
                    search = replace(search, replan_above=-math.inf)  # of one energy, not of another
                one = subset(PlanningSettings, self, planner=replace(base, search=search), energy=energy)
                if tree(one) not in map(tree, found.setdefault(name, [])):  # `own`, spelled out
                    found[name].append(one)
        return found

    def _energies(self) -> list[EnergySettings]:
        found = []
        for word in self.energies:
            parts = word.split("/")
            if word != OWN and len(parts) != 3:
                raise SettingError(f"energies: {word} is neither own nor DISTANCE/REDUCE/METRIC, such as mse/path/slow")
            named = {} if word == OWN else dict(zip(("distance", "reduce", "metric"), parts, strict=True))
            limit = {} if word == OWN else {"clip": math.inf}  # one limit suits one distance
            try:
                found.append(replace(self.energy, **named, **limit))
            except ValueError as error:
                raise SettingError(f"energy.{error}") from None
        return found

    def _budgets(self) -> list[dict[str, int]]:
        found = []
        for word in self.budgets:
            samples, _, iterations = word.partition("x")
            if word != OWN and not (samples.isdecimal() and iterations.isdecimal()):
                raise SettingError(f"budgets: {word} is neither own nor SAMPLESxITERATIONS, such as 64x3")
            found.append({} if word == OWN else {"samples": int(samples), "iterations": int(iterations)})
        return found


@dataclass(frozen=True, kw_only=True)
class ProblemSettings(Compute):
    """Planners on problems whose optimum is known."""

    planners: tuple[str, ...] = key(
        ("cem", "icem", "mppi", "gradient", "cem_gradient", "shooting"), "which to compare", first=True
    )
    problems: tuple[str, ...] = ("double_integrator", "stiff_double_integrator", "corridor")
    seeds: int = key(16, "plans a row", first=True)
    threads: int = key(1, "CPU threads; 0: all. These problems are too small to share")
    out: str | None = key(None, "run folder; null: a new one under runs/", first=True, path=True)

    def __post_init__(self) -> None:
        from ..planner.problems import PROBLEMS

        super().__post_init__()
        at_least(self, seeds=1)
        for name, choices in {"planners": PLANNERS, "problems": PROBLEMS}.items():
            for each in getattr(self, name):
                if each not in choices:
                    raise unknown(name, each, choices)


def _check_bases(cls: type, settings: Any) -> None:
    """The checks of all that settings of a class are made of."""
    for base in cls.__mro__[1:]:
        if "__post_init__" in vars(base):
            base.__post_init__(settings)
