"""Writes docs/results.md and the table of README from run folders: `python benchmarks/results.py RUN [RUN …]`, or, of
what was tried on the way, docs/ablations.md: `python benchmarks/results.py --ablations RUN [RUN …]`. With `--add`, the
tables that a page has stay, and README as it is.

Each RUN is a folder with the results.json of `forearm bench` or `forearm quickstart`. Nothing here is typed by hand:
tables, commands, machines and hashes are what the runs wrote.
"""

from __future__ import annotations

import sys
from pathlib import Path

from forearm.evaluation.results import TRAINING_SEED, Results, markdown, percent, pool, read_results, table
from forearm.files import write_atomic

ROOT = Path(__file__).parent.parent
PAGE, README = ROOT / "docs" / "results.md", ROOT / "README.md"
BEGIN, END = "<!-- results: written by benchmarks/results.py -->\n", "\n<!-- end of results -->"
HEAD = """# Results

Success means that the goal holds at the end of the episode: at each of its last five steps. "Reached" counts
episodes in which it held at any step. No start is solved, and no goal solves itself; goals come from seeds
that no recording uses. Intervals are Wilson's, at 95 %. Floors (random, zero) and ceilings (the scripted
expert, and the same search on the true simulator, on the first goals only) stand in the tables that tell how
well a task is solved, as far as each command names them; tables that set models, budgets or energies of such
a task beside each other leave them out. Plan times are of one problem alone, observation's encoding included,
on a machine that did other work as well; measured by themselves they are in [performance.md](performance.md).

RUN-0, RUN-1, … are of `forearm train data=… obs=… seed=0`, `seed=1`, …, on one recording of 4,000 episodes
(`forearm record env=… obs=… episodes=4000`), of OGBench's cube on play and interrupted play; of stacking, of the drawer
from pixels and of OGBench's cube from pixels, RUN-0 is the model that is shipped (of the drawer from pixels, with
readout and prior learned anew on an earlier world model, as `forearm train world=…` does). RUN-push and
RUN-reach are shipped, each learned from 2,000 episodes; RUN-push-reach from the same two recordings at once, with
`forearm train data=[data/push-pixels-play,data/reach-pixels-play] obs=pixels`, in as many steps as each of them.
push-pixels-small, shipped as well, is RUN-push with another predictor: `forearm train data=data/push-pixels-play
obs=pixels world=models/pretrained/push-pixels predictor.steps=3000 model.predictor_width=128 model.predictor_depth=2`.

Of OGBench's cube from state, RUN-all-0 (shipped), RUN-all-1 and RUN-all-2 have learned from the three recordings that
[ogbench.md](ogbench.md) names. Their tables ran one model a process, and the floors beside them another; the one with
`energy.saturate=inf` ran before there were such presets, and its command is what now says the same. The floors on the
five tasks stand in the tables of RUN-0, RUN-1 and RUN-2, which are of before: of 64 offers, no `energy.saturate` and no
charge on motion. So is the one that names no checkpoint, of RUN-0. RUN-arm-0, RUN-arm-1 and RUN-arm-2 have learned as
RUN-all did, with `grounding_arm=3`; the goals are those of RUN-all, whose table has the floors. On whole goals, two of
the three were tried.

Where tables of before are of one RUN each, with `energy.weights.control`, RUN-1 and RUN-2 were trained anew, with the
same commands on another CPU, which gives other weights. With `energy.metric=slow`, the energy compares all of the
goal's embedding; the offers are still made for where the cube is to be, as it is read off that.

Tables of `budgets=[own,1x1]` set plans beside a single sample of the prior, unchosen, which is the row of one
evaluation: how far off what is imagined is, of both.

RUN-gpu-0, RUN-gpu-1 and RUN-gpu-2 have learned on an H100, all three at once in 200 seconds, with torch 2.11, from
10,000 episodes: `forearm record env=pickplace obs=pixels+proprio episodes=10000` and
`forearm train data=… obs=pixels+proprio device=cuda model.encoder_width=32 batch=256 steps=5000 seed=…`. RUN-gpu-0 is
shipped; of all three, weights are kept in half precision. All other rows are of models that learned on two cores. Their
bench ran one model a process; its goals are those of the table of RUN-0, RUN-1 and RUN-2, which has the floors.

Beside tables of `precision=int8` stand those of the same commands without it, which planned in bfloat16 there; of push
from pixels, there is none of the same goals. Only the tables of `planner.stay` were compiled.

With these, picking and placing from pixels got `energy.haste`, and `let_go` came to charge for falls of half a drop.
Tables of before: from pixels, with RUN-0, RUN-1 and RUN-2, and of `budgets=[own,1x1]` with `planner.prior=1.0`,
neither; from state, and of stacking but for the last, whole drops alone.

RUN-round has learned, beside what RUN-0 learned from, from 1,000 episodes of the planner on RUN-0's model
(`forearm record env=pickplace obs=state policy=planner checkpoint=RUN-0/checkpoint seed=1 episodes=1000`).

This page is written by `python benchmarks/results.py RUN …` from the folders that the commands below made.
"""
ABLATIONS = ROOT / "docs" / "ablations.md"
ABLATIONS_HEAD = """# What was tried

Measured on tuning goals (`seed=7`, or held-out goals of a recording), never on those of [results.md](results.md), with
one training seed and one planner seed, while the machine did other work: directions, with wide intervals. Plan times
mean nothing here. A checkpoint has a temporal distance if it was trained with `temporal.steps=2000`. Every table is of
the code and the presets of its time: where a plan with a prior took 34 evaluations, two were of standing still and of
the previous plan, which is tried in picking and placing alone now. Of OGBench's cube, RUN says what was learned from:
play, interrupted play or both, with `grounding=1` or without; elsewhere "grounded" is `grounding=1`, too. Of two tables
with one command, the first is of rests that were zero actions, the second of what stays (`World.stay`). RUN-1-planner
has learned from 600 episodes with the planner as well; RUN-…-again from these, and from interrupted play in which the
arm, half of the time, looks again where the cube is after it lost it, which is not in Forearm. RUN-0-ridge is RUN-0
with `ridge=0.01`. Push with a prior is the model that is shipped with what
`forearm train world=… data=data/push-pixels-play obs=pixels readout.steps=3000 prior.steps=8000` learned on it.
RUN-gpu-1 is that of results.md; of its two tables with haste of 0.0001, the first charged letting go (`let_go`) from an
imagined fall as deep as a drop on, as all before it did, the second and all after it from half of that.

Tables of OGBench's cube with `device=cuda` are of 250 tuning goals and of weights in half precision; RUN-0, RUN-1 and
RUN-2 are there those of play and interrupted play, with a further head that the plans do not use, and RUN-…-ahead has a
readout and a prior learned anew on the same world model, with `prior.ahead=80`. RUN-noisy has learned from
`policy=noisy` and `policy=interrupted`, 3,000 episodes each; it alone was put on the goals of results.md, once.

This page is written by `python benchmarks/results.py --ablations RUN …` from the folders that the commands below made.
"""


def summary(runs: list[Results]) -> str:
    """A line for the first run of each task: its first planner between floors and ceilings."""
    lines = [["task", "planner", "success at the end, % [95 %]", "without planning", "expert"]]
    seen = set()
    for run in runs:
        rows = pool(run.rows)
        best = next(row for row in rows if row.kind == "planner")
        if (best.env, best.obs) in seen:
            continue
        seen.add((best.env, best.obs))
        several = [row for row in rows if row.planner == best.planner and (row.model or "").startswith(TRAINING_SEED)]
        if several:
            best = rows[rows.index(several[-1]) + 1]  # of all of them
        without = [row for row in rows if row.kind == "floor" or (row.planner == "prior" and row.model == best.model)]
        seeds = f", {len(several)} training seeds" if several else ""
        expert = next((percent(row.success) for row in rows if row.planner == "expert"), "-")
        low, high = map(percent, best.wilson)
        lines.append(
            [
                f"{best.env} from {best.obs}{seeds}",
                best.planner,
                f"**{percent(best.success)}** [{low}, {high}]",
                ", ".join(f"{row.planner} {percent(row.success)}" for row in without),
                expert,
            ]
        )
    return markdown(lines, 2)


def section(found: Results) -> str:
    first = found.rows[0]
    more = found.more
    seconds = more.get("seconds", {})
    took = ", ".join(f"{stage} {value / 60:.1f} min" for stage, value in seconds.items())
    lines = [
        f"## {first.env}, from {first.obs}",
        "",
        f"    {more['command']}",
        "",
        table(pool(found.rows)),
        "",
        *(f"- {key}: {value}" for key, value in more["facts"].items()),
        f"- goals: sha256 {found.manifest}",
        *([f"- wall clock: {took}"] if took else []),
    ]
    return "\n".join(lines)


def main(folders: list[str]) -> int:
    ablations, add = (flag in folders for flag in ("--ablations", "--add"))
    runs = [read_results(Path(folder) / "results.json") for folder in folders if not folder.startswith("--")]
    if not runs:
        print(__doc__)
        return 2
    page, head = (ABLATIONS, ABLATIONS_HEAD) if ablations else (PAGE, HEAD)
    kept = ["".join(page.read_text(encoding="utf-8").partition("## ")[1:]).strip()] if add else []
    write_atomic(page, "\n\n".join([head.strip(), *kept, *map(section, runs)]).encode() + b"\n")
    if ablations or add:
        return 0
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    write_atomic(README, (before + BEGIN + "\n" + summary(runs) + "\n" + END + after).encode())
    print(PAGE, README)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
