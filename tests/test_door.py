"""The door for Python: README's example and the tour run; what is wrong is named; results are those of the commands."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import forearm
import gymnasium
import numpy as np
import pytest
import torch
from forearm.cli import main
from forearm.envs import make
from forearm.errors import UserError
from forearm.evaluation.results import read_results
from forearm.planner import CEM, Status
from PIL import Image

ROOT = Path(__file__).parent.parent
TINY = {"model": {"latent": 8, "predictor_width": 16, "features": 16}, "batch": 8, "device": "cpu", "threads": 1}


@pytest.fixture
def model() -> forearm.Model:
    return forearm.load("push-pixels", device="cpu", planner=CEM(samples=16, iterations=2))


def test_readme_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it stands, but for how much is recorded, trained and measured."""
    section = (ROOT / "README.md").read_text().split("## From Python")[1]
    (code,) = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    small = {"episodes=200": "episodes=3, length=12", "steps=3000": "steps=2, batch=4, threads=1"}
    small |= {"samples=128": "samples=8, iterations=1", "episodes=50": "episodes=1"}
    for whole, few in small.items():
        assert code.count(whole) == 1
        code = code.replace(whole, few)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    shown = capsys.readouterr().out
    assert "| cem" in shown and "| zero (floor)" in shown and "Status.OK" in shown
    assert (tmp_path / "data/push/manifest.json").is_file() and list(tmp_path.glob("runs/train/*/checkpoint"))


def test_the_tour_arrives_in_fifteen_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ROOT / "examples" / "tour.py"
    code = path.read_text().split('"""')[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    told = capsys.readouterr().out
    (centimetres,) = re.findall(r"the cube is ([\d.]+) cm from its goal", told)
    assert float(centimetres) < 4.0  # the task's tolerance
    with Image.open(tmp_path / "landscape.png") as image:
        assert min(image.size) > 300


def test_the_same_rows_as_the_command_gives(tmp_path: Path) -> None:
    words = ("episodes=2", "planners=[own,random,zero]", "planner_seeds=[0]", "planner.samples=8", "threads=1")
    assert main(["bench", "obs=state", "device=cpu", f"out={tmp_path / 'run'}", "video_episodes=0", *words]) == 0
    told = read_results(tmp_path / "run" / "results.json")
    found = forearm.evaluate(
        "push-state", episodes=2, planner=CEM(samples=8), device="cpu", threads=1, progress=False, seed=0
    )
    assert found.manifest == told.manifest
    outcomes = [[row.outcomes for row in results.rows] for results in (found, told)]
    assert outcomes[0] == outcomes[1] and [row.planner for row in found.rows] == ["cem", "random", "zero"]
    assert str(found).startswith("| planner")


def test_train_and_evaluate_write_where_they_are_told(tmp_path: Path) -> None:
    data = forearm.record("push", obs="state", episodes=4, length=12, out=tmp_path / "data", progress=False)
    trained = forearm.train(data, obs="state", steps=2, out=tmp_path / "run", log_every=1, **TINY)
    assert trained.folder == tmp_path / "run" / "checkpoint" and (tmp_path / "run" / "loss.png").is_file()
    further = forearm.train(resume=True, out=tmp_path / "run", steps=3)
    assert further.checkpoint.about["steps"] == 3 and further.checkpoint.model.architecture.features == 16
    again = forearm.train(tmp_path / "data", obs="state", steps=3, out=tmp_path / "again", log_every=1, **TINY)
    assert again.checkpoint.about["data"] == further.checkpoint.about["data"]
    results = forearm.evaluate(
        [trained, again], episodes=1, out=tmp_path / "bench", planner=CEM(samples=4, iterations=1), progress=False
    )
    assert (tmp_path / "bench" / "report.html").is_file()
    assert {row.env for row in results.rows} == {"push"} and len(results.rows) == 4


def test_plans_are_warm_started_and_of_the_seed(model: forearm.Model) -> None:
    env = make("push")
    observation, _ = env.reset(seed=3)
    goal = env.goal_observation()
    first = model.plan(observation, goal, execute_steps=2)
    rest = np.concatenate((first.actions[2:], first.actions[-2:]))  # the previous plan goes on
    second = model.plan(observation, goal)
    assert second.energy <= model.energy(observation, goal, rest)[0] * 1.01 and first.status is Status.OK
    assert first.actions.shape == (12, 5) and first.execute.shape == (2, 5)
    np.testing.assert_array_equal(first.execute, first.actions[:2])
    model.reset()
    np.testing.assert_array_equal(model.plan(observation, goal).actions, first.actions)
    env.reset(seed=4)
    other = model.plan(observation, env.goal_observation())  # another goal begins anew
    model.reset()
    np.testing.assert_array_equal(model.plan(observation, env.goal_observation()).actions, other.actions)
    model.reset(seed=1)
    assert not np.array_equal(model.plan(observation, goal).actions, first.actions)


def test_the_plan_has_the_energy_it_tells(model: forearm.Model) -> None:
    env = make("push")
    observation, _ = env.reset(seed=3)
    goal = env.goal_observation()
    plan = model.plan(observation, goal)
    found = model.energy(observation, goal, np.stack([plan.actions, np.zeros_like(plan.actions)]))
    assert found.shape == (2,) and found[0] == pytest.approx(plan.energy, rel=1e-2)  # half precision, another batch
    assert found[0] < found[1]
    future = model.imagine(observation, np.zeros((3, 12, 5)))
    assert future.shape == (3, 6, 128)
    torch.testing.assert_close(future[0], future[2])


def test_settings_of_planning_change_by_keyword(model: forearm.Model) -> None:
    env = make("push")
    observation, _ = env.reset(seed=3)
    plan = model.plan(observation["pixels"], env.goal_observation()["pixels"], execute_steps=3)
    assert plan.execute.shape == (3, 5) and model.planning.planner.search.samples == 16
    plan = model.plan(observation, env.goal_observation(), **{"planner.horizon": 2, "planner": "mppi"})
    assert plan.actions.shape == (4, 5) and model.planning.planner.name == "mppi"


def test_presets_hold_for_python() -> None:
    planning = forearm.load("pickplace-state", device="cpu").planning
    assert (planning.planner.name, planning.planner.prior, planning.energy.metric) == ("shooting", 0.97, "object")
    assert forearm.load("reach-pixels", device="cpu").planning.energy.control == 0.02


def test_what_is_wrong_is_named(model: forearm.Model, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="observation: has no pixels"):
        model.encode({"state": np.zeros(3)})
    with pytest.raises(UserError, match=r"pixels is \(32, 32, 3\), the model sees \(64, 64, 3\)"):
        model.encode(np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(UserError, match="no key 'episods'; did you mean episodes"):
        forearm.record("push", episods=3)
    with pytest.raises(UserError, match="env=pusch is unknown; choose one of: reach, push"):
        forearm.record("pusch", out=tmp_path / "data")
    with pytest.raises(UserError, match="data: give the folder"):
        forearm.train()
    with pytest.raises(UserError, match="samples=1: must be at least 2"):
        forearm.evaluate("push-pixels", planner={"samples": 1})
    with pytest.raises(UserError, match="planner=cam is unknown"):
        forearm.evaluate("push-pixels", planner="cam")
    with pytest.raises(UserError, match=r"episodes=2\.5: must be a whole number"):
        forearm.evaluate("push-pixels", episodes=2.5)
    with pytest.raises(UserError, match="checkpoint"):
        forearm.load(tmp_path / "nothing")
    with pytest.raises(AttributeError, match="evalute"):
        _ = forearm.evalute  # pyright: ignore[reportAttributeAccessIssue]


def test_importing_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'mujoco', 'gymnasium', 'numpy', 'hydra', 'matplotlib'}"
    code = f"import sys, forearm; dir(forearm); print({heavy} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "set()"


def test_every_public_name_is_there_and_documented() -> None:
    for name in forearm.__all__:
        if name != "__version__":
            assert (getattr(forearm, name).__doc__ or "").strip(), name


def test_gymnasium_makes_the_arm_after_importing_forearm() -> None:
    env = gymnasium.make("forearm/Push-v0", pixels=False)
    assert env.reset(seed=0)[0]["state"].shape == (17,)
    env.close()
    env = gymnasium.make("forearm/Push-v0", goal_conditioned=True)
    assert set(env.reset(seed=0)[0]) == {"observation", "achieved_goal", "desired_goal"}
    env.close()


def test_what_is_given_back_prints_in_a_line(model: forearm.Model, tmp_path: Path) -> None:
    data = forearm.record("push", obs="state", episodes=2, length=8, out=tmp_path / "data", progress=False)
    assert str(data) == f"Recordings({tmp_path / 'data'}: 2 episodes)"
    assert str(model).startswith("Model(push, pixels, ") and "\n" not in str(model)


def test_a_refused_call_changes_nothing(model: forearm.Model) -> None:
    env = make("push")
    observation, _ = env.reset(seed=3)
    goal = env.goal_observation()
    first = model.plan(observation, goal)
    for settings in ({"foo": 1}, {"execute_steps": 1000}, {"planner": "cam"}):
        with pytest.raises(UserError, match=next(iter(settings))):
            model.plan(observation, goal, **settings)
    model.reset()
    np.testing.assert_array_equal(model.plan(observation, goal).actions, first.actions)


def test_dotted_keys_count_over_objects(model: forearm.Model) -> None:
    env = make("push")
    observation, _ = env.reset(seed=3)
    model.plan(observation, env.goal_observation(), **{"planner.horizon": 2, "planner.samples": np.int64(9)})
    assert (model.planning.planner.horizon, model.planning.planner.search.samples) == (2, 9)
    assert model.planning.planner.search.iterations == 2  # of the planner that it was loaded with
    with pytest.raises(UserError, match="oracle=3: must be OracleSettings, or a mapping of its keys"):
        forearm.evaluate(model, oracle=3)


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    data = forearm.record("push", obs="state", episodes=np.int64(2), length=8, seed=np.int32(1), out=tmp_path / "data")
    trained = forearm.train(
        data, obs="state", steps=np.int64(1), learning_rate=np.float32(1e-3), out=tmp_path / "run", **TINY
    )
    assert trained.checkpoint.about["steps"] == 1
    found = forearm.evaluate(trained, episodes=1, planners=np.array(["random"]), planner_seeds=range(2), progress=False)
    assert [row.seed for row in found.rows] == [0, 1]


@pytest.mark.parametrize(
    ("shape", "told"), [((4, 3), "must be"), ((3, 5), "a multiple of 2"), ((0, 5), "must be"), ((5,), "must be")]
)
def test_actions_of_another_shape_are_refused(model: forearm.Model, shape: tuple[int, ...], told: str) -> None:
    with pytest.raises(UserError, match=told):
        model.imagine(make("push").reset(seed=0)[0], np.zeros(shape))


def test_models_that_are_none_are_refused(model: forearm.Model, tmp_path: Path) -> None:
    for wrong in (3, [model, 3], [None]):
        with pytest.raises(UserError, match=r"model=(3|None): must be a Model"):
            forearm.evaluate(wrong, episodes=1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="checkpoint=nope: give the model first"):
        forearm.evaluate(model, checkpoint="nope")
    with pytest.raises(UserError, match=r"obs=state: the checkpoint was trained for obs=pixels"):
        forearm.evaluate(model, obs="state", episodes=1, planner=CEM(samples=4, iterations=1))
    env = make("push")
    observation, goal = env.reset(seed=0)[0], env.goal_observation()
    for axes in ((0, 9), (1, 1)):
        with pytest.raises(UserError, match="axes="):
            model.landscape(observation, goal, tmp_path / "landscape.png", axes)
