"""Any Gymnasium environment on MuJoCo as a world of Forearm's: goals, exact save and load, actions in [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import mujoco
import numpy as np

from ..errors import UserError
from .rendering import Camera, Renders, camera_number
from .world import Observation, Policy, RandomPolicy, checked_action

STATE_SPEC = int(mujoco.mjtState.mjSTATE_INTEGRATION)


class GymnasiumWorld(gymnasium.Env[dict[str, Any], np.ndarray]):
    """An environment that holds `model`, `data` and all its state in MuJoCo's integration state.

    Observation: `state` (3 G + V,) float32, the tracked points (G, 3), metres, then the environment's own observation,
    flattened; `proprio` (P,) float32 where it is given; `pixels` (size, size, 3) uint8 if asked for. A goal is a
    simulator state, reached when the worst point is within `tolerance` of where it is in the goal. Wrappers of the
    environment, its reward and its terminations are not used.

    Args:
        name: what it is registered as.
        env: made by `gymnasium.make`, with a bounded box of actions.
        points: tracked points (G, 3), metres, of a simulation whose kinematics are up to date.
        tolerance: metres.
        budget: steps an evaluated episode takes.
        place_start: moves the environment, just reset, to a start; a function of it and the generator.
        place_goal: moves it, at its start, to a goal that can be reached from there, likewise. By default it acts at
            random for `budget` steps.
        observe: the environment's own observation of its present state; by default Gymnasium's `_get_obs`.
        proprio: what of that, flattened, the robot knows without looking; `obs=pixels+proprio` takes it.
        stay: the action (A,), in [-1, 1], under which the robot stays about where it is and keeps what it has grasped;
            by default zero.
        policies: who can act, by name, beside `random`; what recordings are made of is called `play`, which is
            `random` where it is not given.
        pixels, size: whether images are observed, and their side.
        camera: name or number of the camera that `pixels` are of; -1 is the free one.
        scene_camera: that of pictures for people; by default the same.
        make_camera: makes what renders `pixels`, of the model, the camera and the size.

    Raises:
        UserError: for an environment that is not as described.
        RenderingError: when pixels are wanted and cannot be rendered.
    """

    def __init__(
        self,
        name: str,
        env: gymnasium.Env[Any, Any],
        *,
        points: Callable[[mujoco.MjData], np.ndarray],
        tolerance: float,
        budget: int,
        place_start: Callable[[Any, np.random.Generator], None] = lambda env, rng: None,
        place_goal: Callable[[Any, np.random.Generator], None] | None = None,
        observe: Callable[[Any], Any] | None = None,
        proprio: slice | None = None,
        stay: Sequence[float] | None = None,
        policies: Mapping[str, Callable[[Any, np.random.Generator], Policy]] | None = None,
        pixels: bool = False,
        size: int = 64,
        camera: str | int = -1,
        scene_camera: str | int | None = None,
        make_camera: Callable[[mujoco.MjModel, str | int, int], Renders] = Camera,
    ) -> None:
        self.name, self.tolerance, self.budget = name, tolerance, budget
        self.config: dict[str, Any] = {"pixels": pixels, "size": size}
        self.policies = {"play": RandomPolicy, "random": RandomPolicy, **(policies or {})}
        self.tasks: Sequence[str] = ()
        self.env: Any = env.unwrapped
        self.points = points
        self._place_start = place_start
        self._place_goal = place_goal or self._wander
        self._observe = observe
        self._proprio = proprio
        self.env.reset(seed=0)  # some build their simulation only now
        self._check_env()
        self._state_size = mujoco.mj_stateSize(self.model, STATE_SPEC)
        self._goal_data = mujoco.MjData(self.model)
        self._scene_camera_name = camera if scene_camera is None else scene_camera
        camera_number(self.model, camera)
        camera_number(self.model, self._scene_camera_name, "scene_camera")
        self._camera = make_camera(self.model, camera, size) if pixels else None
        self._scene_camera: Camera | None = None

        own = self.env.action_space
        self._low, self._high = own.low.astype(float), own.high.astype(float)
        self.metadata = {"render_modes": [], "render_fps": self._steps_a_second()}
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, own.shape, np.float32)
        self.stay = np.zeros(own.shape) if stay is None else np.array(stay, float)
        self._settle()
        observation = self.observe()
        self.tracked = slice(0, points(self.data).size)
        spaces: dict[str, gymnasium.Space[Any]] = {
            part: gymnasium.spaces.Box(-np.inf, np.inf, observation[part].shape, np.float32)
            for part in ("state", "proprio")
            if part in observation
        }
        if pixels:
            spaces["pixels"] = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict(spaces)
        self.set_goal(self.save_state())

    @property
    def model(self) -> mujoco.MjModel:
        return self.env.model

    @property
    def data(self) -> mujoco.MjData:
        return self.env.data

    @property
    def renderer_name(self) -> str:
        return self._camera.name if self._camera else "none"

    # Gymnasium

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self.env.reset(seed=int(self.np_random.integers(2**31)))
        self._place_start(self.env, self.np_random)
        self._settle()
        start = self.save_state()
        self._place_goal(self.env, self.np_random)
        self._settle()
        self.set_goal(self.save_state())
        self.load_state(start)
        return self.observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        self.advance(action)
        info = self._info()
        return self.observe(), -info["distance"], False, False, info

    def close(self) -> None:
        for camera in (self._camera, self._scene_camera):
            if camera is not None:
                camera.close()
        self.env.close()

    # What Gymnasium has no word for

    def advance(self, action: np.ndarray) -> None:
        """Steps the environment without observing it. Action (A,) is clipped to [-1, 1].

        Raises:
            ValueError: when the action has another shape, or is not finite.
        """
        share = 0.5 * (1.0 + checked_action(action, len(self._low)))
        self.env.step(self._low + share * (self._high - self._low))
        self._settle()

    def observe(self) -> Observation:
        own = self.env._get_obs() if self._observe is None else self._observe(self.env)
        parts = (self.points(self.data), *(own.values() if isinstance(own, Mapping) else (own,)))
        points, *others = (np.ravel(part) for part in parts)
        seen = {"state": np.concatenate([points, *others]).astype(np.float32)}
        if self._proprio is not None:
            seen["proprio"] = seen["state"][len(points) :][self._proprio]
        if self._camera is not None:
            seen["pixels"] = self._camera.render(self.data)
        return seen

    def goal_observation(self) -> Observation:
        state = self.save_state()
        self.load_state(self.goal_state())
        observation = self.observe()
        self.load_state(state)
        return observation

    def set_goal(self, state: np.ndarray) -> None:
        """Takes a simulator state (F,) as the goal."""
        self._goal = np.array(state, float)
        self._write(self._goal_data, self._goal)
        mujoco.mj_kinematics(self.model, self._goal_data)
        self.goal_points = np.array(self.points(self._goal_data))

    def goal_state(self) -> np.ndarray:
        return self._goal.copy()

    def save_state(self) -> np.ndarray:
        """The whole simulation, (F,) float64."""
        return self._read()

    def load_state(self, state: np.ndarray) -> None:
        """Restores what `save_state` gave, bit for bit.

        Raises:
            ValueError: when the size is not this model's.
        """
        self._write(self.data, state)
        self._settle()

    def tracked_points(self) -> np.ndarray:
        """Where the tracked points are, (G, 3) metres."""
        return np.array(self.points(self.data))

    def distance(self) -> float:
        """Metres that the worst tracked point is from the goal."""
        return float(np.linalg.norm(self.points(self.data) - self.goal_points, axis=-1).max())

    def render_scene(self, size: int = 480) -> np.ndarray:
        """The view for people, (size, size, 3) uint8; smaller where the model has no room for it."""
        room = self.model.vis.global_
        size = min(size, room.offwidth, room.offheight)
        if self._scene_camera is None or self._scene_camera.size != size:
            self._scene_camera = Camera(self.model, self._scene_camera_name, size)
        return self._scene_camera.render(self.data)

    def _settle(self) -> None:
        """Computes all that follows from the state (positions, contacts, sensors), and leaves the state as it is: after
        a step MuJoCo holds what followed from the state before, and observations would depend on how it was reached."""
        state = self._read()
        mujoco.mj_forward(self.model, self.data)
        mujoco.mj_rnePostConstraint(self.model, self.data)
        self._write(self.data, state)  # the solver's warm start is part of it, and was overwritten

    def _read(self) -> np.ndarray:
        state = np.empty(self._state_size)
        mujoco.mj_getState(self.model, self.data, state, STATE_SPEC)
        return state

    def _write(self, data: mujoco.MjData, state: np.ndarray) -> None:
        if state.shape != (self._state_size,):
            raise ValueError(f"state has shape {state.shape}; env={self.name} needs ({self._state_size},)")
        mujoco.mj_setState(self.model, data, np.asarray(state, float), STATE_SPEC)

    def _wander(self, env: Any, rng: np.random.Generator) -> None:
        del env
        policy = RandomPolicy(self, rng)
        for _ in range(self.budget):
            self.advance(policy.act())

    def _info(self) -> dict[str, Any]:
        distance = self.distance()
        return {"distance": distance, "success": distance < self.tolerance}

    def _steps_a_second(self) -> int:
        """Of the environment, read off its simulation's clock."""
        before = self.data.time
        self.env.step(0.5 * (self._low + self._high))
        seconds = self.data.time - before
        self.env.reset(seed=0)
        return max(1, round(1 / seconds))

    def _check_env(self) -> None:
        if not isinstance(getattr(self.env, "model", None), mujoco.MjModel):
            raise UserError(f"env={self.name}: must hold MuJoCo's `model` and `data`, and is {self.env}")
        space = self.env.action_space
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1 or not space.is_bounded():
            raise UserError(f"env={self.name}: actions must be a bounded box (A,), and are {space}")
        if self._observe is None and not hasattr(self.env, "_get_obs"):
            raise UserError(f"env={self.name}: has no _get_obs; give observe=…, a function of the environment")
