"""What a log sees of long work: a line now and then, and each printed line when it is printed."""

import os
import subprocess
import sys

import pytest
from forearm.episodes.progress import PARTS, progress_bar


@pytest.mark.parametrize("total, done, lines", [(100, 0, PARTS), (100, 55, PARTS // 2), (3, 0, 3)])
def test_a_log_is_told_of_each_part(total: int, done: int, lines: int, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("work", total, "steps", done) as advance:
        for _ in range(done, total):
            advance(1)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == lines
    assert all(line.startswith("work") and "%" in line for line in told) and "100 %" in told[-1]


def test_work_that_is_not_to_be_shown_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("work", 2, "steps", show=False) as advance:
        advance(1)
        advance(1)
    assert capsys.readouterr().err == ""


def test_a_log_has_a_line_as_soon_as_it_is_printed() -> None:
    """Of a process that never comes to flush what it printed."""
    code = "import os; from forearm.cli import main; main(['--version']); os._exit(0)"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    told = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert told.stdout.startswith("forearm ")
