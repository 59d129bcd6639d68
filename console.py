"""A command and the process it runs in: output that nobody reads any more, and signals to end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from io import TextIOWrapper
from typing import Any


class _Enduring:
    """A text stream that goes on in silence once nobody reads it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._silence()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._silence()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _silence(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # what is still buffered goes there too
        os.close(nowhere)


@contextmanager
def enduring_output() -> Iterator[None]:
    """Output and errors for the block: told line by line, for a log should not have to wait for what a terminal shows
    at once; and a pipe that is closed at its other end stops nothing."""
    with ExitStack() as stack:
        for redirect, stream in ((redirect_stdout, sys.stdout), (redirect_stderr, sys.stderr)):
            if stream is not None:
                if isinstance(stream, TextIOWrapper):
                    stream.reconfigure(line_buffering=True)
                enduring = _Enduring(stream)
                stack.enter_context(redirect(enduring))
                stack.callback(enduring.flush)
        yield


class Interrupts:
    """Whether Ctrl-C was pressed: a library that it meets at a bad moment may raise something else."""

    def __init__(self) -> None:
        self.came = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Takes note of Ctrl-C in the block, and lets it interrupt as ever. What a host program says of it stays."""
        own = signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        if own or threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupt(number: int, frame: Any) -> None:
            self.came = True
            raise KeyboardInterrupt

        signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM, by which schedulers announce that they will kill, does in the block what Ctrl-C does there."""
    # Only the main thread may say what signals do, and what a host program says stays.
    own = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    if own or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):  # Ctrl-C is ignored, as in a shell's background jobs
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
