"""Room on disk: looked at before each phase; a disk that gets full all the same ends the run in one line."""

import contextlib
import errno
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from launch.errors import RunFailed

GB = 1e9
WAY_ON = "make room (`clean` may find some), then `resume`"

_FULL = {errno.ENOSPC, errno.EDQUOT}
_SQLITE_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}


def free_gb(directory: Path) -> float:
    """Free space (GB) on the file system of a directory."""
    return shutil.disk_usage(directory).free / GB


def check_room(run_dir: Path, wanted_gb: float) -> None:
    """Return if there is room to go on. Raises RunFailed."""
    if (free := free_gb(run_dir)) < wanted_gb:
        raise RunFailed(
            f"disk: {free:.1f} GB free at {run_dir}, expected {wanted_gb:g} (run.stop_free_disk_gb); {WAY_ON}"
        )


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk, or somebody's share of it, is full."""
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorcode in _SQLITE_FULL
    return isinstance(error, OSError) and error.errno in _FULL


@contextlib.contextmanager
def full_disk_fails() -> Iterator[None]:
    """Turn the error of a full disk into RunFailed; every write is whole or not at all, so there is nothing to undo."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        if not is_full(error):
            raise
        raise RunFailed(f"the disk is full: {error}; what was committed is kept: {WAY_ON}") from error
