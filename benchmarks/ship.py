"""Makes a shipped checkpoint of a trained one, in half precision: `python benchmarks/ship.py RUN/checkpoint [NAME]`.

It goes to models/pretrained/ENV-OBS, where `forearm demo` and `forearm bench` look when no checkpoint is given; or to
models/pretrained/NAME, where they find it by that name.
"""

from __future__ import annotations

import sys
from pathlib import Path

from forearm.models.checkpoint import Checkpoint, shipped_name

SHIPPED = Path(__file__).parent.parent / "models" / "pretrained"


def main(arguments: list[str]) -> int:
    if len(arguments) not in (1, 2):
        print(__doc__)
        return 2
    checkpoint = Checkpoint.load(Path(arguments[0]))
    readout = checkpoint.model.readout
    exact = (
        set() if readout is None else set(readout.parameters())
    )  # it adds up hundreds of features that nearly cancel
    for module in (checkpoint.model, checkpoint.prior, checkpoint.temporal):
        for parameter in () if module is None else module.parameters():
            if parameter not in exact:  # buffers stay as well: half precision has no deviation below 6e-8
                parameter.data = parameter.data.half()
    name = arguments[1] if len(arguments) == 2 else shipped_name(checkpoint.env, checkpoint.obs)
    print(checkpoint.save(SHIPPED / name))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
