"""What an evaluation found: one row a planner and seed, `results.json`, pooling over seeds, and the table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ..files import write_json
from .statistics import difference, two_way_interval, wilson

SCHEMA = 1

Kind = Literal["floor", "planner", "ceiling"]
KINDS: tuple[Kind, ...] = ("floor", "planner", "ceiling")
AVERAGED = ("plan_ms_mean", "energy_held", "plan_error_cm", "phantoms", "clear_moderate", "clear_strict")
"""Fields of a pooled row that are the mean of its rows'."""
PLANNED = ("env", "obs", "planner", "kind", "energy", "samples", "iterations", "horizon")
"""What makes a planner in a table, whatever its seeds and its model."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One planner on one goal manifest.

    `success` and `reached` are fractions of `episodes`: the goal holds at the end of the episode, and it held at any
    step; `by_task` is `success` a task, where the goals are of several. `plan_ms_*` are milliseconds a plan (None when
    nothing was planned), with their mean where all were timed, one by one; `plan_ms_batched` when all problems are
    planned in one batch. `evaluations` are energy evaluations a plan, on average. Under a deadline `misses` of the
    `plans` came late, and the previous plan went on. `violations` counts executed steps inside a keep-out box. `drops`
    counts episodes in which an object was dropped, `diverged` those that failed because their simulation diverged;
    `energy_held` is the median energy of plans made while the goal held, where all are searched; `plan_error_cm` and
    `phantoms` are as in `Foresight`; `clear_moderate` and `clear_strict` are fractions by the rules of
    evaluation/clear.py. `statuses` counts the plans of each `Status`; `backend` is what ran them. `outcomes` has a list
    a name, such as `success`, `reached` and `final_cm`, of one value a goal, in the manifest's order, so that rows can
    be paired afterwards.
    `error` says why a row that has no episodes could not be measured. A row pooled over planner seeds has `seed=None`
    and lists them in `seeds`; `pooled` are the rows it was made of. `model` tells models apart where there are several.
    """

    env: str
    obs: str
    planner: str
    episodes: int
    successes: int
    success: float
    wilson: tuple[float, float]
    reached: float
    seed: int | None
    plan_ms_p50: float | None
    plan_ms_p95: float | None
    evaluations: int
    kind: Kind = "planner"
    seeds: tuple[int, ...] = ()
    energy: str | None = None
    samples: int | None = None
    iterations: int | None = None
    horizon: int | None = None
    final_distance_cm: float | None = None
    drops: int | None = None
    diverged: int | None = None
    plan_ms_batched: float | None = None
    plan_ms_mean: float | None = None
    plan_ms_p99: float | None = None
    plans: int | None = None
    misses: int | None = None
    violations: int | None = None
    by_task: dict[str, float] | None = None
    energy_held: float | None = None
    plan_error_cm: float | None = None
    phantoms: float | None = None
    clear_moderate: float | None = None
    clear_strict: float | None = None
    statuses: dict[str, int] | None = None
    backend: str | None = None
    model: str | None = None
    note: str | None = None
    outcomes: dict[str, list[Any]] | None = None
    error: str | None = None
    pooled: tuple[Row, ...] = ()

    @property
    def plan_ms(self) -> float | None:
        """Milliseconds a plan: the mean where it is known, for not every plan may search; else the median."""
        return self.plan_ms_p50 if self.plan_ms_mean is None else self.plan_ms_mean

    @classmethod
    def from_episodes(
        cls,
        *,
        env: str,
        obs: str,
        planner: str,
        seed: int,
        success: ArrayLike,
        reached: ArrayLike,
        plan_ms: ArrayLike = (),
        evaluations: int = 0,
        final_distance_cm: ArrayLike | None = None,
        drops: ArrayLike | None = None,
        outcomes: Mapping[str, ArrayLike] | None = None,
        **labels: Any,
    ) -> Row:
        """Summarise per-episode arrays: `success`, `reached`, `drops` (E,) bool, `final_distance_cm` (E,) centimetres
        (its median is kept), and `plan_ms` (P,) milliseconds of every plan made in those episodes.

        `labels` are further fields of the row: kind, energy, samples, iterations, horizon, plan_ms_mean,
        plan_ms_batched, diverged, misses, violations, by_task, energy_held, plan_error_cm, phantoms, statuses, backend,
        model and note; `outcomes` further lists of one value an episode, which are kept beside those above; the share
        of `clear_moderate` and `clear_strict` among them is a field too.
        Raises ValueError when there is no episode, or when shapes differ.
        """
        held, seen = np.asarray(success, dtype=bool), np.asarray(reached, dtype=bool)
        if held.ndim != 1 or held.size == 0 or held.shape != seen.shape:
            raise ValueError(f"success and reached must be (E,) with E > 0, got {held.shape} and {seen.shape}")
        successes = int(held.sum())
        given = {"success": held, "reached": seen, "final_cm": final_distance_cm, "dropped": drops, **(outcomes or {})}
        kept = {name: _outcomes(value) for name, value in given.items() if value is not None}
        if any(len(values) != held.size for values in kept.values()):
            raise ValueError(f"outcomes must be of {held.size} episodes each")
        rules = {name: float(np.mean(kept[name])) for name in ("clear_moderate", "clear_strict") if name in kept}
        return cls(
            env=env,
            obs=obs,
            planner=planner,
            episodes=held.size,
            successes=successes,
            success=successes / held.size,
            wilson=wilson(successes, held.size),
            reached=float(seen.mean()),
            seed=seed,
            **plan_times(plan_ms),
            evaluations=evaluations,
            seeds=(seed,),
            final_distance_cm=_finite_median(final_distance_cm),
            drops=None if drops is None else int(np.asarray(drops, dtype=bool).sum()),
            outcomes=kept,
            **rules,
            **labels,
        )

    @classmethod
    def failed(cls, error: str, *, env: str, obs: str, planner: str, seed: int, kind: Kind, **labels: Any) -> Row:
        """The row of a planner that could not be measured, which says why."""
        nothing = {"episodes": 0, "successes": 0, "success": 0.0, "wilson": (0.0, 1.0), "reached": 0.0}
        times = {"plan_ms_p50": None, "plan_ms_p95": None, "evaluations": 0}
        told = {"env": env, "obs": obs, "planner": planner, "seed": seed, "seeds": (seed,), "kind": kind}
        return cls(**nothing, **times, **told, error=error, **labels)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Row:
        """The inverse of `to_json`; unknown keys are ignored. Raises KeyError or TypeError when one is missing."""
        known = {f.name: value[f.name] for f in fields(cls) if f.name in value}
        lo, hi = value["wilson"]
        return cls(**(known | {"wilson": (lo, hi), "seeds": tuple(value.get("seeds", ()))}))

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values. The keys up to `evaluations` are always there; the optional ones when set."""
        optional = {f.name for f in fields(self) if f.default is None}
        values = asdict(replace(self, pooled=()))
        del values["pooled"]
        return {key: value for key, value in values.items() if key not in optional or value is not None}


def _outcomes(values: ArrayLike) -> list[Any]:
    """One JSON value an episode: what is not finite is None."""
    listed = np.ravel(values).tolist()
    return [None if isinstance(value, float) and not math.isfinite(value) else value for value in listed]


def _finite_median(values: ArrayLike | None) -> float | None:
    """None where most are infinite, which JSON has no word for."""
    median = np.inf if values is None else float(np.median(np.asarray(values)))
    return median if np.isfinite(median) else None


def plan_times(plan_ms: ArrayLike) -> dict[str, Any]:
    """The fields of a `Row` that sum up milliseconds (P,) of plans, which may be none."""
    times = np.asarray(plan_ms, dtype=float).ravel()
    shares = {f"plan_ms_p{p}": float(np.percentile(times, p)) if times.size else None for p in (50, 95, 99)}
    return {**shares, "plans": times.size or None}


@dataclass(frozen=True)
class Results:
    """A `results.json`: the rows, the sha256 of the goal manifest they were measured on, and whatever else it says."""

    manifest: str
    rows: list[Row]
    more: dict[str, Any]

    @property
    def best(self) -> Row:
        """Of the planners, pooled over seeds, the first of those that hold most goals. ValueError where none ran."""
        planners = [row for row in pool(self.rows) if row.kind == "planner" and row.error is None]
        if not planners:
            raise ValueError(f"no planner ran: {'; '.join(failures(self.rows)) or 'none was asked for'}")
        return max(planners, key=lambda row: row.success)

    @property
    def success(self) -> float:
        """The share of goals that the best planner holds at the end."""
        return self.best.success

    @property
    def interval(self) -> tuple[float, float]:
        """Of that share, at 95 %."""
        return self.best.wilson

    def __str__(self) -> str:
        """The table, pooled over seeds, and what is to be said of it."""
        return "\n".join([table(pool(self.rows)), *remarks(pool(self.rows))])


def write_results(path: str | Path, rows: Iterable[Row], manifest_sha256: str, **more: Any) -> Path:
    """Write `{"schema": 1, "manifest": sha256, "rows": [...], **more}` atomically."""
    head = {"schema": SCHEMA, "manifest": manifest_sha256, "rows": [row.to_json() for row in rows]}
    if taken := head.keys() & more.keys():
        raise ValueError(f"results already have the keys {sorted(taken)}")
    return write_json(path, head | more)


def read_results(path: str | Path) -> Results:
    """Read what `write_results` wrote. Raises ValueError, naming the file, when it is not such a file."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        if value["schema"] != SCHEMA:
            raise ValueError(f"schema {value['schema']!r}, expected {SCHEMA}")
        more = {key: item for key, item in value.items() if key not in ("schema", "manifest", "rows")}
        return Results(value["manifest"], [Row.from_json(row) for row in value["rows"]], more)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a results file: {error}") from error


TRAINING_SEED = "seed "
"""How the names of models begin that differ in their training seed alone."""


def pool(rows: Iterable[Row]) -> list[Row]:
    """Pool the seeds of each planner into one row, in order of first appearance; and of models that differ in their
    training seed, a further row for all of them. Rows that failed stay as they are.

    Successes add up, and the interval speaks of new seeds on new goals (`two_way_interval`): all seeds share the goals,
    so they are not as many trials as there are episodes. Of the plan times only percentiles are known here: the median
    of the p50, and the worst p95 and p99.
    """
    pooled = []
    for models in _groups(rows, PLANNED).values():
        each = _groups(models, (*PLANNED, "model")).values()
        for group in each:
            measured = [row for row in group if row.error is None]
            pooled += [_pooled(measured)] if measured else []
            pooled += [row for row in group if row.error is not None]
        measured = [row for row in models if row.error is None]
        several = len(_groups(measured, ("model",))) > 1
        if several and all((row.model or "").startswith(TRAINING_SEED) for row in measured):
            pooled.append(replace(_pooled(measured), model=f"all {len(_groups(measured, ('model',)))}"))
    return pooled


def trials(row: Row) -> np.ndarray | None:
    """Success (S, G) of a row on each goal, by seed, or by model where it is pooled of several: mean over the planner
    seeds of each. None where outcomes were not kept, or seeds met different goals."""
    rows = row.pooled or (row,)
    groups = _groups(rows, ("model",)).values()
    units = list(groups) if len(groups) > 1 else [[one] for one in rows]
    kept = [[one.outcomes["success"] for one in unit if one.outcomes] for unit in units]
    lengths = {len(success) for unit in kept for success in unit}
    if len(lengths) != 1 or any(len(unit) != len(of) for unit, of in zip(kept, units, strict=True)):
        return None
    return np.stack([np.mean(unit, axis=0) for unit in kept])


def beside_best(rows: Sequence[Row]) -> list[str]:
    """How much each row's success is from that of the best planner of its task, on the goals that both met, and the
    p-value of no difference (`difference`); a dash where that cannot be said."""
    found = []
    for row in rows:
        others = [one for one in rows if (one.env, one.obs) == (row.env, row.obs)]
        planners = [one for one in others if one.kind == "planner" and one.error is None]
        best = max(planners, key=lambda one: (one.success, one.episodes), default=None)
        if best is None or row.error is not None:
            found.append("-")
        elif row is best:
            found.append("best")
        else:
            found.append(_beside(row, best))
    return found


def _beside(row: Row, best: Row) -> str:
    own, its = trials(row), trials(best)
    if own is None or its is None:
        return "-"
    few = min(own.shape[1], its.shape[1])  # a ceiling may be of the first goals only
    apart = difference(own[:, :few], its[:, :few])
    if apart is None:
        return "-"
    chance = "p<0.001" if apart.p_value < 0.001 else f"p={apart.p_value:.2g}"
    return f"{100 * apart.mean:+.1f}, {chance}"


def _groups(rows: Iterable[Row], names: Sequence[str]) -> dict[tuple[object, ...], list[Row]]:
    """Rows by what these fields of theirs hold, in order of first appearance."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, name) for name in names), []).append(row)
    return groups


def table(rows: Sequence[Row]) -> str:
    """The rows as an aligned Markdown table, for terminal, README and docs alike: floors, planners, then ceilings."""
    lines = cells(rows)
    return markdown(lines, lines[0].index("planner") + 1)


def markdown(lines: Sequence[Sequence[str]], texts: int) -> str:
    """An aligned Markdown table of lines, the header first; the first `texts` columns are words, the others numbers."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    def line(values: Sequence[str]) -> str:
        padded = [v.ljust(w) if i < texts else v.rjust(w) for i, (v, w) in enumerate(zip(values, widths, strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = [f"{'-' * width}" if i < texts else f"{'-' * (width - 1)}:" for i, width in enumerate(widths)]
    return "\n".join([line(lines[0]), line(rule), *map(line, lines[1:])])


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """Header and body of the table as text. What is the same in every row (env, obs, energy) gets no column."""
    rows = ordered(rows)
    varying = [
        name for name in ("env", "obs", "energy", "model") if len({getattr(row, name) for row in rows} - {None}) > 1
    ]
    if len(_groups(rows, (*PLANNED, "model"))) < len(rows):
        varying.append("seed")
    budgets = [f"{row.samples}x{row.iterations}" if row.samples and row.iterations else "-" for row in rows]
    if all(
        len({b for b, other in zip(budgets, rows, strict=True) if other.planner == row.planner}) == 1 for row in rows
    ):
        budgets = []
    extra = {
        name: text
        for name, attribute, text in (
            ("final cm", "final_distance_cm", lambda row: _number(row.final_distance_cm)),
            ("diverged", "diverged", lambda row: str(row.diverged or 0)),
            ("dropped %", "drops", lambda row: "-" if row.drops is None else percent(row.drops / row.episodes)),
            ("5-step error cm", "plan_error_cm", lambda row: _number(row.plan_error_cm)),
            ("phantom lifts %", "phantoms", lambda row: "-" if row.phantoms is None else percent(row.phantoms)),
            ("mean ms", "plan_ms_mean", lambda row: _number(row.plan_ms_mean)),
            ("p99 ms", "misses", lambda row: _number(row.plan_ms_p99)),
            ("late", "misses", lambda row: "-" if row.misses is None else f"{row.misses} of {row.plans:,}"),
            ("steps in box", "violations", lambda row: _text(row.violations)),
            ("run by", "backend", lambda row: row.backend or "-"),
            ("CLEAR moderate %", "clear_moderate", lambda row: _percent(row.clear_moderate)),
            ("CLEAR strict %", "clear_strict", lambda row: _percent(row.clear_strict)),
        )
        if {getattr(row, attribute) for row in rows} - {None, "eager"}
    }
    beside = beside_best(rows)
    if all(text in ("-", "best") for text in beside):
        beside = []
    header = [
        *varying,
        *["budget"] * bool(budgets),
        "planner",
        "success % [95 %]",
        "reached %",
        "plan ms p50 / p95",
        "evaluations",
        "episodes",
    ]
    header += ["beside the best"] * bool(beside)
    body = [
        [
            *(_text(getattr(row, name)) for name in varying),
            *budgets[index : index + 1],
            row.planner if row.kind == "planner" else f"{row.planner} ({row.kind})",
            "failed" if row.error is not None else f"{percent(row.success)} {interval(row)}",
            "-" if row.error is not None else percent(row.reached),
            _times(row),
            f"{row.evaluations:,}" if row.evaluations else "-",
            _episodes(row),
            *beside[index : index + 1],
            *(text(row) for text in extra.values()),
        ]
        for index, row in enumerate(rows)
    ]
    return [[*header, *extra], *body]


def interval(row: Row) -> str:
    """The 95 % interval as tables have it."""
    return f"[{percent(row.wilson[0])}, {percent(row.wilson[1])}]"


def failures(rows: Iterable[Row]) -> list[str]:
    """A line for each row that could not be measured, with the reason."""
    lines = []
    for row in rows:
        if row.error is not None:
            of = "".join(f", {name} {value}" for name, value in (("model", row.model), ("seed", row.seed)) if value)
            lines.append(f"{row.planner}{of}: {row.error}")
    return lines


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Floors first, then planners, then ceilings; otherwise as given."""
    return sorted(rows, key=lambda row: KINDS.index(row.kind))


def percent(fraction: float) -> str:
    """0.964 -> "96.4", and "100" only for exactly 1."""
    return "100" if fraction == 1 else f"{min(100 * fraction, 99.9):.1f}"


def remarks(rows: Iterable[Row]) -> list[str]:
    """A line for each row some of whose plans had no energy to go by."""
    lines = []
    for row in rows:
        statuses = row.statuses or {}
        if lost := statuses.get("no_finite_energy", 0):
            plans = sum(statuses.values())
            lines.append(
                f"{row.planner}: no candidate had a finite energy in {lost:,} of {plans:,} plans, which went on as the "
                "ones before"
            )
    return lines


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else percent(fraction)


def _number(value: float | None) -> str:
    """Three significant digits without an exponent; a dash for None."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _times(row: Row) -> str:
    return "-" if row.plan_ms_p50 is None else f"{_number(row.plan_ms_p50)} / {_number(row.plan_ms_p95)}"


def _episodes(row: Row) -> str:
    seeds = len(row.seeds)
    return f"{row.episodes // seeds} x {seeds}" if seeds > 1 and row.episodes % seeds == 0 else str(row.episodes)


def _pooled(rows: list[Row]) -> Row:
    if len(rows) == 1:
        return rows[0]
    episodes = sum(row.episodes for row in rows)
    successes = sum(row.successes for row in rows)
    weights = [row.episodes for row in rows]
    p50 = _known(rows, "plan_ms_p50")
    p95 = _known(rows, "plan_ms_p95")
    distances = _known(rows, "final_distance_cm")
    p99 = _known(rows, "plan_ms_p99")
    whole = replace(
        rows[0],
        episodes=episodes,
        successes=successes,
        success=successes / episodes,
        outcomes=None,
        pooled=tuple(rows),
        reached=float(np.average([row.reached for row in rows], weights=weights)),
        seed=None,
        seeds=tuple(seed for row in rows for seed in row.seeds),
        plan_ms_p50=float(np.median(p50)) if p50 else None,
        plan_ms_p95=max(p95, default=None),
        evaluations=round(np.average([row.evaluations for row in rows], weights=weights)),
        final_distance_cm=float(np.median(distances)) if distances else None,
        **{name: _average(rows, name) for name in AVERAGED},
        plan_ms_p99=max(p99, default=None),
        by_task=_mean_by_task(rows, weights),
        statuses=_add(rows),
        **{name: _total(rows, name) for name in ("drops", "diverged", "plans", "misses", "violations")},
    )
    return replace(whole, wilson=_interval(whole))


def _interval(row: Row) -> tuple[float, float]:
    """The interval of a pooled row. Of rows that kept no outcomes, the widest that their rates allow: each goal ends
    alike for all seeds but for what makes these differ."""
    of_goals = trials(row)
    if of_goals is not None:
        return two_way_interval(of_goals)
    groups = list(_groups(row.pooled, ("model",)).values())
    units = groups if len(groups) > 1 else [[one] for one in row.pooled]
    goals = max(one.episodes for one in row.pooled)
    rates = np.array([sum(one.successes for one in unit) / sum(one.episodes for one in unit) for unit in units])
    return two_way_interval(np.arange(goals) < np.round(goals * rates)[:, None])


def _add(rows: Sequence[Row]) -> dict[str, int] | None:
    known: list[dict[str, int]] = _known(rows, "statuses")
    names = dict.fromkeys(name for statuses in known for name in statuses)
    return {name: sum(statuses.get(name, 0) for statuses in known) for name in names} if known else None


def _average(rows: Sequence[Row], name: str) -> float | None:
    known = _known(rows, name)
    return float(np.mean(known)) if known else None


def _total(rows: Sequence[Row], name: str) -> int | None:
    known = _known(rows, name)
    return sum(known) if known else None


def _mean_by_task(rows: Sequence[Row], weights: Sequence[int]) -> dict[str, float] | None:
    tasks = rows[0].by_task
    if not tasks or any(row.by_task is None or row.by_task.keys() != tasks.keys() for row in rows):
        return None
    values = [[(row.by_task or {})[task] for row in rows] for task in tasks]
    return {task: float(np.average(value, weights=weights)) for task, value in zip(tasks, values, strict=True)}


def _known(rows: Sequence[Row], name: str) -> list[Any]:
    """A field's values, where it has one."""
    return [value for row in rows if (value := getattr(row, name)) is not None]
