#!/bin/sh
# hydra-core 1.3.8: the logging configurations called "disabled" are not silence for Hydra's own jobs but for the whole
# program: the host's root handlers are removed, its level is set to ERROR, and loggers that it made before are disabled.
# What leaves the host's logging alone, and lets Hydra's messages through it, is "none". Needs python3 and the network.
#
# Seen, of a program that logs "before" and "after" a sweep of two jobs: with disabled, "before" alone arrives, the root
# logger has no handler and the host's logger is disabled; with none, both arrive.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q hydra-core==1.3.8
cat >"$work/host.py" <<'PY'
import io, logging, sys
from importlib.metadata import version
import hydra
kind = sys.argv[1]
stream = io.StringIO()
logging.basicConfig(stream=stream, level=logging.INFO, format="%(message)s")
host = logging.getLogger("host")
host.info("before")
sys.argv = ["host", "--multirun", "+x=1,2", "hydra.sweep.dir=out", "hydra.output_subdir=null",
            f"hydra/job_logging={kind}", f"hydra/hydra_logging={kind}"]
hydra.main(version_base="1.3", config_path=None)(lambda config: None)()
host.info("after")
lines, root = stream.getvalue().splitlines(), logging.getLogger()
print(f"hydra {version('hydra-core')}, {kind}: {lines}, handlers {len(root.handlers)}, disabled {host.disabled}")
arrived = ("before" in lines, "after" in lines)
wanted = {"disabled": ((True, False), 0, True), "none": ((True, True), 1, False)}[kind]
assert (arrived, len(root.handlers), host.disabled) == wanted, "this has changed"
PY
cd "$work"
"$work/venv/bin/python" host.py disabled
"$work/venv/bin/python" host.py none
