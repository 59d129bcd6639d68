"""Intervals over seeds and goals that cover as often as they say; pairs of planners; what a results file keeps."""

from __future__ import annotations

import json
from math import inf, sqrt
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from forearm.evaluation.results import Row, failures, pool, read_results, table, trials, write_results
from forearm.evaluation.statistics import (
    Spread,
    compare_paired,
    difference,
    two_way_interval,
    two_way_spread,
    wilson,
)


def outcomes(rng: np.random.Generator, rate: float, seeds: float, goals: float, shape: tuple[int, int]) -> np.ndarray:
    """Success (S, G) whose mean over all seeds and goals is `rate`; deviations of probits between seeds and goals."""
    ability = NormalDist().inv_cdf(rate) * sqrt(1 + seeds**2 + goals**2)
    luck = rng.normal(0, seeds, (shape[0], 1)) + rng.normal(0, goals, (1, shape[1])) + rng.normal(0, 1, shape)
    return luck < ability


@pytest.mark.parametrize("rate", [0.5, 0.8, 0.93, 0.98])
@pytest.mark.parametrize(("seeds", "goals"), [(0.0, 1.0), (0.3, 1.0), (0.3, 2.0)])
def test_an_interval_over_seeds_and_goals_covers(rate: float, seeds: float, goals: float) -> None:
    """3 seeds x 100 goals. A probit deviation of 0.3 between seeds is such as 98, 91 and 89 of 100."""
    rng = np.random.default_rng(0)
    every = [outcomes(rng, rate, seeds, goals, (3, 100)) for _ in range(800)]
    limits = np.array([two_way_interval(success) for success in every])
    covered = (limits[:, 0] <= rate) & (rate <= limits[:, 1])
    assert covered.mean() >= 0.92
    if seeds:  # what was printed before: all trials as if they were independent
        before = np.array([wilson(int(success.sum()), success.size) for success in every])
        assert ((before[:, 0] <= rate) & (rate <= before[:, 1])).mean() < 0.88


def test_seeds_that_differ_widen_an_interval() -> None:
    """98, 89 and 91 of the same 100 goals, of which it was said [89.1, 95.1]."""
    success = np.arange(100) < np.array([[98], [89], [91]])
    low, high = two_way_interval(success)
    assert wilson(278, 300) == pytest.approx((0.891, 0.951), abs=1e-3)
    assert low < 0.85 and 0.96 < high < 1


def test_with_one_seed_or_all_alike_an_interval_is_wilsons_over_the_goals() -> None:
    one = (np.arange(100) < 93)[None]
    assert two_way_interval(one) == pytest.approx(wilson(93, 100))
    assert two_way_interval(np.ones((3, 100))) == pytest.approx(wilson(100, 100))
    assert two_way_interval(np.zeros((3, 100))) == pytest.approx(wilson(0, 100))
    assert two_way_interval(one.repeat(3, axis=0)) == pytest.approx(wilson(93, 100), abs=1e-3), "the same trial thrice"
    for bad in (np.ones(3), np.ones((0, 3)), np.ones((2, 0))):
        with pytest.raises(ValueError, match=r"\(S, G\)"):
            two_way_interval(bad)


def test_spread_is_that_of_a_two_way_analysis() -> None:
    """Mean squares of a table worked by hand: rows 1 2 3 and 3 4 8."""
    spread = two_way_spread([[1.0, 2.0, 3.0], [3.0, 4.0, 8.0]])
    seeds, goals, rest = 13.5, 6.5, 1.5
    assert spread.variance == pytest.approx((seeds + goals - rest) / 6)
    assert spread.freedom == pytest.approx(((seeds + goals - rest) / seeds) ** 2)
    assert two_way_spread([[0.0, 1.0], [0.0, 1.0]]).freedom == inf
    with pytest.raises(ValueError, match="two seeds and two goals"):
        two_way_spread([[1.0, 2.0]])


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (30, 2.042), (inf, 1.960)])
def test_students_quantiles_are_those_of_tables(freedom: float, quantile: float) -> None:
    assert Spread(1.0, freedom).quantile(0.95) == pytest.approx(quantile, abs=6e-4)


def test_planners_are_compared_on_the_same_goals() -> None:
    first, second = np.arange(20) < 18, np.arange(20) < 11
    apart = difference([first], [second])
    assert apart is not None and apart.mean == pytest.approx(0.35)
    assert apart.p_value == compare_paired(first, second).p_value == 2 / 2**7
    rng = np.random.default_rng(0)
    better, worse = outcomes(rng, 0.9, 0.1, 1, (3, 100)), outcomes(rng, 0.5, 0.1, 1, (3, 100))
    found = difference(better, worse)
    assert found is not None and found.mean == pytest.approx(better.mean() - worse.mean()) and found.p_value < 0.05
    alike = difference(better, better)
    assert alike is not None and (alike.mean, alike.p_value) == (0.0, 1.0)
    floor = difference(better, np.zeros((1, 100)))  # a floor has one seed
    assert floor is not None and floor.p_value < 0.01
    assert difference(better, worse[:2]) is None
    with pytest.raises(ValueError, match="same goals"):
        difference(better, worse[:, :9])


def test_a_test_of_no_difference_is_seldom_wrong() -> None:
    """Two planners of one success rate on 3 seeds x 100 goals: of 5 % level, wrong in 8 % at most."""
    rng = np.random.default_rng(0)
    wrong = []
    for _ in range(400):
        both = outcomes(rng, 0.9, 0.3, 1.0, (6, 100))
        apart = difference(both[:3], both[3:])
        assert apart is not None
        wrong.append(apart.p_value < 0.05)
    assert np.mean(wrong) <= 0.08


def row(success: np.ndarray, seed: int = 0, **more: object) -> Row:
    held = np.asarray(success, bool)
    return Row.from_episodes(env="push", obs="state", planner="cem", seed=seed, success=held, reached=held, **more)  # type: ignore[arg-type]


def test_pooled_rows_take_seeds_and_goals_at_random() -> None:
    rng = np.random.default_rng(1)
    success = outcomes(rng, 0.8, 0.3, 1.0, (3, 40))
    (pooled,) = pool([row(one, seed) for seed, one in enumerate(success)])
    assert (pooled.episodes, pooled.successes) == (120, int(success.sum()))
    assert pooled.wilson == pytest.approx(two_way_interval(success))
    of = trials(pooled)
    assert of is not None and np.array_equal(of, success)


def test_of_several_models_planner_seeds_are_averaged() -> None:
    rng = np.random.default_rng(2)
    success = outcomes(rng, 0.8, 0.3, 1.0, (4, 40)).reshape(2, 2, 40)
    rows = [row(success[m, s], s, model=f"seed {m}") for m in range(2) for s in range(2)]
    first, _, everything = pool(rows)
    assert first.wilson == pytest.approx(two_way_interval(success[0]))
    assert everything.model == "all 2" and everything.wilson == pytest.approx(two_way_interval(success.mean(1)))


def test_rows_without_outcomes_are_pooled_as_if_goals_ended_alike(tmp_path: Path) -> None:
    """Results of 0.1.0 kept rates alone: the interval is the widest of those that they allow."""
    success = np.arange(100) < np.array([[98], [89], [91]])
    rows = [row(one, seed) for seed, one in enumerate(success)]
    path = write_results(tmp_path / "results.json", rows, "f" * 64)
    value = json.loads(path.read_text())
    for line in value["rows"]:
        del line["outcomes"]
    path.write_text(json.dumps(value))
    (pooled,) = pool(read_results(path).rows)
    assert trials(pooled) is None and pooled.wilson == pytest.approx(two_way_interval(success))


def test_results_keep_the_outcome_of_every_goal(tmp_path: Path) -> None:
    distance = np.array([1.0, 2.5, np.nan])
    one = row(
        np.array([1, 0, 0]),
        final_distance_cm=distance,
        drops=[False, True, False],
        outcomes={"clear_strict": [0, 1, 0]},
    )
    kept = read_results(write_results(tmp_path / "results.json", [one], "f" * 64)).rows[0]
    assert kept == one and kept.clear_strict == pytest.approx(1 / 3)
    assert kept.outcomes == {
        "success": [True, False, False],
        "reached": [True, False, False],
        "final_cm": [1.0, 2.5, None],
        "dropped": [False, True, False],
        "clear_strict": [0, 1, 0],
    }
    with pytest.raises(ValueError, match="of 3 episodes each"):
        row(np.zeros(3), outcomes={"clear_strict": [True]})


def test_the_table_compares_with_the_best_planner() -> None:
    goals = np.arange(20)
    rows = [
        Row.from_episodes(
            env="push", obs="state", planner=name, kind=kind, seed=0, success=goals < held, reached=goals < held
        )
        for name, kind, held in (("zero", "floor", 0), ("cem", "planner", 18), ("mppi", "planner", 11))
    ]
    lines = [[cell.strip() for cell in line.split("|")] for line in table(rows).splitlines()]
    column = lines[0].index("beside the best")
    assert [line[column] for line in lines[2:]] == ["-90.0, p<0.001", "best", "-35.0, p=0.016"]
    assert "beside the best" not in table(rows[1:2])


def test_a_failed_row_says_why_and_leaves_the_others(tmp_path: Path) -> None:
    bad = Row.failed("ValueError: no", env="push", obs="state", planner="mppi", seed=3, kind="planner", samples=8)
    rows = [row(np.arange(20) < 18), bad]
    assert read_results(write_results(tmp_path / "results.json", rows, "f" * 64)).rows == rows
    assert pool(rows) == rows and failures(rows) == ["mppi, seed 3: ValueError: no"]
    line = table(rows).splitlines()[-1]
    assert "failed" in line and "0.0" not in line
