"""Mutation testing: how many small faults in the code the tests notice.

    python benchmarks/mutation.py planner evaluation --skip planner/capture.py --sample 300 --seed 0

Each mutant changes one thing: a comparison, an operator, a constant, a condition, min for max, an element of what is
concatenated, … It is killed if one of the tests that run its line fails, and alive otherwise. Alive ones are printed as
they are found, then the counts of each module. A sample is drawn in random order, so that Ctrl-C leaves a smaller one.
The working tree is copied and stays as it is.

Tools that start Python for every mutant spend their time importing torch. Here a process imports it once and forks.
Messages, annotations, decorators and assertions are not mutated. POSIX only.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTS = (
    *("tests/test_planner*.py", "tests/test_simulator_energy.py", "tests/test_prior_energy.py"),
    *("tests/test_evaluation*.py", "tests/test_handling.py"),
)
QUIET = ("-q", "--no-header", "--assert=plain", "-p", "no:cacheprovider")


def _both_ways(*pairs: tuple[Any, Any]) -> dict[Any, Any]:
    return dict(pairs) | {other: one for one, other in pairs}


COMPARISONS = _both_ways(
    (ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn)
)
OPERATORS = _both_ways((ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.BitAnd, ast.BitOr), (ast.LShift, ast.RShift))
OPERATORS |= {ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitXor: ast.BitOr}
SWAPPED = _both_ways(
    *(("min", "max"), ("amin", "amax"), ("argmin", "argmax"), ("minimum", "maximum"), ("any", "all")),
    *(("floor", "ceil"), ("mean", "sum"), ("zeros", "ones"), ("zeros_like", "ones_like"), ("new_zeros", "new_ones")),
) | {"median": "min"}
DROPPED = {
    *("clamp", "clamp_", "clip", "abs", "sqrt", "square", "exp", "log", "flip"),
    *("nan_to_num", "detach", "copy", "clone"),
}
NAMESPACES = {"torch", "np", "math"}
JOINING = {"cat", "stack", "concatenate"}


class Mutant(NamedTuple):
    """One change of a module: the lines (first, last) of its statement, the change in words, and the changed source."""

    path: str
    first: int
    last: int
    change: str
    source: str


def mutants(path: str, source: str) -> Iterator[Mutant]:
    """All mutants of a module, in the order of its lines."""
    tree = ast.parse(source)
    for statement, parent, field, index, node in _places(tree, None):
        for other in _alternatives(node, parent, field):
            before = ast.unparse(node) if not isinstance(node, ast.Slice) else f"[{ast.unparse(node)}]"
            _put(parent, field, index, other)
            after = ast.unparse(other) if not isinstance(other, ast.Slice) else f"[{ast.unparse(other)}]"
            first = statement.lineno
            body = getattr(statement, "body", None)
            last = body[0].lineno - 1 if isinstance(body, list) else statement.end_lineno or first
            yield Mutant(path, first, max(first, last), f"{before}  ->  {after}", ast.unparse(tree))
            _put(parent, field, index, node)


def _places(node: ast.AST, statement: Any) -> Iterator[tuple[Any, ast.AST, str, int | None, ast.AST]]:
    """Every node that may be changed: its statement, and where its parent has it."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_comment", "format_spec"):
            continue
        several = isinstance(value, list)
        for index, child in enumerate(value if several else [value]):
            if not isinstance(child, ast.AST) or isinstance(
                child, ast.Raise | ast.Assert | ast.Import | ast.ImportFrom
            ):
                continue
            its = child if isinstance(child, ast.stmt) else statement
            yield its, node, field, index if several else None, child
            yield from _places(child, its)


def _put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def _alternatives(node: ast.AST, parent: ast.AST, field: str) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(left, [operator], others):
            yield ast.Compare(left, [COMPARISONS[type(operator)]()], others)
        case ast.Compare(left, [_, _] as operators, others):
            for i, operator in enumerate(operators):
                changed = list(operators)
                changed[i] = COMPARISONS[type(operator)]()
                yield ast.Compare(left, changed, others)
        case ast.BinOp(left, operator, right) if type(operator) in OPERATORS:
            yield ast.BinOp(left, OPERATORS[type(operator)](), right)
        case ast.AugAssign(target, operator, value):
            if type(operator) in OPERATORS:
                yield ast.AugAssign(target, OPERATORS[type(operator)](), value)
            yield ast.Pass()
        case ast.UnaryOp(ast.USub() | ast.Not() | ast.Invert(), operand):
            yield operand
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
        case ast.Constant(bool(value)):
            if not (isinstance(parent, ast.keyword) and parent.arg == "strict"):
                yield ast.Constant(not value)
        case ast.Constant(int(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(float(value)):
            yield ast.Constant(2 * value if value else 1.0)
        case ast.IfExp(test, body, orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.If(test, body, orelse) if not isinstance(test, ast.Compare):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.comprehension(target, iterator, [_, *_], is_async):
            yield ast.comprehension(target, iterator, [], is_async)
        case ast.Slice(lower, upper, step):
            if lower is not None:
                yield ast.Slice(None, upper, step)
            if upper is not None:
                yield ast.Slice(lower, None, step)
        case ast.Expr(ast.Call()):
            yield ast.Pass()
        case ast.Break():
            yield ast.Continue()
        case ast.Call(function, arguments, keywords):
            yield from _other_calls(function, arguments, keywords)


def _other_calls(function: ast.expr, arguments: list[ast.expr], keywords: list[ast.keyword]) -> Iterator[ast.AST]:
    if isinstance(function, ast.Attribute):
        name = function.attr
        if name in SWAPPED:
            yield ast.Call(ast.Attribute(function.value, SWAPPED[name], ast.Load()), arguments, keywords)
        if name in DROPPED and ast.unparse(function.value) not in NAMESPACES:
            yield function.value
        if name in JOINING and arguments and isinstance(arguments[0], ast.Tuple | ast.List):
            parts = arguments[0].elts
            for i in range(len(parts) if len(parts) > 1 else 0):
                fewer = type(arguments[0])([*parts[:i], *parts[i + 1 :]], ast.Load())
                yield ast.Call(function, [fewer, *arguments[1:]], keywords)
    elif isinstance(function, ast.Name) and function.id in SWAPPED:
        yield ast.Call(ast.Name(SWAPPED[function.id], ast.Load()), arguments, keywords)


class Watch:
    """A pytest plugin: which lines of the mutated modules each test runs, and how many seconds it takes."""

    def __init__(self, folder: Path, modules: set[str]) -> None:
        self.modules = {str(folder / module): module for module in modules}
        self.lines: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self.fixtures: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: list[str] = []
        self._into: list[set[tuple[str, int]]] = []

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        module = self.modules.get(frame.f_code.co_filename)
        if module is None:
            return None

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            for lines in self._into:
                lines.add((module, frame.f_lineno))
            return line

        return line(frame, event, argument)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._into = [self.lines[item.nodeid]]
        sys.settrace(self._call)
        begun = time.process_time()
        yield
        self.seconds[item.nodeid] = time.process_time() - begun
        sys.settrace(None)
        # What a shared fixture ran, every test that has it depends on.
        for name in getattr(item, "fixturenames", ()):
            self.lines[item.nodeid] |= self.fixtures.get(name, set())

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        shared = fixturedef.scope != "function"
        if shared:
            self._into.append(self.fixtures[fixturedef.argname])
        yield
        if shared:
            self._into.pop()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


class Chosen:
    """A pytest plugin: only these tests, in this order."""

    def __init__(self, tests: list[str]) -> None:
        self.order = {test: i for i, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((item for item in items if item.nodeid in self.order), key=lambda i: self.order[i.nodeid])


def forked(function: Callable[[], int], seconds: float = 0.0) -> int:
    """What `function` returns in a process of its own; negative if a signal ended it, such as at its limit of seconds,
    counted on the processor and tenfold on the wall."""
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        if seconds:
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
        code = 99
        try:
            code = function()
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)
    end = time.monotonic() + (10 * seconds if seconds else math.inf)
    try:
        while time.monotonic() < end:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        return -signal.SIGKILL
    finally:  # also what it started and left
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def copied(folder: Path) -> Path:
    """A copy of the working tree in a folder, as the package `forearm`."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().splitlines():
        source, target = ROOT / name, folder / "forearm" / name
        if source.is_file() and not source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    return folder / "forearm"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", help="modules or folders, relative to the repository root")
    parser.add_argument("--skip", nargs="*", default=[], help="modules left out")
    parser.add_argument("--tests", nargs="*", default=TESTS, help="globs of test files")
    parser.add_argument("--slowest", type=float, default=2.0, help="tests that take longer, in seconds, are left out")
    parser.add_argument("--sample", type=int, help="mutants tried, drawn at random; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--line", type=int, help="only mutants of statements that this line is part of")
    options = parser.parse_args()
    modules = {
        str(module.relative_to(ROOT))
        for path in options.paths
        for module in ([ROOT / path] if path.endswith(".py") else (ROOT / path).rglob("*.py"))
    } - set(options.skip)

    found = [m for name in sorted(modules) for m in mutants(name, (ROOT / name).read_text(encoding="utf-8"))]
    if options.line:
        found = [mutant for mutant in found if mutant.first <= options.line <= mutant.last]
    if options.sample and options.sample < len(found):
        print(f"{options.sample} of {len(found)} mutants, seed {options.seed}")
        found = random.Random(options.seed).sample(found, options.sample)

    with tempfile.TemporaryDirectory() as temporary:
        folder = copied(Path(temporary))
        os.chdir(folder)
        sys.path.insert(0, temporary)
        os.environ["PYTHONPATH"] = temporary
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        return _measure(folder, modules, found, options)


def _measure(folder: Path, modules: set[str], found: list[Mutant], options: argparse.Namespace) -> int:
    files = sorted({str(path.relative_to(folder)) for glob in options.tests for path in folder.glob(glob)})
    noted = folder / "watched.json"

    def watch() -> int:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            plugin = Watch(folder, modules)
            code = pytest.main([*QUIET, *files], plugins=[plugin])
        lines = {test: sorted(lines) for test, lines in plugin.lines.items()}
        others = [name for name in sys.modules if name.split(".")[0] != "forearm" and not name.startswith("test_")]
        text = json.dumps({"lines": lines, "seconds": plugin.seconds, "failed": plugin.failed, "modules": others})
        noted.write_text(text, encoding="utf-8")
        return int(code)

    begun = time.monotonic()
    forked(watch)
    seen = json.loads(noted.read_text(encoding="utf-8"))
    if seen["failed"]:
        print("these tests fail without a mutant:", *seen["failed"], sep="\n  ")
        return 1
    seconds = {test: spent for test, spent in seen["seconds"].items() if spent <= options.slowest}
    runs: dict[tuple[str, int], set[str]] = defaultdict(set)
    anywhere: dict[str, set[str]] = defaultdict(set)
    for test in seconds:
        for module, line in seen["lines"][test]:
            runs[module, line].add(test)
            anywhere[module].add(test)
    left = len(seen["seconds"]) - len(seconds)
    print(f"{len(seconds)} tests in {time.monotonic() - begun:.0f} s, {left} slower ones left out", flush=True)
    sys.dont_write_bytecode = True
    for name in seen["modules"]:  # once, for all that are forked
        if name.split(".")[0] not in ("conftest", "__main__"):
            with contextlib.suppress(Exception):
                importlib.import_module(name)

    name = min(modules)
    unchanged = Mutant(name, 1, 1, "", (folder / name).read_text(encoding="utf-8"))
    if _tried(folder / name, unchanged, sorted(seconds, key=lambda test: seconds[test])[:20], seconds) != "alive":
        print("tests that pass together fail as they are run here")
        return 1

    counts: dict[str, Counter[str]] = defaultdict(Counter)
    with contextlib.suppress(KeyboardInterrupt):
        for mutant in found:
            lines = range(mutant.first, mutant.last + 1)
            tests = set().union(*(runs[mutant.path, line] for line in lines)) or anywhere[mutant.path]
            result = _tried(folder / mutant.path, mutant, sorted(tests, key=lambda test: seconds[test]), seconds)
            counts[mutant.path][result] += 1
            if result != "killed":
                print(f"{result}  {mutant.path}:{mutant.first}  {' '.join(mutant.change.split())}", flush=True)

    print(f"\n{'module':32} mutants  killed  alive")
    total: Counter[str] = Counter()
    for name, count in sorted(counts.items()):
        total += count
        _print_counts(name, count)
    _print_counts("all", total)
    return 0


def _print_counts(name: str, count: Counter[str]) -> None:
    every, alive = count.total(), count["alive"]
    print(f"{name:32} {every:7} {every - alive:7} {alive:6}  {100 * alive / max(1, every):.1f} %")


def _tried(module: Path, mutant: Mutant, tests: list[str], seconds: dict[str, float]) -> str:
    """ "killed", "killed by time" or "alive"."""
    original = module.read_bytes()
    for cached in (module.parent / "__pycache__").glob(f"{module.stem}.*.pyc"):
        cached.unlink()

    def run() -> int:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        files = sorted({test.split("::")[0] for test in tests})
        return int(pytest.main([*QUIET, "-x", *files], plugins=[Chosen(tests)]))

    try:
        module.write_text(mutant.source, encoding="utf-8")
        code = forked(run, 15 + 5 * sum(seconds[test] for test in tests)) if tests else 0
    finally:
        module.write_bytes(original)
    return "alive" if code == 0 else "killed by time" if code < 0 else "killed"


if __name__ == "__main__":
    sys.exit(main())
