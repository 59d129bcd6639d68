"""What an evaluation found: one row a planner and seed, `results.json`, pooling over seeds, and the table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ..files import write_json
from .statistics import wilson

SCHEMA = 1

Kind = Literal["floor", "planner", "ceiling"]
KINDS: tuple[Kind, ...] = ("floor", "planner", "ceiling")
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
    `phantoms` are as in `Foresight`. A row pooled over planner seeds has `seed=None` and lists them in `seeds`. `model`
    tells models apart where there are several.
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
    model: str | None = None
    note: str | None = None

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
        **labels: Any,
    ) -> Row:
        """Summarise per-episode arrays: `success`, `reached`, `drops` (E,) bool, `final_distance_cm` (E,) centimetres
        (its median is kept), and `plan_ms` (P,) milliseconds of every plan made in those episodes.

        `labels` are further fields of the row: kind, energy, samples, iterations, horizon, plan_ms_mean,
        plan_ms_batched, diverged, misses, violations, by_task, energy_held, plan_error_cm, phantoms, model and note.
        Raises ValueError when there is no episode, or when shapes differ.
        """
        held, seen = np.asarray(success, dtype=bool), np.asarray(reached, dtype=bool)
        if held.ndim != 1 or held.size == 0 or held.shape != seen.shape:
            raise ValueError(f"success and reached must be (E,) with E > 0, got {held.shape} and {seen.shape}")
        successes = int(held.sum())
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
            **labels,
        )

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Row:
        """The inverse of `to_json`; unknown keys are ignored. Raises KeyError or TypeError when one is missing."""
        known = {f.name: value[f.name] for f in fields(cls) if f.name in value}
        lo, hi = value["wilson"]
        return cls(**(known | {"wilson": (lo, hi), "seeds": tuple(value.get("seeds", ()))}))

    def to_json(self) -> dict[str, Any]:
        """The row as JSON values. The keys up to `evaluations` are always there; the optional ones when set."""
        optional = {f.name for f in fields(self) if f.default is None}
        return {key: value for key, value in asdict(self).items() if key not in optional or value is not None}


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
    training seed, a further row for all of them.

    Successes add up and the interval is Wilson's on the sum: it speaks of the planner's luck on these goals, and is
    narrower than one for unseen goals would be, for all seeds share the goals. Of the plan times only percentiles are
    known here: the median of the p50, and the worst p95 and p99.
    """
    pooled = []
    for models in _groups(rows, PLANNED).values():
        each = _groups(models, (*PLANNED, "model")).values()
        pooled += [_pooled(group) for group in each]
        if len(each) > 1 and all((row.model or "").startswith(TRAINING_SEED) for row in models):
            pooled.append(replace(_pooled(models), model=f"all {len(each)}"))
    return pooled


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
        )
        if any(getattr(row, attribute) is not None for row in rows)
    }
    header = [*varying, "planner", "success % [95 %]", "reached %", "plan ms p50 / p95", "evaluations", "episodes"]
    body = [
        [
            *(_text(getattr(row, name)) for name in varying),
            row.planner if row.kind == "planner" else f"{row.planner} ({row.kind})",
            f"{percent(row.success)} [{percent(row.wilson[0])}, {percent(row.wilson[1])}]",
            percent(row.reached),
            _times(row),
            f"{row.evaluations:,}" if row.evaluations else "-",
            _episodes(row),
            *(text(row) for text in extra.values()),
        ]
        for row in rows
    ]
    return [[*header, *extra], *body]


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Floors first, then planners, then ceilings; otherwise as given."""
    return sorted(rows, key=lambda row: KINDS.index(row.kind))


def percent(fraction: float) -> str:
    """0.964 -> "96.4", and "100" only for exactly 1."""
    return "100" if fraction == 1 else f"{min(100 * fraction, 99.9):.1f}"


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
    return replace(
        rows[0],
        episodes=episodes,
        successes=successes,
        success=successes / episodes,
        wilson=wilson(successes, episodes),
        reached=float(np.average([row.reached for row in rows], weights=weights)),
        seed=None,
        seeds=tuple(seed for row in rows for seed in row.seeds),
        plan_ms_p50=float(np.median(p50)) if p50 else None,
        plan_ms_p95=max(p95, default=None),
        evaluations=round(np.average([row.evaluations for row in rows], weights=weights)),
        final_distance_cm=float(np.median(distances)) if distances else None,
        **{name: _average(rows, name) for name in ("plan_ms_mean", "energy_held", "plan_error_cm", "phantoms")},
        plan_ms_p99=max(p99, default=None),
        by_task=_mean_by_task(rows, weights),
        **{name: _total(rows, name) for name in ("drops", "diverged", "plans", "misses", "violations")},
    )


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
