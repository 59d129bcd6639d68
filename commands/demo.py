"""`forearm demo`: a planner in closed loop on held-out goals, filmed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..evaluation.measure import run_demo
from ..evaluation.settings import DemoSettings
from ..folders import run_folder
from ..presets import suited

SETTINGS = DemoSettings


def run(given: Mapping[str, Any]) -> None:
    settings = suited(DemoSettings, given)
    with run_folder(settings.out, "demo", f"{settings.env.name}-{settings.obs}") as out:
        results = run_demo(settings, out)
    print(results)
    if results.more["video"]:
        print(f"video: {results.more['video']}")
