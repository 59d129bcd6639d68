"""Any Gymnasium environment on MuJoCo as a world of Forearm's: goals, exact save and load, actions in [-1, 1]."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import gymnasium
import mujoco
import numpy as np

from ..errors import UserError
from ..seeds import EVALUATION
from .rendering import Camera, Renders, camera_number
from .stepping import Simulating, refuse_sleep
from .world import Observation, Policy, RandomPolicy, checked_action

STATE_SPEC = int(mujoco.mjtState.mjSTATE_INTEGRATION)
WRAPPERS = (gymnasium.wrappers.PassiveEnvChecker, gymnasium.wrappers.OrderEnforcing, gymnasium.wrappers.TimeLimit)
"""Those that `gymnasium.make` adds. None changes what an action does."""
OBSERVE = "give observe=…, a function of the environment"


class GymnasiumWorld(gymnasium.Env[dict[str, Any], np.ndarray]):
    """An environment that holds `model`, `data` and all its state in MuJoCo's integration state.

    Observation: `state` (3 G + V,) float32, the tracked points (G, 3), metres, then the environment's own observation,
    flattened; `proprio` (P,) float32 where it is given; `pixels` (size, size, 3) uint8 if asked for. A goal is a
    simulator state, reached when the worst point is within `tolerance` of where it is in the goal. The environment's
    reward and terminations are not used. A world cannot be copied or pickled, for most environments forget their
    simulation then: make another one and load the state.

    Args:
        name: what it is registered as.
        env: made by `gymnasium.make`, with a bounded box of actions. Its model is compiled once, no island of it
            sleeps, and all steps take as long.
        points: tracked points (G, 3), metres, of a simulation whose kinematics are up to date.
        tolerance: metres.
        budget: steps an evaluated episode takes.
        place_start: moves the environment, just reset, to a start; a function of it and the generator.
        place_goal: moves it, at its start, to a goal that can be reached from there, likewise. By default it acts at
            random for `budget` steps.
        observe: the environment's own observation of its present state; by default Gymnasium's `_get_obs`.
        proprio: what of that, flattened, the robot knows without looking; `obs=pixels+proprio` takes it.
        hold_action: the action (A,), in [-1, 1], under which the robot stays about where it is and keeps what it has
            grasped; by default zero, the middle of the bounds.
        neutral: the action that costs no effort; by default `hold_action`.
        policies: who can act, by name, beside `random`; what recordings are made of is called `play`, which is
            `random` where it is not given.
        pixels, size: whether images are observed, and their side.
        camera: name or number of the camera that `pixels` are of; -1 is the free one.
        scene_camera: that of pictures for people; by default the same.
        make_camera: makes what renders `pixels`, of the model, the camera and the size.
        drop_wrappers: takes the environment out of wrappers, whatever they do to actions; else only those that
            `gymnasium.make` adds may be there.

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
        hold_action: Sequence[float] | np.ndarray | None = None,
        neutral: Sequence[float] | np.ndarray | None = None,
        policies: Mapping[str, Callable[[Any, np.random.Generator], Policy]] | None = None,
        pixels: bool = False,
        size: int = 64,
        camera: str | int = -1,
        scene_camera: str | int | None = None,
        make_camera: Callable[[mujoco.MjModel, str | int, int], Renders] = Camera,
        drop_wrappers: bool = False,
    ) -> None:
        if not isinstance(budget, int) or budget < 1 or not tolerance > 0:
            raise UserError(
                f"env={name}: budget={budget} must be a whole number of steps, tolerance={tolerance} positive"
            )
        if not (proprio is None or isinstance(proprio, slice)):
            raise UserError(f"env={name}: proprio={proprio} must be a slice, such as slice(0, 7)")
        self.name, self.tolerance, self.budget = name, tolerance, budget
        self.config: dict[str, Any] = {"pixels": pixels, "size": size}
        self.policies = {"play": RandomPolicy, "random": RandomPolicy, **(policies or {})}
        self.tasks: Sequence[str] = ()
        if not drop_wrappers:
            self._check_wrappers(env)
        self.env: Any = env.unwrapped
        self.points = points
        self._place_start = place_start
        self._place_goal = place_goal or self._wander
        self._observe = observe
        self._proprio = proprio
        self.env.reset(seed=0)  # some build their simulation only now
        self._check_env()
        self._compiled = self.model
        self._state_size = mujoco.mj_stateSize(self.model, STATE_SPEC)
        self._goal_data = mujoco.MjData(self.model)
        self._scene_camera_name = camera if scene_camera is None else scene_camera
        camera_number(self.model, camera)
        camera_number(self.model, self._scene_camera_name, "scene_camera")
        self._camera = make_camera(self.model, camera, size) if pixels else None
        self._scene_camera: Camera | None = None

        own = self.env.action_space
        self._low, self._high = own.low.astype(float), own.high.astype(float)
        self.dt = self._seconds_a_step()
        self.metadata = {"render_modes": [], "render_fps": max(1, round(1 / self.dt))}
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, own.shape, np.float32)
        self.hold_action = self._own_action("hold_action", np.zeros(own.shape) if hold_action is None else hold_action)
        self.neutral = self._own_action("neutral", self.hold_action if neutral is None else neutral)
        self._settle()
        shape = np.shape(points(self.data))
        if len(shape) != 2 or shape[0] < 1 or shape[1] != 3:
            raise UserError(f"env={name}: points must be (G, 3), metres, and are {shape}")
        observation = self.observe()
        if proprio is not None and not observation["proprio"].size:
            raise UserError(f"env={name}: proprio={proprio} takes nothing of what is observed")
        self.tracked = slice(0, 3 * shape[0])
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
        first = 2**31 if seed is not None and seed >= EVALUATION else 0  # the environment's own seeds do not meet
        with Simulating(self.name, self.data):
            self.env.reset(seed=int(self.np_random.integers(first, first + 2**31)))
            if self.model is not self._compiled:
                raise UserError(f"env={self.name}: compiles its model anew at reset; it must keep one")
            self._place_start(self.env, self.np_random)
            self._settle()
        start = self.save_state()
        with Simulating(self.name, self.data):
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
            SimulationError: when the simulation diverged, or the environment reset itself.
        """
        share = 0.5 * (1.0 + checked_action(action, len(self._low)))
        with Simulating(self.name, self.data, self.dt):
            self.env.step(self._low + share * (self._high - self._low))
        self._settle()

    def observe(self) -> Observation:
        points = np.ravel(self.points(self.data))
        others = self._numbers(self.env._get_obs() if self._observe is None else self._observe(self.env))
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
        self._compute(self._goal_data)
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
        self._compute(self.data)
        self._write(self.data, state)  # the solver's warm start is part of it, and was overwritten

    def _compute(self, data: mujoco.MjData) -> None:
        mujoco.mj_forward(self.model, data)
        mujoco.mj_rnePostConstraint(self.model, data)

    def _numbers(self, observed: Any) -> Iterator[np.ndarray]:
        """What is observed, dicts and tuples part by part, each flattened."""
        if isinstance(observed, Mapping | tuple):
            for part in observed.values() if isinstance(observed, Mapping) else observed:
                yield from self._numbers(part)
            return
        try:
            array = np.asarray(observed)
        except ValueError:  # lists of several lengths
            array = np.asarray(None)
        if array.dtype.kind not in "biuf":
            raise UserError(f"env={self.name}: what it observes is no numbers ({type(observed).__name__}); {OBSERVE}")
        if array.dtype == np.uint8 and array.ndim >= 3:
            raise UserError(f"env={self.name}: observes an image {array.shape} as numbers; {OBSERVE}, and pixels=True")
        yield array.ravel()

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

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"env={self.name} cannot be copied or pickled: make another one, as `make_world` does, and have it "
            "load_state what this one gives as save_state"
        )

    def _seconds_a_step(self) -> float:
        """Of the environment, read off its simulation's clock."""
        before = self.data.time
        with Simulating(self.name, self.data):
            self.env.step(0.5 * (self._low + self._high))
        seconds = self.data.time - before
        if not seconds > 0:
            raise UserError(
                f"env={self.name}: its first step moves the simulation's clock by {seconds:g} s, not forward"
            )
        self.env.reset(seed=0)
        steps = round(seconds / self.model.opt.timestep)
        whole = steps * self.model.opt.timestep
        return whole if abs(whole - seconds) < 1e-9 else seconds

    def _own_action(self, key: str, action: Any) -> np.ndarray:
        action = np.array(action, float)
        if action.shape != self._low.shape or not (np.abs(action) <= 1).all():
            raise UserError(f"env={self.name}: {key}={action} must be an action {self._low.shape} in [-1, 1]")
        return action

    def _check_wrappers(self, env: gymnasium.Env[Any, Any]) -> None:
        others = []
        while isinstance(env, gymnasium.Wrapper):
            if type(env) not in WRAPPERS:
                others.append(type(env).__name__)
            env = env.env
        if others:
            raise UserError(
                f"env={self.name}: steps without its wrappers, and {', '.join(others)} may change what an action does; "
                "have the environment itself do that, or give drop_wrappers=True"
            )

    def _check_env(self) -> None:
        if not isinstance(getattr(self.env, "model", None), mujoco.MjModel):
            raise UserError(f"env={self.name}: must hold MuJoCo's `model` and `data`, and is {self.env}")
        refuse_sleep(self.name, self.model)
        space = self.env.action_space
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1 or not space.is_bounded():
            raise UserError(f"env={self.name}: actions must be a bounded box (A,), and are {space}")
        if self._observe is None and not hasattr(self.env, "_get_obs"):
            raise UserError(f"env={self.name}: has no _get_obs; {OBSERVE}")
        if self._observe is None and _needs_arguments(self.env._get_obs):
            raise UserError(f"env={self.name}: its _get_obs takes arguments; {OBSERVE}")


def _needs_arguments(function: Callable[..., Any]) -> bool:
    given = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return any(p.default is p.empty and p.kind not in given for p in parameters)
