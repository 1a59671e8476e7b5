"""A leash for a model server: it outlives whoever started it only for a while.

``python -m policy.leash RECORD GRACE_S COMMAND...`` runs COMMAND, and ends it with all its children when its owner, the
process that the file RECORD names (policy/server.py writes it), has been gone for GRACE_S seconds: time enough for a
program that was killed and started again to adopt the server instead of waiting for a new one.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

POLL_S = 1.0
STOP_DEADLINE_S = 15.0
"""Shorter than what the owner waits for the leash (policy/server.py)."""


class ProcessId(BaseModel):
    """A process, told apart from a later one with the same number."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    started: float
    """When it was started, seconds since the machine was: a step of the clock changes the time of day of both."""

    @staticmethod
    def of(process: psutil.Process) -> "ProcessId":
        """The id of a running process. Raises NoSuchProcess: it has ended."""
        fresh = psutil.Process(process.pid)  # `process` keeps the time of day that it was once asked for
        return ProcessId(pid=process.pid, started=round(fresh.create_time() - psutil.boot_time(), 2))

    def find(self) -> psutil.Process | None:
        """The process; None if it has ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            return process if ProcessId.of(process) == self and is_alive(process) else None
        return None


def is_alive(process: psutil.Process) -> bool:
    """Whether a process hasn't ended; a child that has ended and wasn't waited for has."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


class Owned(BaseModel):
    """As much of a server's record as the leash needs."""

    owner: ProcessId
    """The program that uses the server."""


def is_owned(record: Path) -> bool:
    """Whether the owner that a record names is alive; a record that can't be read has none."""
    try:
        return Owned.model_validate_json(record.read_bytes()).owner.find() is not None
    except (OSError, ValidationError):
        return False


def hold(record: Path, grace_s: float, command: list[str]) -> int:
    """Run a command until it ends, SIGTERM comes, or its owner stays away; its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    child = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + grace_s
        while child.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(POLL_S)
            if is_owned(record):
                deadline = time.monotonic() + grace_s
        return child.poll() or 0
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is ending already
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(STOP_DEADLINE_S)
        if not is_owned(record):
            os.killpg(0, signal.SIGKILL)  # an engine that outlived its server, and this process; else the owner does it


if __name__ == "__main__":
    sys.exit(hold(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
