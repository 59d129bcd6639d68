"""The shape of a world model."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import SettingError, at_least, key, one_of
from .encoders import ENCODERS
from .predictor import HEAD, PREDICTORS


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The shape of a world model. `chunk` are the environment steps K of one model step, `latent` D."""

    chunk: int = key(2, "environment steps of one model step")
    latent: int = key(128, "size of an embedding", first=True)
    features: int = 256
    encoder: str = key("auto", "auto (cnn for pixels, mlp for vectors), or one that is registered")
    encoder_width: int = 0
    predictor: str = key("residual", "residual, transformer (for GPUs), or one that is registered")
    predictor_width: int = key(512, "its hidden size")
    predictor_depth: int = key(3, "its layers")
    members: int = key(1, "predictors, each with a future of its own: more where one action can lead to several")

    def __post_init__(self) -> None:
        at_least(self, chunk=1, latent=1, features=1, predictor_width=1, predictor_depth=0, encoder_width=0, members=1)
        one_of(self, predictor=PREDICTORS, encoder=("auto", *ENCODERS))
        if self.predictor == "transformer":
            check_transformer("predictor_width", self.predictor_width)


def check_transformer(name: str, width: int) -> None:
    """SettingError for a width that does not divide into attention heads."""
    if width < HEAD or width % HEAD:
        raise SettingError(f"{name}={width}: a transformer's must be a multiple of {HEAD}")
