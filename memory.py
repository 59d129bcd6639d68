"""What to lower where there is not enough memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import Any

from .errors import UserError

TOO_LARGE = re.compile(
    "allocate|out of memory|Storage size calculation overflowed|integer multiplication overflow|array is too big|"
    "Maximum allowed dimension",
    re.IGNORECASE,
)
"""How NumPy and torch say that something does not fit into memory."""


@contextmanager
def in_memory(keys: Mapping[str, Any]) -> Iterator[None]:
    """UserError, naming the keys that decide how much memory is needed, with their values, where there is not enough in
    the block."""
    try:
        yield
    except (MemoryError, RuntimeError, ValueError, OverflowError) as error:
        if isinstance(error, UserError) or not (isinstance(error, MemoryError) or TOO_LARGE.search(str(error))):
            raise
        raise UserError(too_large(keys)) from error


def of(settings: Any, *keys: str) -> dict[str, Any]:
    """The values of dotted keys of settings."""
    return {key: reduce(getattr, key.split("."), settings) for key in keys}


def too_large(keys: Mapping[str, Any]) -> str:
    """That there is not enough memory for what these keys say."""
    told = ", ".join(f"{key}={value}" for key, value in keys.items())
    return f"{told}: takes more memory than there is; lower {' or '.join(keys)}"
