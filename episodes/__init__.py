"""What was recorded: the recorder, the store, and windows for training. No torch in here."""

from .check import Problem, Report, check
from .dataset import Dataset, Recordings
from .manifest import Manifest, RecordRequest
from .recorder import record
from .store import DataError
from .windows import WindowSampler, evaluation_windows, windows
from .workers import WorkerError

__all__ = [
    "DataError",
    "Dataset",
    "Manifest",
    "Problem",
    "RecordRequest",
    "Recordings",
    "Report",
    "WindowSampler",
    "WorkerError",
    "check",
    "evaluation_windows",
    "record",
    "windows",
]
