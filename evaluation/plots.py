"""Plots of results and of training, drawn without a display and without pyplot's global state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle, product
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from matplotlib.transforms import blended_transform_factory
from numpy.typing import ArrayLike

from ..files import replacing
from .planners import Gap
from .results import Row, ordered, percent
from .style import BLUE, INK, MUTED, PALETTE, STYLE, VERMILLION

# Rows that are drawn as a line: floors, ceilings, and a planner whose time is unknown.
_LINES = {"floor": MUTED, "planner": INK, "ceiling": "#9A7200"}


def success_against_cost(rows: Sequence[Row], path: str | Path) -> Path:
    """Success at the end (%, with its Wilson interval) against milliseconds a plan (log), one panel a task; and a panel
    against evaluations a plan, where a planner has more than one budget.

    A planner is a point at its `Row.plan_ms` with a thin line to its p95, or a curve through its budgets; floors and
    ceilings are horizontal lines inside their interval, and so is a planner whose time is unknown. Where no interval
    comes near a half, the lower part is left out. Pool the seeds first, for one point a planner and budget.
    """
    tasks = list(dict.fromkeys((row.env, row.obs) for row in rows))
    costs = ["plan_ms", "evaluations"][: 1 + (len({_curve(row) for row in rows}) < len(rows))]
    count, names = max(1, len(tasks) * len(costs)), max(1, len(tasks))
    lowest = min((row.wilson[0] for row in rows), default=0.0)
    bottom = 10 * int(10 * lowest) if lowest > 0.55 else 0
    with _figure(path, (4.3 * count + 2.9 * names, 4.0)) as figure:
        panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
        for axes, ((env, obs), cost) in zip(panels, product(tasks, costs), strict=False):
            labels = _success_panel(axes, [row for row in rows if (row.env, row.obs) == (env, obs)], cost)
            axes.set_ylim(bottom - 0.04 * (100 - bottom), 100 + 0.04 * (100 - bottom))
            axes.set_yticks(range(bottom, 101, 20 if bottom == 0 else 10))
            axes.set_title(f"{env} from {obs}")
            if cost == costs[-1]:  # the panels of a task show the same planners
                _name_beside(axes, labels)
        panels[0].set_ylabel("success at the end, %")
    return Path(path)


def gap_curves(gaps: Sequence[Gap], path: str | Path) -> Path:
    """How far above the optimum planners stay (%, log) against milliseconds a plan (log), one panel a problem."""
    problems = list(dict.fromkeys(gap.problem for gap in gaps))
    with _figure(path, (3.4 * len(problems) + 1.6, 3.6)) as figure:
        panels = figure.subplots(1, len(problems), squeeze=False)[0]
        for axes, problem in zip(panels, problems, strict=True):
            looks = cycle(zip(PALETTE, "osD^vP", strict=True))
            for gap, (colour, marker) in zip((g for g in gaps if g.problem == problem), looks, strict=False):
                median, worst = (max(100 * share, 1e-3) for share in (gap.gap_median, gap.gap_worst))
                axes.vlines(gap.plan_ms_p50, median, worst, color=colour, linewidth=1.4)
                axes.plot(gap.plan_ms_p50, median, color=colour, marker=marker, linestyle="", label=gap.planner)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_title(problem.replace("_", " "))
            axes.set_xlabel("milliseconds a plan")
            _plain_log_ticks(axes, "x")
            _plain_log_ticks(axes, "y")
        panels[0].set_ylabel("above the optimum, %: median to worst")
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    return Path(path)


def loss_curves(log: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Losses (log scale) and effective rank over training steps, from the lines of `log.jsonl`.

    Every line has `step` and any of: `loss`, `val_loss`, further terms ending in `_loss`, and `effective_rank`.
    """
    series: dict[str, list[tuple[float, float]]] = {}
    for line in log:
        for key, value in line.items():
            if (key in ("loss", "effective_rank") or key.endswith("_loss")) and _finite(value):
                series.setdefault(key, []).append((line["step"], value))
    rank = series.pop("effective_rank", None)
    with _figure(path, (7.2, 3.4 if rank is None else 5.0)) as figure:
        upper, *lower = figure.subplots(
            1 if rank is None else 2, 1, sharex=True, squeeze=False, height_ratios=[1] if rank is None else [2, 1]
        )[:, 0]
        colours = {"loss": BLUE, "val_loss": VERMILLION}
        others = cycle(PALETTE[2:])
        for key, points in series.items():
            main = key in colours
            marker = "o" if len(points) < 60 and key.startswith("val") else ""
            upper.plot(
                *zip(*points, strict=True),
                color=colours[key] if main else next(others),
                linewidth=1.8 if main else 1.0,
                marker=marker,
                markersize=3.5,
                label={"loss": "training", "val_loss": "validation"}.get(key, key.removesuffix("_loss")),
            )
        upper.set_title("training")
        upper.set_ylabel("loss")
        if any(value > 0 for points in series.values() for _, value in points):
            upper.set_yscale("log", nonpositive="mask")
            _plain_log_ticks(upper, "y")
        if series:
            upper.legend(ncols=min(len(series), 4), loc="upper right")
        for axes in lower:
            axes.plot(*zip(*(rank or []), strict=True), color=PALETTE[2], marker="o", markersize=3.5)
            axes.set_ylim(bottom=0)
            axes.set_ylabel("effective rank")
        (lower or [upper])[-1].set_xlabel("step")
    return Path(path)


def energy_landscape(
    energies: ArrayLike,
    low: Sequence[float],
    high: Sequence[float],
    path: str | Path,
    *,
    names: tuple[str, str] = ("action 0", "action 1"),
    plan: tuple[float, float] | None = None,
    title: str = "energy",
) -> Path:
    """Energies (n, n) over two dimensions of an action as a heat map, with a star at the lowest.

    `energies[i, j]` is of the i-th of n even steps from `low[0]` to `high[0]`, across, and the j-th from `low[1]` to
    `high[1]`, up; both ends are steps. What is not finite is left blank. `plan` marks what a planner chose.
    Raises ValueError where energies are not (n, n), n > 1, or none is finite.
    """
    values = np.asarray(energies, dtype=float)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or len(values) < 2 or not np.isfinite(values).any():
        raise ValueError(f"energies must be (n, n) with n > 1, some of them finite; their shape is {values.shape}")
    across, up = (np.linspace(low[axis], high[axis], len(values)) for axis in (0, 1))
    known = np.ma.masked_invalid(values)
    i, j = np.unravel_index(known.argmin(), values.shape)
    with _figure(path, (5.2, 4.2)) as figure:
        axes = figure.subplots()
        cells = axes.pcolormesh(across, up, known.T, shading="nearest", cmap="cividis", rasterized=True)
        figure.colorbar(cells, label="energy")
        axes.plot(across[i], up[j], marker="*", markersize=12, linestyle="", color=VERMILLION, label="lowest")
        if plan is not None:
            axes.plot(*plan, marker="o", markersize=8, linestyle="", color=VERMILLION, fillstyle="none", label="plan")
            axes.legend(loc="upper right")
        axes.grid(False)
        axes.set_xlabel(names[0])
        axes.set_ylabel(names[1])
        axes.set_title(title)
    return Path(path)


@contextmanager
def _figure(path: str | Path, size: tuple[float, float]) -> Iterator[Figure]:
    """A figure of `size` inches in the house style, written to `path` when the block ends well."""
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        with replacing(path) as temporary:
            # Without the writer's version in it, the same numbers give the same bytes.
            figure.savefig(temporary, metadata={"Software": None} if temporary.suffix == ".png" else None)


_COSTS = {"plan_ms": "milliseconds a plan, and a line to p95", "evaluations": "evaluations a plan"}


def _curve(row: Row) -> tuple[str, str, str | None]:
    """What rows of one planner with different budgets have in common."""
    return row.env, row.planner, row.energy


def _success_panel(axes: Axes, rows: Sequence[Row], cost: str) -> list[_Label]:
    looks = cycle(zip(PALETTE, "osD^vP", strict=True))
    labels: list[_Label] = []
    energies = len({row.energy for row in rows if row.kind == "planner"} - {None})
    curves: dict[object, list[Row]] = {}
    for row in ordered(rows):
        curves.setdefault(_curve(row), []).append(row)
    for points in curves.values():
        best = max(points, key=lambda row: row.success)
        if best.kind == "planner" and getattr(best, cost):
            colour, marker = next(looks)
            points = sorted(points, key=lambda row: getattr(row, cost) or 0.0)
            x = [getattr(row, cost) for row in points]
            axes.plot(x, [100 * row.success for row in points], color=colour, marker=marker, markersize=6, linewidth=1)
            for row, at in zip(points, x, strict=True):
                low, high = row.wilson
                axes.vlines(at, 100 * low, 100 * high, color=colour, linewidth=1.6)
                if cost == "plan_ms":
                    axes.hlines(100 * row.success, at, row.plan_ms_p95 or at, color=colour, linewidth=1.2)
        else:
            colour, marker = _LINES[best.kind], "_"
            low, high = best.wilson
            axes.axhspan(100 * low, 100 * high, color=colour, alpha=0.12, linewidth=0)
            axes.axhline(100 * best.success, color=colour, linewidth=1.2, linestyle=(0, (5, 3)))
        name = f"{best.planner} {best.energy}" if energies > 1 and best.kind == "planner" else best.planner
        labels.append(_Label(100 * best.success, f"{name}  {percent(best.success)}", colour, marker))

    axes.set_xscale("log")
    planned = [row for row in rows if row.kind == "planner"]
    spans = (cost, "plan_ms_p95") if cost == "plan_ms" else (cost,)
    costs = [value for row in planned for name in spans if (value := getattr(row, name))]
    axes.set_xlim(min(costs, default=1.0) / 3, max(costs, default=100.0) * 3)
    axes.set_xlabel(_COSTS[cost])
    _plain_log_ticks(axes, "x")
    return labels


def _name_beside(axes: Axes, labels: Sequence[_Label]) -> None:
    """Names stand outside, at their height: inside they would cover one another just where planners are good."""
    outside = blended_transform_factory(axes.transAxes, axes.transData)
    low, high = axes.get_ylim()
    for label in _spread(labels, gap=0.055 * (high - low), top=high - 0.03 * (high - low)):
        style = {"color": label.colour, "transform": outside, "clip_on": False}
        axes.plot(1.03, label.height, marker=label.marker, markersize=6, **style)
        axes.text(1.06, label.height, label.text, va="center_baseline", fontsize=9, **style)


class _Label(NamedTuple):
    height: float
    text: str
    colour: str
    marker: str


def _spread(labels: Sequence[_Label], gap: float, top: float) -> list[_Label]:
    """Move labels up until neighbours are `gap` apart, then those that passed `top` back down."""
    placed: list[_Label] = []
    for label in sorted(labels):
        low = placed[-1].height + gap if placed else label.height
        placed.append(label._replace(height=max(label.height, low)))
    for i, label in reversed(list(enumerate(placed))):
        placed[i] = label._replace(height=min(label.height, top))
        top = placed[i].height - gap
    return placed


def _plain_log_ticks(axes: Axes, which: str) -> None:
    """Write 0.1, 20, 500 instead of powers; where the scale spans few decades, at 2 and 5 too."""
    axis, (low, high) = (axes.xaxis, axes.get_xlim()) if which == "x" else (axes.yaxis, axes.get_ylim())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(FuncFormatter(_two_and_five) if 0 < high < 300 * low else NullFormatter())


def _two_and_five(value: float, _: int) -> str:
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def _finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)
