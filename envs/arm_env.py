"""The arm behind Gymnasium: dict observations, end-effector actions, observable goals, exact save and load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np

from ..errors import UserError
from .arm import ACTION_NAMES, CLOSED, JOINTS, RAMP, SUBSTEPS, Arm
from .policies import POLICIES
from .rendering import Camera, renderer_name
from .stepping import Simulating
from .tasks import Task
from .world import Observation, Policy, World, checked_action

STATE_SPEC = mujoco.mjtState.mjSTATE_INTEGRATION


def cube_rotation(rotation: np.ndarray) -> np.ndarray:
    """What can be seen of a cube's rotation (3, 3): five numbers that are the same for the 24 that look the same.

    They are moments of fourth order of the cube's axes a_k, the lowest that its symmetry leaves. Standing on a face and
    turned by yaw, it has (cos 4 yaw, sin 4 yaw, 1, 0, 0); the last three tell how it is tipped.
    """
    x, y, z = rotation
    return np.array([4 * (x**4).sum() - 3, 4 * (x**3 * y).sum(), (z**4).sum(), (z**3 * x).sum(), (z**3 * y).sum()])


class ArmEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """One task on the arm at 10 Hz.

    Observation: `proprio` (16,) float32, joint angles (7), tip (3), sin and cos of yaw, opening, commanded tip (3);
    `state` (9 + 8 per object + 4 per part,) float32, tip (3), sin and cos of yaw, opening, commanded tip (3), then for
    each object position (3) and `cube_rotation` (5), and for each part position (3) and how far it is slid out;
    `pixels` (size, size, 3) uint8 unless `pixels=False`.
    Metres and radians throughout.

    Action: (5,) in [-1, 1], (dx, dy, dz, dyaw, gripper), scaled by `arm.ACTION_SCALE` and clipped to the workspace.

    Reward is minus the distance to the goal in metres; `info` holds `distance` (metres) and `success` (now, within the
    task's tolerance). Episodes do not terminate: a goal must be held, so success is judged at the end.

    Raises:
        RenderingError: when pixels are wanted and cannot be rendered.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's own form)

    def __init__(self, task: Task, pixels: bool = True, size: int = 64, render_mode: str | None = None) -> None:
        self.task = task
        self.name = task.name
        self.config: dict[str, Any] = {"pixels": pixels, "size": size}
        self.render_mode = render_mode
        self.model = mujoco.MjModel.from_xml_path(str(Path(__file__).parent / "scenes" / task.scene))
        self.data = mujoco.MjData(self.model)
        self.dt = RAMP * SUBSTEPS * self.model.opt.timestep
        self.arm = Arm(self.model, task.workspace)
        self._objects = [self.model.body(name).id for name in task.objects]
        self._parts = [(self.model.body(name).id, self.model.joint(name).qposadr[0]) for name in task.parts]
        self._tracked = [self.model.body(name).id for name in task.bodies]
        self._tip = self.model.site("tip").id
        self._make_cameras()
        self._state_size = mujoco.mj_stateSize(self.model, STATE_SPEC)
        self._goal_data = mujoco.MjData(self.model)
        self.goal_points = np.zeros((0, 3))

        def box(size: int) -> gymnasium.spaces.Box:
            return gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)

        state = 9 + 8 * len(task.objects) + 4 * len(task.parts)
        spaces: dict[str, gymnasium.Space] = {"proprio": box(JOINTS + 9), "state": box(state)}
        if pixels:
            spaces["pixels"] = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict(spaces)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (len(ACTION_NAMES),), np.float32)
        self.hold_action = np.array([0.0, 0.0, 0.0, 0.0, CLOSED])
        self.neutral = np.zeros(len(ACTION_NAMES))

    @property
    def renderer_name(self) -> str:
        return renderer_name() if self._camera else "none"

    @property
    def budget(self) -> int:
        return self.task.budget

    @property
    def tolerance(self) -> float:
        return self.task.tolerance

    @property
    def tracked(self) -> slice:
        return self.task.tracked

    @property
    def tasks(self) -> tuple[str, ...]:
        return ()

    @property
    def policies(self) -> Mapping[str, Callable[[ArmEnv, np.random.Generator], Policy]]:
        return POLICIES

    # Gymnasium

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict]:
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        self.task.place_start(self.arm, self.data, self.np_random)
        mujoco.mj_forward(self.model, self.data)
        start = self.save_state()
        self.task.place_goal(self.arm, self.data, self.np_random)
        mujoco.mj_forward(self.model, self.data)
        self.set_goal(self.save_state())
        self.load_state(start)
        return self.observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict]:
        self.advance(action)
        info = self._info()
        return self.observe(), -info["distance"], False, False, info

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.render_scene() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        for camera in (self._camera, self._scene_camera):
            if camera is not None:
                camera.close()

    # What Gymnasium has no word for

    def advance(self, action: np.ndarray) -> None:
        """Steps the simulation without observing it. Action (5,) is clipped to [-1, 1].

        Raises:
            ValueError: when the action has another shape, or is not finite.
            SimulationError: when the simulation diverged.
        """
        with Simulating(self.name, self.data, self.dt):
            for control in self.arm.apply(self.data, checked_action(action, len(ACTION_NAMES))):
                self.data.ctrl[:] = control
                mujoco.mj_step(self.model, self.data, nstep=SUBSTEPS)
        mujoco.mj_kinematics(self.model, self.data)  # observations speak of the state after the last substep

    def observe(self) -> Observation:
        return self._observe(self.data)

    def goal_observation(self) -> Observation:
        """What the goal looks like: the same parts as any observation."""
        return self._observe(self._goal_data)

    def set_goal(self, state: np.ndarray) -> None:
        """Takes a simulator state (F,) as the goal."""
        self._load(self._goal_data, state)
        self.goal_points = self.points(self._goal_data.xpos, self._goal_data.site_xpos)

    def goal_state(self) -> np.ndarray:
        return self._save(self._goal_data)

    def save_state(self) -> np.ndarray:
        """The whole simulation, controller included, as (F,) float64."""
        return self._save(self.data)

    def load_state(self, state: np.ndarray) -> None:
        """Restores what `save_state` gave, bit for bit.

        Raises:
            ValueError: when the size is not this model's.
        """
        self._load(self.data, state)

    def distance(self) -> float:
        """Metres that the worst tracked point is from the goal."""
        return float(np.linalg.norm(self.tracked_points() - self.goal_points, axis=-1).max())

    def tracked_points(self) -> np.ndarray:
        """Where the task's tracked points are, (G, 3) metres."""
        return self.points(self.data.xpos, self.data.site_xpos)

    @property
    def tip(self) -> np.ndarray:
        """Where the gripper's tip is, (3,) metres."""
        return self.data.site_xpos[self._tip].copy()

    def points(self, bodies: np.ndarray, sites: np.ndarray) -> np.ndarray:
        """The task's tracked points (…, G, 3), of the positions of all bodies (…, ·, 3) and sites (…, ·, 3)."""
        return bodies[..., self._tracked, :] if self._tracked else sites[..., [self._tip], :]

    def render_scene(self, size: int = 480) -> np.ndarray:
        """The view for people, (size, size, 3) uint8."""
        if self._scene_camera is None or self._scene_camera.size != size:
            self._scene_camera = Camera(self.model, "scene", size)
        return self._scene_camera.render(self.data)

    def _make_cameras(self) -> None:
        self._camera = Camera(self.model, "eye", self.config["size"]) if self.config["pixels"] else None
        self._scene_camera: Camera | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles hold the whole simulation, and go on bit for bit; their cameras are their own."""
        return {key: value for key, value in vars(self).items() if key not in ("_camera", "_scene_camera")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._make_cameras()

    def _info(self) -> dict[str, Any]:
        distance = self.distance()
        return {"distance": distance, "success": distance < self.task.tolerance}

    def _save(self, data: mujoco.MjData) -> np.ndarray:
        state = np.empty(self._state_size)
        mujoco.mj_getState(self.model, data, state, STATE_SPEC)
        return state

    def _load(self, data: mujoco.MjData, state: np.ndarray) -> None:
        if state.shape != (self._state_size,):
            raise ValueError(f"state has shape {state.shape}; the scene {self.task.scene} needs ({self._state_size},)")
        mujoco.mj_setState(self.model, data, np.asarray(state, float), STATE_SPEC)
        mujoco.mj_kinematics(self.model, data)
        mujoco.mj_camlight(self.model, data)

    def _observe(self, data: mujoco.MjData) -> Observation:
        command = self.arm.command(data)
        rotation = data.site_xmat[self._tip]
        gripper = [*data.site_xpos[self._tip], rotation[3], rotation[0], data.qpos[JOINTS]]
        state = [*gripper, *command[:3]]
        for body in self._objects:
            state += [*data.xpos[body], *cube_rotation(data.xmat[body].reshape(3, 3))]
        for body, joint in self._parts:
            state += [*data.xpos[body], data.qpos[joint]]
        observation = {
            "proprio": np.array([*data.qpos[:JOINTS], *gripper, *command[:3]], np.float32),
            "state": np.array(state, np.float32),
        }
        if self._camera is not None:
            observation["pixels"] = self._camera.render(data)
        return observation


def as_arm(env: World, key: str) -> ArmEnv:
    """The environment, known to be Forearm's arm.

    Raises:
        UserError: naming `key` as what needs one.
    """
    if not isinstance(env, ArmEnv):
        raise UserError(f"{key}: needs Forearm's own arm, and env={env.name} is another world; leave it out")
    return env
