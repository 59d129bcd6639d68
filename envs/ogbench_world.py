"""OGBench's manipulation worlds (Park et al. 2025): a UR5e with cubes, and a scene with drawer, window and buttons too.

Starts of recordings, play and the five tasks of each are OGBench's own. Its `mode="task"` is not used: it steps with
actions that no seed determines. Observed is the same as there, in metres, with a cube's rotation as what can be seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import gymnasium
import mujoco
import numpy as np

from ..errors import UserError
from .arm_env import cube_rotation
from .gymnasium_world import GymnasiumWorld
from .ray_casting import RayCaster
from .world import Observation, RandomPolicy

TOLERANCE = 0.04  # metres: OGBench's own
BUDGETS = {"ogbench/cube-single": 200, "ogbench/cube-double": 500, "ogbench/scene": 750}  # steps: OGBench's own
ARM = slice(0, 19)  # of what is observed beside the objects' positions: all that is of the arm
HOLD_ACTION = (
    0.0,
    0.0,
    0.07,
    0.0,
    0.44,
)  # without a move up the arm sinks; the gripper's is what play does
INTERRUPTED = 0.015  # of the steps of play: where something else comes between
NOISE = 0.1  # of noisy play, at most; OGBench's own
TASKS = ("button", "cube", "drawer", "window")  # of its oracles
WRONG_BUTTON = 0.1  # metres that a button in another state than the goal's counts as


def make(name: str, pixels: bool = False, size: int = 64) -> OgbenchWorld:
    """A world by its name, `ogbench/…`; `pixels` are those of OGBench's own camera for them.

    Raises:
        UserError: where OGBench is not installed, or for pixels mujoco_warp.
    """
    try:
        from ogbench.manipspace.envs.cube_env import CubeEnv  # pyright: ignore[reportMissingImports]
        from ogbench.manipspace.envs.scene_env import SceneEnv  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(f"env={name}: needs OGBench ({error}); pip install 'forearm[ogbench]'") from None
    kind = name.removeprefix("ogbench/")
    settings = {"mode": "data_collection", "visualize_info": False, "width": 480, "height": 480}
    if kind == "scene":
        return SceneWorld(name, _with_actions(SceneEnv)("scene", **settings), pixels, size)
    return OgbenchWorld(name, _with_actions(CubeEnv)(kind.removeprefix("cube-"), **settings), pixels, size)


def _with_actions(env: type[Any]) -> type[Any]:
    """The environment with its action space made once: OGBench's makes it anew, and warns, whenever it is asked for."""
    return type(env.__name__, (env,), {"action_space": gymnasium.spaces.Box(-1.0, 1.0, (5,), np.float32)})


class OgbenchWorld(GymnasiumWorld):
    """Bring every cube to where it is in the goal.

    Observation `state`: positions of the cubes (3 each), `proprio`, `cube_rotation` (5) a cube; metres and radians.
    `proprio` is joint angles (6) and velocities (6), position of the effector (3), cosine and sine of its yaw, opening
    of the gripper and its contact (1 each). Action: (5,), the effector's move along x, y, z, its turn, and the
    gripper's. A step takes 0.05 s.
    """

    def __init__(self, name: str, env: Any, pixels: bool, size: int) -> None:
        self._task: str | None = None
        env.set_tasks()
        super().__init__(
            name,
            env,
            points=self._points,
            tolerance=TOLERANCE,
            budget=BUDGETS[name],
            place_start=self._place_start_of_task,
            place_goal=self._place_goal_of_task,
            observe=self._observe_all,
            proprio=ARM,
            hold_action=HOLD_ACTION,
            neutral=np.zeros(5),
            policies=POLICIES[name],
            pixels=pixels,
            size=size,
            camera="front_pixels",
            scene_camera="front",
            make_camera=RayCaster,
        )
        self.tasks = [task["task_name"] for task in env.task_infos]
        self.model.light_castshadow[:] = False  # shadows take as long as all else in a picture

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts as a recording does, with the goal of any task; or as the task `options["task"]` does.

        Raises:
            UserError: for an unknown task.
        """
        self._task = (options or {}).get("task")
        if self._task is not None and self._task not in self.tasks:
            raise UserError(f"task={self._task} is unknown; choose one of: {', '.join(self.tasks)}")
        return super().reset(seed=seed)

    def cube_poses(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the cubes are, (C, 3) metres, and how they are turned, (C, 3, 3)."""
        bodies = [self.data.body(f"object_{i}") for i in range(self.env._num_cubes)]
        return np.stack([body.xpos for body in bodies]), np.stack([body.xmat.reshape(3, 3) for body in bodies])

    def _points(self, data: mujoco.MjData) -> np.ndarray:
        return np.stack([data.body(f"object_{i}").xpos for i in range(self.env._num_cubes)])

    def _observe_all(self, env: Any) -> np.ndarray:
        info = env.compute_ob_info()
        yaw = info["proprio/effector_yaw"]
        parts = [info[f"proprio/{part}"] for part in ("joint_pos", "joint_vel", "effector_pos")]
        parts += [np.cos(yaw), np.sin(yaw), info["proprio/gripper_opening"], info["proprio/gripper_contact"]]
        cubes = range(env._num_cubes)
        parts += [cube_rotation(self.data.body(f"object_{i}").xmat.reshape(3, 3)) for i in cubes]
        return np.concatenate(parts)

    def _place_start_of_task(self, env: Any, rng: np.random.Generator) -> None:
        chosen = int(rng.integers(len(env.task_infos))) if self._task is None else self.tasks.index(self._task)
        self._info_of_task = env.task_infos[chosen]
        self._order = rng.permutation(env._num_cubes)  # which cube is which of the task's
        if self._task is not None:
            self._place(self._info_of_task, "init", rng)

    def _place_goal_of_task(self, env: Any, rng: np.random.Generator) -> None:
        env.initialize_arm()  # its pose in a goal is any, as in OGBench
        self._place(self._info_of_task, "goal", None)

    def _place(self, task: dict[str, Any], end: str, rng: np.random.Generator | None) -> None:
        """Puts all objects where they are at one end of a task: at its start, a little off it, at random."""
        self._place_cubes(task[f"{end}_xyzs"], rng)

    def _place_cubes(self, positions: np.ndarray, rng: np.random.Generator | None) -> None:
        for i, position in enumerate(positions[self._order]):
            yaw = 0.0 if rng is None else rng.uniform(0, 2 * np.pi)
            off = np.zeros(2) if rng is None else rng.uniform(-0.01, 0.01, 2)
            joint = self.data.joint(f"object_joint_{i}")
            joint.qpos[:] = *(position[:2] + off), position[2], np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)
            joint.qvel[:] = 0.0


class SceneWorld(OgbenchWorld):
    """Bring cube, drawer and window to where they are in the goal, and the buttons, which lock them, to its states.

    `state` begins with the positions of the cube and of the handles of drawer and window (3 each), and ends with the
    states of the buttons, how far they are pressed, and the speeds of drawer and window (2 each). The states of the
    buttons end a simulator state too: OGBench keeps them outside of MuJoCo.
    """

    def _points(self, data: mujoco.MjData) -> np.ndarray:
        handles = [data.site(f"{part}_handle_center").xpos for part in ("drawer", "window")]
        return np.concatenate([super()._points(data), handles])

    def _observe_all(self, env: Any) -> np.ndarray:
        pressed = [self.data.joint(f"buttonbox_joint_{i}").qpos for i in range(2)]
        speeds = [self.data.joint(f"{part}_slide").qvel for part in ("drawer", "window")]
        return np.concatenate([super()._observe_all(env), env._cur_button_states, *pressed, *speeds])

    def _place(self, task: dict[str, Any], end: str, rng: np.random.Generator | None) -> None:
        scene = task[end]
        self._place_cubes(scene["block_xyzs"], rng)
        for part, low, high in (("drawer", -0.16, 0.0), ("window", 0.0, 0.2)):
            off = 0.0 if rng is None else rng.uniform(-0.01, 0.01)
            self.data.joint(f"{part}_slide").qpos[0] = np.clip(scene[f"{part}_pos"] + off, low, high)
        self._press(scene["button_states"])

    def _press(self, states: np.ndarray) -> None:
        self.env._cur_button_states = np.array(states, int)
        self.env._apply_button_states()  # locks and unlocks, by damping

    def save_state(self) -> np.ndarray:
        return np.append(super().save_state(), self.env._cur_button_states)

    def load_state(self, state: np.ndarray) -> None:
        self._press(state[-2:])
        super().load_state(state[:-2])

    def set_goal(self, state: np.ndarray) -> None:
        self._goal_buttons = np.array(state[-2:])
        super().set_goal(state[:-2])

    def goal_state(self) -> np.ndarray:
        return np.append(super().goal_state(), self._goal_buttons)

    def distance(self) -> float:
        wrong = (self.env._cur_button_states != self._goal_buttons).any()
        return max(super().distance(), WRONG_BUTTON * float(wrong))


def make_oracle(kind: str, task: str, env: Any) -> Any:
    """OGBench's oracle of a kind, `plan` or `markov`, for a task, such as `cube`."""
    module = import_module(f"ogbench.manipspace.oracles.{kind}.{task}_{kind}")
    return getattr(module, f"{task.title()}{kind.title()}Oracle")(env=env)


@contextmanager
def numpy_seeded(rng: np.random.Generator) -> Iterator[None]:
    """OGBench's oracles draw from NumPy's global generator: seeds it for them, and puts it back as it was."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


class Play:
    """OGBench's data collection of the type of that name: its planning oracles, with their noise, after ever new
    targets."""

    KIND = "plan"

    def __init__(self, world: OgbenchWorld, rng: np.random.Generator) -> None:
        self.env, self.rng = world.env, rng
        self._oracles = {task: make_oracle(self.KIND, task, self.env) for task in TASKS}

    def reset(self) -> None:
        self._aim()

    def act(self) -> np.ndarray:
        if self._oracle.done:
            self.env.set_new_target(return_info=False)
            self._aim()
        return np.clip(self._oracle.select_action(None, self.env.compute_ob_info()), -1.0, 1.0)

    def _aim(self) -> None:
        self._oracle: Any = self._oracles[self.env._target_task]
        with numpy_seeded(self.rng):
            self._oracle.reset(None, self.env.compute_ob_info())


class NoisyPlay(Play):
    """OGBench's data collection of the type `noisy`: its oracles that see where they stand, whose actions get noise,
    more of it in some episodes than in others. What goes wrong they mend."""

    KIND = "markov"

    def reset(self) -> None:
        self._noise = self.rng.uniform(0.0, NOISE) * np.array([1.0, 1.0, 1.0, 3.0, 10.0])
        super().reset()

    def act(self) -> np.ndarray:
        return np.clip(super().act() + self._noise * self.rng.normal(size=5), -1.0, 1.0)


class InterruptedPlay(Play):
    """Play in which the arm now and then rests, walks at random, or opens or closes its gripper out of turn.

    An oracle goes on afterwards as if nothing had happened: what it has lost it carries all the same, and a world model
    sees that no cube comes along. What rests is how to stay where a goal is.
    """

    def __init__(self, world: OgbenchWorld, rng: np.random.Generator) -> None:
        super().__init__(world, rng)
        self._walk = RandomPolicy(world, rng)

    def reset(self) -> None:
        self._left = 0
        super().reset()

    def act(self) -> np.ndarray:
        if self._left == 0 and self.rng.random() < INTERRUPTED:
            self._interrupt()
        if self._left == 0:
            return super().act()
        self._left -= 1
        self._oracle._t_init += self.env._control_timestep  # its plan waits
        return self._astray()

    def _interrupt(self) -> None:
        self._left = int(self.rng.integers(5, 26))
        kind = self.rng.choice(["rest", "walk", "gripper"])
        if kind == "walk":
            self._walk.reset()
            self._astray = self._walk.act
        else:
            action = np.zeros(5)
            action[4] = 0.0 if kind == "rest" else self.rng.choice([-1.0, 1.0])
            self._astray = lambda: action


class OGBenchExpert:
    """OGBench's oracle that sees where it stands, sent to the goal: the lowest cube that is not there yet."""

    def __init__(self, world: OgbenchWorld, rng: np.random.Generator) -> None:
        self.world, self.rng = world, rng
        self._oracle = make_oracle("markov", "cube", world.env)
        self.reset()

    def reset(self) -> None:
        self._cube = -1
        with numpy_seeded(self.rng):
            self._oracle.reset(None, None)

    def act(self) -> np.ndarray:
        world = self.world
        apart = np.linalg.norm(world.points(world.data) - world.goal_points, axis=1)
        tip = world.data.site("ur5e/robotiq/pinch").xpos
        if self._cube < 0 or (apart[self._cube] < 0.02 and tip[2] > 0.16):  # placed, and left
            order = np.argsort(world.goal_points[:, 2], kind="stable")
            self._cube = next((int(i) for i in order if apart[i] > 0.02), int(order[-1]))
        info = world.env.compute_ob_info()
        info["privileged/target_block"] = self._cube
        info["privileged/target_block_pos"] = world.goal_points[self._cube]
        info["privileged/target_block_yaw"] = np.zeros(1)
        return self._oracle.select_action(None, info)


POLICIES: dict[str, dict[str, Any]] = {
    "ogbench/cube-single": {"play": Play, "noisy": NoisyPlay, "interrupted": InterruptedPlay, "expert": OGBenchExpert},
    "ogbench/cube-double": {"play": Play, "noisy": NoisyPlay, "interrupted": InterruptedPlay, "expert": OGBenchExpert},
    "ogbench/scene": {"play": Play, "noisy": NoisyPlay, "interrupted": InterruptedPlay},
}
"""Who can act where, beside `random`."""
