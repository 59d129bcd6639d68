"""Whether two builds of Forearm do the same, bit for bit: `python benchmarks/compare_builds.py OLD NEW`.

OLD and NEW are checkouts, folders that are the package `forearm`. Both record, train, plan and bench a little, with the
same seeds, on one thread of a CPU. Then NEW goes on with what OLD wrote: recordings, trainings and checkpoints. Every
array of episodes, weights and goals is compared, every line of logs, and what rows found; times are not. The table says
where each first differs, and the exit status is 1 if one does. How long both take to start is measured in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from forearm.settings import RENAMED
from safetensors import safe_open

OLD_NAMES = {now: before for before, now in RENAMED.items()}
"""Keys, and what builds without the module `forearm.settings` call them."""


@dataclass(frozen=True)
class Step:
    """A command whose folder is compared. In its settings `@NAME` is the folder that the step NAME wrote; it begins in
    a copy of the folder of the step `begin`, if one is named."""

    name: str
    command: str
    settings: str
    begin: str = ""

    @property
    def reads(self) -> bool:
        """Whether it goes on with what another one wrote."""
        return bool(self.begin) or "@" in self.settings

    def words(self, build: Path, inputs: Path, out: Path) -> list[str]:
        """The command line in a build's keys."""
        renamed = {} if (build / "settings.py").exists() else OLD_NAMES
        words = [self.command]
        for setting in f"{self.settings} {SMALL[self.command]} out={out / self.name}".split():
            key, value = setting.split("=", 1)
            words.append(f"{renamed.get(key, key)}={value.replace('@', f'{inputs}/')}")
        return words


SMALL = {
    "record": "workers=1",
    "train": "batch=8 model.latent=16 model.predictor_width=32 model.predictor_depth=1 device=cpu threads=1",
    "bench": "episodes=2 planner_seeds=[0] video_episodes=0 seed=7 device=cpu threads=1",
}
PUSH, PICKPLACE = "env=push obs=pixels", "env=pickplace obs=state"
STEPS = (
    Step("play-push", "record", f"{PUSH} policy=play episodes=4 length=16"),
    Step("play-pickplace", "record", f"{PICKPLACE} policy=play episodes=5 length=30"),
    Step("play-resumed", "record", f"{PICKPLACE} policy=play episodes=5 length=30", begin="play-pickplace"),
    Step("expert-stack", "record", "env=stack obs=state policy=expert episodes=2 length=30"),
    Step("random-drawer", "record", "env=drawer obs=state policy=random episodes=2 length=30"),
    Step(
        "plans-cem",
        "record",
        f"{PUSH} policy=planner episodes=2 length=8 planner.samples=16 planner.iterations=2 "
        "planner.replan_above=0.05 energy.control=0.02 energy.time_penalty=0.001 energy.clip=2.0",
    ),
    Step(
        "plans-prior",
        "record",
        f"{PICKPLACE} policy=planner episodes=2 length=16 planner.prior=0.9 planner.prior_stop=0.5 planner.hold=true "
        "energy.release=0.5 energy.prior=0.001",
    ),
    Step(
        "train-state-vicreg",
        "train",
        "data=@play-pickplace obs=state steps=40 readout.steps=5 prior.steps=5 temporal.steps=5",
    ),
    Step(
        "train-longer",
        "train",
        "data=@play-pickplace obs=state steps=60 readout.steps=5 prior.steps=5 temporal.steps=5 resume=true",
        begin="train-state-vicreg",
    ),
    Step("train-pixels-ema", "train", "data=@play-push obs=pixels steps=40 objective=ema model.members=2"),
    Step(
        "train-init-sigreg",
        "train",
        "data=@play-resumed obs=state steps=20 objective=sigreg seed=1 init=@train-state-vicreg/checkpoint "
        "readout.steps=0 prior.steps=0",
    ),
    Step(
        "train-frozen",
        "train",
        "data=@play-pickplace obs=state frozen=@train-state-vicreg/checkpoint predictor.steps=5 readout.steps=0 "
        "prior.steps=5",
    ),
    Step("bench-push", "bench", f"{PUSH} planners=[cem,mppi,random] planner.samples=32 planner.iterations=2"),
    Step("bench-pickplace", "bench", f"{PICKPLACE} planners=[shooting,prior,expert]"),
    Step("bench-reach", "bench", "env=reach planners=[cem_gradient,oracle] planner.samples=8 oracle.episodes=1"),
    Step(
        "bench-members",
        "bench",
        f"{PUSH} planners=[icem,gradient] checkpoint=@train-pixels-ema/checkpoint planner.iterations=2 "
        "energy.ensemble=worst energy.disagreement=0.1",
    ),
    Step(
        "bench-temporal",
        "bench",
        f"{PICKPLACE} planners=[shooting] checkpoint=@train-state-vicreg/checkpoint energy.metric=temporal",
    ),
)
FOUND = (
    *("env", "obs", "kind", "seed", "episodes", "success", "reached", "final_distance_cm", "evaluations", "plans"),
    *("drops", "diverged", "energy_held", "plan_error_cm", "phantoms", "statuses", "outcomes", "error"),
)
"""What is compared of a row: no times, and no labels, which are words."""
RUNNER = """
import json, shutil, sys
from pathlib import Path
from forearm.cli import main
if __name__ == "__main__":  # recording starts processes
    for begun, out, words in json.load(sys.stdin):
        print(*words, flush=True)
        if begun:
            shutil.copytree(begun, out)
            for left in (Path(out) / "manifest.json", Path(out) / "episode-000004.safetensors"):
                left.unlink(missing_ok=True)  # a recording that was stopped
        if main(words):
            sys.exit("failed")
"""
STARTS = {"import forearm": ("-c", "import forearm"), "forearm --help": ("-m", "forearm", "--help")}
TURNS = 15


def environment(build: Path, folder: Path) -> dict[str, str]:
    """In which `import forearm` is the build."""
    folder.mkdir(parents=True)
    (folder / "forearm").symlink_to(build)
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(steps: list[Step], build: Path, inputs: Path, out: Path, env: dict[str, str]) -> None:
    """Runs steps in turn, in one process that loads PyTorch once; exits with its last words where one fails."""
    out.mkdir()
    jobs = [
        (step.begin and str(inputs / step.begin), str(out / step.name), step.words(build, inputs, out))
        for step in steps
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(jobs),
        env=env,
        cwd=out,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        sys.exit(f"{build}:\n{done.stdout[-3000:]}")


def contents(folder: Path) -> dict[str, Any]:
    """What a step wrote, by name: arrays with type, shape and bytes; lines of the log; what each row found."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (it is no dict)
                value = file.get_tensor(name)
                found[f"{path.relative_to(folder)}: {name}"] = (value.dtype.str, value.shape, value.tobytes())
    if (log := folder / "log.jsonl").exists():
        for i, line in enumerate(log.read_text(encoding="utf-8").splitlines()):
            found |= {f"{log.name}, line {i + 1}: {key}": value for key, value in json.loads(line).items()}
    if (manifest := folder / "manifest.json").exists():
        told = json.loads(manifest.read_text(encoding="utf-8"))
        found |= {f"{manifest.name}: {key}": told[key] for key in ("episodes", "frames", "columns", "split")}
    if (results := folder / "results.json").exists():
        told = json.loads(results.read_text(encoding="utf-8"))
        found["goals, sha256"] = told["manifest"]
        for i, row in enumerate(told["rows"]):
            label = f"row {i + 1}, {row['planner'].split(' ')[0]}"
            found |= {f"{label}: {key}": row.get(key) for key in FOUND}
    return found


def first_difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Names it; empty where there is none."""
    for name in dict.fromkeys([*old, *new]):
        if name not in new or name not in old:
            return f"{name}: only in {'OLD' if name in old else 'NEW'}"
        # As JSON, in which NaN is the same as NaN.
        if isinstance(old[name], tuple) and old[name] != new[name]:
            return f"{name}: {old[name][0]} {list(old[name][1])} and {new[name][0]} {list(new[name][1])} differ"
        if not isinstance(old[name], tuple) and json.dumps(old[name]) != json.dumps(new[name]):
            return f"{name}: {old[name]}, now {new[name]}"
    return ""


def compare(title: str, steps: list[Step], old: Path, new: Path) -> list[tuple[str, ...]]:
    """A line of the table a step."""
    lines = []
    for step in steps:
        before, now = contents(old / step.name), contents(new / step.name)
        difference = first_difference(before, now) if before else "nothing was written"
        lines.append((f"{title}{step.name}", f"{len(before)} values", f"NO: {difference}" if difference else "yes"))
    return lines


def start_up(envs: dict[str, dict[str, str]]) -> list[tuple[str, ...]]:
    """How long both builds take to start, in turns: medians with quartiles, and the ratio of the medians."""
    lines = []
    for what, words in STARTS.items():
        times: dict[str, list[float]] = {name: [] for name in envs}
        for _ in range(TURNS):
            for name, env in envs.items():
                begun = time.perf_counter()
                subprocess.run([sys.executable, *words], env=env, check=True, stdout=subprocess.DEVNULL)
                times[name].append(1e3 * (time.perf_counter() - begun))
        quartiles = {name: np.percentile(values, (25, 50, 75)) for name, values in times.items()}
        told = [f"{name} {median:.0f} ms [{low:.0f}, {high:.0f}]" for name, (low, median, high) in quartiles.items()]
        lines.append((what, *told, f"{quartiles['NEW'][1] / quartiles['OLD'][1]:.2f}"))
    return lines


def show(lines: list[tuple[str, ...]]) -> None:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        print(" | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip(), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    arguments = parser.parse_args()
    old, new = arguments.old.resolve(), arguments.new.resolve()
    steps, going_on = list(STEPS), [step for step in STEPS if step.reads]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        envs = {name: environment(build, work / f"path-{name}") for name, build in (("OLD", old), ("NEW", new))}
        run(steps, old, work / "old", work / "old", envs["OLD"])
        run(steps, new, work / "new", work / "new", envs["NEW"])
        run(going_on, new, work / "old", work / "on", envs["NEW"])
        lines = compare("", steps, work / "old", work / "new")
        lines += compare("OLD's gone on with: ", going_on, work / "old", work / "on")
        show([("what", "compared", "equal?"), *lines])
        print()
        show([("start-up, medians [quartiles]", "", "", "NEW / OLD"), *start_up(envs)])
    return int(any(line[-1] != "yes" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
