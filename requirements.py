"""Installed packages that are older or newer than Forearm needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires, version

from .errors import UserError


def outdated() -> dict[str, str]:
    """Of each package that Forearm cannot do without and that is missing, too old or too new, what is wrong and what
    mends it."""
    try:
        needed = requires(str(__package__)) or []
    except PackageNotFoundError:  # not installed, only on the path
        return {}
    wrong: dict[str, str] = {}
    for line in needed:
        found = re.fullmatch(r"([\w.-]+)(?:\[.*?\])?\s*([^;]*)", line)
        if not found:  # of an extra
            continue
        name, limits = found[1], found[2].strip()
        mend = f"forearm needs {name}{limits}: pip install '{name}{limits}'"
        try:
            there = version(name)
        except PackageNotFoundError:
            wrong[name] = f"{name} is not installed; {mend}"
            continue
        bounds = re.findall(r"(>=|<)\s*([\d.]+)", limits)
        if any(_numbers(there) < _numbers(bound) for kind, bound in bounds if kind == ">="):
            wrong[name] = f"{name} {there} is too old; {mend}"
        elif any(_numbers(there) >= _numbers(bound) for kind, bound in bounds if kind == "<"):
            wrong[name] = f"{name} {there} is newer than what was tried; {mend}"
    return wrong


def _numbers(release: str) -> tuple[int, ...]:
    numbers = [int(number) for number in re.match(r"[\d.]*", release)[0].split(".") if number]  # pyright: ignore[reportOptionalSubscript]
    return tuple(numbers + [0] * (4 - len(numbers)))


@contextmanager
def outdated_named() -> Iterator[None]:
    """UserError for an import that fails, or a name that a package lacks, where a package is not as it is needed."""
    try:
        yield
    except (ImportError, AttributeError) as error:
        if not (wrong := outdated()):
            raise
        raise UserError("; ".join(wrong.values())) from error
