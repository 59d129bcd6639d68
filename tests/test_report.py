"""A report fits its page, and says what to look at where a planner never succeeded."""

import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
from forearm.evaluation.report import write_report
from forearm.evaluation.results import Row, cells, ordered, pool


def row(planner: str, successes: int, kind: Any = "planner", *, reached: int = 0, cm: float = 10.0, **more: Any) -> Row:
    held = np.arange(20) < successes
    return Row.from_episodes(
        env="push",
        obs="state",
        planner=planner,
        seed=more.pop("seed", 0),
        success=held,
        reached=held | (np.arange(20) < reached),
        final_distance_cm=np.full(20, cm),
        kind=kind,
        evaluations=640 if kind == "planner" else 0,
        **more,
    )


def page(tmp_path: Path, *rows: Row) -> str:
    path = write_report(
        tmp_path / "report.html", "push", rows, command="forearm bench " + "key=value " * 50, tolerance_cm=2
    )
    return unescape(path.read_text())


def test_no_figure_is_without_its_columns_name(tmp_path: Path) -> None:
    rows = ordered(pool([row("zero", 0, "floor"), row("cem", 9, plan_error_cm=1.0), row("cem", 9, seed=1)]))
    header, *body = cells(rows)
    text = page(tmp_path, *rows)
    found = re.findall(r'data-name="([^"]*)"><span>(.*?)<(?:span|/span)', text)
    assert found == [(name, figure) for line in body for name, figure in zip(header, line, strict=True)]
    narrow = text[text.index("@media (max-width") : text.index("</style>")]
    assert "attr(data-name)" in narrow and "thead { display: none; }" in narrow, "on a phone, a row is a card"
    assert re.search(r"pre \{[^}]*white-space: pre-wrap", text), "the command to repeat is shown whole"


def test_what_never_succeeds_is_diagnosed(tmp_path: Path) -> None:
    blind = page(tmp_path, row("zero", 0, "floor"), row("cem", 0, cm=9.9, plan_error_cm=4.5, phantoms=0.25))
    assert "Why cem may have failed" in blind and "No ceiling was run" in blind
    assert "9.9 cm from the goal, and 10.0 cm where nothing is done: plans hardly move what should move" in blind
    assert "must be well below the tolerance, 2 cm" in blind
    assert "4.5 cm off from what happens. The tolerance is 2 cm. Imagining does not hold" in blind
    assert "25.0 % of the plans imagine a lift that does not happen" in blind
    assert "the best of 640 candidates" in blind and "look at what holds it" not in blind

    away = page(tmp_path, row("zero", 0, "floor"), row("cem", 0, cm=12.5))
    assert "12.5 cm from the goal, and 10.0 cm where nothing is done: plans lead away from the goal" in away

    near = row("cem", 0, cm=3.0, reached=5, plan_error_cm=0.5, misses=2, plan_ms=[1.0] * 100)
    lost = page(tmp_path, row("zero", 0, "floor"), near, row("oracle", 16, "ceiling"))
    assert "The goals can be reached: oracle succeeds in 80.0 %" in lost
    assert "held at some step of 25.0 % of the episodes and was lost again" in lost
    assert "plans lead there, and not close enough" in lost and "Imagining does not hold" not in lost
    assert "2 of 100 plans came late" in lost
    hopeless = page(tmp_path, row("cem", 0), row("oracle", 0, "ceiling"))
    assert "oracle, a ceiling, does not: look at them first" in hopeless

    assert "may have failed" not in page(tmp_path, row("zero", 0, "floor"), row("cem", 1), row("oracle", 0, "ceiling"))


def test_how_to_search_less_is_said_with_a_number(tmp_path: Path) -> None:
    text = page(tmp_path, row("cem", 9, energy_held=0.02))
    assert (
        "plans had an energy of 0.02 (median). With planner.replan_above at two or three times that, such as 0.05"
        in text
    )
