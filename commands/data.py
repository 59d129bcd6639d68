"""`forearm data check PATH …`: which file of a recording is damaged, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..episodes import DataError, check
from ..errors import UserError
from ..presets import suited
from ..settings import key

ARGUMENTS = "PATH ..."


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """What to check."""

    data: tuple[str, ...] = key((), "the folder, or several as [A,B]; or simply: A B", first=True, path=True)


SETTINGS = CheckSettings


def words(typed: Sequence[str]) -> list[str]:
    """`A B` as data=["A","B"]; words of the form key=value stay."""
    paths = [word for word in typed if "=" not in word or Path(word).exists()]
    quoted = [f"'{path}'" if '"' in path else f'"{path}"' for path in paths]
    return [*([f"data=[{','.join(quoted)}]"] if paths else []), *(word for word in typed if word not in paths)]


def run(given: Mapping[str, Any]) -> int:
    settings = suited(CheckSettings, given)
    if not settings.data:
        raise UserError("data: give the folder to check: forearm data check PATH …")
    ok, absent = True, []
    for folder in settings.data:
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
