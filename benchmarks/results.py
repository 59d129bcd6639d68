"""Writes docs/results.md and the table of README from run folders: `python benchmarks/results.py RUN [RUN …]`, or, of
what was tried on the way, docs/ablations.md: `python benchmarks/results.py --ablations RUN [RUN …]`. With `--add`, the
tables that a page has stay, and README as it is.

Each RUN is a folder with the results.json of `forearm bench` or `forearm quickstart`. Nothing here is typed by hand:
tables, commands, machines and hashes are what the runs wrote. What stands below "Earlier tables" stays.
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
that no recording uses. Goals are drawn after the last choice was made, from the seed that each table prints, and were
never looked at before; choices are made on goals of `seed=7` and on recordings' held-out episodes.

Intervals are at 95 %. Of one training seed and one planner seed they are Wilson's over the goals, and say nothing of
another training. Of several seeds they speak of new seeds on new goals: seeds share their goals, so episodes are not
as many independent trials (`two_way_interval` in evaluation/statistics.py). "Beside the best" is how far a row's
success is from that of the best planner on the same goals, with the p-value of no difference (McNemar's exact test; of
several seeds, a t-test over seeds and goals). "CLEAR" are the rules of CLEAR-LeWM ([ogbench.md](ogbench.md)).

Floors (random, zero) and ceilings (the scripted expert) stand in every table that has them. The row `prior` is the
learned action prior without planning; how many steps of each answer it executes, and at which temperature, was chosen
for it on goals of `seed=7` by `python benchmarks/tune_prior.py`, and stands under each table. Plan times are of one
problem alone, observation's encoding included, on a machine that did much other work as well; measured by themselves
they are in [performance.md](performance.md).

The first tables are of the models that are shipped, of one training seed each. This page is written by
`python benchmarks/results.py RUN …` from the folders that the commands below made; the earlier tables stay as they are.
"""
EARLIER = "# Earlier tables"
ABLATIONS = ROOT / "docs" / "ablations.md"
ABLATIONS_HEAD = """# What was tried

Measured on tuning goals (`seed=7`, or held-out goals of a recording), never on those of [results.md](results.md), with
one training seed and one planner seed, while the machine did other work: directions, with wide intervals. Plan times
mean nothing here. A checkpoint has a temporal distance if it was trained with `temporal.steps=2000`. Every table is of
the code and the presets of its time: where a plan with a prior took 34 evaluations, two were of standing still and of
the previous plan, which is tried in picking and placing alone now. Of OGBench's cube, RUN says what was learned from:
play, interrupted play or both, with `grounding=1` or without; elsewhere "grounded" is `grounding=1`, too. Of two tables
with one command, the first is of rests that were zero actions, the second of `World.hold_action`. RUN-1-planner
has learned from 600 episodes with the planner as well; RUN-…-again from these, and from interrupted play in which the
arm, half of the time, looks again where the cube is after it lost it, which is not in Forearm. RUN-0-ridge is RUN-0
with `ridge=0.01`. Push with a prior is the model that is shipped with what
`forearm train world=… data=data/push-pixels-play obs=pixels readout.steps=3000 prior.steps=8000` learned on it.
RUN-gpu-1 is that of results.md; of its two tables with a time penalty of 0.0001, the first charged early release from
an imagined fall as deep as a drop on, as all before it did, the second and all after it from half of that.

Tables of OGBench's cube with `device=cuda` are of 250 tuning goals and of weights in half precision; RUN-0, RUN-1 and
RUN-2 are there those of play and interrupted play, with a further head that the plans do not use, and RUN-…-ahead has a
readout and a prior learned anew on the same world model, with `prior.ahead=80`. RUN-noisy has learned from
`policy=noisy` and `policy=interrupted`, 3,000 episodes each; it alone was put on the goals of results.md, once.

Intervals of rows of several training seeds take seeds and goals at random, of rates alone where outcomes were not kept.
This page is written by `python benchmarks/results.py --ablations RUN …` from the folders that the commands below made.
"""


def summary(runs: list[Results]) -> str:
    """Which goals, and a line for the first run of each task: its first planner between floors and ceilings."""
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
    goals = "; ".join(dict.fromkeys(run.more["facts"]["goals drawn"] for run in runs))
    told = f"On unsolved goals that were drawn after the last choice was made, and never looked at before ({goals})"
    if all("checkpoint=" not in run.more["command"] for run in runs):
        told += ",\nwith the models that are shipped, one training seed each"
    return f"{told}:\n\n{markdown(lines, 2)}"


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
    text = page.read_text(encoding="utf-8")
    before, mark, earlier = text.partition(EARLIER)
    kept = ["".join(before.partition("## ")[1:]).strip()] if add else []
    parts = [head.strip(), *kept, *map(section, runs), *([f"{mark}{earlier}".strip()] if mark else [])]
    write_atomic(page, "\n\n".join(parts).encode() + b"\n")
    if ablations or add:
        return 0
    start, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    write_atomic(README, (start + BEGIN + "\n" + summary(runs) + "\n" + END + after).encode())
    print(PAGE, README)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
