"""`forearm record`: episodes of an arm into a folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..api import record
from ..envs.settings import PLANNER, RecordSettings
from ..evaluation.recording import settings_class
from .common import told_next

SETTINGS = settings_class


EVERYTHING = {"policy": PLANNER}
"""What has all keys."""


def run(given: Mapping[str, Any]) -> None:
    data = record(**{"workers": RecordSettings.workers, **given})
    (recording,) = data.parts
    manifest = recording.manifest
    print(f"{manifest.episodes} episodes, {manifest.frames} frames in {recording.folder}")
    obs = given.get("obs") or ("pixels" if "pixels" in manifest.columns else "state")
    print(told_next(manifest.request.env, "train", f"data={recording.folder}", f"obs={obs}"))
