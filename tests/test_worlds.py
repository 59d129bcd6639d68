"""Other people's environments: the contract of every world, the adapter for Gymnasium's, the way through commands."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from conftest import TINY, settings_of
from forearm import envs, registry
from forearm.cli import main
from forearm.envs import (
    TASKS,
    GymnasiumWorld,
    World,
    WorldWarning,
    check_world,
    make,
    make_world,
    register,
    world_names,
)
from forearm.envs.settings import EnvSettings
from forearm.errors import UserError
from forearm.evaluation.goals import GoalError, make_goals

ROOT = Path(__file__).parent.parent
PLANNER = ("planner.samples=8", "planner.iterations=2", "planner.horizon=2", "episodes=2", "threads=1")


def reacher(pixels: bool = False, size: int = 64, **more: Any) -> GymnasiumWorld:
    settings = {"points": lambda data: data.body("fingertip").xpos[None], "tolerance": 0.02, "budget": 20, **more}
    settings = {"name": "reacher", "env": gymnasium.make("Reacher-v5"), **settings}
    return GymnasiumWorld(pixels=pixels, size=size, **settings)


def pusher(pixels: bool = False, size: int = 64) -> GymnasiumWorld:
    def points(data: Any) -> np.ndarray:
        return data.xpos[[data.body("object").id, data.body("tips_arm").id]]

    env = gymnasium.make("Pusher-v5")
    return GymnasiumWorld("pusher", env, points=points, tolerance=0.03, budget=20, pixels=pixels, size=size)


WORLDS: dict[str, Callable[[], World]] = {
    **{name: partial(make, name, pixels=False) for name in TASKS},
    "reacher": reacher,
    "pusher": pusher,
}


# The contract


@pytest.mark.parametrize("name", WORLDS)
def test_worlds_keep_their_promises(name: str) -> None:
    check_world(WORLDS[name]())


def test_pixels_are_part_of_the_contract() -> None:
    world = reacher(pixels=True, size=32)
    check_world(world, steps=6)
    pixels = world.observe()["pixels"]
    assert pixels.shape == (32, 32, 3) and pixels.std() > 5
    assert world.config == {"pixels": True, "size": 32} and world.renderer_name.startswith("mujoco")


def test_a_view_for_people_fits_the_model() -> None:
    world = reacher()
    assert world.render_scene().shape == (480, 480, 3)
    world.model.vis.global_.offwidth = 100
    assert world.render_scene().shape == (100, 100, 3)


class Forgetful(GymnasiumWorld):
    """Has a counter that is not saved."""

    count = 0

    def advance(self, action: np.ndarray) -> None:
        self.count += 1
        super().advance(action * (1 if self.count % 2 else -1))


class Stale(GymnasiumWorld):
    """Observes what MuJoCo happens to hold after a step, as Gymnasium's environments do."""

    def _settle(self) -> None: ...


class Restless(GymnasiumWorld):
    """Stays by an action of another size than its own."""

    def _settle(self) -> None:
        self.hold_action = np.zeros(3)
        super()._settle()


BROKEN: dict[str, tuple[type[GymnasiumWorld], str]] = {
    "forgetful": (Forgetful, "a state that is loaded must go on as it did"),
    "stale": (Stale, "a goal must be reached in its own state"),
    "restless": (Restless, r"`hold_action` must be an action \(2,\) in \[-1, 1\]"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_promises_are_found(kind: str) -> None:
    world, promise = BROKEN[kind]
    with pytest.raises(UserError, match=promise):
        check_world(
            world(
                "broken",
                gymnasium.make("Reacher-v5"),
                points=lambda data: data.body("fingertip").xpos[None],
                tolerance=0.02,
                budget=20,
            )
        )


# The adapter


def test_the_adapter_steps_as_the_environment_does() -> None:
    """Same joints after the same torques, whose box [-2, 2] became [-1, 1]."""
    world, env = pusher(), gymnasium.make("Pusher-v5").unwrapped
    world.reset(seed=3)
    start: Any = world.data
    own: Any = env
    own.reset(seed=0)
    own.set_state(start.qpos.copy(), start.qvel.copy())
    own.data.qacc_warmstart[:] = start.qacc_warmstart
    for action in np.random.default_rng(0).uniform(-1, 1, (10, 7)):
        world.advance(action)
        own.step(2 * action)
        np.testing.assert_allclose(world.data.qpos, own.data.qpos, rtol=0, atol=1e-9)
    assert world.metadata["render_fps"] == 20 == own.metadata["render_fps"]


def test_what_is_tracked_comes_first_in_state() -> None:
    world = pusher()
    observation, info = world.reset(seed=0)
    assert world.tracked == slice(0, 6) and world.observation_space.contains(observation)
    np.testing.assert_allclose(observation["state"][:6], world.tracked_points().ravel(), atol=1e-6)
    goal = world.goal_observation()["state"][:6]
    apart = np.linalg.norm((goal - observation["state"][:6]).reshape(2, 3), axis=1)
    assert info["distance"] == pytest.approx(apart.max(), abs=1e-6) and not info["success"]


def test_what_the_user_gives_is_used() -> None:
    class Still:
        def __init__(self, world: GymnasiumWorld, rng: np.random.Generator) -> None: ...
        def reset(self) -> None: ...
        def act(self) -> np.ndarray:
            return np.zeros(2)

    def place_goal(env: Any, rng: np.random.Generator) -> None:
        env.set_state(env.data.qpos + np.array([rng.uniform(1, 2), 0, 0, 0]), env.data.qvel)

    def observe(env: Any) -> dict[str, np.ndarray]:
        return {"angles": env.data.qpos[:2], "speeds": env.data.qvel[:2]}

    world = reacher(place_goal=place_goal, observe=observe, policies={"play": Still})
    observation, _ = world.reset(seed=1)
    assert observation["state"].shape == (7,)
    np.testing.assert_allclose(observation["state"][3:5], world.data.qpos[:2], atol=1e-6)
    turned = world.goal_observation()["state"][3] - observation["state"][3]
    assert 1 <= turned <= 2 and list(world.policies) == ["play", "random"]
    with pytest.warns(WorldWarning, match=r"policy play moves the tracked points by .* less than the tolerance"):
        check_world(world)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("CartPole-v1", "env=bad: must hold MuJoCo's `model` and `data`"),
        ("unbounded", r"env=bad: actions must be a bounded box \(A,\)"),
    ],
)
def test_unfit_environments_are_refused(env: str, message: str) -> None:
    made: Any = gymnasium.make("Reacher-v5" if env == "unbounded" else env).unwrapped
    if env == "unbounded":
        made.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    with pytest.raises(UserError, match=message):
        GymnasiumWorld("bad", made, points=lambda data: data.xpos[[0]], tolerance=1, budget=1)


def test_actions_and_states_of_another_shape_are_refused() -> None:
    world = reacher()
    for action in (np.zeros(3), np.array([np.nan, 0.0])):
        with pytest.raises(ValueError, match=r"must be \(2,\) finite numbers"):
            world.advance(action)
    with pytest.raises(ValueError, match=r"state has shape \(3,\); env=reacher needs"):
        world.load_state(np.zeros(3))


def test_goals_that_cannot_be_unsolved_are_given_up() -> None:
    with pytest.raises(GoalError, match="env=reacher: 150 draws gave 0 goals that are not reached by doing nothing"):
        make_goals(reacher(tolerance=9.0), 2, seed=0)


# Names


def test_names_are_looked_up(names: None, monkeypatch: pytest.MonkeyPatch) -> None:
    register("mine/reacher-2.0", partial(reacher, name="mine/reacher-2.0"))
    assert settings_of("record", ["env=mine/reacher-2.0", "env.size=32"]).env == EnvSettings("mine/reacher-2.0", 32)
    assert make_world("mine/reacher-2.0", pixels=False).name == "mine/reacher-2.0"
    register("mine", reacher)
    with pytest.raises(UserError, match="env=mine: its world has the name reacher"):
        make_world("mine")
    with pytest.raises(ValueError, match="name=push: is registered already"):
        register("push", reacher)
    for bad in ("", "a b", "../a", "/a", "a/"):
        with pytest.raises(ValueError, match="must be words of letters"):
            register(bad, reacher)
    with pytest.raises(
        UserError, match=r"env=pusch is unknown; choose one of: reach, push, pickplace, .*mine/reacher-2\.0"
    ):
        make_world("pusch")

    installed = EntryPoint("reacher", "forearm_test_worlds:reacher", envs.WORLDS.group)

    def entry_points(group: str, name: str = "reacher") -> list[EntryPoint]:
        return [installed] if (group, name) == (envs.WORLDS.group, "reacher") else []

    monkeypatch.setattr(registry, "entry_points", entry_points)
    monkeypatch.setitem(sys.modules, "forearm_test_worlds", sys.modules[__name__])
    assert "reacher" in world_names() and settings_of("bench", ["env=reacher"]).env.name == "reacher"
    assert make_world("reacher").budget == 20 == make_world("reacher").budget


def test_nothing_is_imported_by_a_name_in_data(names: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    register("gone", partial(reacher, name="gone"))
    record = ["record", "env=gone", "obs=state", "episodes=2", "length=8", "workers=1"]
    assert main([*record, f"out={tmp_path / 'd'}"]) == 0
    del envs.WORLDS.parts["gone"]
    train = ["train", f"data={tmp_path / 'd'}", "obs=state", "steps=1", "horizon=2", f"out={tmp_path / 't'}"]
    assert main([*train, *TINY]) == 0, "what was recorded tells all that training needs"
    checkpoint = tmp_path / "t" / "checkpoint"
    assert main(["bench", "env=gone", "obs=state", f"checkpoint={checkpoint}", f"out={tmp_path / 'b'}"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("forearm: env=gone is unknown; choose one of: ")


def test_what_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ogbench.manipspace.envs.cube_env", None)
    with pytest.raises(UserError, match=r"env=ogbench/scene: needs OGBench \(.*\); pip install 'forearm\[ogbench\]'"):
        make_world("ogbench/scene", pixels=False)
    assert settings_of("bench", ["env=ogbench/scene"]).named == ("cem", "mppi", "random", "zero")


# From the empty folder to a report


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkpoint for `reacher`, which stays registered."""
    register("reacher", reacher)
    folder = tmp_path_factory.mktemp("reacher")
    record = ["record", "env=reacher", "obs=pixels", "env.size=32", "episodes=6", "length=20", "workers=1"]
    assert main([*record, f"out={folder / 'data'}"]) == 0
    assert main(["data", "check", str(folder / "data")]) == 0
    train = ["train", "obs=state", "steps=6", "validate_every=4", f"data={folder / 'data'}", f"out={folder / 'train'}"]
    assert main([*train, *TINY]) == 0
    yield folder / "train" / "checkpoint"
    del envs.WORLDS.parts["reacher"]


def bench(checkpoint: Path, out: Path, *settings: str) -> list[str]:
    return [
        "bench",
        "env=reacher",
        "obs=state",
        f"checkpoint={checkpoint}",
        f"out={out}",
        *PLANNER,
        "planner_seeds=[0]",
        *settings,
    ]


def test_record_train_and_bench(checkpoint: Path, tmp_path: Path) -> None:
    assert main(bench(checkpoint, tmp_path / "one", "planners=[cem,random,zero]", "video_episodes=1")) == 0
    results = json.loads((tmp_path / "one" / "results.json").read_text())
    rows = {row["planner"]: row for row in results["rows"]}
    assert list(rows) == ["cem", "random", "zero"] and rows["cem"]["env"] == "reacher"
    assert rows["zero"]["successes"] == rows["zero"]["reached"] == 0 and rows["cem"]["evaluations"] == 16
    assert results["facts"]["episodes"] == "20 steps of 0.02 s"
    assert b"ftyp" in (tmp_path / "one" / "cem.mp4").read_bytes()[:16]
    goals = f"goals={tmp_path / 'one' / 'goals.safetensors'}"
    demo = ["demo", "env=reacher", "obs=state", f"checkpoint={checkpoint}", goals, f"out={tmp_path / 'demo'}"]
    assert main([*demo, *PLANNER]) == 0 and (tmp_path / "demo" / "reacher.mp4").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("planners=[cem,oracle]", "planners: oracle: needs Forearm's own arm, and env=reacher is another world"),
        ("planners=[expert]", "planners: env=reacher has no expert; it has the policies play, random"),
        ("energy.keep_out=0,0,0..1,1,1", "energy.keep_out=0,0,0..1,1,1: needs Forearm's own arm"),
        ("energy.release=1", "energy.release=1.0: needs Forearm's own arm"),
    ],
)
def test_what_needs_an_arm_says_so(
    checkpoint: Path, tmp_path: Path, settings: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    planners = ["planners=[cem]"] if "planners" not in settings else []
    assert main(bench(checkpoint, tmp_path / "out", settings, *planners)) == 2
    assert capsys.readouterr().err.startswith(f"forearm: {message}") and not (tmp_path / "out").exists()


def test_unknown_policies_are_answered_with_those_of_the_world(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["record", "env=reacher", "obs=state", "policy=expert", f"out={tmp_path / 'out'}"]) == 2
    assert "policy=expert is unknown; choose one of: play, random" in capsys.readouterr().err


# Documentation and example


def test_code_in_the_documentation_runs(names: None) -> None:
    page = (ROOT / "docs" / "own-environment.md").read_text()
    code, convention = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(convention, {})
    defined: dict[str, Any] = {"__name__": "my_arm"}
    exec(code, defined)
    world = make_world("my-arm", pixels=False)
    assert world.tracked == slice(0, 3) and world.dt == 0.05
    check_world(world)  # without a warning
    assert len(make_goals(world, 3, seed=1)) == 3


def test_the_example_plans_where_doing_nothing_fails(tmp_path: Path) -> None:
    example = [sys.executable, "-W", "error", str(ROOT / "examples" / "own_environment.py"), str(tmp_path / "run")]
    subprocess.run(example, check=True, capture_output=True, timeout=300)
    rows = json.loads((tmp_path / "run" / "bench" / "results.json").read_text())["rows"]
    success = {row["planner"]: row["success"] for row in rows}
    assert success["cem"] >= 0.5 and success["zero"] == 0 and success["random"] <= 0.2


def test_processes_that_record_know_what_the_program_registered(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    text = (ROOT / "examples" / "own_environment.py").read_text().split("\ndef run(")[0]
    program.write_text(text + "\nif __name__ == '__main__':\n    sys.exit(main(sys.argv[1:]))\n")
    words = ["record", "env=reacher", "obs=state", "episodes=4", "length=5", "workers=2", f"out={tmp_path / 'data'}"]
    done = subprocess.run([sys.executable, str(program), *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "data" / "manifest.json").read_text())["files"]) == 4
