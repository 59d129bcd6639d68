"""One `report.html` that carries everything inside itself and can be mailed, archived, or opened years later."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from itertools import repeat
from pathlib import Path

from ..files import write_atomic
from .results import KINDS, Kind, Row, cells, failures, ordered, percent, pool, remarks

_SIGNATURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}

_KINDS: dict[Kind, str] = {
    "floor": "A floor does not plan. Whatever a planner scores above it is what planning brought.",
    "planner": "A planner picks actions by minimising an energy, and is judged by what then happens in the simulator.",
    "ceiling": "A ceiling may use what a robot cannot, such as the simulator itself: what this task and budget allow.",
}

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #22272e; --muted: #68707c; --faint: #e4e7eb; --card: #f6f7f9;
  --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --paper: #16191d; --ink: #e3e6ea; --muted: #98a1ad; --faint: #333a42;
  --card: #1f2429; --accent: #56b4e9; } }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; }
p, ul, dl, figure { max-width: 54rem; }
.lead { font-size: 1.1rem; } .muted, caption, figcaption { color: var(--muted); font-size: .88rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem; }
th { text-align: left; vertical-align: bottom; color: var(--muted); font-weight: 600; }
th, td { padding: .4rem .8rem .4rem 0; border-bottom: 1px solid var(--faint); } td { white-space: nowrap; }
.bar { position: relative; display: block; width: 9rem; height: .5rem; margin-top: .25rem; background: var(--card);
  border-radius: 3px; }
.bar i { position: absolute; top: 0; bottom: 0; background: var(--accent); opacity: .3; border-radius: 3px; }
.bar b { position: absolute; top: 0; bottom: 0; width: 3px; margin-left: -1.5px; background: var(--accent); }
.floor .bar, .ceiling .bar { --accent: var(--muted); }
@media (max-width: 48rem) {
  tbody, td { display: block; } thead { display: none; }
  tr { display: grid; padding: .6rem 0; border-bottom: 1px solid var(--faint); }
  td { display: flex; justify-content: space-between; gap: 1rem; padding: .1rem 0; border: 0; text-align: right; }
  td.empty { display: none; } td::before { content: attr(data-name); color: var(--muted); text-align: left; }
  td.planner { order: -1; font-weight: 600; } td.planner::before { content: none; } td .bar { margin-left: auto; }
}
figure { margin: 1.25rem 0; } figure img, video { width: 100%; border-radius: 6px; background: #fff; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.25rem; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--card); padding: .8rem 1rem; border-radius: 6px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
"""


def write_report(
    path: str | Path,
    title: str,
    rows: Sequence[Row],
    *,
    images: Mapping[str, Path | bytes] | None = None,
    videos: Sequence[Path] = (),
    facts: Mapping[str, str] | None = None,
    sections: Mapping[str, str] | None = None,
    command: str = "",
    manifest: str = "",
    tolerance_cm: float | None = None,
) -> Path:
    """Write a page that says in plain words what was measured, how, how sure it is, and how to repeat it.

    `images` maps captions to PNG, JPEG or GIF (a file or its bytes), `videos` are mp4 files, `facts` are short lines
    such as the machine and versions, `sections` maps further headings to plain text, `command` repeats the run,
    `manifest` is the sha256 of the goals, and `tolerance_cm` how near counts as reached, centimetres. Seeds are
    pooled for the headline; the table of single seeds follows. Everything is embedded and escaped: the page asks
    nothing of the network. Raises ValueError on an unknown image.
    """
    pooled = ordered(pool(rows))
    parts = [f"<h1>{escape(title)}</h1>", *(f'<p class="lead">{escape(line)}</p>' for line in _headline(pooled))]
    if pooled:
        parts += ["<h2>Results</h2>", _table(pooled), _reading(pooled)]
    parts += _diagnoses(pooled, tolerance_cm)
    parts += [_figure(caption, image) for caption, image in (images or {}).items()]
    if videos:
        parts += ["<h2>The arm at work</h2>", *map(_video, videos)]
    for heading, text in (sections or {}).items():
        parts += [f"<h2>{escape(heading)}</h2>", *(f"<p>{escape(block)}</p>" for block in text.split("\n\n"))]
    if len(rows) > len(pooled):
        parts += ["<h2>Every seed</h2>", _table(ordered(rows))]
    parts += ["<h2>How to repeat it</h2>", *_repeat(command, manifest, facts or {})]
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )
    return write_atomic(path, page.encode())


def _headline(rows: Sequence[Row]) -> list[str]:
    """The best planner of each task in a sentence."""
    lines = []
    for env, obs in dict.fromkeys((row.env, row.obs) for row in rows):
        task = [row for row in rows if (row.env, row.obs) == (env, obs)]
        measured = [row for row in task if row.kind == "planner" and row.error is None]
        best = max(measured, key=lambda row: row.success, default=None)
        if best is None:
            continue
        line = (
            f"On {env} from {obs}, {best.planner} held the goal at the end of {best.successes} of {best.episodes} "
            f"episodes: {percent(best.success)} %, 95 % interval {_interval(best)}."
        )
        floors = [row for row in task if row.kind == "floor" and row.error is None]
        if floors:
            line += " Without planning: " + ", ".join(f"{row.planner} {percent(row.success)} %" for row in floors) + "."
        lines.append(line)
    return lines


def _table(rows: Sequence[Row]) -> str:
    header, *body = cells(rows)
    lines = [
        f'<tr class="{row.kind}">{"".join(map(_cell, repeat(row), header, line))}</tr>'
        for row, line in zip(rows, body, strict=True)
    ]
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _cell(row: Row, name: str, text: str) -> str:
    """One of a table's; on a phone, where a row is a card, it carries its column's name."""
    kind = "planner" if name == "planner" else "empty" if text == "-" else "figure"
    bar = _bar(row) if name.startswith("success") else ""
    return f'<td class="{kind}" data-name="{escape(name)}"><span>{escape(text)}{bar}</span></td>'


def _bar(row: Row) -> str:
    low, high = (100 * limit for limit in row.wilson)
    return (
        f'<span class="bar" title="{percent(row.success)} %, 95 % interval {_interval(row)}">'
        f'<i style="left:{low:.1f}%;width:{high - low:.1f}%"></i><b style="left:{100 * row.success:.1f}%"></b></span>'
    )


def _reading(rows: Sequence[Row]) -> str:
    lines = [
        "success: the goal holds at the end of the episode, over its last steps. This is the number that counts.",
        "reached: the goal held at some step; more than success means that it was lost again.",
        "[low, high]: Wilson's 95 % interval of the success rate on new goals.",
        "plan ms: wall-clock milliseconds to choose actions once, the median (p50) and the slow end (p95).",
        "evaluations: how many candidate action sequences the energy judged for one plan.",
    ]
    if any(len(row.seeds) > 1 for row in rows):
        lines.append(
            "episodes, as goals x seeds: every seed of a planner met the same goals, so these are not as many "
            "independent trials; a pooled interval takes seeds and goals at random, and few seeds make it wide."
        )
    if len(rows) > 1:
        lines.append(
            "beside the best: points of success from the best planner's on the same goals, and the chance of such a "
            "difference where there is none (McNemar's exact test; of several seeds, a t-test over seeds and goals)."
        )
    if any(row.clear_strict is not None for row in rows):
        lines.append(
            "CLEAR moderate, strict: the rules of CLEAR-LeWM, within 50 steps. Moderate: the cube comes within 4 cm of "
            "the goal. Strict: within 3 cm and 15 degrees, at three steps in a row."
        )
    lines += [
        f"{row.planner}: while the goal held, plans had an energy of {row.energy_held:.2g} (median). With "
        f"planner.replan_above at two or three times that, such as {2.5 * row.energy_held:.2g}, a plan is searched for "
        "only when the one at hand has more energy, which saves time."
        for row in rows
        if row.energy_held is not None
    ]
    lines += [_KINDS[kind] for kind in KINDS if any(row.kind == kind for row in rows)]
    lines += [f"{row.planner}: {row.note}" for row in rows if row.note]
    lines += [*remarks(rows), *(f"failed: {line}" for line in failures(rows))]
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _diagnoses(rows: Sequence[Row], tolerance_cm: float | None) -> list[str]:
    """Of planners that never succeeded: what the figures say, and what to look at next."""
    parts = []
    for row in rows:
        if row.kind == "planner" and not row.successes:
            others = [other for other in rows if (other.env, other.obs) == (row.env, row.obs)]
            items = "".join(f"<li>{escape(line)}</li>" for line in _diagnosis(row, others, tolerance_cm))
            parts += [f"<h2>Why {escape(row.planner)} may have failed</h2>", f"<ul>{items}</ul>"]
    return parts


def _diagnosis(row: Row, others: Sequence[Row], tolerance_cm: float | None) -> list[str]:
    """What a planner's figures say about its failure, beside `others` on the same goals, in the order to look at it."""
    lines = []
    ceiling = max((other for other in others if other.kind == "ceiling"), key=lambda other: other.success, default=None)
    if ceiling is None:
        lines.append(
            "Can the goals be reached? No ceiling was run: planners=[…,oracle] or, where there is one, expert tells."
        )
    elif ceiling.successes:
        lines.append(f"The goals can be reached: {ceiling.planner} succeeds in {percent(ceiling.success)} %.")
    else:
        lines.append(f"Can the goals be reached? {ceiling.planner}, a ceiling, does not: look at them first.")
    if row.reached:
        lines.append(
            f"The goal held at some step of {percent(row.reached)} % of the episodes and was lost again: look at what "
            "holds it, such as planner.hold=true."
        )
    still = next((other for other in others if other.planner == "zero"), None)
    if row.final_distance_cm is not None and still is not None and still.final_distance_cm is not None:
        ends = (
            f"Episodes end {row.final_distance_cm:.1f} cm from the goal, and {still.final_distance_cm:.1f} cm where "
            "nothing is done: plans "
        )
        if row.final_distance_cm > 1.2 * still.final_distance_cm:
            lines.append(f"{ends}lead away from the goal: what is imagined does not come true.")
        elif row.final_distance_cm > 0.8 * still.final_distance_cm:
            least = f", {tolerance_cm:g} cm" if tolerance_cm else ""
            lines.append(
                f"{ends}hardly move what should move. Does the model see it? Training tells how exactly (“sees the "
                f"position to … cm”): that must be well below the tolerance{least}."
            )
        else:
            lines.append(f"{ends}lead there, and not close enough.")
    if row.plan_error_cm is not None:
        limit = f" The tolerance is {tolerance_cm:g} cm." if tolerance_cm else ""
        off = tolerance_cm is not None and row.plan_error_cm > tolerance_cm
        holds = " Imagining does not hold: train longer or on more data, or plan less far." if off else ""
        lines.append(f"After 5 model steps plans are {row.plan_error_cm:.1f} cm off from what happens.{limit}{holds}")
    if row.phantoms:
        lines.append(
            f"{percent(row.phantoms)} % of the plans imagine a lift that does not happen: the model takes near misses "
            "for grasps."
        )
    if row.evaluations:
        lines.append(
            f"A plan is the best of {row.evaluations:,} candidates. If more of them (planner.samples, "
            "planner.iterations) change nothing, the search is not what fails."
        )
    if row.misses and row.plans:
        lines.append(f"{row.misses} of {row.plans:,} plans came late, and old ones went on: raise deadline.")
    return lines


def _repeat(command: str, manifest: str, facts: Mapping[str, str]) -> list[str]:
    parts = [f"<pre>{escape(command)}</pre>"] if command else []
    if manifest:
        parts.append(
            "<p>Starts and goals are written down in a manifest, drawn from seeds that training never saw; none is "
            "solved at the start or by doing nothing. Only results with the same hash may be compared.</p>"
        )
        facts = {"manifest sha256": manifest, **facts}
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return [*parts, f"<dl>{items}</dl>"]


def _figure(caption: str, image: Path | bytes) -> str:
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    kind = next((kind for signature, kind in _SIGNATURES.items() if data.startswith(signature)), None)
    if kind is None:
        raise ValueError(f"the image {caption!r} is neither PNG, JPEG nor GIF")
    text = escape(caption)
    return f'<figure><img alt="{text}" src="{_embed(kind, data)}"><figcaption>{text}</figcaption></figure>'


def _video(path: Path) -> str:
    source = _embed("video/mp4", Path(path).read_bytes())
    return (
        f'<figure><video controls loop muted playsinline src="{source}"></video>'
        f"<figcaption>{escape(Path(path).stem)}</figcaption></figure>"
    )


def _embed(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _interval(row: Row) -> str:
    return f"{percent(row.wilson[0])} to {percent(row.wilson[1])}"
