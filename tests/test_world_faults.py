"""What other people's environments do wrong is said, whatever they do: divergence, state that is not saved, shapes."""

import copy
import json
import pickle
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from forearm.cli import main
from forearm.commands.common import told_next
from forearm.envs import (
    TASKS,
    ArmEnv,
    GymnasiumWorld,
    SimulationError,
    WorldWarning,
    check_world,
    make,
    register,
)
from forearm.episodes import RecordRequest, record
from forearm.episodes.workers import WorkerError
from forearm.errors import UserError
from forearm.evaluation.bench import Entry, run_entry
from forearm.evaluation.closed_loop import run_episodes
from forearm.evaluation.controllers import HoldController, LatentMPC, Learned, RandomController
from forearm.evaluation.foresight import Foreseen, foresight
from forearm.evaluation.goals import GoalError, GoalManifest, make_goals
from forearm.evaluation.results import Row, pool, table
from forearm.evaluation.settings import EnergySettings, PlanningSettings
from forearm.evaluation.simulator import SimulatorEnergy
from forearm.models.world_model import Architecture, WorldModel
from forearm.planner import ControlEnergy
from forearm.seeds import EVALUATION, goal_seed, recording_seed
from gymnasium.envs.mujoco.reacher_v5 import ReacherEnv

STAYED = "a state that is loaded must go on as it did"


def world(env: Any = None, **more: Any) -> GymnasiumWorld:
    """Reacher, or another environment, with its joints as what it observes."""
    settings = {
        "points": lambda data: data.body("fingertip").xpos[None],
        "observe": lambda env: np.concatenate([env.data.qpos[:2], env.data.qvel[:2]]),
        "tolerance": 0.03,
        "budget": 20,
        "name": "w",
        **more,
    }
    return GymnasiumWorld(env=ReacherEnv() if env is None else env, **settings)


@pytest.fixture
def named(names: None) -> Callable[..., None]:
    """Registers environments as worlds by name, for the length of a test."""

    def add(name: str, env: type[Any], **more: Any) -> None:
        register(name, lambda pixels=False, size=64: world(env(), name=name, pixels=pixels, size=size, **more))

    return add


# A simulation that does not go on from where it was


class Stiff(ReacherEnv):
    """Too stiff for its time step."""

    def __init__(self) -> None:
        super().__init__()
        self.model.jnt_stiffness[:2] = 1e6


class Limited(ReacherEnv):
    """Resets itself at its own time limit."""

    def step(self, action: Any) -> Any:
        told = super().step(action)
        if self.data.time > 0.5:
            self.reset()
        return told


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_arm_that_diverges_is_an_error(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = mujoco.get_mju_user_warning()
    env = make("push", pixels=False)
    env.reset(seed=0)
    env.advance(np.zeros(5))
    sound = env.save_state()
    env.data.qvel[0] = 1e12
    broken = env.save_state()
    for _ in range(2):  # the counter that tells is 1 after each reset of MuJoCo's
        env.load_state(broken)
        with pytest.raises(
            SimulationError, match=r"env=push: the simulation diverged after 0.1 s: Nan, .* QVEL at DOF 0"
        ):
            env.step(np.zeros(5))
    env.load_state(sound)
    env.advance(np.zeros(5))
    assert env.data.time == pytest.approx(0.2)
    assert not list(here.iterdir()) and capfd.readouterr().err == "", "no MUJOCO_LOG.TXT"
    assert mujoco.get_mju_user_warning() is before, "as it was"
    assert issubclass(SimulationError, UserError) and issubclass(SimulationError, RuntimeError)


def test_an_environment_that_diverges_is_an_error(here: Path) -> None:
    stiff = world(Stiff())
    with pytest.raises(SimulationError, match=r"env=w: the simulation diverged after 0\.0\d s: Nan"):
        check_world(stiff)
    with pytest.raises(SimulationError, match=r"diverged after"):
        for seed in range(5):  # random play goes to the goal
            stiff.reset(seed=seed)
    assert not list(here.iterdir())


def test_an_environment_that_resets_itself_is_an_error() -> None:
    limited = world(Limited(), budget=60, place_goal=lambda env, rng: env.set_state(env.data.qpos + 1, env.data.qvel))
    limited.reset(seed=0)
    with pytest.raises(SimulationError, match=r"its clock went from 0\.\d+ s to 0 s in a step of 0.02 s: the env"):
        for _ in range(60):
            limited.advance(np.zeros(2))


def test_a_recording_of_what_diverges_stops_and_says_where(named: Callable[..., None], here: Path) -> None:
    named("stiff", Stiff, place_goal=lambda env, rng: env.set_state(env.data.qpos + 1, env.data.qvel))
    request = RecordRequest("stiff", episodes=2, length=40, config={"pixels": False, "size": 64})
    with pytest.raises(WorkerError, match=r"episode 0 failed: step \d+: env=stiff: the simulation di"):
        record(request, here / "data")
    assert not list((here / "data").glob("episode-*"))


@pytest.fixture(scope="module")
def half_broken() -> tuple[ArmEnv, GoalManifest]:
    """Problems of which the second diverges at once."""
    env = make("reach", pixels=False)
    goals = make_goals(env, 3, 0)
    env.load_state(goals.start[1])
    env.data.qvel[0] = 1e12
    start = goals.start.copy()
    start[1] = env.save_state()
    return env, GoalManifest("reach", 0, 6, goals.tolerance, start, goals.goal)


def test_a_rollout_that_diverges_costs_infinitely(half_broken: tuple[ArmEnv, GoalManifest], here: Path) -> None:
    env, goals = half_broken
    actions = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (3, 4, 2, 5)))
    for reduce in ("min", "final", "path"):
        energy = SimulatorEnergy(env, goals.start, goals.goal, reduce, final_weight=0.0)(actions)
        alone = SimulatorEnergy(env, goals.start[::2], goals.goal[::2], reduce, final_weight=0.0)(actions[::2])
        assert torch.isposinf(energy[1]).all() and torch.equal(energy[::2], alone) and alone.isfinite().all()
    assert not list(here.iterdir())


def test_a_diverged_problem_fails_and_the_others_go_on(half_broken: tuple[ArmEnv, GoalManifest]) -> None:
    env, goals = half_broken
    episodes = run_episodes(env, goals, RandomController(5, 2), seed=0)
    assert episodes.diverged.tolist() == [False, True, False] and not episodes.success[1] and not episodes.reached[1]
    assert (episodes.states[1] == goals.start[1]).all() and np.isinf(episodes.distance[1]).all()
    first = run_episodes(env, goals.first(1), RandomController(5, 2), seed=0)
    np.testing.assert_array_equal(first.states[0], episodes.states[0])
    assert not first.diverged.any() and np.isfinite(episodes.distance[::2]).all()


def test_a_success_before_it_diverged_is_none(half_broken: tuple[ArmEnv, GoalManifest]) -> None:
    """What was reached counts as reached, and not as held."""
    env, goals = half_broken

    class Breaks:
        def begin(self, manifest: Any, goals: Any, seed: int) -> None: ...
        def act(self, observations: Any, states: np.ndarray) -> np.ndarray:
            return np.zeros((len(states), 1, 5))

    at_goal = GoalManifest("reach", 0, 6, goals.tolerance, goals.goal[:1], goals.goal[:1])
    advance, count = env.advance, 0

    def breaking(action: np.ndarray) -> None:
        nonlocal count
        count += 1
        if count == 4:
            env.data.qvel[0] = np.nan
        advance(action)

    env.advance = breaking  # type: ignore[method-assign]
    try:
        episodes = run_episodes(env, at_goal, Breaks(), seed=0)
    finally:
        del env.advance
    assert episodes.diverged.all() and episodes.reached.all() and not episodes.success.any()
    assert np.isfinite(episodes.distance[0, :3]).all() and np.isinf(episodes.distance[0, 3:]).all()
    np.testing.assert_array_equal(episodes.states[0, 4:], np.repeat(episodes.states[:1, 3], 3, 0))


def test_the_table_counts_what_diverged(half_broken: tuple[ArmEnv, GoalManifest]) -> None:
    env, goals = half_broken
    entry = Entry("zero", "floor", HoldController(env.hold_action), [0, 1], timed=False)
    rows, _ = run_entry(env, goals, "state", entry)
    assert [row.diverged for row in rows] == [1, 1] and pool(rows)[0].diverged == 2
    assert re.search(r"\| +diverged \|", table(pool(rows))) and rows[0].final_distance_cm is not None
    assert Row.from_json(json.loads(json.dumps(rows[0].to_json()))).diverged == 1
    (sound,), _ = run_entry(
        env, goals.first(1), "state", Entry("zero", "floor", HoldController(env.hold_action), [0], timed=False)
    )
    assert sound.diverged is None and "diverged" not in sound.to_json() and "diverged" not in table([sound])
    mostly = GoalManifest("reach", 0, 6, goals.tolerance, goals.start[1:2], goals.goal[1:2])
    (lost,), _ = run_entry(
        env, mostly, "state", Entry("zero", "floor", HoldController(env.hold_action), [0], timed=False)
    )
    assert lost.final_distance_cm is None and json.dumps(lost.to_json(), allow_nan=False)


def test_plans_that_diverge_are_not_looked_into(half_broken: tuple[ArmEnv, GoalManifest]) -> None:
    env, goals = half_broken
    plans = Foreseen(goals.start, np.zeros((3, 4, 5)), np.zeros((3, 3, 3)))
    found = foresight(env, [plans], 2)
    assert found is not None and found.plans == 2 and np.isfinite(found.error_cm)
    only = Foreseen(goals.start[1:2], np.zeros((1, 4, 5)), np.zeros((1, 3, 3)))
    assert foresight(env, [only], 2).plans == 0


def test_goals_that_diverge_are_none() -> None:
    def wild(env: Any, rng: np.random.Generator) -> None:
        env.set_state(
            env.data.qpos + rng.uniform(-1, 1, 4) * (1, 1, 0, 0), env.data.qvel * (1 if rng.random() < share else 1e15)
        )

    share = 0.5
    half = world(place_start=wild)
    assert len(make_goals(half, 4, 0)) == 4
    share = 0.0
    with pytest.raises(GoalError, match=r"simulations must not diverge \(env=w: the simulation diverged after .* QVEL"):
        make_goals(half, 1, 0)


# State that an environment keeps outside of its saved state


class Geared(ReacherEnv):
    """Another motor each episode."""

    def reset_model(self) -> np.ndarray:
        self.model.actuator_gear[:, 0] = self.np_random.uniform(20, 200)
        return super().reset_model()


class Weightless(ReacherEnv):
    """Another gravity each episode, and the same start."""

    def reset_model(self) -> np.ndarray:
        self.model.opt.gravity[2] = self.np_random.uniform(-10, 0)
        self.set_state(self.init_qpos, self.init_qvel)
        return self._get_obs()


class Painted(ReacherEnv):
    """Another colour each episode."""

    def reset_model(self) -> np.ndarray:
        self.model.geom_rgba[:, :3] = self.np_random.uniform(0, 1, 3)
        return super().reset_model()


class Tired(ReacherEnv):
    """Another strength each episode, in Python."""

    def reset_model(self) -> np.ndarray:
        self.strength = self.np_random.uniform(0.1, 1)
        return super().reset_model()

    def step(self, action: Any) -> Any:
        return super().step(action * getattr(self, "strength", 1.0))


class Recompiled(ReacherEnv):
    def reset_model(self) -> np.ndarray:
        self.model, self.data = (made := copy.deepcopy(self.model)), mujoco.MjData(made)
        return super().reset_model()


@pytest.mark.parametrize(
    ("env", "promise"),
    [
        (Geared, r"a reset changes the model \(actuator_gear\), and a state that is loaded does not bring it back"),
        (Weightless, r"a reset changes the model \(opt.gravity\)"),
        (Tired, STAYED),
    ],
)
def test_what_a_reset_draws_must_be_saved(
    env: type[Any], promise: str, named: Callable[..., None], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=f"env=w: {promise}"):
        check_world(world(env()))
    if env is Geared:
        named("drawn", env)
        assert main(["record", "env=drawn", "obs=state", "episodes=2", "length=3", "workers=1", "out=d"]) == 2
        assert re.match(f"forearm: env=drawn: {promise}", capsys.readouterr().err)
        assert not list(here.iterdir()), "asked before the first episode is written"


def test_colours_that_a_reset_draws_matter_where_they_are_seen() -> None:
    check_world(world(Painted()))
    with pytest.raises(UserError, match=r"env=w: a reset changes the model \(geom_rgba\)"):
        check_world(world(Painted(), pixels=True, size=32), steps=4)


def test_what_a_reset_draws_may_be_saved() -> None:
    class Saves(GymnasiumWorld):
        def save_state(self) -> np.ndarray:
            return np.append(super().save_state(), self.model.actuator_gear[0, 0])

        def load_state(self, state: np.ndarray) -> None:
            self.model.actuator_gear[:, 0] = state[-1]
            super().load_state(state[:-1])

        def set_goal(self, state: np.ndarray) -> None:
            super().set_goal(state[:-1])
            self._whole = np.array(state)

        def goal_state(self) -> np.ndarray:
            return self._whole.copy()

    settings: Any = {"points": lambda data: data.body("fingertip").xpos[None], "tolerance": 0.03, "budget": 20}
    check_world(Saves("w", Geared(), observe=lambda env: env.data.qpos[:2], **settings))


def test_a_model_is_compiled_once() -> None:
    with pytest.raises(UserError, match="env=w: compiles its model anew at reset; it must keep one"):
        world(Recompiled()).reset(seed=0)


def test_islands_must_not_sleep() -> None:
    env = ReacherEnv()
    env.model.opt.enableflags |= int(mujoco.mjtEnableBit.mjENBL_SLEEP)
    with pytest.raises(
        UserError, match=r"env=w: its model lets islands sleep, .* clear mujoco.mjtEnableBit.mjENBL_SLEEP"
    ):
        world(env)
    arm = make("push", pixels=False)
    arm.model.opt.enableflags |= int(mujoco.mjtEnableBit.mjENBL_SLEEP)
    with pytest.raises(UserError, match="env=push: its model lets islands sleep"):
        check_world(arm)


# Doing nothing


class Grip(ReacherEnv):
    """Commands 0 … 255, of which 0 is rest, as a Robotiq gripper's."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Box(0, 255, (2,))

    def step(self, action: Any) -> Any:
        return super().step(action / 255)


def test_goals_that_staying_reaches_are_none() -> None:
    coasts = world(
        Grip(),
        hold_action=[-1, -1],
        place_start=lambda env, rng: env.set_state(env.data.qpos, np.array([25.0, 25, 0, 0])),
        place_goal=lambda env, rng: [env.step(np.zeros(2)) for _ in range(20)],
    )
    with pytest.raises(GoalError, match="150 draws gave 0 goals that are not reached by doing nothing"):
        make_goals(coasts, 2, 0)


def test_the_floor_zero_stands_still() -> None:
    rests = world(
        Grip(), hold_action=[-1, -1], place_goal=lambda env, rng: env.set_state(env.data.qpos + 1, env.data.qvel)
    )
    goals = make_goals(rests, 2, 0)
    episodes = run_episodes(rests, goals, HoldController(rests.hold_action), seed=0)
    assert (episodes.actions == -1).all() and not episodes.reached.any()
    moved = [
        np.abs(one.states[:, -1, 1:3] - one.states[:, 0, 1:3]).max()
        for one in (run_episodes(rests, goals, HoldController(np.zeros(2)), seed=0), episodes)
    ]
    assert moved[0] > 1 > 0.2 > moved[1], "the middle of the bounds is half a torque"


def controller(env: Any, **energy: Any) -> LatentMPC:
    torch.manual_seed(0)
    size, state = len(env.hold_action), env.observe()["state"].shape[0]
    model = WorldModel(Architecture({"state": [state]}, {"state": "mlp"}, size, chunk=2, latent=4)).eval()
    return LatentMPC(env, Learned(model), PlanningSettings(energy=EnergySettings(**energy)))


def test_effort_counts_from_what_costs_none() -> None:
    actions = torch.tensor([[[[-1.0, 0.5]], [[0.0, 0.0]]]])
    assert ControlEnergy(neutral=torch.tensor([-1.0, -1.0]))(actions).tolist() == [[2.25, 2.0]]
    rests = world(Grip(), hold_action=[-1, -1])
    rests.reset(seed=0)
    assert controller(rests, control=1.0).control(-torch.ones(1, 1, 4, 2)).item() == 0
    arm = make(
        "push", pixels=False
    )  # its actions are moves, so that zero costs nothing, and staying closes the gripper
    arm.reset(seed=0)
    assert controller(arm).control.neutral is None and arm.hold_action.any()


def test_a_default_that_does_not_stay_is_told() -> None:
    with pytest.warns(WorldWarning, match=r"env=w: `hold_action` moves the tracked points by .* give hold_action=…"):
        check_world(world(Grip()), steps=4)
    with pytest.warns(WorldWarning) as found:
        check_world(world(Grip(), points=lambda data: data.body("target").xpos[None]), steps=4)
    told = " ".join(str(one.message) for one in found)
    assert re.search("env=w: `hold_action`, which is zero, moves the robot by .* give hold_action=…", told)


def test_goals_at_their_starts_are_told() -> None:
    """As those that random play leads to, where it moves nothing that is tracked."""
    with pytest.warns(WorldWarning) as found:
        check_world(world(points=lambda data: data.body("target").xpos[None]), steps=4)
    told = " ".join(str(one.message) for one in found)
    assert "policy play moves the tracked points by 0 m, less than the tolerance" in told
    assert "its goals lie within the tolerance of their starts in 3 of 3 resets" in told and "give place_goal=…" in told


def test_the_command_line_passes_on_what_is_doubtful(
    named: Callable[..., None], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["my world.py"])
    named("target", ReacherEnv, points=lambda data: data.body("target").xpos[None])
    assert main(["record", "env=target", "obs=state", "episodes=2", "length=3", "workers=1", "out=d"]) == 0
    told = capsys.readouterr()
    assert "warning: env=target: in 3 x 20 steps policy play moves the tracked points by 0 m" in told.err
    assert "next: python 'my world.py' train data=d obs=state" in told.out
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert told_next("target", "train", "data=a b").endswith("env=target: forearm.cli.main(['train', 'data=a b'])")


# Shapes


@pytest.mark.parametrize(
    ("points", "shape"),
    [
        (lambda data: data.body("fingertip").xpos, "(3,)"),
        (lambda data: data.body("fingertip").xpos[None, :2], "(1, 2)"),
        (lambda data: np.zeros((0, 3)), "(0, 3)"),
    ],
)
def test_points_have_three_columns(points: Any, shape: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"env=w: points must be (G, 3), metres, and are {shape}")):
        world(points=points)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"hold_action": [0.0] * 3}, r"hold_action=\[0. 0. 0.\] must be an action \(2,\) in \[-1, 1\]"),
        ({"hold_action": [0.0, 255.0]}, "hold_action="),
        ({"neutral": [np.nan, 0.0]}, "neutral="),
        ({"proprio": slice(9, 12)}, r"proprio=slice\(9, 12, None\) takes nothing"),
    ],
)
def test_settings_that_cannot_be_are_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"env=w: {message}"):
        world(**more)


def lies(**about: Any) -> Callable[[], GymnasiumWorld]:
    def made() -> GymnasiumWorld:
        other = world()
        for key, value in about.items():
            setattr(other, key, value)
        return other

    return made


class Widened(GymnasiumWorld):
    extra: tuple[str, np.ndarray]

    def observe(self) -> Any:
        part, value = self.extra
        return super().observe() | {part: value}


def widened(part: str, value: np.ndarray) -> GymnasiumWorld:
    class With(Widened):
        extra = part, value

    return With("w", ReacherEnv(), points=lambda data: data.body("fingertip").xpos[None], tolerance=0.03, budget=20)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lies(hold_action=np.zeros(3)), r"`hold_action` must be an action \(2,\) in \[-1, 1\]"),
        (lies(neutral=np.full(2, 2.0)), "`neutral` must be an action"),
        (lies(metadata={}), "`render_fps` must be a whole number, and is None"),
        (lies(metadata={"render_fps": 0.5}), "`render_fps` must be a whole number, and is 0.5"),
        (lies(dt=0.0), "`dt` must be positive, and is 0.0"),
        (lies(tracked=slice(0, 2)), "`tracked` must be columns of `state`, three a point"),
        (lies(tracked=slice(3, 6)), "`tracked` must be where the first points are"),
        (lies(tracked_points=lambda: np.zeros(3)), r"`tracked_points` must be \(G, 3\), and are \(3,\)"),
        (lies(config={"pixels": True, "size": 64}), "`config` must say whether `pixels` are observed"),
        (partial(widened, "proprio", np.zeros(0, np.float32)), "`proprio` must be float32, not empty"),
        (partial(widened, "proprio", np.zeros(2)), "`proprio` must be float32"),
        (partial(widened, "pixels", np.zeros((64, 32, 3), np.uint8)), r"`pixels` must be of shape \(64, 64, 3\)"),
        (partial(widened, "depth", np.zeros(3)), "an observation has the parts state, proprio, pixels, not `depth`"),
    ],
)
def test_what_the_protocol_promises_is_asked(made: Callable[[], GymnasiumWorld], message: str) -> None:
    with pytest.raises(UserError, match=f"env=w: {message}"):
        check_world(made(), steps=4)


def test_what_is_lacking_is_named() -> None:
    class Old(GymnasiumWorld):
        def __getattribute__(self, name: str) -> Any:
            if name in ("dt", "neutral") and "tracked" in vars(self):
                raise AttributeError(name)
            return super().__getattribute__(name)

    old = Old("w", ReacherEnv(), points=lambda data: data.body("fingertip").xpos[None], tolerance=0.03, budget=20)
    with pytest.raises(UserError, match="env=w: lacks dt, neutral; `World`"):
        check_world(old)


# What Gymnasium's environments may be


class Limit(gymnasium.ActionWrapper[Any, Any, Any]):
    def action(self, action: Any) -> Any:
        return 0.1 * action


def test_wrappers_are_dropped_when_asked_to_be() -> None:
    weak = Limit(gymnasium.make("Reacher-v5", max_episode_steps=7))
    with pytest.raises(
        UserError, match=r"env=w: steps without its wrappers, and Limit may change .* drop_wrappers=True"
    ):
        world(weak)
    world(weak, drop_wrappers=True)
    world(gymnasium.make("Reacher-v5"))


class Observing(ReacherEnv):
    observed: Any = staticmethod(lambda: None)

    def _get_obs(self) -> Any:
        return self.observed() if self.observed() is not None else super()._get_obs()


class Asking(ReacherEnv):
    def reset_model(self) -> np.ndarray:
        return np.zeros(3)

    def _get_obs(self, goal: Any) -> np.ndarray:  # pyright: ignore[reportIncompatibleMethodOverride]
        return np.zeros(3)


@pytest.mark.parametrize(
    ("observed", "numbers"),
    [
        ({"arm": {"angles": np.arange(2), "on": True}, "goal": (np.ones((2, 2)), 3.0)}, [0, 1, 1, 1, 1, 1, 1, 3]),
        ((np.arange(2), [4, 5]), [0, 1, 4, 5]),
        ({"image": np.zeros((84, 84, 3), np.uint8)}, r"observes an image \(84, 84, 3\) as numbers; give observe=…"),
        ({"name": "reacher"}, r"what it observes is no numbers \(str\); give observe=…"),
        ([[1, 2], [3]], r"what it observes is no numbers \(list\); give observe=…"),
    ],
)
def test_observations_are_flattened_in_order(observed: Any, numbers: Any) -> None:
    class Env(Observing):
        pass

    env = Env()
    Env.observed = staticmethod(lambda: observed)
    if isinstance(numbers, str):
        with pytest.raises(UserError, match=f"env=w: {numbers}"):
            world(env, observe=None)
    else:
        assert world(env, observe=None).observe()["state"][3:].tolist() == numbers


def test_an_observation_of_arguments_is_asked_for() -> None:
    with pytest.raises(UserError, match="env=w: its _get_obs takes arguments; give observe=…"):
        world(Asking(), observe=None)


def test_points_may_be_of_whatever_follows_from_a_state() -> None:
    """Centres of mass and sensors are computed after bodies' positions."""
    centre = world(
        points=lambda data: data.subtree_com[[1]],
        place_goal=lambda env, rng: env.set_state(env.data.qpos + 1, env.data.qvel),
    )
    _, info = centre.reset(seed=0)
    assert np.linalg.norm(centre.goal_points) > 1e-3 and info["distance"] > 1e-3
    centre.load_state(centre.goal_state())
    assert centre.distance() < 1e-9


# Time


class Paced(ReacherEnv):
    """Steps of another length."""

    timestep, frames = 0.005, 3

    def __init__(self) -> None:
        super().__init__()
        self.model.opt.timestep, self.frame_skip = self.timestep, self.frames

    @property
    def dt(self) -> float:
        return self.model.opt.timestep * self.frame_skip


class Standing(ReacherEnv):
    def step(self, action: Any) -> Any:
        return self._get_obs(), 0.0, False, False, {}


@pytest.mark.parametrize(
    ("timestep", "frames", "rate"), [(0.005, 3, 67), (0.01, 3, 33), (0.007, 100, 1), (0.01, 200, 1)]
)
def test_a_step_takes_as_long_as_it_takes(timestep: float, frames: int, rate: int) -> None:
    env = type("Env", (Paced,), {"timestep": timestep, "frames": frames})()
    paced = world(env)
    assert paced.dt == timestep * frames and paced.metadata["render_fps"] == rate
    assert make("push", pixels=False).dt == 0.1


def test_a_clock_must_move() -> None:
    with pytest.raises(UserError, match="env=w: its first step moves the simulation's clock by 0 s, not forward"):
        world(Standing())


# Copies


@pytest.mark.parametrize("how", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"])
@pytest.mark.parametrize("name", TASKS)
def test_a_copy_of_an_arm_goes_on_as_it_does(name: str, how: Callable[[ArmEnv], ArmEnv]) -> None:
    env = make(name, pixels=False)
    env.reset(seed=0)
    env.model.opt.gravity[2] = -5.0  # as it is now, not as it was made
    for _ in range(3):
        env.advance(np.array([0.5, 0.2, -0.3, 0.1, -1.0]))
    other = how(env)
    assert other.arm.model is other.model is not env.model
    for action in np.random.default_rng(0).uniform(-1, 1, (4, 5)):
        told, same = env.step(action), other.step(action)
        np.testing.assert_array_equal(told[0]["state"], same[0]["state"])
        np.testing.assert_array_equal(env.save_state(), other.save_state())
        assert told[1] == same[1]
    np.testing.assert_array_equal(env.goal_state(), other.goal_state())
    assert env.reset()[1] == other.reset()[1], "its generator goes on too"


def test_a_copy_of_an_arm_sees_by_itself() -> None:
    env = make("push", size=32)
    seen = env.reset(seed=0)[0]["pixels"].copy()
    other = copy.deepcopy(env)
    env.close()
    assert seen.std() > 5 and np.array_equal(other.observe()["pixels"], seen)
    other.close()


def test_other_worlds_refuse_to_be_copied() -> None:
    env = world()
    for how in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="env=w cannot be copied or pickled: make another one"):
            how(env)


# Seeds


def published(name: str, count: int, seed: int) -> str:
    return make_goals(make(name, pixels=False), count, seed).sha256


@pytest.mark.skipif(mujoco.__version__ != "4.0.0", reason="a manifest tells the MuJoCo that it was made with")
@pytest.mark.parametrize(
    ("name", "count", "seed", "sha256"),
    [
        ("reach", 50, 7, "ce341dc67b291ce6e518fbb578e3a26af85cd24ac22d1f34e01e59575de31084"),  # of docs/ablations.md
        (
            "reach",
            2,
            0,
            "2ca6962545e74533934696a341e31b9af454c508fc4a00a1c3872f6d518074b4",
        ),  # the first of others there
        ("push", 2, 0, "e592cbef4426ffa326864c5c8816595f3264bcc524cfb5655dc2fcacd89569b6"),
        ("push", 2, 7, "3a40421f856b6c2fbb59404b7806530476090398fa51d00c37a7d22f8983b465"),
        ("pickplace", 2, 0, "eb042a079e19801415d6e287a41f9fb1abb9479d0906d8c4a6b3fae17f06b782"),
        ("pickplace", 2, 7, "0d25b06f053b50b03b2af139d9838489768432e31acc66229751f9f68bbeb2e3"),
        ("stack", 2, 0, "013687a9d1296e362114a840059b2591b002826eeaa034c3bdbcf67db70b658c"),
        ("stack", 2, 7, "8c43a155d05a9e6099cb3206ac58d899bd6198f28d97ed666d1811d8ed53ac68"),
        ("drawer", 2, 0, "747afc20bb6a95b849600ca178e73232da220c38d27f63d16d5ca06740e0fa1e"),
        ("drawer", 2, 7, "5203941689a9ee0a7cdaf6a99a3317f053c398594fa9297d3ee575e36ed1e8b1"),
    ],
)
def test_published_manifests_stay(name: str, count: int, seed: int, sha256: str) -> None:
    assert published(name, count, seed) == sha256


def entropy(seed: int, index: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, index]).spawn(2)[0]


def test_recordings_and_evaluations_never_draw_the_same() -> None:
    hashed = int(entropy(0, 10988).generate_state(1)[0])
    assert hashed == int(np.random.SeedSequence([0x60A15, 37, 550]).generate_state(1)[0]), "as both were drawn once"
    assert recording_seed(entropy(0, 10988)) == hashed == 717062943
    for seed, draw in ((37, 550), (1, 0), (0, 2000), (7, 12345), (2**70, 3)):
        assert EVALUATION <= goal_seed(seed, draw) < 2 * EVALUATION
    assert len({goal_seed(seed, draw) for seed in range(1, 4) for draw in range(100)}) == 300

    meets: Any = SimpleNamespace(generate_state=lambda count: [goal_seed(7, 3)])  # as a draw of a published manifest
    assert goal_seed(7, 3) < 2**32 <= recording_seed(meets) < EVALUATION


def test_the_seeds_of_an_environment_inside_do_not_meet_either() -> None:
    seeds: list[int] = []

    class Listening(ReacherEnv):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            seeds.append(seed or 0)
            return super().reset(seed=seed, options=options)

    env = world(Listening(), budget=1)
    seeds.clear()
    for index in range(20):
        env.reset(seed=recording_seed(entropy(0, index)))
    assert max(seeds) < 2**31
    seeds.clear()
    for draw in range(20):
        env.reset(seed=goal_seed(3, draw))
    assert min(seeds) >= 2**31 and max(seeds) < 2**32
