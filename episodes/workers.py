"""Work handed out, item by item, to spawned processes that never outlive their parent.

Spawned and not forked, because a GL context does not survive a fork. A worker talks to its parent over one pipe: when
either side dies, however it dies, the other reads the end of the pipe and stops.
"""

import os
import signal
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import NamedTuple, TypeVar

from ..errors import UserError

Result = TypeVar("Result")
Task = Callable[[], AbstractContextManager[Callable[[int], Result]]]

# One worker is one core: libraries must not start threads of their own beside it (LP: Mesa's software renderer).
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "LP_NUM_THREADS": "0",
}


class WorkerError(UserError, RuntimeError):
    """An item failed, or the process that worked on it died. The message says which item and why."""


class _Failure(NamedTuple):
    item: int | None
    message: str
    details: str


def run(
    task: Task[Result], items: Iterable[int], workers: int, noun: str = "item"
) -> Generator[tuple[int, Result], None, None]:
    """Yields `(item, result)` as they are finished, in any order.

    task     picklable; called once a worker, opens what the worker needs and gives the function of one item
    workers  1 works in this process, more in as many spawned ones

    Close the iterator (`contextlib.closing`) to stop early; workers are then killed at once. Raises WorkerError.
    """
    return _run_here(task, items, noun) if workers == 1 else _run_spawned(task, items, workers, noun)


def _run_here(task: Task[Result], items: Iterable[int], noun: str) -> Generator[tuple[int, Result], None, None]:
    item = None
    try:
        with task() as work:
            for item in items:
                yield item, work(item)
    except Exception as error:
        raise WorkerError(_failed(noun, item, _summary(error))) from error


def _run_spawned(
    task: Task[Result], items: Iterable[int], workers: int, noun: str
) -> Generator[tuple[int, Result], None, None]:
    waiting = iter(items)
    busy: dict[Connection, int] = {}

    def hand_out(connection: Connection) -> None:
        if (item := next(waiting, None)) is not None:
            busy[connection] = item
            with suppress(OSError):  # a dead worker is noticed when its answer is read
                connection.send(item)

    with _pool(task, workers) as processes:
        for connection in processes:
            hand_out(connection)
        while busy:
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                item = busy.pop(connection)
                try:
                    result = connection.recv()
                except (EOFError, OSError):
                    raise WorkerError(_failed(noun, item, _death(processes[connection]))) from None
                if isinstance(result, _Failure):
                    error = WorkerError(_failed(noun, result.item, result.message))
                    error.add_note(result.details)
                    raise error
                hand_out(connection)
                yield item, result


@contextmanager
def _pool(task: Task[Result], workers: int) -> Iterator[dict[Connection, SpawnProcess]]:
    context = get_context("spawn")
    processes: dict[Connection, SpawnProcess] = {}
    if os.name == "posix":  # elsewhere there is none
        resource_tracker.ensure_running()  # started later, it would unblock Ctrl-C
    try:
        with _interrupts_held(), _environment(_ONE_THREAD):
            for _ in range(workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, task), daemon=True)
                process.start()
                theirs.close()  # the worker holds the only copy, so that its death ends the pipe
                processes[ours] = process
        yield processes
    finally:
        with _interrupts_held():
            for process in processes.values():
                process.kill()
            for connection, process in processes.items():
                process.join()
                process.close()
                connection.close()


def _serve(connection: Connection, task: Task[Result]) -> None:
    item = None
    if not hasattr(signal, "pthread_sigmask"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's affair
    try:
        with task() as work:
            while True:
                item = connection.recv()
                connection.send(work(item))
    except Exception as error:
        with suppress(OSError):  # the parent is gone: nobody to tell, nothing left to do
            connection.send(_Failure(item, _summary(error), traceback.format_exc()))


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM, which a scheduler sends to every process, wait until the end of the block; processes started
    in it never see one. The parent stops them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def _failed(noun: str, item: int | None, why: str) -> str:
    return f"no {noun} could be started: {why}" if item is None else f"{noun} {item} failed: {why}"


def _summary(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def _death(process: SpawnProcess) -> str:
    process.join(timeout=5)
    code = process.exitcode
    if code is not None and code < 0:
        return f"its worker was killed by {signal.Signals(-code).name} (out of memory?)"
    return f"its worker ended with exit code {code}"
