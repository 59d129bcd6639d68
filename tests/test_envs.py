"""Environments: one contract for everything that is registered, then tasks, policies, kinematics and rendering."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from forearm.envs import POLICIES, TASKS, ArmEnv, Observation, RenderingError, make, make_policy
from forearm.envs.arm import HOME, JOINTS
from forearm.envs.arm_env import cube_rotation
from forearm.envs.tasks import place_object, random_command
from forearm.errors import UserError
from gymnasium.utils.env_checker import check_env

REGISTERED = sorted(name for name in gymnasium.registry if name.startswith("forearm/"))
Make = Callable[..., ArmEnv]


@pytest.fixture(params=REGISTERED)
def create(request: pytest.FixtureRequest) -> Make:
    """Makes one of the registered environments, without pixels unless they are asked for."""

    def create(pixels: bool = False, **config: Any) -> ArmEnv:
        env = gymnasium.make(request.param, pixels=pixels, **config).unwrapped
        assert isinstance(env, ArmEnv)
        return env

    return create


def actions(count: int, seed: int = 0) -> np.ndarray:
    """Stretches of ten: held at the limits, or anywhere."""
    rng = np.random.default_rng(seed)
    anywhere = rng.uniform(-1, 1, (count, 5))
    held = rng.choice([-1.0, 1.0], (count // 10 + 1, 5)).repeat(10, axis=0)[:count]
    return np.where(rng.permutation(count // 10 + 1).repeat(10)[:count, None] % 2, held, anywhere)


def assert_same(one: Observation, other: Observation) -> None:
    assert one.keys() == other.keys()
    for part in one:
        np.testing.assert_array_equal(one[part], other[part], err_msg=part)


# The contract


def test_the_tasks_are_registered() -> None:
    names = ("Drawer", "PickPlace", "Push", "Reach", "Stack")
    assert [f"forearm/{name}-v0" for name in names] == REGISTERED
    for name in REGISTERED:
        spec = gymnasium.spec(name)
        assert spec.max_episode_steps == TASKS[spec.kwargs["name"]].budget


@pytest.mark.filterwarnings("ignore:.*A Box observation space m.*imum value is -?infinity")
def test_gymnasium_accepts_it(create: Make) -> None:
    env = create(pixels=True, render_mode="rgb_array")
    check_env(env)


def test_observations_are_what_the_spaces_say(create: Make) -> None:
    env = create(pixels=True)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert env.observation_space.contains(env.goal_observation())
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert env.observation_space.contains(observation)
    assert not terminated and not truncated
    assert reward == -info["distance"] and info["success"] == (info["distance"] < env.task.tolerance)
    tracked = env.points(env.data.xpos, env.data.site_xpos)[0]
    np.testing.assert_array_equal(observation["state"][env.task.tracked], tracked.astype(np.float32))
    assert create().reset(seed=0)[0].keys() == {"proprio", "state"}


def test_two_instances_agree_bit_for_bit(create: Make) -> None:
    one, other = create(), create()
    assert_same(one.reset(seed=3)[0], other.reset(seed=3)[0])
    assert_same(one.goal_observation(), other.goal_observation())
    for action in actions(200):
        assert_same(one.step(action)[0], other.step(action)[0])
        np.testing.assert_array_equal(one.save_state(), other.save_state())


def test_two_instances_render_the_same_pixels(create: Make) -> None:
    one, other = create(pixels=True), create(pixels=True)
    first = one.reset(seed=3)[0]["pixels"]
    assert_same(one.observe(), other.reset(seed=3)[0])
    for action in actions(8):
        assert_same(one.step(action)[0], other.step(action)[0])
    assert first.std() > 10 and (one.observe()["pixels"] != first).any()
    assert (one.goal_observation()["pixels"] != first).any()


def test_reset_repeats_with_its_seed_alone(create: Make) -> None:
    env = create()
    observation, goal, state = env.reset(seed=5)[0], env.goal_state(), env.save_state()
    for action in actions(20):
        env.step(action)
    assert (env.reset()[0]["state"] != observation["state"]).any()
    assert_same(env.reset(seed=5)[0], observation)
    np.testing.assert_array_equal(env.goal_state(), goal)
    np.testing.assert_array_equal(env.save_state(), state)
    assert (env.reset(seed=6)[0]["state"] != observation["state"]).any()


def test_save_and_load_round_trip_the_whole_simulation(create: Make) -> None:
    env, other = create(), create()
    env.reset(seed=1)
    other.reset(seed=2)
    for action in actions(30):
        env.advance(action)
    saved, observed = env.save_state(), env.observe()

    def proceed(world: ArmEnv) -> np.ndarray:
        states = []
        for action in actions(50, seed=1):
            world.advance(action)
            states.append(world.save_state())
        return np.stack(states)

    expected = proceed(env)
    other.advance(np.ones(5))
    for world in (env, other):
        world.load_state(saved)
        np.testing.assert_array_equal(world.save_state(), saved)
        assert_same(world.observe(), observed)
        np.testing.assert_array_equal(proceed(world), expected)
    with pytest.raises(ValueError, match=r"state has shape \(3,\); the scene .*xml needs"):
        env.load_state(np.zeros(3))


def test_a_goal_is_observed_like_any_state(create: Make) -> None:
    env, other = create(pixels=True), create(pixels=True)
    env.reset(seed=1)
    start = env.save_state()
    other.reset(seed=2)
    other.advance(np.full(5, 0.5))
    goal = other.save_state()
    env.set_goal(goal)
    np.testing.assert_array_equal(env.goal_state(), goal)
    np.testing.assert_array_equal(env.save_state(), start)
    assert_same(env.goal_observation(), other.observe())
    assert env.distance() > 0
    env.load_state(goal)
    assert_same(env.observe(), env.goal_observation())
    assert env.distance() == 0


def test_starts_are_never_solved_and_goals_keep_still(create: Make) -> None:
    env = create()
    for seed in range(40):
        _, info = env.reset(seed=seed)
        assert not info["success"] and info["distance"] > env.task.tolerance
        env.load_state(env.goal_state())
        assert env.distance() == 0
        for _ in range(5):
            env.advance(np.zeros(5))
        assert env.distance() < env.task.tolerance, seed


def test_limits_hold_whatever_the_actions(create: Make) -> None:
    env = create()
    low, high = env.task.workspace.low, env.task.workspace.high
    joint_low, joint_high = env.model.jnt_range[:JOINTS].T
    for seed in range(2):
        env.reset(seed=seed)
        for action in actions(150, seed):
            observation = env.step(action)[0]
            command, joints = env.arm.command(env.data), env.data.qpos[:JOINTS]
            assert (command >= low - 1e-12).all() and (command <= high + 1e-12).all()
            assert (env.data.ctrl[:JOINTS] >= joint_low).all() and (env.data.ctrl[:JOINTS] <= joint_high).all()
            assert (joints > joint_low - 0.01).all() and (joints < joint_high + 0.01).all()
            # What the arm presses on may hold it back from its command.
            tip, fingers = observation["state"][:3], env.data.qpos[JOINTS : JOINTS + 2]
            assert (tip > low[:3] - 0.02).all() and (tip < high[:3] + 0.02).all()
            assert (fingers > -0.002).all() and (fingers < 0.042).all()
            assert all(np.isfinite(part).all() for part in observation.values())


def test_actions_are_clipped_and_checked(create: Make) -> None:
    env, other = create(), create()
    env.reset(seed=0)
    other.reset(seed=0)
    for action in actions(10):
        env.advance(7.0 * action)
        other.advance(np.clip(7.0 * action, -1.0, 1.0))
    before = env.save_state()
    np.testing.assert_array_equal(before, other.save_state())
    for wrong in (np.full(5, np.nan), np.array([0, 0, np.inf, 0, 0]), np.zeros(4), np.array(0)):
        with pytest.raises(ValueError, match=r"must be \(5,\) finite numbers"):
            env.step(wrong)
    np.testing.assert_array_equal(env.save_state(), before)


# Tasks and policies


@pytest.mark.parametrize("name", TASKS)
def test_the_expert_solves_and_holds(name: str) -> None:
    env, solved = make(name, pixels=False), 0
    for seed in range(40):
        env.reset(seed=seed)
        expert = make_policy("expert", env, np.random.default_rng(seed))
        held = 0
        for _ in range(env.task.budget):
            env.advance(expert.act())
            held = held + 1 if env.distance() < env.task.tolerance else 0
        solved += held >= 5
    assert solved >= 38


def play(name: str, episodes: int, steps: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """States (E, T, S) and actions (E, T, 5) of play."""
    env = make(name, pixels=False)
    states, acts = [], []
    for episode in range(episodes):
        env.reset(seed=100 + episode)
        policy = make_policy("play", env, np.random.default_rng(episode))
        for _ in range(steps):
            acts.append(policy.act())
            states.append(env.step(acts[-1])[0]["state"])
    return np.reshape(states, (episodes, steps, -1)), np.reshape(acts, (episodes, steps, 5))


@pytest.mark.parametrize("name", TASKS)
def test_play_moves_what_is_tracked_and_stays_in_bounds(name: str) -> None:
    states, acts = play(name, episodes=12)
    task = TASKS[name]
    assert np.abs(acts).max() <= 1
    points = states[..., task.tracked]
    assert (np.ptp(points, axis=1).max(1) > 0.04).mean() >= 0.75
    assert (points[..., :2] > task.workspace.low[:2] - 0.05).all()
    assert (points[..., :2] < task.workspace.high[:2] + 0.05).all()
    assert (points[..., 2] > 0).all()
    if task.bodies:  # and often it does nothing to the first of them
        still = np.linalg.norm(np.diff(points, axis=1), axis=-1) < 5e-4
        assert 0.25 < still.mean() < 0.95


def test_what_is_carried_stays() -> None:
    env, carried = make("pickplace", pixels=False), 0
    for seed in range(10):
        env.reset(seed=seed)
        expert = make_policy("expert", env, np.random.default_rng(seed))
        for _ in range(40):
            env.advance(expert.act())
            if env.tracked_points()[0, 2] > 0.1:
                break
        else:
            continue
        env.advance(env.hold_action)  # what has been set in motion settles
        before = env.tracked_points(), env.tip
        for _ in range(20):
            env.advance(env.hold_action)
        np.testing.assert_allclose(env.tracked_points(), before[0], atol=5e-3)
        np.testing.assert_allclose(env.tip, before[1], atol=5e-3)
        carried += 1
    assert carried >= 3


def test_play_grasps_drops_misses_and_pushes() -> None:
    states, _ = play("pickplace", episodes=20)
    height, opening = states[..., 11], states[..., 5]
    lifted = height > 0.05
    pushed = ~lifted[:, 1:] & (np.linalg.norm(np.diff(states[..., 9:11], axis=1), axis=-1) > 0.004)
    assert lifted.any(1).mean() > 0.4 and lifted.mean() < 0.6
    assert (np.diff(height, axis=1) < -0.04).sum() >= 5, "drops"
    assert (np.diff((opening < 0.005).astype(int), axis=1) == 1).sum() >= 5, "fingers closed on nothing"
    assert pushed.mean() > 0.03


def test_play_builds_stacks_and_lets_them_be_and_takes_them_down() -> None:
    states, _ = play("stack", episodes=30)
    above = states[..., 9:12] - states[..., 17:20]
    aside = np.linalg.norm(above[..., :2], axis=-1)
    stacked = (aside < 0.02) & (np.abs(above[..., 2] - 0.04) < 0.006)
    left = stacked & (states[..., 2] - states[..., 11] > 0.03)
    assert 0.03 < stacked.mean() < 0.5 and left.mean() > 0.02
    assert (stacked[:, :-1] & ~stacked[:, 1:]).sum() >= 5, "taken down, or fallen"
    assert ((aside < 0.04) & ~stacked).mean() > 0.02, "nearly"
    assert (np.ptp(states[..., 17:19], axis=1).max(-1) > 0.01).mean() > 0.1, "the base is moved"


def test_play_slides_the_drawer_all_the_way() -> None:
    states, _ = play("drawer", episodes=40)
    opening = states[..., 12]
    share = np.histogram(opening, bins=6, range=(0.0, 0.18))[0] / opening.size
    assert share.min() > 0.06, share
    assert (np.abs(np.diff(opening, axis=1)) > 0.01).mean() > 0.03


def test_a_stack_is_solved_by_a_cube_on_the_base_alone() -> None:
    env = make("stack", pixels=False)
    for seed in range(10):
        env.reset(seed=seed)
        base = env.data.joint("base").qpos[:3].copy()
        apart = np.linalg.norm(env.data.joint("cube").qpos[:3] - base)
        assert apart > 0.10
        env.load_state(env.goal_state())
        for _ in range(env.task.budget):
            env.advance(np.zeros(5))
        assert env.distance() < 0.002, "the goal stands"
        for offset in ([0.042, 0, 0], [0, -0.042, 0], [0.03, 0, 0.02], [0, 0, 0.065]):  # beside, leaning, still held
            place_object(env.data, "cube", base + offset, yaw=0.0)
            env.load_state(env.save_state())
            assert env.distance() > env.task.tolerance
        env.load_state(env.goal_state())
        for name in env.task.objects:  # a stack, but elsewhere
            env.data.joint(name).qpos[0] += 0.03
        env.load_state(env.save_state())
        assert env.distance() > env.task.tolerance


def test_a_drawer_is_observed_by_its_handle_and_its_opening() -> None:
    env = make("drawer", pixels=False)
    closed = env.model.body("drawer").pos
    openings = []
    for seed in range(40):
        for observation in (env.reset(seed=seed)[0], env.goal_observation()):
            opening = observation["state"][12]
            np.testing.assert_allclose(observation["state"][9:12], closed - [0, opening, 0], atol=1e-6)
            openings.append(opening)
        assert abs(openings[-1] - openings[-2]) > 4 * env.task.tolerance
        np.testing.assert_allclose(env.goal_observation()["state"][:3], env.goal_points[0], atol=1e-3)
    low, high = env.model.joint("drawer").range
    assert min(openings) < low + 0.02 and max(openings) > high - 0.02


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", TASKS)
def test_policies_repeat_with_their_generator(name: str, policy: str) -> None:
    def act(seed: int) -> np.ndarray:
        env.reset(seed=0)
        actor = make_policy(policy, env, np.random.default_rng(seed))
        taken = []
        for _ in range(30):
            taken.append(actor.act())
            env.advance(taken[-1])
        return np.stack(taken)

    env = make(name, pixels=False)
    np.testing.assert_array_equal(act(1), act(1))
    assert (act(1) != act(2)).any() or policy == "expert"


def test_unknown_names_are_answered_with_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="env=pusch is unknown; choose one of: reach, push, pickplace, stack, drawer"):
        make("pusch")
    with pytest.raises(UserError, match="policy=idle is unknown in env=reach; choose one of: play, random, expert"):
        make_policy("idle", make("reach", pixels=False), np.random.default_rng(0))


# Kinematics


@pytest.mark.parametrize("name", TASKS)
def test_inverse_kinematics_reaches_every_command(name: str) -> None:
    env = make(name, pixels=False)
    arm, data = env.arm, env.data
    rng = np.random.default_rng(0)
    commands = np.stack([random_command(env.task.workspace, rng) for _ in range(100)])
    for command in commands:
        arm.place(data, command)
        env.load_state(env.save_state())
        np.testing.assert_allclose(arm.command(data), command, atol=1e-12)
        tip = data.site("tip")
        assert np.linalg.norm(tip.xpos - command[:3]) < 1e-3
        cos, sin = np.cos(command[3]), np.sin(command[3])
        wanted = np.array([[cos, sin, 0], [sin, -cos, 0], [0, 0, -1]])
        angle = np.arccos(np.clip((np.trace(wanted @ tip.xmat.reshape(3, 3).T) - 1) / 2, -1, 1))
        assert np.rad2deg(angle) < 0.5
    starts = np.tile(HOME, (len(commands), 1))
    one_by_one = [arm.solve(command, start) for command, start in zip(commands, starts, strict=True)]
    np.testing.assert_array_equal(arm.solve_all(commands, starts), one_by_one)


def test_inverse_kinematics_stays_inside_the_joint_limits_when_the_command_is_out_of_reach() -> None:
    arm = make("reach", pixels=False).arm
    low, high = arm.model.jnt_range[:JOINTS].T
    for x, y, z in ((2.0, 0.0, 0.0), (-0.3, 0.1, 0.1), (0.0, 0.9, 1.5)):
        joints = arm.solve(np.array([x, y, z, 0.0, 0.0]), HOME, iterations=50)
        assert (joints >= low).all() and (joints <= high).all()


# Rendering


@pytest.mark.parametrize("size", [1, 96])
def test_pixels_come_in_any_size(size: int) -> None:
    env = make("push", size=size)
    pixels = env.reset(seed=0)[0]["pixels"]
    assert pixels.shape == (size, size, 3) and env.config == {"pixels": True, "size": size}


@pytest.mark.parametrize("size", [0, 2000])
def test_impossible_sizes_are_not_blamed_on_opengl(size: int) -> None:
    with pytest.raises(ValueError, match=f"size={size}: must be from 1 to 960 pixels"):
        make("push", size=size)


def test_the_scene_is_rendered_for_people_and_closing_twice_is_fine() -> None:
    env = make("push", render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.render()
    assert frame is not None and frame.shape == (480, 480, 3) and frame.dtype == np.uint8 and frame.std() > 10
    np.testing.assert_array_equal(frame, env.render_scene())
    assert env.render_scene(size=128).shape == (128, 128, 3)
    assert make("push", pixels=False).render() is None
    env.close()
    env.close()


def python(code: str, **variables: str) -> str:
    """Output of a new interpreter: what MuJoCo renders with is settled once a process."""
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"} | variables
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_without_opengl_everything_but_pixels_works() -> None:
    output = python(
        """
from forearm.envs import RenderingError, make
env = make("push", pixels=False)
print(sorted(env.reset(seed=0)[0]), env.renderer_name)
try:
    make("push")
except RenderingError as error:
    print(error)
""",
        MUJOCO_GL="disable",
    )
    works, message = output.splitlines()
    assert works == "['proprio', 'state'] none"
    assert "switched off (MUJOCO_GL=disable); unset it" in message and "obs=state" in message


def test_what_renders_says_how_to_get_opengl(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_display(*_: object) -> None:
        raise RuntimeError("no display")

    monkeypatch.setattr(mujoco, "Renderer", no_display)
    with pytest.raises(RenderingError, match=r"no display.*apt-get install libegl1"):
        make("push")


def test_a_backend_that_cannot_be_stops_only_what_renders() -> None:
    code = """
from forearm.cli import main
from forearm.envs import RenderingError, make
print(make("push", pixels=False).renderer_name)
try:
    make("push")
except RenderingError as error:
    print(error)
print(main(["doctor"]))
"""
    works, message, *told, status = python(code, MUJOCO_GL="mesa").splitlines()
    assert works == "none" and "MUJOCO_GL=mesa: " in message and "one of: egl, osmesa, glfw" in message
    assert f"  rendering  DOES NOT WORK: {message}" in told and status == "2"


def test_a_backend_has_one_name_however_it_is_typed() -> None:
    code = "from forearm.envs import make; print(make('push').renderer_name)"
    assert python(code, MUJOCO_GL="EGL ") == python(code, MUJOCO_GL="egl")


def test_mujoco_may_be_imported_first() -> None:
    output = python("import mujoco; from forearm.envs import make; print(make('push').reset()[0]['pixels'].shape)")
    assert output.strip() == "(64, 64, 3)"


def test_cubes_that_look_the_same_have_the_same_rotation() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        same = rotation[:, rng.permutation(3)] * rng.choice([-1, 1], size=3)  # the axes renamed and turned round
        np.testing.assert_allclose(cube_rotation(same), cube_rotation(rotation), atol=1e-12)
        other = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        assert np.abs(cube_rotation(other) - cube_rotation(rotation)).max() > 1e-3
    yaw = 0.3
    upright = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    np.testing.assert_allclose(cube_rotation(upright), [np.cos(4 * yaw), np.sin(4 * yaw), 1, 0, 0], atol=1e-12)
