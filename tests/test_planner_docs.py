"""The documentation's code runs."""

import re
import runpy
from pathlib import Path

import pytest
from forearm.planner import PLANNERS, make_planner
from forearm.planner.problems import double_integrator

ROOT = Path(__file__).parent.parent


def test_code_in_the_documentation_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    own, added = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "planner.md").read_text(), re.DOTALL)
    exec(own, {})
    assert "OK" in capsys.readouterr().out
    monkeypatch.setattr(PLANNERS, "parts", dict(PLANNERS.parts))  # so that what the example adds is removed again
    exec(added, {"__name__": "added"})
    problem = double_integrator()
    planner = make_planner("annealed", problem.space, samples=512, iterations=6)
    start = problem.energy(problem.space.low.new_zeros(1, 1, 20, 1)).item()
    assert planner.plan(problem.energy, planner.init(1)).energy.item() < 0.5 * start


def test_example_arrives(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "own_model.py"), run_name="__main__")
    assert "step 60" in capsys.readouterr().out
