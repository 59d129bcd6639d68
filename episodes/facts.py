"""Which world data, goals or a model are of: what is told of it with them, and what tells two of one name apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class WorldFacts:
    """What is known of a world; None, or empty, where it is not. Values are as JSON has them.

    model        fingerprint of its compiled MuJoCo model, as the world was made
    compiler     what compiled it: models of two compilers cannot be compared
    packages     versions of the distributions that it comes from
    tracked      columns of `state` with the tracked points: the first, and the one after the last
    seconds      that a step takes
    tolerance    metres
    action_low, action_high   bounds (A,) of its actions
    """

    model: str | None = None
    compiler: str | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    tracked: tuple[int, int] | None = None
    seconds: float | None = None
    tolerance: float | None = None
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()

    @classmethod
    def of(cls, world: Any) -> WorldFacts:
        """What a world tells of itself; one that is less than a `World` tells less."""
        import platform  # here, with the simulator, because reading what was recorded needs neither

        import mujoco

        from ..envs.identity import fingerprint_as_made, source_packages

        model, tracked = fingerprint_as_made(world), getattr(world, "tracked", None)
        space, tolerance = getattr(world, "action_space", None), getattr(world, "tolerance", None)
        return cls(
            model=model,
            compiler=model and f"mujoco {mujoco.__version__} {platform.machine()}",
            packages=source_packages(world, getattr(world, "env", None)),
            tracked=tracked and (int(tracked.start), int(tracked.stop)),
            seconds=getattr(world, "dt", None),
            tolerance=None if tolerance is None else float(tolerance),
            action_low=() if space is None else tuple(map(float, space.low)),
            action_high=() if space is None else tuple(map(float, space.high)),
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> WorldFacts:
        """Of what `to_json` gave; keys that this version does not know are left out. TypeError for another value."""
        known: dict[str, Any] = {key.name: value[key.name] for key in fields(cls) if key.name in value}
        known |= {key: tuple(item) for key, item in known.items() if isinstance(item, list)}
        return cls(**known)

    def to_json(self) -> dict[str, Any]:
        """What is known, by key."""
        return {key: value for key, value in asdict(self).items() if value is not None and value not in ({}, ())}

    def same_model(self, other: WorldFacts) -> bool | None:
        """Whether the models are the same; None where that is not known."""
        if self.model is None or other.model is None or self.compiler != other.compiler:
            return None
        return self.model == other.model

    def differences(self, other: WorldFacts) -> dict[str, tuple[Any, Any]]:
        """What both tell, and not alike, by key: here and there. Packages are left out: their models are compared."""
        own, others = self.to_json(), other.to_json()
        keys = (own.keys() & others.keys()) - {"compiler", "packages"}
        if self.same_model(other) is None:
            keys -= {"model"}
        found = {key: (own[key], others[key]) for key in own if key in keys and own[key] != others[key]}
        return {key: (a[:12], b[:12]) if key == "model" else (a, b) for key, (a, b) in found.items()}

    def told(self) -> str:
        """The model, what compiled it and what it comes from, in a few words."""
        packages = ", ".join(f"{name} {version}" for name, version in self.packages.items())
        model = f"model {self.model[:12]}, {self.compiler}" if self.model else "a model that is not known"
        return f"{model} ({packages})" if packages else model

    def seen_from(self, now: WorldFacts) -> str:
        """Whether this world is the one that `now` tells of, in words."""
        if self.model is None:
            return "a world that was not recorded, as Forearm 0.1 did not"
        if same := self.same_model(now):
            return "this world"
        kind = "a world that cannot be compared" if same is None else "another world of this name"
        return f"{kind} ({self.then_and_now(now)})"

    def then_and_now(self, now: WorldFacts) -> str:
        """What both tell of their models, compilers and packages, and not alike, in words."""
        then, later = (
            {"model": (facts.model or "")[:12], "compiler": facts.compiler, **facts.packages} for facts in (self, now)
        )
        differ = [key for key in then if then[key] and later.get(key) and then[key] != later[key]]
        return ", ".join(f"{key} {then[key]} then and {later[key]} now" for key in differ)
