"""Goal manifests: fixed, hashed sets of starts and goals that every planner in a table is measured on.

No start is solved, and no goal solves itself while the arm holds (`World.hold_action`): both would count as success for
nothing. No recording resets its environment with a seed that a manifest draws (seeds.py).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy

from ..envs import World
from ..episodes import Dataset
from ..episodes.facts import WorldFacts
from ..errors import SimulationError, UserError
from ..files import write_atomic
from ..seeds import STREAM, goal_seed

if TYPE_CHECKING:
    from .settings import GoalSettings

SCHEMA = 1
HOLD = 5
GOALS = "goals.safetensors"
"""The manifest in a bench's folder."""


class GoalError(UserError):
    """A goal manifest is missing, damaged, or made for another environment."""


@dataclass(frozen=True, eq=False)
class GoalManifest:
    """G problems of one environment.

    `start` and `goal` are whole simulator states (G, F) float64. An episode takes `budget` environment steps and
    succeeds if the tracked points are within `tolerance` metres of the goal's at each of the last `hold` steps.
    `labels` name what kind each problem is of, such as a task, where there are kinds.
    """

    env: str
    seed: int
    budget: int
    tolerance: float
    start: np.ndarray
    goal: np.ndarray
    hold: int = HOLD
    versions: dict[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    world: WorldFacts = field(default_factory=WorldFacts)
    """What is told of the environment; no part of the hash, and empty in older manifests."""

    def __len__(self) -> int:
        return len(self.start)

    @property
    def header(self) -> dict[str, Any]:
        left_out = ("start", "goal", "world") if self.labels else ("start", "goal", "world", "labels")
        return {"schema": SCHEMA} | {k: v for k, v in asdict(self).items() if k not in left_out}

    @property
    def sha256(self) -> str:
        """Over the rules and every bit of every start and goal."""
        digest = hashlib.sha256(json.dumps(self.header, sort_keys=True).encode())
        for states in (self.start, self.goal):
            digest.update(np.ascontiguousarray(states).tobytes())
        return digest.hexdigest()

    def first(self, count: int) -> GoalManifest:
        """The first problems alone; another manifest, with another hash."""
        return self._part(slice(count))

    def singles(self) -> list[GoalManifest]:
        """Each problem alone."""
        return [self._part(slice(i, i + 1)) for i in range(len(self))]

    def _part(self, which: slice) -> GoalManifest:
        return replace(self, start=self.start[which], goal=self.goal[which], labels=self.labels[which])

    def save(self, path: Path) -> None:
        header = self.header | {"sha256": self.sha256, "world": self.world.to_json()}
        states = {"start": self.start, "goal": self.goal}
        write_atomic(path, safetensors.numpy.save(states, metadata={"goals": json.dumps(header)}))

    @classmethod
    def load(cls, path: Path) -> GoalManifest:
        """Reads a manifest and checks its hash.

        Raises:
            GoalError: naming the file and what is wrong.
        """
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                header = json.loads((file.metadata() or {})["goals"])
                states = {name: file.get_tensor(name) for name in ("start", "goal")}
            schema, sha256 = header.pop("schema"), header.pop("sha256")
            world = WorldFacts.from_json(header.pop("world", {}))
            manifest = cls(**header | {"labels": tuple(header.get("labels", ()))}, **states, world=world)
        except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise GoalError(f"goals={path}: not a goal manifest ({error})") from None
        if schema != SCHEMA or manifest.sha256 != sha256:
            raise GoalError(f"goals={path}: its content does not match its hash; make it anew")
        return manifest

    def require(self, env: World, source: str | Path) -> None:
        """Makes sure that it is of an environment; `source` is where it was read.

        Raises:
            GoalError: where it was made for one of another name, state or model.
        """
        if self.env != env.name or self.start.shape[1:] != env.save_state().shape:
            raise GoalError(f"goals={source}: were made for env={self.env}, not for this env={env.name}")
        _same_model(self.world, env, f"goals={source}: were made in")


def _same_model(told: WorldFacts, env: World, made_in: str) -> None:
    if told.same_model(now := WorldFacts.of(env)) is False:
        raise GoalError(f"{made_in} {told.seen_from(now)}; make env={env.name} as it was, or give goals of it as it is")


def make_goals(env: World, count: int, seed: int) -> GoalManifest:
    """Draws `count` problems that are unsolved and stay so if nothing is done; a pure function of its arguments.

    Of an environment that has tasks, they are its tasks in turn.

    Raises:
        GoalError: when hardly any problem is unsolved.
    """
    tasks, labels, problems, diverged = list(env.tasks), [], [], None
    for draw in range(50 * count + 50):
        task = tasks[len(problems) % len(tasks)] if tasks else None
        options = None if task is None else {"task": task}
        try:
            env.reset(seed=goal_seed(seed, draw), options=options)
            problem = env.save_state(), env.goal_state()
            solved = _solved_by_waiting(env, problem[0], env.budget, env.hold_action)
        except SimulationError as error:
            diverged = error
            continue
        if not solved:
            problems.append(problem)
            labels += [] if task is None else [task]
        if len(problems) == count:
            return _manifest(env, seed, env.budget, problems, labels)
    raise GoalError(
        f"env={env.name}: {50 * count + 50} draws gave {len(problems)} goals that are not reached by doing nothing, "
        f"asked for are {count}: its goals must be further from its starts than tolerance={env.tolerance}"
        + (f", and simulations must not diverge ({diverged})" if diverged else "")
    )


def goals_ahead(env: World, data: Dataset, count: int, seed: int, ahead: int) -> GoalManifest:
    """Problems whose goal is what a held-out episode came to `ahead` steps after their start, those alone that are
    unsolved and stay so whether the arm holds (`World.hold_action`) or makes no effort (`World.neutral`). An episode of
    them takes twice as many steps as the recording did.

    Raises:
        GoalError: for a recording of another environment, too short, or with too few such problems.
    """
    request = data.manifest.request
    if request.env != env.name:
        raise GoalError(f"goals={data.folder}: was recorded in env={request.env}, not in this env={env.name}")
    _same_model(data.manifest.world, env, f"goals={data.folder}: was recorded in")
    if data.manifest.columns["sim"].shape[1:] != env.save_state().shape:
        raise GoalError(f"goals={data.folder}: its simulator states are not of the size of env={env.name}'s")
    if not 1 <= ahead <= request.length:
        raise GoalError(f"ahead={ahead}: must lie in 1 … {request.length}, the steps of an episode of {data.folder}")
    states = data.load("val", ["sim"])["sim"]
    windows = [(episode, step) for episode in range(len(states)) for step in range(request.length + 1 - ahead)]
    problems = []
    for index in np.random.default_rng([STREAM, seed]).permutation(len(windows)):
        episode, step = windows[index]
        problem = states[episode, step], states[episode, step + ahead]
        env.set_goal(problem[1])
        try:
            # From mid-motion, what is carried is held or let go where nothing is done.
            solved = any(
                _solved_by_waiting(env, problem[0], 2 * ahead, action) for action in (env.hold_action, env.neutral)
            )
        except SimulationError:
            continue
        if not solved:
            problems.append(problem)
        if len(problems) == count:
            return _manifest(env, seed, 2 * ahead, problems, [f"{ahead} steps ahead"] * count)
    raise GoalError(
        f"goals={data.folder}: its held-out episodes give {len(problems)} goals that are not reached by doing nothing, "
        f"asked for are episodes={count}"
    )


def _manifest(
    env: World, seed: int, budget: int, problems: list[tuple[np.ndarray, np.ndarray]], labels: list[str]
) -> GoalManifest:
    import mujoco

    start, goal = (np.stack(states) for states in zip(*problems, strict=True))
    versions = {"mujoco": mujoco.__version__}
    return GoalManifest(
        env.name,
        seed,
        budget,
        env.tolerance,
        start,
        goal,
        versions=versions,
        labels=tuple(labels),
        world=WorldFacts.of(env),
    )


def _solved_by_waiting(env: World, start: np.ndarray, budget: int, action: np.ndarray) -> bool:
    """Whether the goal comes about from a state (F,) on by an action that does nothing."""
    env.load_state(start)
    for _ in range(budget + 1):
        if env.distance() < env.tolerance:
            return True
        env.advance(action)
    return False


def find_goals(settings: GoalSettings, env: World) -> GoalManifest:
    """The manifest that `goals` names, or that of the bench whose folder it names, cut to `episodes`; or a new one of
    `episodes` goals, from the recording that it names or of the environment's own.

    Raises:
        UserError: for a manifest or a recording of another environment.
    """
    if not settings.goals:
        return make_goals(env, settings.episodes, settings.seed)
    path = Path(settings.goals)
    if path.is_dir() and not (path / GOALS).exists():
        return goals_ahead(env, Dataset.open(path), settings.episodes, settings.seed, settings.ahead)
    manifest = GoalManifest.load(path / GOALS if path.is_dir() else path)
    manifest.require(env, settings.goals)
    return manifest if len(manifest) <= settings.episodes else manifest.first(settings.episodes)
