#!/bin/sh
# Two things that surprised while runs were made to own their folders and their output. Needs python3 and the network.
#
# 1. gymnasium 1.3.0 loads no plugins: a package's entry points in the group "gymnasium.envs", by which environments were
#    offered up to 0.29, are not read, though the docstring of gymnasium.envs still says "then loads the env plugins".
#    Seen: the entry point is installed, and "plugged/Thing-v0" is not in gymnasium.registry.
# 2. rich 14.3.0 ends the program where the other end of a pipe is closed: Console.print raises SystemExit(1), which no
#    `except Exception` sees, and points stdout at /dev/null, whichever stream broke.
#    Seen: SystemExit 1 from a Console on stderr; what is printed to stdout afterwards does not arrive.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q gymnasium==1.3.0 rich==14.3.0
site=$("$work/venv/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")

mkdir "$site/plugged-1.0.dist-info"
printf 'Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n' >"$site/plugged-1.0.dist-info/METADATA"
printf '[gymnasium.envs]\nplugged = plugged:register\n' >"$site/plugged-1.0.dist-info/entry_points.txt"
cat >"$site/plugged.py" <<'PY'
def register():
    import gymnasium
    gymnasium.register("plugged/Thing-v0", entry_point="plugged:Thing")
PY
"$work/venv/bin/python" - <<'PY'
from importlib.metadata import entry_points
import gymnasium
print("gymnasium", gymnasium.__version__, gymnasium.envs.__doc__)
assert [entry.name for entry in entry_points(group="gymnasium.envs")] == ["plugged"]
assert "plugged/Thing-v0" not in gymnasium.registry, "plugins are loaded now"
print("the entry point is there; the environment is not registered")
PY

cat >"$work/piped.py" <<'PY'
import os, sys
from importlib.metadata import version
from rich.console import Console
reading, writing = os.pipe()
os.close(reading)
sys.stdout.write(f"rich {version('rich')}\n")
sys.stdout.flush()
try:
    Console(file=os.fdopen(writing, "w")).print("progress")
except SystemExit as end:
    sys.stderr.write(f"SystemExit {end.code}\n")
print("lost")
PY
told=$("$work/venv/bin/python" "$work/piped.py" 2>"$work/errors")
echo "$told"
cat "$work/errors"
test "$told" = "rich 14.3.0"
grep -q "^SystemExit 1$" "$work/errors"
echo "stdout of the program is gone"
