"""OGBench's worlds: exact, seeded, with its own tasks; where OGBench is installed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, exit_code
from forearm.cli import main
from forearm.envs import check_world, make_policy, make_world
from forearm.envs.ogbench_world import OgbenchWorld, SceneWorld
from forearm.episodes import Dataset, RecordRequest
from forearm.episodes.recorder import record_episode
from forearm.errors import UserError
from forearm.evaluation.closed_loop import run_episodes
from forearm.evaluation.controllers import ExpertController, HoldController
from forearm.evaluation.goals import GoalError, GoalManifest, goals_ahead, make_goals
from forearm.presets import suited
from forearm.training.settings import TrainSettings

pytest.importorskip("ogbench", reason="OGBench is an extra: pip install 'forearm[ogbench]'")
pytestmark = pytest.mark.filterwarnings("ignore:.*DISPLAY")  # of the viewer that it imports, where there is none

NAMES = ("ogbench/cube-single", "ogbench/cube-double", "ogbench/scene")


def make(name: str) -> OgbenchWorld:
    world = make_world(name, pixels=False)
    assert isinstance(world, OgbenchWorld)
    return world


@pytest.fixture(scope="module")
def single() -> OgbenchWorld:
    return make("ogbench/cube-single")


@pytest.fixture(scope="module", params=NAMES)
def world(request: pytest.FixtureRequest) -> OgbenchWorld:
    return make(request.param)


def test_it_keeps_its_promises(world: OgbenchWorld) -> None:
    check_world(world)


def test_observations_are_those_of_ogbench_in_metres(single: OgbenchWorld) -> None:
    state = single.reset(seed=2)[0]["state"]
    own = single.env.compute_observation()
    centre = np.array([0.425, 0, 0])
    np.testing.assert_allclose(state[:3], own[19:22] / 10 + centre, atol=1e-6)
    np.testing.assert_allclose(state[3:15], own[:12], atol=1e-6)
    np.testing.assert_allclose(state[15:18], own[12:15] / 10 + centre, atol=1e-6)
    yaw = np.arctan2(own[27], own[26])
    np.testing.assert_allclose(state[22:27], [np.cos(4 * yaw), np.sin(4 * yaw), 1, 0, 0], atol=1e-5)


def test_what_is_carried_stays_where_without_a_move_it_sinks(single: OgbenchWorld) -> None:
    def sinks(action: np.ndarray) -> np.ndarray:
        heights = []
        for state in carried:
            single.load_state(state)
            before = single.tracked_points()[0, 2]
            for _ in range(20):
                single.advance(action)
            heights.append(before - single.tracked_points()[0, 2])
        return np.array(heights)

    single.reset(seed=0)
    play, carried = make_policy("play", single, np.random.default_rng(0)), []
    play.reset()
    for step in range(150):
        single.advance(play.act())
        if step % 5 == 0 and single.tracked_points()[0, 2] > 0.08:
            carried.append(single.save_state())
    assert len(carried) >= 5
    assert np.median(sinks(np.zeros(5))) > 0.02
    assert np.abs(sinks(single.hold_action)).max() < 0.025


@pytest.mark.parametrize("policy", ["play", "noisy", "interrupted"])
def test_a_recording_depends_on_seed_and_index_alone(world: OgbenchWorld, policy: str) -> None:
    """Its oracles draw from NumPy's global generator, which is neither listened to nor moved on."""
    request = RecordRequest(world.name, seed=4, episodes=3, length=130, policy=policy)
    first = record_episode(request, 1, world, make_policy)
    record_episode(request, 2, world, make_policy)
    np.random.seed(1)  # noqa: NPY002
    again = record_episode(request, 1, world, make_policy)
    drawn = np.random.random(3)  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    assert np.array_equal(np.random.random(3), drawn)  # noqa: NPY002
    for name in first:
        np.testing.assert_array_equal(again[name], first[name], err_msg=name)
    assert np.ptp(first["state"][:, world.tracked], axis=0).max() > 0.03, "play moves something"
    resting = (first["action"][:, :4] == 0).all(1)  # or moving its gripper alone
    assert resting.any() == (policy == "interrupted") and not resting.all()


def test_noisy_play_lifts_from_afar(single: OgbenchWorld) -> None:
    """Where the plan of `play`, which goes on whether the arm follows or not, often comes too late."""

    def lifts(policy: str, seed: int) -> bool:
        single.reset(seed=seed)
        acts = make_policy(policy, single, np.random.default_rng(seed))
        acts.reset()
        for _ in range(70):
            single.advance(acts.act())
            if single.tracked_points()[0, 2] > 0.06:
                return True
        return False

    far = []
    for seed in range(200):
        single.reset(seed=seed)
        if np.linalg.norm((single.observe()["state"][15:18] - single.tracked_points()[0])[:2]) > 0.45:
            far.append(seed)
    assert len(far) >= 8
    assert all(lifts("noisy", seed) for seed in far[:8])
    assert not all(lifts("play", seed) for seed in far[:8])


def test_buttons_and_what_they_lock_are_saved() -> None:
    world, other = make("ogbench/scene"), make("ogbench/scene")
    assert isinstance(world, SceneWorld)
    world.reset(seed=0, options={"task": world.tasks[1]})
    locked = world.save_state()
    assert locked[-2:].tolist() == [0, 0] and world.model.joint("drawer_slide").damping[0] > 1e5
    pressed = locked.copy()
    pressed[-2] = 1
    other.load_state(pressed)
    assert other.model.joint("drawer_slide").damping[0] < 10
    assert other.observe()["state"][-6:-4].tolist() == [1, 0]
    other.set_goal(locked)
    assert other.distance() >= 0.1, "a button in the wrong state is no success"

    # A press in mid-play, from a state that another simulation saved.
    for seed in range(20):
        world.reset(seed=seed)
        policy = make_policy("play", world, np.random.default_rng(seed))
        policy.reset()
        states, actions = [world.save_state()], []
        for _ in range(150):
            actions.append(policy.act())
            states.append(world.save_state())  # a new target is part of the state
            world.advance(actions[-1])
        changes = np.flatnonzero(np.diff([state[-2:].sum() for state in states]))
        if changes.size:
            break
    else:
        pytest.fail("play presses no button")
    first = max(int(changes[0]) - 10, 1)
    other.load_state(states[first])
    for step in range(first - 1, int(changes[0]) + 5):
        np.testing.assert_array_equal(other.save_state()[:-9], states[step + 1][:-9])
        other.advance(actions[step])


def test_its_tasks_are_goals_in_turn(world: OgbenchWorld) -> None:
    goals = make_goals(world, 6, seed=0)
    assert goals.labels == (*world.tasks, world.tasks[0])
    assert goals.budget == world.budget and goals.tolerance == 0.04
    assert make_goals(world, 1, seed=0).sha256 == goals.first(1).sha256 != make_goals(world, 1, seed=1).sha256
    for start, goal, label in zip(goals.start, goals.goal, goals.labels, strict=True):
        task = world.env.task_infos[world.tasks.index(label)]
        for state, end, off in ((start, "init", 0.015), (goal, "goal", 1e-9)):
            world.load_state(state)
            wanted = task[end]["block_xyzs"] if "init" in task else task[f"{end}_xyzs"]
            found = world.points(world.data)[: len(wanted)]
            apart = np.linalg.norm(found[:, None] - wanted, axis=-1).min(0)  # cubes change places
            assert (apart <= off).all(), (label, end)
        world.set_goal(goal)
        assert world.distance() < 1e-9
    with pytest.raises(UserError, match="task=none is unknown; choose one of: task1_"):
        world.reset(options={"task": "none"})


def test_labels_are_kept_and_hashed(single: OgbenchWorld, tmp_path: Path) -> None:
    goals = make_goals(single, 5, seed=3)
    goals.save(tmp_path / "goals.safetensors")
    loaded = GoalManifest.load(tmp_path / "goals.safetensors")
    assert loaded.labels == goals.labels and loaded.sha256 == goals.sha256


def test_the_expert_solves_the_tasks_and_zero_none(single: OgbenchWorld) -> None:
    goals = make_goals(single, 5, seed=0)
    assert run_episodes(single, goals, ExpertController(single), seed=0).success.sum() >= 4
    assert not run_episodes(single, goals, HoldController(single.hold_action), seed=0).reached.any()


def test_from_record_to_bench(tmp_path: Path, single: OgbenchWorld, capsys: pytest.CaptureFixture[str]) -> None:
    env = ("env=ogbench/cube-single", "obs=state")
    data, train = tmp_path / "data", tmp_path / "train"
    assert main(["record", *env, "episodes=3", "length=60", "workers=1", f"out={data}"]) == 0
    preset = suited(TrainSettings, {"obs": "state"}, "ogbench/cube-single")
    assert (preset.model.latent, preset.ridge, preset.batch) == (96, 0.01, 256), "of the two together, then of either"
    heads = ("readout.steps=2", "readout.width=8", "prior.steps=2", "prior.batch=8", "prior.width=16", "prior.depth=1")
    assert exit_code(["train", f"data={data}", "obs=state", "steps=4", f"out={train}", *TINY, *heads]) == 0
    small = ("planners=[cem,zero]", "planner_seeds=[0]", "planner.samples=4", "planner.iterations=1")
    bench = ["bench", *env, f"checkpoint={train / 'checkpoint'}", *small, "video_episodes=0", "threads=1"]
    assert main([*bench, f"goals={data}", "ahead=20", "episodes=2", f"out={tmp_path / 'ahead'}"]) == 0
    results = json.loads((tmp_path / "ahead" / "results.json").read_text())
    assert results["facts"]["episodes"] == "40 steps of 0.05 s" and "by_task" not in results["rows"][0]
    goals = GoalManifest.load(tmp_path / "ahead" / "goals.safetensors")
    recorded = Dataset.open(data).load("val", ["sim"])["sim"][0]
    for start, goal in zip(goals.start, goals.goal, strict=True):
        step = int(np.flatnonzero((recorded == start).all(1))[0])
        np.testing.assert_array_equal(recorded[step + 20], goal)
    assert goals.labels == ("20 steps ahead",) * 2 and goals.budget == 40

    recording = Dataset.open(data)
    for count, ahead, message in ((2, 61, "ahead=61: must lie in 1 … 60"), (99, 20, "asked for are episodes=99")):
        with pytest.raises(GoalError, match=message):
            goals_ahead(single, recording, count, 0, ahead)
    with pytest.raises(GoalError, match=r"was recorded in env=ogbench/cube-single, not in this env=push"):
        goals_ahead(make_world("push", pixels=False), recording, 2, 0, 20)


def test_success_is_told_by_task(single: OgbenchWorld) -> None:
    from forearm.evaluation.bench import Entry, run_entry
    from forearm.evaluation.results import pool

    goals = make_goals(single, 6, seed=0)
    short: Any = GoalManifest(**{**vars(goals), "budget": 6})
    rows, _ = run_entry(
        single, short, "state", Entry("zero", "floor", HoldController(single.hold_action), [0, 1], timed=False)
    )
    assert rows[0].by_task == dict.fromkeys(single.tasks, 0.0) == pool(rows)[0].by_task
