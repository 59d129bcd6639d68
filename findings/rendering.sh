#!/usr/bin/env bash
# Two ways in which a film or a gif is not what was asked for, and nothing is said.
#
# 1. imageio 2.38.1 with imageio-ffmpeg 0.8.1: a writer closes without an error though the disk was full, ffmpeg ended
#    with an error, and what is left cannot be opened. The exit status of ffmpeg is not looked at. Seen, where the film
#    is a link to /dev/full (on a file system of 40 KiB it is the same, at "Error writing trailer"):
#        [out#0/mp4 @ …] Could not write header …: No space left on device          (ffmpeg's own words, on stderr)
#        imageio closed the film without an error; reading it: OSError
#    So: read a film back before it is called written.
# 2. Pillow 13.0.0: a gif's `duration` is cut, not rounded, to hundredths of a second, without a warning. Seen:
#        39 ms is written as 30 ms; 60 frames of 33.3 ms last 1800 ms, not 2000
#    So: give durations in whole hundredths, that differ by one where the rate asks for it.
#
# Exits with 1 when either has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q imageio==2.38.1 imageio-ffmpeg==0.8.1 pillow==13.0.0 numpy
cd "$folder"

cat > film.py <<'PY'
import imageio.v2 as imageio
import numpy as np

frames = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
with imageio.get_writer("film.mp4", format="FFMPEG", fps=10, codec="libx264", macro_block_size=2) as writer:
    for frame in frames:
        writer.append_data(frame)
print("imageio closed the film without an error", end="; ")
PY
cat > read.py <<'PY'
import sys
import imageio.v2 as imageio

try:
    found = len(list(imageio.get_reader("film.mp4", format="FFMPEG")))
    print(f"reading it: {found} of 1 frame")
    sys.exit(found == 1)
except Exception as error:
    print(f"reading it: {type(error).__name__}")
PY
ln -s /dev/full film.mp4
venv/bin/python film.py # an error here means that imageio tells now
venv/bin/python read.py # fails if the film is whole

cat > gif.py <<'PY'
import sys
import numpy as np
from PIL import Image

images = [Image.fromarray(np.full((8, 8), 4 * i, np.uint8)) for i in range(60)]


def lasts(duration, count):
    images[0].save("a.gif", save_all=True, append_images=images[1:count], duration=duration)
    total = 0
    with Image.open("a.gif") as gif:
        for i in range(gif.n_frames):
            gif.seek(i)
            total += gif.info["duration"]
    return total


one, sixty = lasts(39, 2) / 2, lasts(1000 / 30, 60)
print(f"39 ms is written as {one:g} ms; 60 frames of 33.3 ms last {sixty} ms, not 2000")
sys.exit(not (one == 30 and sixty == 1800))
PY
venv/bin/python gif.py
