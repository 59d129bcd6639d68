"""Goal manifests that cannot be solved by doing nothing, and the closed loop that judges what is done."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import settings_of
from forearm.envs import TASKS, ArmEnv, make
from forearm.episodes import RecordRequest
from forearm.episodes.recorder import record_episode
from forearm.errors import UserError
from forearm.evaluation.bench import Entry, run_entry, tips
from forearm.evaluation.closed_loop import Batch, Controller, Episodes, run_episodes
from forearm.evaluation.controllers import (
    ExpertController,
    HoldController,
    LatentMPC,
    Learned,
    RandomController,
    SimulatorMPC,
)
from forearm.evaluation.energies import Box, CommandedTips
from forearm.evaluation.films import film
from forearm.evaluation.goals import GoalError, GoalManifest, find_goals, make_goals
from forearm.evaluation.settings import EnergySettings, PlannerSettings, PlanningSettings, action_space
from forearm.evaluation.timing import FEWEST, WARM_UP, in_turns
from forearm.models.world_model import Architecture, WorldModel
from forearm.planner import CEM, make_planner
from safetensors import safe_open
from safetensors.numpy import save_file

COUNT = 4


@pytest.fixture(scope="module", params=TASKS)
def env(request: pytest.FixtureRequest) -> ArmEnv:
    return make(request.param, pixels=False)


@pytest.fixture(scope="module")
def goals(env: ArmEnv) -> GoalManifest:
    return make_goals(env, COUNT, seed=3)


@pytest.fixture(scope="module")
def reach() -> ArmEnv:
    return make("reach", pixels=False)


@pytest.fixture(scope="module")
def reach_goals(reach: ArmEnv) -> GoalManifest:
    return make_goals(reach, COUNT, seed=3)


# Manifests


def test_goals_repeat(env: ArmEnv, goals: GoalManifest) -> None:
    assert len(goals) == COUNT and goals.env == env.name and goals.budget == env.task.budget
    assert make_goals(make(env.name, pixels=False), COUNT, seed=3).sha256 == goals.sha256
    assert make_goals(env, COUNT - 1, seed=3).sha256 == goals.first(COUNT - 1).sha256
    assert make_goals(env, COUNT, seed=4).sha256 != goals.sha256
    assert len(np.unique(goals.start, axis=0)) == len(np.unique(goals.goal, axis=0)) == COUNT


def test_no_goal_is_solved_by_waiting(env: ArmEnv, goals: GoalManifest) -> None:
    for start, goal in zip(goals.start, goals.goal, strict=True):
        env.load_state(start)
        env.set_goal(goal)
        for _ in range(goals.budget):
            assert env.distance() >= goals.tolerance
            env.advance(np.zeros(5))
        env.load_state(goal)
        assert env.distance() < 1e-6


def test_a_solved_start_is_drawn_again(reach: ArmEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    from forearm.evaluation import goals as module

    every = [module.make_goals(reach, COUNT, seed=0).start[i] for i in range(COUNT)]
    solved = module._solved_by_waiting
    monkeypatch.setattr(
        module, "_solved_by_waiting", lambda env, start, *how: (start == every[1]).all() or solved(env, start, *how)
    )
    kept = module.make_goals(reach, COUNT, seed=0).start
    assert np.array_equal(kept[: COUNT - 1], np.delete(every, 1, axis=0))


def test_evaluations_meet_no_recorded_episode(reach: ArmEnv) -> None:
    seed = 0
    goals = make_goals(reach, 20, seed)
    request = RecordRequest("reach", policy="random", seed=seed, episodes=20, length=1)

    class Still:
        def reset(self) -> None: ...
        def act(self) -> np.ndarray:
            return np.zeros(5)

    recorded = [record_episode(request, i, reach, lambda *_: Still())["sim"][0] for i in range(20)]
    assert not {state.tobytes() for state in recorded} & {state.tobytes() for state in goals.start}


def test_the_hash_speaks_of_every_bit(reach_goals: GoalManifest) -> None:
    goal, start = reach_goals.goal.copy(), reach_goals.start.copy()
    goal[-1, -1] = np.nextafter(goal[-1, -1], 9)
    start[0, 0] = np.nextafter(start[0, 0], 9)
    others = [
        *(replace(reach_goals, goal=goal), replace(reach_goals, start=start), reach_goals.first(3)),
        *(replace(reach_goals, tolerance=0.03), replace(reach_goals, budget=31), replace(reach_goals, hold=4)),
        *(replace(reach_goals, env="push"), replace(reach_goals, seed=4), replace(reach_goals, versions={})),
    ]
    assert len({manifest.sha256 for manifest in [reach_goals, *others]}) == 1 + len(others)


def test_manifests_come_back_as_they_were(reach_goals: GoalManifest, tmp_path: Path) -> None:
    reach_goals.save(tmp_path / "goals.safetensors")
    loaded = GoalManifest.load(tmp_path / "goals.safetensors")
    assert loaded.sha256 == reach_goals.sha256 and loaded.header == reach_goals.header
    np.testing.assert_array_equal(loaded.start, reach_goals.start)
    np.testing.assert_array_equal(loaded.goal, reach_goals.goal)


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray]], Any]) -> None:
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["goals"])
        states = {name: file.get_tensor(name).copy() for name in ("start", "goal")}
    change(header, states)
    save_file(states, path, metadata={"goals": json.dumps(header)})


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "missing": lambda p: p.unlink(),
    "a folder": lambda p: (p.unlink(), p.mkdir()),
    "truncated": lambda p: p.write_bytes(p.read_bytes()[:-9]),
    "empty": lambda p: p.write_bytes(b""),
    "flipped bit": lambda p: p.write_bytes(p.read_bytes()[:-1] + bytes([p.read_bytes()[-1] ^ 1])),
    "foreign": lambda p: save_file({"x": np.zeros(3)}, p),
    "foreign header": lambda p: save_file({"x": np.zeros(3)}, p, metadata={"goals": "null"}),
    "no goals": lambda p: rewrite(p, lambda header, states: states.pop("goal")),
    "easier": lambda p: rewrite(p, lambda header, states: header.update(tolerance=1.0)),
    "other schema": lambda p: rewrite(p, lambda header, states: header.update(schema=2)),
    "more keys": lambda p: rewrite(p, lambda header, states: header.update(more=2)),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_manifests_are_refused(reach_goals: GoalManifest, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "goals.safetensors"
    reach_goals.save(path)
    DAMAGE[kind](path)
    with pytest.raises(GoalError, match=r"goals=.*goals\.safetensors: (not a goal manifest|its content)"):
        GoalManifest.load(path)


def test_goals_are_those_asked_for(reach: ArmEnv, reach_goals: GoalManifest, tmp_path: Path) -> None:
    path = tmp_path / "goals.safetensors"
    reach_goals.save(path)
    for episodes, count in ((2, 2), (COUNT, COUNT), (99, COUNT)):
        settings = settings_of("bench", ["env=reach", "obs=state", f"goals={path}", f"episodes={episodes}"])
        assert find_goals(settings, reach).sha256 == reach_goals.first(count).sha256
    with pytest.raises(UserError, match="made for env=reach, not for this env=push"):
        find_goals(settings_of("bench", ["env=push", f"goals={path}"]), make("push", pixels=False))


# The closed loop


def imagination(env: ArmEnv, samples: int = 8, chunk: int = 2, hold: bool = False, **energy: Any) -> LatentMPC:
    torch.manual_seed(0)
    model = WorldModel(Architecture({"state": [9]}, {"state": "mlp"}, action_size=5, chunk=chunk, latent=6)).eval()
    for parameter in model.predictor.parameters():
        torch.nn.init.normal_(parameter)
    planner = PlannerSettings(search=CEM(samples=samples, iterations=2), horizon=3, hold=hold)
    planning = PlanningSettings(planner=planner, energy=EnergySettings(**energy), execute_steps=chunk, precision="fp32")
    return LatentMPC(env, Learned(model), planning)


def controllers(env: ArmEnv) -> dict[str, Controller]:
    oracle = make_planner("cem", action_space([-1] * 5, [1] * 5, 2, 2), samples=4, iterations=1, elites=0.5)
    return {
        "zero": HoldController(env.hold_action),
        "random": RandomController(5, 3),
        "expert": ExpertController(env),
        "imagination": imagination(env),
        "oracle": SimulatorMPC(env, oracle, {"reduce": "min"}),
    }


@pytest.mark.parametrize("name", ["zero", "random", "expert", "imagination", "oracle"])
def test_problems_in_lockstep_are_problems_alone(reach: ArmEnv, reach_goals: GoalManifest, name: str) -> None:
    manifest = replace(reach_goals, budget=9)
    together = run_episodes(reach, manifest, controllers(reach)[name], seed=1)
    again = run_episodes(reach, manifest, controllers(reach)[name], seed=1)
    assert together.distance.shape == (COUNT, 9) and together.states.shape == (COUNT, 10, manifest.start.shape[1])
    np.testing.assert_array_equal(again.states, together.states)  # a seed repeats
    np.testing.assert_array_equal(again.actions, together.actions)
    few = run_episodes(reach, manifest.first(2), controllers(reach)[name], seed=1)
    np.testing.assert_allclose(few.actions, together.actions[:2], atol=1e-5)
    np.testing.assert_allclose(few.distance, together.distance[:2], atol=1e-5)
    other = run_episodes(reach, manifest, controllers(reach)[name], seed=2)
    assert np.array_equal(other.actions, together.actions) == (name in ("zero", "expert"))


@pytest.mark.parametrize("hold", [False, True])
def test_one_candidate_keeps_still_where_that_is_asked(
    reach: ArmEnv, reach_goals: GoalManifest, hold: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = imagination(reach, hold=hold)
    imagined: list[torch.Tensor] = []
    rollout = controller.model.rollout

    def watched(z: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        imagined.append(actions)
        return rollout(z, actions)

    monkeypatch.setattr(controller.model, "rollout", watched)
    run_episodes(reach, replace(reach_goals, budget=4), controller, seed=0)
    first = imagined[0::2]  # of two iterations
    still = [(actions == torch.from_numpy(reach.hold_action).float()).all(-1).all(-1).sum(-1) for actions in first]
    assert len(still) == 2 and [count.tolist() for count in still] == [[int(hold)] * COUNT] * 2


def test_commanded_tips_are_those_of_the_arm(env: ArmEnv) -> None:
    env.reset(seed=3)
    actions = np.random.default_rng(0).uniform(-1, 1, (30, 5)) + np.array([0.5, 0.5, 0, 0, 0])  # into a wall
    actions = actions.clip(-1, 1)
    command, followed = torch.from_numpy(env.observe()["proprio"][None, -3:]), []
    for action in actions:
        env.advance(action)
        followed.append(env.observe()["proprio"][-3:])
    path = CommandedTips.of(env, command)(torch.from_numpy(actions).float()[None, None])
    np.testing.assert_allclose(path[0, 0], followed, atol=1e-6)


def test_plans_keep_out_of_a_box(reach: ArmEnv, reach_goals: GoalManifest) -> None:
    """The tip starts outside; a box that covers most of the rest is entered without the term, and not with it."""
    manifest = reach_goals.first(1)
    reach.load_state(manifest.start[0])
    x, y, z = reach.tip
    box = f"{x - 0.3},{y - 0.3},{z - 0.2}..{x + 0.3},{y - 0.02},{z + 0.2}"
    inside = []
    for weight in (0.0, 1e18):  # an untrained model's energies are astronomical
        controller = imagination(reach, samples=64, keep_out=box, keep_out_weight=weight)
        episodes = run_episodes(reach, manifest, controller, seed=0)
        inside.append(int(Box.parse(box).contains(tips(reach, episodes)).sum()))
    assert inside[0] > 3 and inside[1] == 0


def test_goal_and_control_are_clipped_together_and_a_box_does_not(reach: ArmEnv, reach_goals: GoalManifest) -> None:
    manifest = replace(reach_goals.first(1), budget=4)
    everywhere = "-9,-9,-9..9,9,9"
    found = {}
    for weight in (0.0, 1.0):
        weights = {"control": 1.0, "keep_out": everywhere, "keep_out_weight": weight}
        controller = imagination(reach, samples=16, clip=0.5, **weights)
        run_episodes(reach, manifest, controller, seed=0)
        found[weight] = controller.energies[0].item()
    assert found[0.0] == 0.5 and found[1.0] > 0.5


@pytest.mark.parametrize("text", ["", "1,2..3,4", "0,0,0..1,1", "0,0,0..0,1,1", "a,0,0..1,1,1", "0,0,0..1,1,1..2,2,2"])
def test_what_is_no_box_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Box.parse(text)


def test_episodes_are_those_of_the_environment(env: ArmEnv, goals: GoalManifest) -> None:
    manifest = replace(goals, budget=12)
    found = run_episodes(env, manifest, RandomController(5, 4), seed=0)
    for problem in range(COUNT):
        env.load_state(manifest.start[problem])
        env.set_goal(manifest.goal[problem])
        for step in range(12):
            env.advance(found.actions[problem, step])
            assert found.distance[problem, step] == env.distance()
            np.testing.assert_array_equal(found.states[problem, step + 1], env.save_state())


def test_the_expert_succeeds_and_zero_fails(env: ArmEnv, goals: GoalManifest) -> None:
    told = []
    expert = run_episodes(env, goals, ExpertController(env), seed=0, advance=told.append)
    assert sum(told) == COUNT * goals.budget
    assert expert.success.mean() >= 0.75 and (expert.reached >= expert.success).all()
    zero = run_episodes(env, goals, HoldController(env.hold_action), seed=0)
    assert not zero.success.any() and not zero.reached.any()


class Replay:
    """Gives actions (B, T, A) in chunks."""

    def __init__(self, actions: np.ndarray, chunk: int) -> None:
        self.actions, self.chunk = actions, chunk

    def begin(self, manifest: GoalManifest, goals: Batch, seed: int) -> None:
        self.step = 0

    def act(self, observations: Batch, states: np.ndarray) -> np.ndarray:
        self.step += self.chunk
        return self.actions[:, self.step - self.chunk : self.step]


@pytest.mark.parametrize("chunk", [1, 4, 7, 10])
def test_a_budget_need_not_be_a_number_of_chunks(reach: ArmEnv, reach_goals: GoalManifest, chunk: int) -> None:
    manifest = replace(reach_goals, budget=9)
    actions = np.random.default_rng(0).uniform(-1, 1, (COUNT, 20, 5))
    found = run_episodes(reach, manifest, Replay(actions, chunk), seed=0)
    np.testing.assert_array_equal(found.actions, actions[:, :9])
    assert len(found.act_seconds) == -(-9 // chunk)
    assert found.plans.tolist() == [step // chunk for step in range(9)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1.001, -3.0])
def test_actions_that_cannot_be_are_refused(reach: ArmEnv, reach_goals: GoalManifest, bad: float) -> None:
    actions = np.zeros((COUNT, 30, 5))
    actions[1, 7, 3] = bad
    with pytest.raises(ValueError, match=r"NaN or outside \[-1, 1\]"):
        run_episodes(reach, reach_goals, Replay(actions, 3), seed=0)


@pytest.mark.parametrize("shape", [(COUNT, 0, 5), (COUNT, 2, 4), (COUNT - 1, 2, 5)])
def test_actions_of_another_shape_are_refused(reach: ArmEnv, reach_goals: GoalManifest, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"shape \(\d, \d, \d\), not \(B, K, A\)"):
        run_episodes(reach, reach_goals, Replay(np.zeros(shape), 2), seed=0)


def test_success_is_at_the_end(reach_goals: GoalManifest) -> None:
    near, far = 0.5 * reach_goals.tolerance, 2 * reach_goals.tolerance
    distance = np.full((COUNT, 20), far)
    distance[0, -5:] = near  # just held
    distance[1, 3:18] = near  # lost at the end
    distance[2, -4:] = near  # too late
    nothing = np.zeros((COUNT, 20, 5))
    episodes = Episodes(reach_goals, distance, nothing, nothing, np.arange(20), [0.0] * 20, [0.0] * 20)
    assert reach_goals.hold == 5
    assert episodes.success.tolist() == [True, False, False, False]
    assert episodes.reached.tolist() == [True, True, True, False]


def test_the_energy_of_plans_while_the_goal_held(reach_goals: GoalManifest) -> None:
    near, far = 0.5 * reach_goals.tolerance, 2 * reach_goals.tolerance
    distance = np.full((COUNT, 4), far)
    distance[0, 1:3] = near  # before the second plan, which is made after two steps
    distance[1, 0] = near
    energies = [np.full(COUNT, 9.0), np.array([0.5, 7.0, 7.0, 7.0])]
    nothing = np.zeros((COUNT, 4, 5))
    episodes = Episodes(reach_goals, distance, nothing, nothing, np.array([0, 0, 1, 1]), [0.0] * 2, [0.0] * 2, energies)
    assert episodes.energy_held == 0.5
    assert replace(episodes, distance=np.full((COUNT, 4), far)).energy_held is None
    assert replace(episodes, energies=[]).energy_held is None


# Benches


def test_a_bench_entry_gives_a_row_a_seed(reach: ArmEnv, reach_goals: GoalManifest) -> None:
    manifest = replace(reach_goals, budget=8)
    entry = Entry("cem", "planner", imagination(reach), seeds=[0, 5], labels={"samples": 8})
    told = []
    rows, episodes = run_entry(reach, manifest, "state", entry, told.append)
    assert sum(told) == entry.steps(manifest) == (2 * COUNT + 1) * 8
    assert [row.seed for row in rows] == [0, 5]
    for row in rows:
        assert (row.env, row.obs, row.planner, row.episodes, row.samples) == ("reach", "state", "cem", COUNT, 8)
        assert row.evaluations == 16 and row.plan_ms_batched
        assert bool(row.plan_ms_p50) == bool(row.plan_ms_p95) == (row.seed == 0), "one seed was timed"
    assert episodes is not None and len(episodes.energies) == 4
    assert all(energy.shape == (COUNT,) for energy in episodes.energies)
    assert len(episodes.act_seconds) == 4, "the episodes are those of all problems, not of the one that was timed"

    still = Entry("zero", "floor", HoldController(reach.hold_action), [0], episodes=2, timed=False)
    few, _ = run_entry(reach, manifest, "state", still)
    assert few[0].episodes == 2 and few[0].evaluations == 0


def test_films_show_what_happened(reach: ArmEnv, reach_goals: GoalManifest) -> None:
    manifest = replace(reach_goals, budget=5).first(2)
    episodes = run_episodes(reach, manifest, imagination(reach, chunk=4), seed=0)
    frames = list(film(reach, episodes, range(2), "cem"))
    assert len(frames) == 2 * (5 + 10)  # the last one is held for a second
    assert len({frame.tobytes() for frame in frames}) == 2 * 5
    assert all(frame.shape == frames[0].shape and frame.dtype == np.uint8 for frame in frames)


@pytest.mark.parametrize(("limit", "rounds"), [(0.0, FEWEST), (21.0, 5), (1e3, 10)])
def test_turns_end_in_time(limit: float, rounds: int) -> None:
    """A round takes three seconds of a clock that only these functions move: seven of them begin within 21."""
    now, order = [0.0], []

    def takes(seconds: float) -> None:
        now[0] += seconds
        order.append(seconds)

    calls = [lambda: takes(1.0), lambda: takes(2.0)]
    seconds = in_turns(calls, torch.device("cpu"), 10, limit=limit, clock=lambda: now[0])
    assert seconds.tolist() == [[1.0, 2.0]] * rounds
    assert order == [1.0, 2.0] * (WARM_UP + rounds)
