#!/usr/bin/env bash
# MuJoCo 4.0.0: the bytes that mj_saveModel writes depend on the folder that the assets were read from.
#
# `mjModel.paths` holds the absolute path of every mesh, and is saved with the model. So the same XML with the same mesh,
# in two folders, gives two different .mjb files: a hash of them does not tell whether two models are the same. Without
# `paths`, `npaths` and the `*_pathadr` arrays everything is alike.
#
# Output seen:  paths are absolute: True | saved bytes alike: False | alike without paths: True
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mujoco==4.0.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import mujoco
import numpy as np

SCENE = """<mujoco><asset><mesh name="t" file="t.obj"/></asset>
<worldbody><geom type="mesh" mesh="t"/></worldbody></mujoco>"""
MESH = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
models, saved = [], []
for name in ("one", "two"):  # folders whose names are equally long, so that no size differs
    place = Path(sys.argv[1]) / name
    place.mkdir()
    (place / "t.obj").write_text(MESH)
    (place / "scene.xml").write_text(SCENE)
    model = mujoco.MjModel.from_xml_path(str(place / "scene.xml"))
    buffer = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    models.append(model)
    saved.append(buffer.tobytes())
absolute = all(model.paths.startswith(b"/") for model in models)
alike = saved[0] == saved[1]
without = [data.replace(model.paths, b"") for data, model in zip(saved, models)]
print(f"paths are absolute: {absolute} | saved bytes alike: {alike} | alike without paths: {without[0] == without[1]}")
sys.exit(0 if absolute and not alike and without[0] == without[1] else 1)
PYTHON
