"""Scripted policies: `random`, `expert` (solves the task, sees the simulator) and `play` (what recordings are made of).

Play is the expert's skills aimed at ever new ends, made noisy and interrupted by wandering and random stretches on
purpose: a world model that has only seen success believes in success.
"""

from __future__ import annotations

import numpy as np

from .arm import CLOSED, OPEN
from .experts import EXPERTS
from .policy import ScriptedPolicy
from .tasks import random_command
from .world import RandomPolicy


class PlayPolicy(ScriptedPolicy):
    """Segments of 4 to 25 steps, each one of: the expert's skill toward a random end, moving to a random place, a
    random walk, resting; with a noise level of its own. Play with things seeks contact and often misses."""

    def reset(self) -> None:
        self._skill = EXPERTS[self.env.task.name](self.env, self.rng)
        self._walk = RandomPolicy(self.env, self.rng)
        self._left = 0

    def act(self) -> np.ndarray:
        if self._left == 0:
            self._begin_segment()
        self._left -= 1
        action = self._segment()
        return np.clip(action + self._noise * self.rng.normal(size=5), -1.0, 1.0)

    def _begin_segment(self) -> None:
        rng = self.rng
        self._left = int(rng.integers(4, 26))
        self._noise = rng.choice([0.05, 0.2, 0.5])
        kind = rng.choice(["skill", "move", "walk", "rest"], p=[0.62, 0.16, 0.17, 0.05])
        if kind == "skill":
            self._skill.reset()
            self._skill.aim()
            self._left *= self._skill.patience
            self._segment = self._skill.act
        elif kind == "move":
            place = random_command(self.env.task.workspace, rng)[:4]
            if (bodies := self.bodies) and rng.random() < 0.5:
                place[:2] = bodies[rng.integers(len(bodies))][:2] + rng.normal(scale=0.05, size=2)
            gripper, speed = rng.choice([OPEN, CLOSED, 0.0]), rng.uniform(0.4, 1.0)
            self._segment = lambda: self.toward(place, speed, gripper)
        elif kind == "walk":
            self._walk.reset()
            self._segment = self._walk.act
        else:
            self._segment = lambda: np.zeros(5)


class ExpertPolicy(ScriptedPolicy):
    """The task's expert, aimed at the environment's goal."""

    def reset(self) -> None:
        self._skill = EXPERTS[self.env.task.name](self.env, self.rng)

    def act(self) -> np.ndarray:
        return self._skill.act()


POLICIES = {"play": PlayPolicy, "random": RandomPolicy, "expert": ExpertPolicy}
