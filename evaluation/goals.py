"""Goal manifests: fixed, hashed sets of starts and goals that every planner in a table is measured on.

No start is solved, and no goal solves itself while the arm stands still: both would count as success for nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from ..envs import World, action_size
from ..errors import UserError
from ..files import write_atomic

SCHEMA = 1
HOLD = 5
STREAM = 0x60A15
"""Sets goal seeds apart from every seed a recording can use: evaluations never meet a training episode."""


class GoalError(UserError):
    """A goal manifest is missing, damaged, or made for another environment."""


@dataclass(frozen=True, eq=False)
class GoalManifest:
    """G problems of one environment.

    `start` and `goal` are whole simulator states (G, F) float64. An episode takes `budget` environment steps and
    succeeds if the tracked points are within `tolerance` metres of the goal's at each of the last `hold` steps.
    """

    env: str
    seed: int
    budget: int
    tolerance: float
    start: np.ndarray
    goal: np.ndarray
    hold: int = HOLD
    versions: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.start)

    @property
    def header(self) -> dict[str, Any]:
        return {"schema": SCHEMA} | {k: v for k, v in asdict(self).items() if k not in ("start", "goal")}

    @property
    def sha256(self) -> str:
        """Over the rules and every bit of every start and goal."""
        digest = hashlib.sha256(json.dumps(self.header, sort_keys=True).encode())
        for states in (self.start, self.goal):
            digest.update(np.ascontiguousarray(states).tobytes())
        return digest.hexdigest()

    def first(self, count: int) -> GoalManifest:
        """The first problems alone; another manifest, with another hash."""
        return self._part(slice(count))

    def singles(self) -> list[GoalManifest]:
        """Each problem alone."""
        return [self._part(slice(i, i + 1)) for i in range(len(self))]

    def _part(self, which: slice) -> GoalManifest:
        return replace(self, start=self.start[which], goal=self.goal[which])

    def save(self, path: Path) -> None:
        header = {"goals": json.dumps(self.header | {"sha256": self.sha256})}
        write_atomic(path, safetensors.numpy.save({"start": self.start, "goal": self.goal}, metadata=header))

    @classmethod
    def load(cls, path: Path) -> GoalManifest:
        """Reads a manifest and checks its hash.

        Raises:
            GoalError: naming the file and what is wrong.
        """
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                header = json.loads((file.metadata() or {})["goals"])
                states = {name: file.get_tensor(name) for name in ("start", "goal")}
            schema, sha256 = header.pop("schema"), header.pop("sha256")
            manifest = cls(**header, **states)
        except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise GoalError(f"goals={path}: not a goal manifest ({error})") from None
        if schema != SCHEMA or manifest.sha256 != sha256:
            raise GoalError(f"goals={path}: its content does not match its hash; make it anew")
        return manifest


def make_goals(env: World, count: int, seed: int) -> GoalManifest:
    """Draws `count` problems that are unsolved and stay so if nothing is done; a pure function of its arguments.

    Raises:
        GoalError: when hardly any is.
    """
    import mujoco

    budget, starts, goals = env.budget, [], []
    draw = 0
    while len(starts) < count:
        if draw >= 50 * count + 50:
            raise GoalError(
                f"env={env.name}: {draw} draws gave {len(starts)} goals that are not reached by doing nothing, asked "
                f"for are {count}: its goals must be further from its starts than tolerance={env.tolerance}"
            )
        env.reset(seed=int(np.random.SeedSequence([STREAM, seed, draw]).generate_state(1)[0]))
        draw += 1
        start = env.save_state()
        if not _solved_by_waiting(env, budget):
            starts.append(start)
            goals.append(env.goal_state())
    return GoalManifest(
        env.name,
        seed,
        budget,
        env.tolerance,
        np.stack(starts),
        np.stack(goals),
        versions={"mujoco": mujoco.__version__},
    )


def _solved_by_waiting(env: World, budget: int) -> bool:
    for _ in range(budget + 1):
        if env.distance() < env.tolerance:
            return True
        env.advance(np.zeros(action_size(env)))
    return False
