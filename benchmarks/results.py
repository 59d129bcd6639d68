"""Writes docs/results.md from run folders: `python benchmarks/results.py RUN [RUN …]`.

Each RUN is a folder with the results.json of `forearm bench` or `forearm quickstart`. Nothing here is typed by hand:
tables, commands, machines and hashes are what the runs wrote.
"""

from __future__ import annotations

import sys
from pathlib import Path

from forearm.evaluation.results import pool, read_results, table
from forearm.files import write_atomic

PAGE = Path(__file__).parent.parent / "docs" / "results.md"
HEAD = """# Results

Success means that the goal holds at the end of the episode: at each of its last five steps. "Reached" counts
episodes in which it held at any step. No start is solved, and no goal solves itself; goals come from seeds
that no recording uses. Intervals are Wilson's, at 95 %. Floors (random, zero) and ceilings (the scripted
expert, and the same search on the true simulator, on the first goals only) stand in every table. Plan times
are of one problem alone, observation's encoding included.

This page is written by `python benchmarks/results.py RUN …` from the folders that the commands below made.
"""


def section(folder: Path) -> str:
    found = read_results(folder / "results.json")
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
    if not folders:
        print(__doc__)
        return 2
    write_atomic(PAGE, "\n\n".join([HEAD.strip(), *(section(Path(folder)) for folder in folders)]).encode() + b"\n")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
