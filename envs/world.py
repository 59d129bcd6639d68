"""What Forearm asks of an environment, whoever wrote it, and who can act in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np

from ..errors import UserError

Observation = dict[str, np.ndarray]
"""Parts of an observation: `state` (S,) float32 always; `proprio` (P,) float32 and `pixels` (size, size, 3) uint8 where
an environment has them."""


class Policy(Protocol):
    """Chooses actions (A,) in [-1, 1] in the environment that it was made for."""

    def reset(self) -> None:
        """Forgets the episode before; called once the environment was reset."""
        ...

    def act(self) -> np.ndarray: ...


class World(Protocol):
    """An environment that can be recorded, planned in and benched: Gymnasium's, plus goals and exact save and load.

    A goal is a simulator state like any other, reached when `distance() < tolerance`. What is observed is a function of
    the simulator state alone.
    """

    metadata: dict[str, Any]
    """`render_fps` is at how many frames a second a film of one frame a step plays, a whole number."""

    @property
    def dt(self) -> float:
        """Seconds that every step takes, by the simulation's clock."""
        ...

    @property
    def name(self) -> str:
        """What `make_world` knows it by."""
        ...

    @property
    def config(self) -> dict[str, Any]:
        """Arguments of `make_world` that give it again, as JSON values; `pixels` says whether it observes images."""
        ...

    @property
    def action_space(self) -> gymnasium.Space[Any]:
        """A box (A,) of [-1, 1]."""
        ...

    @property
    def hold_action(self) -> np.ndarray:
        """The action (A,) under which the arm stays about where it is and keeps what it has grasped."""
        ...

    @property
    def neutral(self) -> np.ndarray:
        """The action (A,) that costs no effort, from which `ControlEnergy` counts: zero where actions are moves."""
        ...

    @property
    def budget(self) -> int:
        """Steps an evaluated episode takes."""
        ...

    @property
    def tolerance(self) -> float:
        """Metres."""
        ...

    @property
    def tracked(self) -> slice:
        """Columns of `state` with tracked points, metres, the first of them first: what is read off embeddings."""
        ...

    @property
    def tasks(self) -> Sequence[str]:
        """Evaluation tasks that `reset(options={"task": …})` sets up; empty where every start and goal is drawn."""
        ...

    @property
    def renderer_name(self) -> str:
        """Of what renders `pixels`, for the record; `none` where nothing does."""
        ...

    @property
    def policies(self) -> Mapping[str, Callable[[Any, np.random.Generator], Policy]]:
        """Who can act here, by name, made of this environment and a generator: `random`, mostly `play`, at best
        `expert`."""
        ...

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draws start and goal, functions of the seed where there is one, a whole number below 2**128."""
        ...

    def step(self, action: np.ndarray) -> tuple[Observation, Any, bool, bool, dict[str, Any]]: ...

    def advance(self, action: np.ndarray) -> None:
        """Steps without observing. Action (A,) is clipped to [-1, 1].

        SimulationError when the simulation diverged or was set back: what it holds then is not what the action led to.
        """
        ...

    def observe(self) -> Observation: ...

    def goal_observation(self) -> Observation:
        """What the goal looks like: the same parts as any observation."""
        ...

    def set_goal(self, state: np.ndarray) -> None:
        """Takes a simulator state (F,) as the goal."""
        ...

    def goal_state(self) -> np.ndarray: ...

    def save_state(self) -> np.ndarray:
        """The whole simulation, controller included, (F,) float64."""
        ...

    def load_state(self, state: np.ndarray) -> None:
        """Restores what `save_state` gave, bit for bit. ValueError when the size is another."""
        ...

    def tracked_points(self) -> np.ndarray:
        """What must come to where it is in the goal, where it is now: (G, 3) metres."""
        ...

    def distance(self) -> float:
        """Metres from the goal."""
        ...

    def render_scene(self, size: int = 480) -> np.ndarray:
        """The view for people, (size, size, 3) uint8. RenderingError where nothing can be rendered."""
        ...

    def close(self) -> None: ...


class RandomPolicy:
    """Actions that wander smoothly over the whole box: an autoregressive walk, clipped."""

    def __init__(self, env: World, rng: np.random.Generator) -> None:
        self.size = action_size(env)
        self.rng = rng
        self.reset()

    def reset(self) -> None:
        self._action = self.rng.uniform(-1.0, 1.0, self.size)

    def act(self) -> np.ndarray:
        self._action = 0.7 * self._action + 0.7 * self.rng.normal(size=self.size)
        return np.clip(self._action, -1.0, 1.0)


def checked_action(action: np.ndarray, size: int) -> np.ndarray:
    """An action (A,) clipped to [-1, 1].

    Raises:
        ValueError: when it has another shape, or is not finite.
    """
    action = np.asarray(action, float)
    if action.shape != (size,) or not np.isfinite(action).all():
        raise ValueError(f"action {action} must be ({size},) finite numbers")
    return np.clip(action, -1.0, 1.0)


def action_size(env: World) -> int:
    (size,) = env.action_space.shape or (0,)
    return size


def observation_shapes(env: World) -> dict[str, tuple[int, ...]]:
    """Shapes of the parts of an observation, by Gymnasium's space of them where there is one; else it is reset."""
    space = getattr(env, "observation_space", None)
    parts = space.spaces if isinstance(space, gymnasium.spaces.Dict) else env.reset(seed=0)[0]
    return {part: tuple(value.shape or ()) for part, value in parts.items()}


def make_policy(name: str, env: World, rng: np.random.Generator) -> Policy:
    """A policy of an environment by name.

    Raises:
        UserError: naming the valid names.
    """
    if name not in env.policies:
        raise UserError(f"policy={name} is unknown in env={env.name}; choose one of: {', '.join(env.policies)}")
    return env.policies[name](env, rng)
