"""`--multirun`: Hydra's sweeps. One run for each combination of `key=A,B`, each in a folder of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..folders import stamped
from ..settings import SettingError
from . import PROG, Command
from .overrides import hydra_override, own_hydra

DOT = "__"
"""Stands for the dot of a key: to Hydra, `planner` and `planner.samples` are plain keys of one empty config."""
SWEEPS = ("choice(", "range(", "interval(", "glob(", "sort(", "shuffle(")


def multirun(command: Command, words: Sequence[str], run: Callable[[Command, Sequence[str]], int]) -> int:
    """Runs a command once for each combination, by Hydra's sweeper and launcher; words of `hydra.` and `hydra/` are
    theirs. `run` is what runs it each time. Run N writes to `out`/N, or into a new folder under runs/multirun. The exit
    code is the worst.

    Raises:
        UserError: for a word that Hydra's grammar does not know.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig

    rest, folder = [], Path("runs/multirun") / stamped(command.name.replace(" ", "-"))
    for word in words:
        name, found, text = word.partition("=")
        if name == "out":
            folder = Path(text).expanduser()
        elif name.startswith(("hydra.", "hydra/")):
            rest.append(word)
        elif found:
            rest.append(f"+{name.replace('.', DOT)}={_swept(text)}")
        else:
            raise UserError(f"'{word}' is not of the form key=value; {PROG} --help lists the commands")
    if not any(_is_sweep(word) for word in rest):
        raise UserError("--multirun: give a key several values, such as planner=cem,mppi or 'seed=range(0,3)'")
    own = ("hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none")
    quoted = str(folder).replace("'", "\\'")
    where = (f"hydra.sweep.dir='{quoted}'", "hydra.sweep.subdir='${hydra.job.num}'")
    codes: list[int] = []

    def job(config: Any) -> int:
        del config
        now = HydraConfig.get()
        typed = list(map(_as_typed, now.overrides.task))
        print(f"--- {now.job.num}: {' '.join(typed)}", flush=True)
        try:
            codes.append(run(command, [*typed, f"out={now.runtime.output_dir}"]))
        except UserError as error:  # the other runs go on
            print(f"{PROG}: {' '.join(str(error).split())}", file=sys.stderr)
            codes.append(2)
        return codes[-1]

    before = sys.argv
    sys.argv = [PROG, "--multirun", *own, *where, *rest]
    try:
        with own_hydra():
            hydra.main(version_base="1.3", config_path=None)(job)()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"what was done lies in {folder}; to go on, give the same command out={folder}"
        ) from None
    except SystemExit as stopped:  # Hydra has said what is wrong
        return 2 if stopped.code else 0
    finally:
        sys.argv = before
    print(f"{len(codes)} runs: {folder}")
    return max(codes, default=0)


def _is_sweep(word: str) -> bool:
    try:
        return hydra_override(word).is_sweep_override()
    except SettingError as error:
        raise UserError(f"--multirun: {word.lstrip('+').replace(DOT, '.')}: {error}") from None


def _swept(text: str) -> str:
    """A value as Hydra reads it: what it has a grammar for as it is, and anything else, such as a path, in quotes."""
    try:
        hydra_override(f"key={text}")
    except SettingError:
        if not text.startswith(SWEEPS):
            return "'" + text.replace("'", "\\'") + "'"
    return text


def _as_typed(word: str) -> str:
    """One run's override as it would have been typed."""
    name, text = word.lstrip("+").split("=", 1)
    if text[:1] == "'":
        text = str(hydra_override(word).value())
    return f"{name.replace(DOT, '.')}={text}"
