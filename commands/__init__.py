"""The commands: one module each, a thin caller of what Python users call. Nothing heavy is imported to list them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

PROG = "forearm"


@dataclass(frozen=True)
class Command:
    """A command's name, its module in commands/, and a line about it."""

    name: str
    module: str
    summary: str

    def load(self) -> Any:
        """The module: `SETTINGS(given)`, the class of its settings, and `run(given)`."""
        return import_module(f"{__package__}.{self.module}")


COMMANDS = {
    command.name: command
    for command in (
        Command("quickstart", "quickstart", "record, train, bench and film, from nothing to a moving arm"),
        Command("record", "record", "record episodes of an arm into a folder"),
        Command("data check", "data", "say which file of a recording is damaged, and why"),
        Command("train", "train", "learn a latent world model from recorded episodes"),
        Command("demo", "demo", "run a planner in closed loop on held-out goals and film it"),
        Command("bench", "bench", "measure planners on one manifest of held-out goals"),
        Command("bench planners", "planners", "measure planners on problems whose optimum is known"),
        Command("doctor", "doctor", "tell what works on this machine, and how to mend what does not"),
    )
}
