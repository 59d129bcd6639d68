"""`forearm train`: a latent world model from recorded episodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..api import train
from ..training.settings import TrainSettings
from .common import told_next

SETTINGS = TrainSettings


def run(given: Mapping[str, Any]) -> None:
    model = train(**given)
    print(f"checkpoint: {model.folder}")
    print(told_next(model.env, "bench", f"env={model.env}", f"obs={model.obs}", f"checkpoint={model.folder}"))
