"""MuJoCo ships no stubs for its compiled parts."""

from typing import Any

def __getattr__(name: str) -> Any: ...
