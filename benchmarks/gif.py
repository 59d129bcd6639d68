"""A small gif of a film, for a README: `python benchmarks/gif.py FILM.mp4 OUT.gif [SECONDS]`."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import imageio.v3 as imageio
from forearm.evaluation.video import write_gif


def main(arguments: list[str]) -> int:
    if len(arguments) not in (2, 3):
        print(__doc__)
        return 2
    film, out = Path(arguments[0]), Path(arguments[1])
    fps = float(imageio.immeta(film, plugin="FFMPEG")["fps"])
    seconds = float(arguments[2]) if len(arguments) == 3 else 14.0
    frames = islice(imageio.imiter(film, plugin="FFMPEG"), round(fps * seconds))
    print(write_gif(out, frames, fps, width=640))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
