"""`forearm data check PATH …`: which file of a recording is damaged, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(config: DictConfig) -> int:
    from ..episodes import DataError, check

    if not config.data:
        raise UserError("data: give the folder to check: forearm data check PATH …")
    ok, absent = True, []
    for folder in config.data:
        try:
            report = check(Path(folder), progress=True)
        except DataError as error:  # the others are checked all the same
            absent.append(str(error))
            continue
        print("\n".join(report.lines()))
        ok &= report.ok
    if absent:
        raise UserError("; ".join(absent))
    return 0 if ok else 2
