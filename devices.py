"""Where to compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .settings import SettingError, at_least, key, one_of

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True, kw_only=True)
class Compute:
    """The device and the CPU threads of a run."""

    device: str = key("auto", "auto, cpu, cuda")
    threads: int = key(0, "CPU threads; 0: all")

    def __post_init__(self) -> None:
        one_of(self, device=DEVICES)
        at_least(self, threads=0)

    def use(self) -> torch.device:
        """The device, with torch's CPU threads set. SettingError for a device that does not exist here."""
        import torch

        if self.device == "cuda" and not torch.cuda.is_available():
            raise SettingError("device=cuda: torch finds no CUDA device here; choose cpu, and see `forearm doctor`")
        if self.threads:
            torch.set_num_threads(self.threads)
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device(automatic if self.device == "auto" else self.device)
