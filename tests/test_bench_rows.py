"""A bench's rows: one bad entry leaves the others, no trial counts twice, only what was timed has times."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import forearm
import numpy as np
import pytest
import torch
from conftest import settings_of
from forearm.cli import main
from forearm.envs import ArmEnv, make
from forearm.errors import UserError
from forearm.evaluation.bench import Entry, run_entry
from forearm.evaluation.closed_loop import Batch
from forearm.evaluation.controllers import LatentMPC, Learned, PriorController, RandomController
from forearm.evaluation.goals import GoalManifest, make_goals
from forearm.evaluation.results import cells, pool, read_results, remarks
from forearm.evaluation.settings import PlannerSettings, PlanningSettings, action_space
from forearm.models.checkpoint import Checkpoint
from forearm.models.prior import ActionPrior, PriorArchitecture
from forearm.models.world_model import Architecture, WorldModel
from forearm.planner import CEM

COUNT = 3


@pytest.fixture(scope="module")
def reach() -> ArmEnv:
    return make("reach", pixels=False)


@pytest.fixture(scope="module")
def goals(reach: ArmEnv) -> GoalManifest:
    return replace(make_goals(reach, COUNT, seed=3), budget=6)


def model(readout: int = 0) -> WorldModel:
    torch.manual_seed(0)
    shape = Architecture(
        {"state": [9]}, {"state": "mlp"}, action_size=5, chunk=2, latent=6, readout=readout, readout_width=8
    )
    return WorldModel(shape).eval()


def planning(env: ArmEnv, of: WorldModel) -> LatentMPC:
    planner = PlannerSettings(search=CEM(samples=8, iterations=1), horizon=3)
    return LatentMPC(env, Learned(of), PlanningSettings(planner=planner, execute_steps=2, precision="fp32"))


class Raises(RandomController):
    """Fails with one seed, in mid-run."""

    def act(self, observations: Batch, states: np.ndarray) -> np.ndarray:
        if self._seed == 1 and self._calls:
            raise RuntimeError("the arm is on fire")
        self._calls += 1
        return super().act(observations, states)

    def begin(self, manifest: GoalManifest, goals: Batch, seed: int) -> None:
        self._seed, self._calls = seed, 0
        super().begin(manifest, goals, seed)


def test_a_seed_that_raises_is_a_row_that_says_why(reach: ArmEnv, goals: GoalManifest) -> None:
    entry = Entry("random", "floor", Raises(5, 2), [0, 1, 2], labels={"samples": 8})
    rows, episodes = run_entry(reach, goals, "state", entry)
    assert [row.error for row in rows] == [None, "RuntimeError: the arm is on fire", None]
    assert [row.episodes for row in rows] == [COUNT, 0, COUNT] and rows[1].samples == 8
    assert episodes is not None and [row.seeds for row in pool(rows)] == [(0, 2), (1,)]
    rows, episodes = run_entry(reach, goals, "state", replace(entry, seeds=[1]))
    assert rows[0].error and episodes is None


def test_energies_that_are_not_finite_are_a_row_that_says_why(reach: ArmEnv, goals: GoalManifest) -> None:
    broken = model()
    for parameter in broken.parameters():
        parameter.data.fill_(np.nan)
    rows, _ = run_entry(reach, goals, "state", Entry("cem", "planner", planning(reach, broken), [0]))
    assert rows[0].error is not None and "No candidate had a finite energy" in rows[0].error
    whole, _ = run_entry(reach, goals, "state", Entry("cem", "planner", planning(reach, model()), [0, 1]))
    assert [row.statuses for row in whole] == [{"ok": 3 * COUNT}] * 2
    assert pool(whole)[0].statuses == {"ok": 6 * COUNT} and not remarks(pool(whole))


def test_plans_without_an_energy_are_told(reach: ArmEnv, goals: GoalManifest) -> None:
    """Of one goal of three, whose embedding is not a number."""
    controller = planning(reach, model())
    encode = controller.model.encode

    def broken(observation: dict[str, torch.Tensor]) -> torch.Tensor:
        z = encode(observation)
        return torch.where(torch.arange(len(z))[:, None] == 1, torch.nan, z)

    controller.model.encode = broken  # type: ignore[method-assign]
    rows, _ = run_entry(reach, goals, "state", Entry("cem", "planner", controller, [0], timed=False))
    assert rows[0].statuses == {"ok": 6, "no_finite_energy": 3} and rows[0].error is None
    assert remarks(rows) == ["cem: no candidate had a finite energy in 3 of 9 plans, which went on as the ones before"]


def test_only_the_seed_that_was_timed_has_times(reach: ArmEnv, goals: GoalManifest) -> None:
    rows, _ = run_entry(reach, goals, "state", Entry("cem", "planner", planning(reach, model()), [0, 1, 2]))
    assert [row.plans for row in rows] == [3, None, None]
    assert [row.plan_ms_p50 is None for row in rows] == [False, True, True]
    assert all(row.plan_ms_batched for row in rows)
    (pooled,) = pool(rows)
    assert pooled.plans == 3 and pooled.plan_ms_p50 == rows[0].plan_ms_p50


def test_a_bench_goes_on_and_its_exit_code_says_that_something_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two checkpoints, the weights of one are such that nothing it imagines is finite."""
    folders = []
    for name in ("whole", "broken"):
        made = model()
        if name == "broken":
            for parameter in made.predictor.parameters():
                parameter.data.fill_(1e30)
        low, high = (-1.0,) * 5, (1.0,) * 5
        folders.append(
            Checkpoint(made, "reach", {"pixels": False, "size": 64}, "state", low, high).save(tmp_path / name)
        )
    command = ["bench", "env=reach", "obs=state", f"checkpoint=[{','.join(map(str, folders))}]", "planners=[cem,zero]"]
    small = ["planner_seeds=[0]", "episodes=2", "video_episodes=0", "planner.samples=4", "planner.iterations=1"]
    assert main([*command, *small, f"out={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr()
    assert "1 of 3 rows failed" in said.err and "No candidate had a finite energy" in said.err
    rows = read_results(tmp_path / "run" / "results.json").rows
    assert [row.error is None for row in rows] == [True, False, True]
    assert "failed" in said.out and (tmp_path / "run" / "report.html").exists()
    assert rows[0].outcomes is not None and len(rows[0].outcomes["success"]) == 2
    assert "goals: seed 0" in said.out
    facts = json.loads((tmp_path / "run" / "results.json").read_text())["facts"]
    assert facts["goals drawn"] == "seed 0, 2 of them"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["planner_seeds=[0,1,0]"], r"planner_seeds=\[0,1,0\]: 0 is there already"),
        (["budgets=[8x2,08x2]"], r"budgets=\[8x2,08x2\]: 08x2 is there already"),
        (["energies=[own,mse/min/slow,mse/min/slow]"], r"energies=.*: mse/min/slow is there already"),
        (["checkpoint=[push-state,push-state]"], r"checkpoint=\[push-state,push-state\]: push-state is there already"),
    ],
)
def test_the_same_trial_twice_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "env=push", "obs=state", *words, "out=never"]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not Path("never").exists()


def test_a_budget_that_says_what_is_said_already_is_taken_once() -> None:
    words = ["planners=[cem,mppi]", "budgets=[own,128x5]", "planner.samples=128", "planner.iterations=5"]
    searches = {name: [one.planner.search for one in its] for name, its in settings_of("bench", words).tried.items()}
    budgets = {name: [(search.samples, search.iterations) for search in its] for name, its in searches.items()}
    assert budgets["cem"] == [(128, 5)]
    assert len(budgets["mppi"]) == len(set(budgets["mppi"]))


def test_the_priors_row_has_settings_of_its_own(reach: ArmEnv, goals: GoalManifest) -> None:
    of = model(readout=3)
    prior = ActionPrior(PriorArchitecture(latent=6, goal=3, action_size=5, segment=6, width=8)).eval()
    torch.nn.init.normal_(prior.velocity.bias, std=0.1)
    space = action_space([-1] * 5, [1] * 5, 1, 2)
    rows = {}
    for steps, temperature in ((1, 0.6), (3, 0.6), (3, 0.0)):
        alone = PriorController(of, prior, space, "cpu", steps, temperature)
        rows[steps, temperature], _ = run_entry(reach, goals, "state", Entry("prior", "planner", alone, [0, 1]))
    assert rows[1, 0.6][0].plans == 6 and rows[3, 0.6][0].plans == 2, "it executes so many steps of each answer"
    final = {key: [row.outcomes["final_cm"] for row in its if row.outcomes] for key, its in rows.items()}
    assert final[3, 0.6][0] != final[3, 0.6][1], "seeds differ in their noise"
    assert final[3, 0.0][0] == final[3, 0.0][1], "without noise, they do not"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"execute_steps": 7}, r"prior_alone\.execute_steps=7: must lie in 1 … 6"),
        ({"execute_steps": 0}, r"prior_alone\.execute_steps=0: must be at least 1"),
        ({"temperature": -0.1}, r"prior_alone\.temperature=-0\.1: must not be negative"),
    ],
)
def test_settings_that_a_prior_cannot_act_by_are_refused(setting: dict[str, float], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        forearm.evaluate(
            env="pickplace", obs="state", planners=["prior"], prior_alone=setting, progress=False, out=tmp_path / "no"
        )


def test_what_is_not_timed_alone_has_its_share_of_the_batch(reach: ArmEnv, goals: GoalManifest) -> None:
    rows, _ = run_entry(reach, goals, "state", Entry("random", "floor", RandomController(5, 2), [0], timed=False))
    assert rows[0].plan_ms_p50 is not None


def test_a_table_says_what_ran_the_plans_where_it_was_not_what_was_asked_for(
    reach: ArmEnv, goals: GoalManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = planning(reach, model())
    (row,), _ = run_entry(reach, goals, "state", Entry("cem", "planner", controller, [0], timed=False))
    assert row.backend == "eager" and "run by" not in cells([row])[0]

    def no_compiler(*_: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: no_compiler)
    monkeypatch.setattr(controller, "planner", replace(controller.planner, backend="inductor"))
    with pytest.warns(RuntimeWarning, match="no compiler"):
        (row,), _ = run_entry(reach, goals, "state", Entry("cem", "planner", controller, [0], timed=False))
    header, line = cells([row])
    assert line[header.index("run by")] == row.backend == "eager, not inductor"
