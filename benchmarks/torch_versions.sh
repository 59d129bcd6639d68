#!/usr/bin/env bash
# Which versions of torch Forearm runs on: record, train, demo, and plans run eagerly and compiled, each in miniature, in
# a virtual environment a version that is removed again.
#
#     benchmarks/torch_versions.sh [VERSION[:NUMPY] …]        by default all that pyproject.toml allows
#
# It prints a row a version, and exits with 1 if anything but the compiled plan failed. pip is asked as it is set up: on
# Linux, PyPI's torch brings gigabytes of CUDA, one version at a time; with PIP_EXTRA_INDEX_URL for builds without it, none.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
[ $# -gt 0 ] || set -- 2.10.0:2.2.6 2.11.0 2.12.0 2.13.0 2.14.0 2.15.0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
small="batch=8 horizon=2 model.features=16 model.predictor_width=32 model.encoder_width=16"

step() {  # NAME COMMAND…: "yes", or "no" and what it printed last on stderr
    local name=$1
    shift
    if "$@" >"$work/$name.log" 2>&1; then echo yes; else
        echo "$version $name: $(tail -n 1 "$work/$name.log")" >&2
        echo no
    fi
}

printf '| torch | numpy | record | train | demo | eager plan | compiled plan |\n|---|---|---|---|---|---|---|\n'
for each in "$@"; do
    version=${each%%:*}
    numpy=${each#"$version"}
    venv=$work/venv
    "${PYTHON:-python3}" -m venv "$venv"
    if ! "$venv/bin/pip" install --quiet --no-cache-dir "torch==$version" "numpy${numpy:+==${numpy#:}}" "$root" \
        >"$work/install.log" 2>&1; then
        echo "$version install: $(tail -n 1 "$work/install.log")" >&2
        printf '| %s | not installed |||||| \n' "$version"
        rm -rf "$venv"
        failed=1
        continue
    fi
    cd "$work" || exit 1
    forearm=$venv/bin/forearm
    recorded=$(step record "$forearm" record env=push obs=state episodes=8 length=20 seed=1 workers=1 out=data)
    # shellcheck disable=SC2086
    trained=$(step train "$forearm" train data=data obs=state steps=20 threads=1 device=cpu $small out=train)
    demoed=$(step demo "$forearm" demo env=push obs=state checkpoint=train/checkpoint episodes=2 device=cpu threads=1 \
        planner.samples=16 planner.iterations=2 out=demo)
    plans='
import sys, warnings, torch
from forearm.planner import make_planner
from forearm.planner.problems import double_integrator
problem = double_integrator()
planner = make_planner("cem", problem.space, samples=64, iterations=4, backend=sys.argv[1])
for _ in range(3):
    plan = planner.plan(problem.energy, planner.init(2))
assert plan.stats.backend == sys.argv[1], f"ran {plan.stats.backend}"
assert plan.energy.max() < 2 * problem.optimum'
    eager=$(step eager "$venv/bin/python" -c "$plans" eager)
    compiled=$(step compiled "$venv/bin/python" -c "$plans" inductor)
    case "$recorded $trained $demoed $eager" in *no*) failed=1 ;; esac
    found=$("$venv/bin/python" -c 'import numpy, torch; print(torch.__version__, "|", numpy.__version__)')
    printf '| %s | %s | %s | %s | %s | %s |\n' "$found" "$recorded" "$trained" "$demoed" "$eager" "$compiled"
    cd "$root" || exit 1
    rm -rf "${work:?}"/*
done
exit "$failed"
