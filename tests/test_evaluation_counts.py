"""What an evaluation counts, counted by hand on small cases: goals, steps, drops, phantoms, times, rows."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from forearm.envs import ArmEnv, make
from forearm.episodes.facts import WorldFacts
from forearm.episodes.store import Column
from forearm.evaluation import closed_loop, handling, timing
from forearm.evaluation.bench import Entry, run_entry, success_by_task, tips
from forearm.evaluation.closed_loop import Batch, Episodes, run_episodes
from forearm.evaluation.controllers import SEEDS, HoldController, RandomController
from forearm.evaluation.energies import Added, Box, EarlyRelease, Remembering
from forearm.evaluation.foresight import AHEAD, Foreseen, execute, foresight
from forearm.evaluation.goals import HOLD, GoalError, GoalManifest, goals_ahead, make_goals
from forearm.evaluation.planners import BUDGETS, Gap, gap_table, measure_gap
from forearm.evaluation.results import Row, cells, markdown, ordered, percent, plan_times, pool, table
from forearm.evaluation.settings import action_space
from forearm.evaluation.statistics import compare_paired, wilson
from forearm.evaluation.timing import WARM_UP, Products, in_turns, time_plans, time_table
from forearm.models.world_model import Architecture, WorldModel
from forearm.planner import make_planner
from forearm.planner.problems import double_integrator
from torch import Tensor


@pytest.fixture(scope="module")
def reach() -> ArmEnv:
    env = make("reach", pixels=False)
    env.reset(seed=0)
    return env


@pytest.fixture(scope="module")
def goals(reach: ArmEnv) -> GoalManifest:
    return make_goals(reach, 3, seed=3)


# Goals


class Waiting:
    """Has a world at its goal after so many steps of waiting, and at no other time."""

    def __init__(self, env: ArmEnv, patch: pytest.MonkeyPatch, solved_after: int, distance: float) -> None:
        self.env, self.solved_after, self.near = env, solved_after, distance
        self.steps = 0
        self.done: list[np.ndarray] = []
        reset, load = env.reset, env.load_state

        def begin(function: Callable[..., Any]) -> Callable[..., Any]:
            def begun(*arguments: Any, **settings: Any) -> Any:
                self.steps = 0
                return function(*arguments, **settings)

            return begun

        patch.setattr(env, "reset", begin(reset))
        patch.setattr(env, "load_state", begin(load))
        patch.setattr(env, "advance", self.advance)
        patch.setattr(env, "distance", self.distance)

    def advance(self, action: np.ndarray) -> None:
        self.done.append(action)
        self.steps += 1

    def distance(self) -> float:
        return self.near if self.steps == self.solved_after else 2 * self.env.tolerance


@pytest.mark.parametrize("solved_after", [0, 1, 17, 30])
def test_a_start_that_waiting_solves_is_no_problem(
    reach: ArmEnv, monkeypatch: pytest.MonkeyPatch, solved_after: int
) -> None:
    assert reach.budget == 30
    world = Waiting(reach, monkeypatch, solved_after, 0.99 * reach.tolerance)
    with pytest.raises(GoalError, match=r"env=reach: 100 draws gave 0 goals .* asked for are 1"):
        make_goals(reach, 1, seed=0)
    assert all(np.array_equal(action, reach.hold_action) for action in world.done)


def test_a_start_that_is_solved_after_the_episode_or_not_quite_is_a_problem(
    reach: ArmEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    for solved_after, distance in ((32, 0.0), (5, reach.tolerance)):
        with monkeypatch.context() as patch:
            Waiting(reach, patch, solved_after, distance)
            assert len(make_goals(reach, 2, seed=0)) == 2


def test_tasks_are_drawn_in_turn(reach: ArmEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    reset = reach.reset

    def reset_to(*, seed: int, options: dict[str, Any]) -> Any:
        asked.append(options["task"])
        return reset(seed=seed)

    monkeypatch.setattr(ArmEnv, "tasks", ("near", "far"))
    Waiting(reach, monkeypatch, -1, 0.0)
    monkeypatch.setattr(reach, "reset", reset_to)
    assert make_goals(reach, 5, seed=0).labels == ("near", "far", "near", "far", "near") == tuple(asked)


class Recording:
    """Two held-out episodes of four steps in an environment, as a data set gives them."""

    def __init__(self, env: ArmEnv) -> None:
        states = []
        for seed in (1, 2):
            env.reset(seed=seed)
            states.append([env.save_state()])
            for _ in range(4):
                env.advance(np.full(5, 0.5))
                states[-1].append(env.save_state())
        self.states = np.array(states)
        self.folder = Path("recorded")
        sizes = {"sim": Column("float64", (5, self.states.shape[-1]))}
        request = SimpleNamespace(env=env.name, length=4)
        self.manifest = SimpleNamespace(request=request, world=WorldFacts(), columns=sizes)

    def load(self, part: str, names: list[str]) -> dict[str, np.ndarray]:
        assert (part, names) == ("val", ["sim"])
        return {"sim": self.states}


def test_goals_ahead_are_all_windows_that_waiting_does_not_solve(
    reach: ArmEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    data: Any = Recording(reach)
    for ahead, count in ((1, 8), (3, 4), (4, 2)):
        pairs = {(s.tobytes(), e[t + ahead].tobytes()) for e in data.states for t, s in enumerate(e[: 5 - ahead])}
        assert len(pairs) == count
        with monkeypatch.context() as patch:
            Waiting(reach, patch, -1, 0.0)
            manifest = goals_ahead(reach, data, count, 0, ahead)
            found = {(s.tobytes(), g.tobytes()) for s, g in zip(manifest.start, manifest.goal, strict=True)}
            assert (
                found == pairs and manifest.budget == 2 * ahead and manifest.labels == (f"{ahead} steps ahead",) * count
            )
            with pytest.raises(GoalError, match=f"give {count} goals .* asked for are episodes={count + 1}"):
                goals_ahead(reach, data, count + 1, 0, ahead)
    for solved_after in (0, 6):  # of a budget of six steps
        with monkeypatch.context() as patch:
            Waiting(reach, patch, solved_after, 0.0)
            with pytest.raises(GoalError, match="give 0 goals"):
                goals_ahead(reach, data, 1, 0, 3)
    for ahead in (0, 5):
        with pytest.raises(GoalError, match=rf"ahead={ahead}: must lie in 1 … 4"):
            goals_ahead(reach, data, 1, 0, ahead)


# Episodes


def episodes(goals: GoalManifest, distance: Any, plans: Any, energies: Any, **more: Any) -> Episodes:
    nothing = np.zeros((len(goals), len(plans), 5))
    calls = len(energies)
    settings = {"act_seconds": [0.0] * calls, "evaluations": [0.0] * calls} | more
    return Episodes(
        goals, np.array(distance), nothing, nothing, np.array(plans), energies=[*map(np.array, energies)], **settings
    )


def test_energies_are_held_where_the_goal_held_just_before_the_plan(goals: GoalManifest) -> None:
    two = replace(goals.first(2), tolerance=0.5)
    plans, energies = [0, 0, 1, 1, 2, 2], [[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]]
    far = np.ones((2, 6))
    for near, held in (
        ([(0, 1)], 1.0),  # the last step before the second plan
        ([(0, 2)], None),  # its own first one
        ([(0, 0), (1, 4), (1, 5)], None),
        ([(1, 3)], 4.0),
        ([(0, 1), (1, 1), (0, 3)], 2.0),
        ([(0, 1), (1, 3)], 2.5),
    ):
        distance = far.copy()
        for place in near:
            distance[place] = 0.25
        assert episodes(two, distance, plans, energies).energy_held == held
    near = np.zeros((2, 6))
    assert episodes(two, near, [0] * 6, [[9.0, 9.0]]).energy_held is None  # of the first plan nothing is known
    assert episodes(two, np.full((2, 6), 0.5), plans, energies).energy_held is None  # at the tolerance is not within it


def test_a_goal_holds_within_its_tolerance_at_each_of_the_last_steps(goals: GoalManifest) -> None:
    three = replace(goals, tolerance=0.5, hold=2)
    distance = [[0.25, 0.5, 0.25, 0.25], [0.25, 0.25, 0.25, 0.5], [0.5, 0.5, 0.5, 0.5]]
    found = episodes(three, distance, [0, 1, 2, 3], [], evaluations=[4.0, 4.0, 5.0, 6.0])
    assert found.success.tolist() == [True, False, False]
    assert found.reached.tolist() == [True, True, False]
    assert found.mean_evaluations == 5  # of 4.75
    assert HOLD == 5 and goals.header["schema"] == 1  # as in manifests that were saved


def test_episodes_that_were_run_one_by_one_are_joined(goals: GoalManifest) -> None:
    parts = [
        episodes(
            goal, [[i, i]], [0, 1], [[i], [10 + i]], act_seconds=[1.0 + i, 2.0 + i], evaluations=[2.0 * i, 4.0 * i]
        )
        for i, goal in enumerate(goals.singles())
    ]
    joined = Episodes.join(goals, parts)
    assert joined.distance.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert (joined.act_seconds, joined.evaluations) == ([6.0, 9.0], [2.0, 4.0])
    assert [energy.tolist() for energy in joined.energies] == [[0, 1, 2], [10, 11, 12]]
    assert joined.states.shape[0] == joined.actions.shape[0] == 3 and joined.plans.tolist() == [0, 1]


class Clocked:
    """Stands still, two steps a call, of which each takes a quarter of a second more than the one before."""

    def __init__(self) -> None:
        self.now, self.calls, self.evaluations = 50.0, 0, 0
        self.asked: list[tuple[Batch, np.ndarray]] = []

    def begin(self, manifest: GoalManifest, goals: Batch, seed: int) -> None:
        self.problems, self.calls, self.goals = len(manifest), 0, goals

    def act(self, observations: Batch, states: np.ndarray) -> np.ndarray:
        self.calls += 1
        self.now += 0.25 * self.calls
        self.evaluations = 10 * self.calls
        self.asked.append((observations, states))
        return np.zeros((self.problems, 2, 5))

    def clock(self) -> float:
        return self.now


def test_plans_are_timed_and_told_apart(reach: ArmEnv, goals: GoalManifest, monkeypatch: pytest.MonkeyPatch) -> None:
    controller = Clocked()
    monkeypatch.setattr(closed_loop, "time", SimpleNamespace(perf_counter=controller.clock))
    told: list[int] = []
    found = run_episodes(reach, replace(goals, budget=5), controller, 0, told.append)
    assert found.act_seconds == [0.25, 0.5, 0.75] and found.evaluations == [10, 20, 30]
    assert found.plans.tolist() == [0, 0, 1, 1, 2] and told == [6, 6, 3]
    np.testing.assert_array_equal(found.states[:, 0], goals.start)
    for problem, goal in enumerate(goals.goal):
        reach.set_goal(goal)
        np.testing.assert_array_equal(controller.goals["state"][problem], reach.goal_observation()["state"])
    for step, (observations, states) in zip((0, 2, 4), controller.asked, strict=True):
        np.testing.assert_array_equal(states, found.states[:, step])
        for problem in range(3):
            reach.load_state(found.states[problem, step])
            np.testing.assert_array_equal(observations["state"][problem], reach.observe()["state"])


def test_a_row_of_a_bench_is_what_its_episodes_say(
    reach: ArmEnv, goals: GoalManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = Clocked()
    monkeypatch.setattr(closed_loop, "time", SimpleNamespace(perf_counter=controller.clock))
    manifest = replace(goals, budget=5)
    (row,), found = run_entry(reach, manifest, "state", Entry("still", "floor", controller, [7], timed=False))
    assert found is not None
    assert (row.seed, row.kind, row.episodes, row.evaluations) == (7, "floor", 3, 20)
    assert row.plan_ms_p50 == row.plan_ms_batched == pytest.approx(500 / 3)  # of a problem
    assert row.final_distance_cm == pytest.approx(100 * np.median(found.distance[:, -1]))
    assert row.misses is row.drops is row.energy_held is row.violations is row.by_task is row.plan_ms_mean is None

    (row,), _ = run_entry(reach, manifest, "state", Entry("still", "planner", controller, [7]))
    assert row.plan_ms_p50 == 500 and row.plan_ms_batched == pytest.approx(500 / 3)
    assert controller.problems == 1  # for whom it is timed

    entry, before = Entry("still", "planner", controller, [7], alone=True), len(controller.asked)
    (row,), found = run_entry(reach, manifest, "state", entry)
    assert found is not None
    assert row.plan_ms_p50 == row.plan_ms_mean == 500 and row.plan_ms_batched is None and row.plans == 9
    assert found.act_seconds == [0.75, 1.5, 2.25]
    assert len(controller.asked) - before == (2 + 3) * 3  # twice to warm up

    everywhere = Box(np.full(3, -9.0), np.full(3, 9.0))
    (row,), _ = run_entry(
        reach,
        manifest,
        "state",
        Entry("zero", "floor", HoldController(reach.hold_action), [0], timed=False),
        keep_out=everywhere,
    )
    assert row.violations == 15
    still = HoldController(reach.hold_action)
    assert Entry("zero", "floor", still, [0, 1], episodes=2).steps(manifest) == 2 * 2 * 5 + 5
    assert Entry("zero", "floor", still, [0, 1], timed=False).steps(manifest) == 2 * 3 * 5
    assert Entry("zero", "floor", still, [0, 1], alone=True).steps(manifest) == 2 * 3 * 5


def test_actions_may_lie_on_their_bounds(reach: ArmEnv, goals: GoalManifest) -> None:
    def begin(manifest: GoalManifest, observed: Batch, seed: int) -> None:
        del manifest, observed, seed

    extreme: Any = SimpleNamespace(begin=begin, act=lambda observations, states: np.array([[[1.0, -1.0, 0, 0, 0]]] * 3))
    assert (run_episodes(reach, replace(goals, budget=2), extreme, 0).actions[..., :2] == [1.0, -1.0]).all()


def test_tips_are_those_after_each_step(reach: ArmEnv, goals: GoalManifest) -> None:
    found = run_episodes(reach, replace(goals.first(2), budget=3), RandomController(5, 1), 0)
    where = tips(reach, found)
    assert where.shape == (2, 3, 3) and found.evaluations == [0, 0, 0]
    for b, t in np.ndindex(2, 3):
        reach.load_state(found.states[b, t + 1])
        np.testing.assert_array_equal(where[b, t], reach.tip)


def test_budgets_of_one_planner_are_told_apart() -> None:
    def row(planner: str, samples: int | None) -> Row:
        iterations = None if samples is None else 2
        labels: dict[str, Any] = {"samples": samples, "iterations": iterations}
        return Row.from_episodes(
            env="push", obs="state", planner=planner, seed=0, success=[True], reached=[True], **labels
        )

    header, *lines = cells([row("cem", 32), row("cem", 64), row("random", None)])
    assert [line[header.index("budget")] for line in lines] == ["32x2", "64x2", "-"]
    assert "budget" not in cells([row("cem", 32), row("icem", 64)])[0]


def test_success_of_each_task(goals: GoalManifest) -> None:
    found = episodes(replace(goals, tolerance=0.5, hold=1), [[0.25], [1.0], [0.25]], [0], [])
    assert success_by_task(replace(goals, labels=("a", "b", "a")), found) == {"a": 1.0, "b": 0.0}
    assert success_by_task(replace(goals, labels=("b", "a", "a")), found) == {"b": 1.0, "a": 0.5}
    assert success_by_task(replace(goals, labels=("a", "a", "a")), found) is None
    assert success_by_task(goals, found) is None


def test_random_actions_are_held_and_each_problem_has_its_own(goals: GoalManifest) -> None:
    random = RandomController(5, 3)
    random.begin(goals, {}, seed=2)
    for draw in range(2):
        actions = random.act({}, np.empty(0))
        assert actions.shape == (3, 3, 5) and (actions == actions[:, :1]).all()
        for b in range(3):
            own = np.random.default_rng(2 * SEEDS + b).uniform(-1, 1, (draw + 1, 5))[draw]
            np.testing.assert_array_equal(actions[b, 0], own)
    still = HoldController(np.array([0.0, 0.0, -1.0, 0.5]))
    still.begin(goals, {}, 0)
    assert still.act({}, np.empty(0)).tolist() == [[[0.0, 0.0, -1.0, 0.5]]] * 3


def test_a_horizon_counts_model_steps() -> None:
    space = action_space([-1.0, 0.0], [1.0, 2.0], horizon=3, chunk=4, noise_beta=1.0)
    assert (space.steps, space.chunk, space.knots, space.noise_beta) == (12, 4, 3, 1.0)
    assert (space.low.tolist(), space.high.tolist()) == ([-1, 0], [1, 2]) and space.low.dtype == torch.float32


# Foresight


class Rising:
    """Has the first tracked point of a world rise: to so many metres, step after step."""

    def __init__(self, env: ArmEnv, patch: pytest.MonkeyPatch, heights: list[float]) -> None:
        self.heights, self.step = heights, 0
        patch.setattr(env, "load_state", lambda state: setattr(self, "step", 0))
        patch.setattr(env, "advance", lambda action: setattr(self, "step", self.step + 1))
        patch.setattr(env, "tracked_points", lambda: np.array([[0.0, 0.0, self.heights[self.step]], [9.0, 9.0, 9.0]]))


def foreseen(*paths: list[float], steps: int) -> Foreseen:
    """Plans for one problem of `steps` environment steps, with the heights that members imagine."""
    heights = np.array(paths)[:, None]
    positions = np.stack([0 * heights, 0 * heights, heights], axis=-1)
    return Foreseen(np.zeros((1, 4)), np.zeros((1, steps, 5)), positions if len(paths) > 1 else positions[0])


@pytest.mark.parametrize(
    ("imagined", "true", "phantom"),
    [(0.045, 0.0, 1), (0.035, 0.0, 0), (0.045, 0.015, 1), (0.045, 0.025, 0), (0.045, 0.05, 0), (0.0, 0.05, 0)],
)
def test_what_is_imagined_to_be_lifted_and_is_not_is_a_phantom(
    reach: ArmEnv, monkeypatch: pytest.MonkeyPatch, imagined: float, true: float, phantom: int
) -> None:
    """By 4 cm imagined, by less than 2 cm in truth; wherever it was before, at any step of the plan."""
    Rising(reach, monkeypatch, [0.5, 0.5, 0.5 + true, 0.5, 0.5])
    found = foresight(reach, [foreseen([0.3, 0.3 + imagined, 0.2], steps=4)], chunk=2)
    assert (found.phantoms, found.plans) == (phantom, 1)


def test_the_error_of_foresight_is_that_after_five_model_steps(reach: ArmEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    assert AHEAD == 5
    Rising(reach, monkeypatch, [float(t) for t in range(15)])
    long = foreseen([0.0, 2, 4, 6, 8, 10.25, 99, 99], steps=14)
    assert foresight(reach, [long], chunk=2).error_cm == pytest.approx(25.0)
    short = foreseen([0.0, 9.0, 3.5], steps=4)
    assert foresight(reach, [short], chunk=2).error_cm == pytest.approx(50.0)  # after all there is
    both = foresight(reach, [long, short], chunk=2)
    assert both.error_cm == pytest.approx(37.5) and both.plans == 2
    members = foreseen([0.0, 9.0, 3.5], [0.0, 9.0, 4.25], steps=4)
    assert foresight(reach, [members], chunk=2).error_cm == pytest.approx(37.5)
    assert execute(reach, np.zeros(4), np.zeros((3, 5)))[:, 2].tolist() == [0, 1, 2, 3]


# Handling


@pytest.mark.parametrize(
    ("story", "drops"),
    [  # what is held (h), carried (c) or neither (-), at a height in centimetres
        ("h0 c5 c10 -7.9", 1),
        ("h0 c5 c10 -8.1", 0),  # it settles when put down
        ("h0 c5 c10 c3 -1.1 -1.5", 0),  # from where it was held last, however high it was
        ("h0 c5 c10 -10 -9 -5 -0", 1),
        ("h0 c5 h10 -0", 1),  # was carried once
        ("h0 h5 -0 -0", 0),  # never carried: pushed off a table
        ("-10 -5 -0", 0),
        ("h0 c10 -5 -0 h0 -0 h3 -0", 1),  # once until it is carried again
        ("h0 c10 -5 -0 h0 c3 -0", 2),
    ],
)
def test_drops_of_a_story(story: str, drops: int, reach: ArmEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = story.split()
    held = np.array([[step[0] in "hc"] for step in steps])
    carried = np.array([[step[0] == "c"] for step in steps])
    height = np.array([[float(step[1:]) / 100] for step in steps])
    monkeypatch.setattr(handling, "handled", lambda env, states: (held, carried, height))
    assert handling.drops(reach, np.empty((len(steps), 1))).tolist() == [drops]


# Energies on the arm


def test_letting_go_is_charged_before_a_fall() -> None:
    """Three model steps of two actions each: the gripper opens by 0.2, 0.4 and 1 on average."""
    actions = torch.zeros(1, 1, 6, 2)
    actions[..., 1] = torch.tensor([0.4, -1.0, 0.2, 0.6, 1.0, 1.0])

    def charged(*heights: list[float]) -> float:
        futures = torch.tensor(heights)[:, None, None, :, None].expand(-1, 1, 1, -1, 3)
        model: Any = SimpleNamespace(rollout=lambda z, actions: futures if len(heights) > 1 else futures[0])
        return EarlyRelease(model, lambda z: z, torch.ones(1, 3), 2)(actions).item()

    assert charged([1.0, 0.98, 0.98]) == pytest.approx((0.2 + 0.4) / 3)
    assert charged([1.0, 1.0, 0.9]) == pytest.approx((0.2 + 0.4 + 1.0) / 3)
    assert charged([0.9, 0.95, 1.0]) == pytest.approx(0.2 / 3)
    assert charged([1.0, 0.989, 1.0]) == pytest.approx((0.2 + 0.4) / 3)
    assert charged([1.0, 0.991, 0.991]) == 0.0  # imagined a little off
    assert charged([1.0, 0.98, 0.98], [1.0, 1.0, 1.0]) == pytest.approx((0.2 + 0.4) / 3 / 2)


def test_added_features_add_mean_squares() -> None:
    def first(z: Tensor) -> Tensor:
        return z[..., :2]

    def twice(z: Tensor) -> Tensor:
        return 2 * z

    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    total = first(z).square().mean(-1) + twice(z).square().mean(-1)
    torch.testing.assert_close(Added((first, twice))(z).square().mean(-1), total)
    assert Added((first, twice))(z).shape == (4, 5)


def test_what_was_imagined_is_remembered_for_the_same_actions_alone() -> None:
    calls: list[Tensor] = []
    rollout = lambda z, actions: (calls.append(actions), actions + z)[1]  # noqa: E731
    model: Any = SimpleNamespace(encode=lambda observation: observation, rollout=rollout)
    remembering = Remembering(model)
    one, other = torch.zeros(1), torch.zeros(1)
    for actions, count in ((one, 1), (one, 1), (other, 2), (one, 3)):
        assert remembering.rollout(torch.ones(1), actions).item() == 1.0 and len(calls) == count


def test_a_box_is_open() -> None:
    box = Box.parse("0,0,0..1,2,3")
    inside = box.contains(
        np.array([[0.5, 0.5, 0.5], [0.0, 1, 1], [1.0, 1, 1], [0.5, 1, 3], [0.5, -1, 1], [0.9, 1.9, 2.9]])
    )
    assert inside.tolist() == [True, False, False, False, False, True]
    assert (box.low.tolist(), box.high.tolist()) == ([0, 0, 0], [1, 2, 3])
    for bad in ("0,0,0,0..1,1,1", "0,0,0..1,1,1,1", "0,0,1..1,1,1"):
        with pytest.raises(ValueError):
            Box.parse(bad)


# Rows


def row(seed: int, successes: int, episodes: int = 10, **more: Any) -> Row:
    reached = np.arange(episodes) < successes + 2
    return Row.from_episodes(
        env="push",
        obs="state",
        planner="cem",
        seed=seed,
        success=np.arange(episodes) < successes,
        reached=reached,
        **more,
    )


def test_pooled_times_are_the_middle_of_the_medians_and_the_worst_of_the_rest() -> None:
    rows = [
        replace(row(seed, 5), plan_ms_p50=p50, plan_ms_p95=p95, plan_ms_p99=p99)
        for seed, (p50, p95, p99) in enumerate([(3.0, 7.0, 9.0), (1.0, 5.0, 19.0), (4.0, 6.0, 12.0)])
    ]
    (pooled,) = pool(rows)
    assert (pooled.plan_ms_p50, pooled.plan_ms_p95, pooled.plan_ms_p99) == (3.0, 7.0, 19.0)
    assert pooled.plan_ms == 3.0 and replace(pooled, plan_ms_mean=8.0).plan_ms == 8.0


def test_pooled_counts_add_up_and_shares_are_weighed() -> None:
    counts = [
        {"drops": 1, "misses": 2, "violations": 3, "plans": 40},
        {"drops": 4, "misses": 6, "violations": 8, "plans": 5},
    ]
    means = [
        {"plan_ms_mean": 1.0, "energy_held": 0.5, "plan_error_cm": 2.0, "phantoms": 0.25, "final_distance_cm": 4.0},
        {"plan_ms_mean": 2.0, "energy_held": 1.0, "plan_error_cm": 5.0, "phantoms": 0.75, "final_distance_cm": 8.0},
    ]
    tasks = [{"a": 1.0, "b": 0.5}, {"a": 0.0, "b": 0.25}]
    one, other = (
        replace(row(seed, 4, size, evaluations=evaluations, by_task=task), **count, **mean)
        for seed, size, evaluations, task, count, mean in zip(
            (8, 9), (10, 30), (100, 200), tasks, counts, means, strict=True
        )
    )
    (pooled,) = pool([one, other])
    assert (pooled.episodes, pooled.successes, pooled.success) == (40, 8, 0.2)
    assert (pooled.seed, pooled.seeds) == (None, (8, 9))
    assert pooled.reached == pytest.approx(12 / 40)
    assert (pooled.evaluations, pooled.by_task) == (175, {"a": 0.25, "b": pytest.approx(0.3125)})
    assert (pooled.drops, pooled.misses, pooled.violations, pooled.plans) == (5, 8, 11, 45)
    assert (pooled.plan_ms_mean, pooled.energy_held, pooled.plan_error_cm) == (1.5, 0.75, 3.5)
    assert (pooled.phantoms, pooled.final_distance_cm) == (0.5, 6.0)
    (bare,) = pool([row(0, 4), row(1, 4)])
    names = ("plan_ms_p50", "plan_ms_p95", "plan_ms_p99", "plan_ms_mean", "final_distance_cm", "by_task")
    assert all(getattr(bare, name) is None for name in (*names, "drops", "plans", "misses", "energy_held", "phantoms"))
    (mixed,) = pool([one, replace(other, by_task={"a": 0.0})])
    assert mixed.by_task is None


def test_percentiles_of_plan_times() -> None:
    assert plan_times(np.arange(101)) == {"plan_ms_p50": 50, "plan_ms_p95": 95, "plan_ms_p99": 99, "plans": 101}
    assert plan_times([]) == {"plan_ms_p50": None, "plan_ms_p95": None, "plan_ms_p99": None, "plans": None}


def test_how_numbers_are_written() -> None:
    assert [percent(share) for share in (0.0, 0.964, 0.9994, 0.9996, 1.0)] == ["0.0", "96.4", "99.9", "99.9", "100"]
    distances = [1.234, 9.876, 10.0, 12.34, 99.94, 100.0, 123.4, None]
    lines = cells([replace(row(i, 5), final_distance_cm=value) for i, value in enumerate(distances)])
    column = lines[0].index("final cm")
    assert [line[column] for line in lines[1:]] == ["1.23", "9.88", "10.0", "12.3", "99.9", "100", "123", "-"]


def test_columns_of_a_table() -> None:
    full = replace(
        row(0, 5, evaluations=1280, drops=[True] * 3 + [False] * 7, plan_ms=[2.0] * 1200),
        plan_error_cm=1.5,
        phantoms=0.25,
        misses=7,
        violations=12,
        plan_ms_mean=3.0,
    )
    header, line = cells([full])
    written = dict(zip(header, line, strict=True))
    assert {name: written[name] for name in header[:6]} == {
        "planner": "cem",
        "success % [95 %]": written["success % [95 %]"],
        "reached %": "70.0",
        "plan ms p50 / p95": "2.00 / 2.00",
        "evaluations": "1,280",
        "episodes": "10",
    }
    assert written["success % [95 %]"].startswith("50.0 [")
    told = {"dropped %": "30.0", "5-step error cm": "1.50", "phantom lifts %": "25.0", "mean ms": "3.00"}
    assert {name: written[name] for name in told} == told
    assert (written["late"], written["steps in box"], written["p99 ms"]) == ("7 of 1,200", "12", "2.00")
    bare = replace(row(0, 5), planner="zero", kind="floor")
    header, *lines = cells([full, bare])
    assert lines[0][header.index("planner")] == "zero (floor)"
    assert lines[0][-8 + 1 :] == ["-"] * 7 and lines[0][header.index("evaluations")] == "-"
    assert "env" not in header and "env" in cells([full, replace(full, env="reach")])[0]
    assert "seed" not in header and "seed" in cells([full, row(1, 5)])[0]
    kinds = [replace(bare, kind=kind) for kind in ("ceiling", "planner", "floor")]
    assert ordered(kinds) == kinds[::-1]


def test_the_names_in_a_table_are_on_the_left_and_the_numbers_on_the_right() -> None:
    rule = table([row(0, 5), replace(row(1, 5), env="reach")]).splitlines()[1]
    assert [cell.strip().endswith(":") for cell in rule.split("|")[1:-1]] == [False] * 2 + [True] * 5


def test_markdown_aligns_words_left_and_numbers_right() -> None:
    assert markdown([["name", "n"], ["a", "100"]], 1) == "| name |   n |\n| ---- | --: |\n| a    | 100 |"


# Statistics, gaps and turns


def test_edges_of_the_statistics() -> None:
    assert wilson(1, 1)[1] == 1.0 and wilson(0, 1)[0] == 0.0 and wilson(0, 0) == (0.0, 1.0)
    assert wilson(1, 1)[0] == pytest.approx(1 / (1 + 1.959963984540054**2))  # n / (n + z^2)
    assert wilson(2, 4)[0] == pytest.approx(0.5 - 1.959963984540054 / (2 * (4 + 1.959963984540054**2) ** 0.5))
    for successes, n, confidence in ((3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0), (1, 2, 0.0)):
        with pytest.raises(ValueError, match=r"must be"):
            wilson(successes, n, confidence)
    for first, second in ((np.ones((2, 2)), np.ones((2, 2))), (np.ones(2), np.ones(3)), (np.ones(1), np.ones((1, 1)))):
        with pytest.raises(ValueError, match="one success a goal"):
            compare_paired(first, second)


def test_gaps_are_shares_of_the_optimum_above_it() -> None:
    problem = double_integrator()
    gap = measure_gap("double_integrator", "cem", 4, torch.device("cpu"))
    planner = make_planner("cem", problem.space, **BUDGETS["cem"])
    above = (planner.plan(problem.energy, planner.init(4)).energy.double() / problem.optimum - 1).tolist()
    assert gap.gap_worst == pytest.approx(max(above)) and gap.gap_median == pytest.approx(sorted(above)[1])
    assert (gap.evaluations, gap.seeds) == (256 * 12, 4) and 0 < gap.plan_ms_p50 <= gap.plan_ms_p95 < 1e4
    line = gap_table([Gap("lqr", "cem", 4, 48, 0.0123, 0.4567, 1.234, 5.678)]).splitlines()[-1]
    assert [cell.strip() for cell in line.split("|")[1:-1]] == ["lqr", "cem", "1.23 / 45.67", "48", "1.23 / 5.68"]


def test_turns_of_several_calls_are_timed_a_call() -> None:
    now = [0.0]

    def takes() -> None:
        now[0] += 0.5

    seconds = in_turns([takes], torch.device("cpu"), 4, calls=3, clock=lambda: now[0])
    assert seconds.tolist() == [[0.5]] * 4 and now[0] == 0.5 * 3 * (4 + WARM_UP)


def test_plan_times_are_milliseconds_beside_those_of_products_and_rollouts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = WorldModel(Architecture({"state": [9]}, {"state": "mlp"}, action_size=5, chunk=2, latent=6)).eval()
    counted: list[int] = []

    def fixed(functions: Any, device: torch.device, repetitions: int, limit: float) -> Tensor:
        """Three rounds, in which products take 1, rollouts 2 and plans 4, 6 and 10 milliseconds."""
        for function in functions:
            with Products() as products:
                function()
            counted.append(len(products.calls))
        assert (repetitions, limit) == (7, 9.0)
        return torch.tensor([[0.001, 0.002, 0.004], [0.001, 0.002, 0.006], [0.001, 0.002, 0.010]])

    monkeypatch.setattr(timing, "in_turns", fixed)
    times = time_plans(model, 8, 3, 4, problems=2, precision="fp32", repetitions=7, limit=9.0)
    assert counted[0] == counted[1] > 0  # the products alone are those of the rollouts
    assert counted[2] >= counted[1]
    assert (times.samples, times.iterations, times.horizon, times.problems) == (8, 3, 4, 2)
    assert (times.precision, times.backend) == ("fp32", "eager")
    assert (times.products_ms, times.rollouts_ms, times.plan_ms_p50) == pytest.approx((1.0, 2.0, 6.0))
    assert times.plan_ms_p95 == pytest.approx(9.6)
    assert (times.ratio, *times.ratio_quartiles) == pytest.approx((3.0, 2.5, 4.0))
    cells = [cell.strip() for cell in time_table([times]).splitlines()[-1].split("|")[1:-1]]
    assert cells == ["8 x 3 x 4", "fp32, eager", "2", "1.0", "2.0", "6.0 / 9.6", "3.00", "3.000 (2.500 to 4.000)"]
